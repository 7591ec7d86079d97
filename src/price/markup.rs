//! Markup: what is charged for what something costs. Exact, applied before the one rounding of a line.

use crate::provider::fits;
use rust_decimal::Decimal;

/// A factor and whom it holds for; what is left out holds for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markup {
    /// Name of the upstream.
    pub provider: Option<String>,
    /// Name or pattern of the model that served.
    pub model: Option<String>,
    /// Name or id of the gateway key.
    pub key: Option<String>,
    pub org: Option<String>,
    pub factor: Decimal,
}

/// What a line is of, as markups look at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sold<'a> {
    pub provider: &'a str,
    pub model: &'a str,
    /// Id and name of the key.
    pub key: Option<(&'a str, &'a str)>,
    pub org: Option<&'a str>,
}

impl Markup {
    fn holds(&self, sold: &Sold<'_>) -> bool {
        let same = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| is == Some(wanted));
        same(&self.provider, Some(sold.provider))
            && self.model.as_deref().is_none_or(|pattern| fits(sold.model, pattern))
            && self.key.as_deref().is_none_or(|wanted| sold.key.is_some_and(|(id, name)| id == wanted || name == wanted))
            && same(&self.org, sold.org)
    }
}

/// The factor of the last markup that holds, as conditions of prices go; `None` if none does.
pub fn factor(markups: &[Markup], sold: &Sold<'_>) -> Option<Decimal> {
    markups.iter().rfind(|markup| markup.holds(sold)).map(|markup| markup.factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_holds_counts() {
        let markup = |provider: Option<&str>, model: Option<&str>, key: Option<&str>, org: Option<&str>, factor: &str| {
            let [provider, model, key, org] = [provider, model, key, org].map(|text| text.map(str::to_owned));
            Markup { provider, model, key, org, factor: factor.parse().unwrap() }
        };
        let markups = [
            markup(None, None, None, None, "1.1"),
            markup(Some("openai"), Some("gpt-5*"), None, None, "1.2"),
            markup(None, None, Some("ci"), None, "1"),
            markup(None, None, None, Some("acme"), "0.9"),
        ];
        let sold = |provider, model, key, org| Sold { provider, model, key, org };
        for (sold, want) in [
            (sold("groq", "gpt-5", None, None), "1.1"),
            (sold("openai", "gpt-5-mini", None, None), "1.2"),
            (sold("openai", "gpt-5", Some(("1f", "ci")), None), "1"),
            (sold("openai", "gpt-5", Some(("ci", "other")), None), "1"),
            (sold("openai", "gpt-5", Some(("1f", "ci")), Some("acme")), "0.9"),
        ] {
            assert_eq!(factor(&markups, &sold), want.parse().ok(), "{sold:?}");
        }
        assert_eq!(factor(&[], &Sold::default()), None);
    }
}
