//! Reads limits.

use super::file::Reader;
use crate::limit::{Per, Rule};
use crate::price::PicoUsd;
use crate::yaml::{Map, Node};
use std::sync::Arc;

impl Reader<'_> {
    /// `model_max` or a number of tokens.
    pub(super) fn unbounded_output(&mut self, map: &mut Map<'_>) -> Option<u64> {
        let read = |text: &str| if text == "model_max" { Some(None) } else { count(text).map(Some) };
        map.take_as("unbounded_output", &mut self.problems, "`model_max` or a number of tokens above zero", read).flatten()
    }

    /// `refuse`, the default, or `allow`.
    pub(super) fn admits_unpriced(&mut self, map: &mut Map<'_>) -> bool {
        let read = |text: &str| ["refuse", "allow"].contains(&text).then(|| text == "allow");
        map.take_as("unpriced_models", &mut self.problems, "`refuse` or `allow`", read).unwrap_or(false)
    }

    pub(super) fn limits(&mut self, node: Option<Node<'_>>) -> Arc<[Rule]> {
        let Some(node) = node else { return Arc::default() };
        let items = node.items().map(Iterator::collect::<Vec<_>>);
        if items.is_none() {
            self.problems.add(node.line(), "`limits` must be a list of rules");
        }
        let mut rules: Vec<Rule> = items.unwrap_or_default().into_iter().map(|node| self.limit(node)).collect();
        // Two rules that say the same of the same are told apart by their place.
        for at in 1..rules.len() {
            let (before, rest) = rules.split_at_mut(at);
            if let Some(rule) = rest.first_mut().filter(|rule| before.iter().any(|other| other.name == rule.name)) {
                rule.name = format!("{} ({at})", rule.name);
            }
        }
        rules.into()
    }

    fn limit(&mut self, node: Node<'_>) -> Rule {
        let mut map = Map::new(node, &mut self.problems);
        let line = map.line();
        let mut text = |reader: &mut Self, key| reader.text(&mut map, key).map(|(_, text)| text);
        let (key, org, project, model) = (text(self, "key"), text(self, "org"), text(self, "project"), text(self, "model"));
        let per = map.take_as("per", &mut self.problems, "`key`, `org`, `project`, `user`, `model` or `all`", per);
        let mut count = |reader: &mut Self, key| map.take_as(key, &mut reader.problems, "a whole number above zero (600, 200k, 2M)", count);
        let (requests, tokens) = (count(self, "requests_per_minute"), count(self, "tokens_per_minute"));
        let concurrent = count(self, "concurrent");
        let mut dollars = |reader: &mut Self, key| map.take_as(key, &mut reader.problems, "an amount of dollars (50, 0.25)", dollars);
        let (day, month) = (dollars(self, "usd_per_day"), dollars(self, "usd_per_month"));
        map.finish(&mut self.problems);
        if requests.is_none() && tokens.is_none() && concurrent.is_none() && day.is_none() && month.is_none() {
            let wanted = "requests_per_minute, tokens_per_minute, concurrent, usd_per_day or usd_per_month";
            self.problems.add(line, format!("a limit limits something: {wanted}"));
        }
        let per = per.unwrap_or(Per::Key);
        let name = format!("{per:?} key={key:?} org={org:?} project={project:?} model={model:?}");
        Rule {
            name,
            key,
            org,
            project,
            model,
            per,
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            concurrent,
            spend_per_day: day,
            spend_per_month: month,
        }
    }
}

fn per(text: &str) -> Option<Per> {
    Some(match text {
        "key" => Per::Key,
        "org" => Per::Org,
        "project" => Per::Project,
        "user" => Per::User,
        "model" => Per::Model,
        "all" => Per::All,
        _ => return None,
    })
}

/// Far beyond what anybody is granted, and sums of it fit.
const COUNT_MAX: u64 = 1_000_000_000_000;

fn count(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' => (text.get(..text.len() - 1)?, 1000),
        b'M' => (text.get(..text.len() - 1)?, 1_000_000),
        _ => (text, 1),
    };
    digits.replace('_', "").parse::<u64>().ok()?.checked_mul(factor).filter(|count| (1..=COUNT_MAX).contains(count))
}

fn dollars(text: &str) -> Option<PicoUsd> {
    let amount: rust_decimal::Decimal = text.parse().ok()?;
    let pico = amount.checked_mul(rust_decimal::Decimal::from(1_000_000_000_000_u64))?.normalize();
    (pico.scale() == 0 && pico.is_sign_positive() && !pico.is_zero()).then(|| PicoUsd(pico.mantissa()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::tests::load_text;

    #[test]
    fn reads_rules_and_tells_what_is_wrong() {
        let config_read = load_text(
            "limits:\n- {requests_per_minute: 600, tokens_per_minute: 200k}\n- {org: acme, per: org, usd_per_month: 0.25}\n- {org: acme, per: org, usd_per_day: 1}",
            &[],
        );
        let rules = config_read.unwrap().limits;
        assert_eq!((rules[0].per, rules[0].requests_per_minute, rules[0].tokens_per_minute), (Per::Key, Some(600), Some(200_000)));
        assert_eq!((rules[1].per, rules[1].spend_per_month), (Per::Org, Some(PicoUsd(250_000_000_000))));
        assert!(rules[1].name != rules[2].name);
        for (text, want) in [("{}", None), ("unbounded_output: model_max", None), ("unbounded_output: 2k", Some(2000))] {
            assert_eq!(load_text(text, &[]).unwrap().process.unbounded_output, want, "{text}");
        }
        for (text, want) in [("{}", false), ("unpriced_models: refuse", false), ("unpriced_models: allow", true)] {
            assert_eq!(load_text(text, &[]).unwrap().process.admits_unpriced, want, "{text}");
        }
        for (bad, want) in [
            ("limits: {}", "must be a list"),
            ("limits: [{}]", "limits something"),
            ("limits: [{requests_per_minute: 0}]", "above zero"),
            ("limits: [{tokens_per_minute: 2000000M}]", "above zero"),
            ("limits: [{usd_per_day: -1}]", "amount of dollars"),
            ("limits: [{usd_per_day: 0.0000000000001}]", "amount of dollars"),
            ("limits: [{concurrent: 1, per: person}]", "`key`"),
            ("limits: [{concurent: 1}]", "concurrent"),
            ("unbounded_output: all", "`model_max`"),
            ("unbounded_output: 0", "`model_max`"),
            ("unpriced_models: free", "`refuse` or `allow`"),
        ] {
            assert!(load_text(bad, &[]).unwrap_err().join("\n").contains(want), "{bad}");
        }
    }
}
