//! What an answer cost, as the caller is told.

use super::Exchange;
use super::heads::is_document;
use crate::ledger::Used;
use crate::meter::Fault;
use crate::price::PicoUsd;
use crate::usage::Dimension;
use http::{HeaderMap, HeaderValue};

/// The cost of an answer. Every part is left out rather than guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// `None` if something that was used has no price.
    pub charge: Option<PicoUsd>,
    /// All input, cached or not.
    pub prompt_tokens: Option<u64>,
    /// All output, reasoning included.
    pub completion_tokens: Option<u64>,
}

/// Names of header fields, in lower case.
pub const COST: &str = "x-gateway-cost";
pub const PROMPT_TOKENS: &str = "x-gateway-prompt-tokens";
pub const COMPLETION_TOKENS: &str = "x-gateway-completion-tokens";

impl Cost {
    /// The cost of what was used, over all its lines.
    pub fn of(used: &Used) -> Self {
        let priced = !used.lines.is_empty() && used.lines.iter().all(|line| line.unpriced.is_empty());
        let sum = |of: fn(Dimension) -> bool| used.lines.iter().filter_map(|line| line.usage.sum(of)).reduce(u64::saturating_add);
        Self { charge: priced.then_some(used.total), prompt_tokens: sum(Dimension::is_input), completion_tokens: sum(Dimension::is_output) }
    }

    /// As header fields: US dollars and counts.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, HeaderValue)> {
        // Digits and a point, which a header can carry.
        let charge = self.charge.and_then(|charge| Some((COST, HeaderValue::try_from(charge.to_string()).ok()?)));
        let prompt = self.prompt_tokens.map(|tokens| (PROMPT_TOKENS, tokens.into()));
        let completion = self.completion_tokens.map(|tokens| (COMPLETION_TOKENS, tokens.into()));
        [charge, prompt, completion].into_iter().flatten()
    }

    /// As a comment at the end of a stream of events, with the id of the request.
    pub fn comment(&self, request_id: &str) -> String {
        let mut fields = serde_json::Map::new();
        fields.insert("request_id".to_owned(), request_id.into());
        // A charge is text: it may be more exact than JSON numbers are.
        let charge = self.charge.map(|charge| ("cost", charge.to_string().into()));
        let prompt = self.prompt_tokens.map(|tokens| ("prompt_tokens", tokens.into()));
        let completion = self.completion_tokens.map(|tokens| ("completion_tokens", tokens.into()));
        for (name, value) in [charge, prompt, completion].into_iter().flatten() {
            fields.insert(name.to_owned(), value);
        }
        format!(": x-gateway {}\n\n", serde_json::Value::Object(fields))
    }
}

impl Exchange {
    /// How the answer may carry its cost: `Some(true)` for a stream, `Some(false)` for a document that has one.
    pub fn may_tell_cost(&self, headers: &HeaderMap) -> Option<bool> {
        let attempt = self.attempt.as_ref().filter(|attempt| self.billed && attempt.status < 300)?;
        let metered = attempt.meter.as_ref().is_some_and(|meter| !meter.found().faults.has(Fault::Encoded));
        metered.then(|| self.stream || !is_document(headers))
    }

    /// What the answer costs, once its usage is final.
    pub fn cost(&self) -> Option<Cost> {
        self.attempt.as_ref()?.used.as_ref().map(|used| Cost::of(&used.0))
    }

    /// True while what was forwarded ends between two events: a comment may follow.
    pub fn is_between_events(&self) -> bool {
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.status == 200);
        attempt.and_then(|attempt| attempt.meter.as_ref()).is_some_and(|meter| meter.is_between_events())
    }

    /// True if the answer is a stream of events that has come to a whole end: a comment may follow.
    pub fn takes_comment(&self) -> bool {
        let meter = self.attempt.as_ref().filter(|attempt| attempt.body_ended).and_then(|attempt| attempt.meter.as_ref());
        meter.is_some_and(|meter| meter.is_between_events())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Line, Source};

    #[test]
    fn tells_what_is_known_and_nothing_else() {
        let usage = [(Dimension::Input, 3), (Dimension::CacheRead, 2), (Dimension::Reasoning, 4)].into_iter().collect();
        let mut used = Used {
            reading: 1,
            source: Source::Reported,
            lines: vec![Line { usage, charge: PicoUsd(1_500_000_000), ..Line::default() }],
            total: PicoUsd(1_500_000_000),
            catalog: String::new(),
            provider_cost: None,
            response_id: String::new(),
            unknown: vec![],
        };
        let told = |used: &Used| Cost::of(used).comment("r");
        assert_eq!(told(&used), ": x-gateway {\"request_id\":\"r\",\"cost\":\"0.0015\",\"prompt_tokens\":5,\"completion_tokens\":4}\n\n");
        used.lines[0].unpriced.push("model".to_owned());
        assert_eq!(told(&used), ": x-gateway {\"request_id\":\"r\",\"prompt_tokens\":5,\"completion_tokens\":4}\n\n");
        used.lines.clear();
        assert_eq!(told(&used), ": x-gateway {\"request_id\":\"r\"}\n\n");
    }
}
