//! Limits at the door: what a request may come to is reserved, or it is told to wait; who is served is told what is left.

use super::gateway::Gateway;
use super::shared::Refused;
use super::state::{State, now_ms};
use crate::config::Config;
use crate::error::Error;
use crate::exchange::{Exchange, amount_of, who_of};
use crate::ledger::{Entry, is_derived};
use crate::limit::{Amount, Exceeded, Hold, Kind, Left, Rule, Standing, Who, month_begins};
use crate::sink::report::{rows, rows_of_others};
use crate::sink::sqlite::{Row, Sqlite};
use pingora::Result;
use pingora::http::ResponseHeader;
use std::sync::{Arc, PoisonError};

impl Gateway {
    /// Reserves what a request may come to; nothing where nothing is limited.
    ///
    /// # Errors
    /// [`Error::UnpricedModel`], [`Error::Limited`] or [`Error::LimitsUnknown`].
    pub(super) async fn reserve(&self, exchange: &Exchange) -> Result<Option<Hold>, Error> {
        if exchange.config().limits.is_empty() {
            return Ok(None);
        }
        exchange.check_priced()?;
        let now = now_ms();
        self.take(&exchange.config().limits, &exchange.who(), exchange.max_cost(now), now).await
    }

    /// Reserves an amount for who asks.
    ///
    /// # Errors
    /// As [`Gateway::reserve`].
    pub(super) async fn take(&self, rules: &Arc<[Rule]>, who: &Who<'_>, amount: Amount, now: u64) -> Result<Option<Hold>, Error> {
        let (Some(shared), Some(line)) = (&self.state.shared, &self.line) else {
            return self.state.limits.reserve(rules, who, amount, now).map(Some).map_err(Error::Limited);
        };
        shared.reserve(line, rules, who, amount, now).await.map_err(|refused| match refused {
            Refused::Exceeded(exceeded) => Error::Limited(exceeded),
            Refused::Unavailable => Error::LimitsUnknown,
        })
    }
}

impl State {
    /// Counts what was spent this month before this process began, and goes on with what others add to the same ledger:
    /// who is replaced is not done yet.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub(super) fn recall_all(&self, config: &Config) -> Result<(), String> {
        let rules: Vec<Rule> = config.limits.iter().filter(|rule| rule.counts_money()).cloned().collect();
        if self.shared.is_some() || rules.is_empty() {
            // All of it is known there, or nobody asks.
            return Ok(());
        }
        if let Some(database) = &config.sinks.sqlite {
            // Brought up to date before it is read. The sink reports a failure.
            drop(Sqlite::open(database));
        }
        let begins = month_begins(now_ms());
        let tail = rows_of_others(&config.data, begins, self.ledger.writer(), |row| self.recall_row(&rules, row, begins))?;
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(tail);
        Ok(())
    }

    /// Counts what others have written since.
    pub(super) fn recall_others(&self) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tail) = others.as_mut() else { return };
        match tail.poll() {
            Ok(entries) => entries.iter().for_each(|entry| self.recall_entry(entry)),
            Err(error) => log::error!("what others spend is not known, since the ledger cannot be read: {error}"),
        }
        if tail.is_over() {
            *others = None;
        }
    }

    fn recall_entry(&self, entry: &Entry) {
        if !entry.has_derived_id() || self.items.lock().unwrap_or_else(PoisonError::into_inner).is_new(&entry.id) {
            self.limits.recall(&*self.config().limits, &who_of(&entry.open), amount_of(entry), entry.open.start_ms);
        }
    }

    /// Counts what was spent this month under rules that came by a reload; what is not limited is not read.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub(super) fn recall_spending(&self, config: &Config, known: &[Rule]) -> Result<(), String> {
        if self.shared.is_some() {
            // All of it is known there.
            return Ok(());
        }
        // A rule that counted no money before knows of none that was spent.
        let fresh = |rule: &&Rule| rule.counts_money() && known.iter().all(|old| old.name != rule.name || !old.counts_money());
        let rules: Vec<Rule> = config.limits.iter().filter(fresh).cloned().collect();
        if rules.is_empty() {
            return Ok(());
        }
        let begins = month_begins(now_ms());
        rows(&config.data, Some(begins), |_, _| {}, |row| self.recall_row(&rules, row, begins)).map(drop)
    }

    fn recall_row(&self, rules: &[Rule], row: &Row, begins: u64) {
        let Some((_, line)) = row.line.as_ref().filter(|_| row.start_ms >= begins) else { return };
        if is_derived(&row.id) {
            // Whoever fetches it again pays for it once.
            self.items.lock().unwrap_or_else(PoisonError::into_inner).is_new(&row.id);
        }
        let who = Who {
            key: row.key.as_deref().map(|id| (id, row.key_name.as_deref().unwrap_or_default())),
            org: row.org.as_deref(),
            project: row.project.as_deref(),
            user: row.user.as_deref(),
            model: &row.model_requested,
            served: &row.model,
            others: std::slice::from_ref(&line.model),
        };
        // An entry of the future was written by a wrong clock: it counts as spent now.
        self.limits.recall(rules, &who, Amount { tokens: 0, spend: line.charge }, row.start_ms.min(now_ms()));
    }
}

/// As OpenAI tells it: <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>.
pub fn tell(standing: &Standing, response: &mut ResponseHeader) -> Result<()> {
    if let Some(Left { limit, remaining, reset_ms }) = standing.requests {
        response.insert_header("x-ratelimit-limit-requests", limit)?;
        response.insert_header("x-ratelimit-remaining-requests", remaining)?;
        response.insert_header("x-ratelimit-reset-requests", span(reset_ms))?;
    }
    if let Some(Left { limit, remaining, reset_ms }) = standing.tokens {
        response.insert_header("x-ratelimit-limit-tokens", limit)?;
        response.insert_header("x-ratelimit-remaining-tokens", remaining)?;
        response.insert_header("x-ratelimit-reset-tokens", span(reset_ms))?;
    }
    Ok(())
}

/// The same for who was refused: what it met, and when it may come again.
pub fn tell_exceeded(exceeded: &Exceeded) -> Vec<(&'static str, String)> {
    let Exceeded { kind, limit, retry_ms } = exceeded;
    match kind {
        Kind::Requests => vec![
            ("x-ratelimit-limit-requests", limit.to_string()),
            ("x-ratelimit-remaining-requests", "0".to_owned()),
            ("x-ratelimit-reset-requests", span(*retry_ms)),
        ],
        // How many are left is less than it asked for, and no more is known of several gateways.
        Kind::Tokens => vec![("x-ratelimit-limit-tokens", limit.to_string()), ("x-ratelimit-reset-tokens", span(*retry_ms))],
        Kind::Concurrent | Kind::Day | Kind::Month | Kind::Reserved => vec![],
    }
}

/// `17ms`, `1.5s`, `6m0s`.
fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        1000..60_000 => format!("{}.{}s", ms / 1000, format!("{:03}", ms % 1000).trim_end_matches('0')),
        _ => format!("{}m{}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn tells_spans_as_openai_does() {
        for (ms, want) in [(0, "0ms"), (17, "17ms"), (1000, "1s"), (1500, "1.5s"), (12_345, "12.345s"), (360_000, "6m0s"), (61_000, "1m1s")]
        {
            assert_eq!(super::span(ms), want);
        }
    }
}
