//! A rule: for whom it holds, who is counted together, and how much they may.

use crate::price::PicoUsd;
use crate::provider::fits;
use std::fmt;

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Each key alone.
    Key,
    Org,
    Project,
    /// The end user that requests name, of each key.
    User,
    Model,
    /// All of them.
    All,
}

/// Who asks, and for what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who<'a> {
    /// Id and name of the key.
    pub key: Option<(&'a str, &'a str)>,
    pub org: Option<&'a str>,
    pub project: Option<&'a str>,
    pub user: Option<&'a str>,
    /// As the caller names it, and as the upstream does.
    pub model: &'a str,
    pub served: &'a str,
    /// Models that may serve in its place.
    pub others: &'a [String],
}

/// What is left out does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Tells rules apart, also across changes of the configuration.
    pub name: String,
    /// Id or name.
    pub key: Option<String>,
    pub org: Option<String>,
    pub project: Option<String>,
    /// Name or pattern.
    pub model: Option<String>,
    pub per: Per,
    pub requests_per_minute: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub concurrent: Option<u64>,
    pub spend_per_day: Option<PicoUsd>,
    pub spend_per_month: Option<PicoUsd>,
}

impl Rule {
    /// The group that the client's requests are counted in; `None` if the rule does not hold for them. Clients without an
    /// organisation, a project or an end user share one group. Models that differ only in case are one: some providers take
    /// them for the same.
    pub fn group(&self, who: &Who<'_>) -> Option<String> {
        let same = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| is == Some(wanted));
        let holds = self.key.as_deref().is_none_or(|wanted| who.key.is_some_and(|(id, name)| id == wanted || name == wanted))
            && same(&self.org, who.org)
            && same(&self.project, who.project)
            && self.model.as_deref().is_none_or(|pattern| {
                fits(who.model, pattern) || fits(who.served, pattern) || who.others.iter().any(|other| fits(other, pattern))
            });
        let key = who.key.map(|(id, _)| id);
        let group = || match self.per {
            // Without keys all clients are one.
            Per::Key => key.unwrap_or_default().to_owned(),
            Per::Org => who.org.unwrap_or_default().to_owned(),
            Per::Project => format!("{}\n{}", who.org.unwrap_or_default(), who.project.unwrap_or_default()),
            Per::User => format!("{}\n{}", key.unwrap_or_default(), who.user.unwrap_or_default()),
            Per::Model => who.served.to_lowercase(),
            Per::All => String::new(),
        };
        holds.then(group)
    }

    /// True if it looks at money.
    pub fn counts_money(&self) -> bool {
        self.spend_per_day.is_some() || self.spend_per_month.is_some()
    }
}

impl fmt::Display for Rule {
    /// `requests_per_minute 600, usd_per_day 5, per key, of org acme`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("concurrent", self.concurrent),
        ];
        for (name, count) in counts {
            count.map_or(Ok(()), |count| write!(to, "{name} {count}, "))?;
        }
        for (name, amount) in [("usd_per_day", self.spend_per_day), ("usd_per_month", self.spend_per_month)] {
            amount.map_or(Ok(()), |amount| write!(to, "{name} {amount}, "))?;
        }
        write!(to, "per {}", format!("{:?}", self.per).to_lowercase())?;
        for (name, wanted) in [("key", &self.key), ("org", &self.org), ("project", &self.project), ("model", &self.model)] {
            wanted.as_ref().map_or(Ok(()), |wanted| write!(to, ", of {name} {wanted}"))?;
        }
        Ok(())
    }
}
