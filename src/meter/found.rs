//! What a response was found to contain: usage merged over its events, and the rest of what a bill needs.

use super::event::{Event, TEXT_BYTES_MAX};
use super::fault::{Fault, Faults};
use super::rounds::Round;
use super::usage_object::{Reading, UNKNOWN_MAX};
use crate::dialect::Grammar;
use crate::json::text;
use crate::usage::{Field, Reported};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;
use simd_json::prelude::*;
use simd_json::tape::Value;

thread_local! {
    /// The parser's own memory, used again.
    static BUFFERS: std::cell::RefCell<simd_json::Buffers> = std::cell::RefCell::new(simd_json::Buffers::new(1024));
}

/// Members of a usage object that state a tier, or what has prices of its own like a tier: Perplexity's size of the search context
/// (<https://docs.perplexity.ai/docs/getting-started/pricing>) and Anthropic's fast mode
/// (<https://docs.claude.com/en/docs/about-claude/pricing>).
const TIERS: [&str; 5] = ["serviceTier", "trafficType", "service_tier", "search_context_size", "speed"];

/// What a response was found to contain so far.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The model that served, the first that was named.
    pub model: String,
    /// The provider's id of the response.
    pub id: String,
    pub tier: String,
    /// The headers of the response named the tier.
    pub header_tier: bool,
    /// Where inference ran, if it affects the price (`inference_geo`).
    pub region: String,
    /// Merged usage of the model itself.
    pub reported: Reported,
    /// Attempts within the response, each by itself (Anthropic's `iterations`); none if it was a single one.
    pub rounds: Vec<Round>,
    /// Tokens of a model that made pictures for the response.
    pub images: Option<Round>,
    /// Search queries of a grounded response, each once (Google).
    pub queries: Vec<String>,
    /// The response cites a page on the web (Google).
    pub cites_web: bool,
    /// Calls of server-side tools, by events that held one each.
    pub calls: Reported,
    /// The response holds a picture that another model made.
    pub made_pictures: bool,
    /// The response has text and states no output.
    pub unstated_output: bool,
    /// Server-side tools that are charged by a number of the usage, which must be there.
    pub counted_tools: Vec<(String, Field)>,
    /// A refusal, by its category (`null` if it has none), if it is known that the model wrote nothing before it.
    pub refusal: Option<String>,
    /// Paths of numbers in the usage, and names of tools, that are not known; at most [`UNKNOWN_MAX`] are kept.
    pub unknown: Vec<String>,
    /// A part of the response's content was seen.
    pub has_content: bool,
    /// The provider's own statement of the cost in US dollars, as it was written.
    pub cost: Option<String>,
    /// The provider only forwarded to an account of the client's own (OpenRouter): `cost` is not what the tokens cost.
    pub own_account: bool,
    /// The `type` or `code` of an error carried in the body, `"error"` if it has none.
    pub error: Option<String>,
    /// The error came in an event that names this response.
    pub error_names_response: bool,
    /// The model stopped, or the last event of the response was seen.
    pub finished: bool,
    /// The text of the response may be whole, and its usage is yet to come.
    pub text_ended: bool,
    /// Nothing that matters can follow: the last event of the response, or the end of its document, was seen.
    pub ended: bool,
    /// The last usage read was the opening of a message (Anthropic): its output count is a placeholder.
    pub opening: bool,
    /// Usage stated by someone other than the model (headers, invocation metrics), for want of better.
    pub fallback: Reported,
    /// Containers in which server-side tools ran, by id.
    pub containers: Vec<String>,
    pub faults: Faults,
    /// Counts how often usage was read: a change means there is news to record.
    pub usages: u32,
}

impl Found {
    pub(super) fn take_containers(&mut self, event: &Event) {
        const CONTAINERS_MAX: usize = 16;
        for id in event.containers.iter().filter_map(|raw| text::decode(raw)) {
            if self.containers.len() < CONTAINERS_MAX && !self.containers.iter().any(|known| **known == *id) {
                self.containers.push(id.into_owned());
            }
        }
    }

    /// True if an error was reported that names this response.
    pub fn names_failed_response(&self) -> bool {
        self.error.is_some() && self.error_names_response
    }

    /// True if nothing may be left to generate, but the usage has not come.
    pub fn awaits_usage(&self) -> bool {
        (self.text_ended || self.finished) && !self.ended
    }

    /// True if anything was reported.
    pub fn has_usage(&self) -> bool {
        self.usages > 0
    }

    pub(super) fn saw_done(&mut self, done: bool) {
        self.ended |= done;
        self.finished |= done;
        if done {
            self.fall_back();
        }
    }

    pub(super) fn take_tier(&mut self, event: &Event) {
        if self.header_tier {
            return;
        }
        if let Some(tier) = text::decode(&event.tier) {
            self.tier = tier.into_owned();
        }
        if let Some(latency) = text::decode(&event.latency).filter(|latency| latency != "standard") {
            self.tier = latency.into_owned();
        }
    }

    pub(super) fn read_usage(&mut self, event: &Event, grammar: &Grammar) {
        let mut before: Option<Reported> = None;
        for usage in event.usages().filter(|usage| usage.starts_with(b"{")) {
            let Some(reported) = self.read_one(usage, event, grammar) else { continue };
            // Some servers state the same usage in two places. Two that differ are no usage of one response.
            if before.is_some_and(|before| before.contradicts(&reported)) {
                self.faults.add(Fault::Inconsistent);
            }
            before = Some(reported);
        }
    }

    /// Counts that stand outside usage objects, and usage from elsewhere once nothing better can come.
    pub(super) fn read_rest(&mut self, event: &Event, grammar: &Grammar) {
        if event.marks.bad_count {
            self.faults.add(Fault::BadCount);
        }
        if !event.counts.is_empty() {
            self.reported.merge(&event.counts);
            self.usages += 1;
        }
        if !event.fallback.is_empty() {
            self.fallback.merge(&event.fallback);
        }
        if event.metrics.starts_with(b"{") {
            let mut raw = event.metrics.clone();
            match simd_json::to_tape(&mut raw) {
                Ok(tape) => {
                    // Times and speeds stand beside the counts; what is charged is in the usage.
                    let reading = Reading::of(grammar.metrics, tape.as_value(), "metrics");
                    self.fallback.merge(&reading.reported);
                    if reading.bad_count {
                        self.faults.add(Fault::BadCount);
                    }
                    (self.finished, self.ended) = (true, true);
                }
                Err(_) => self.faults.add(Fault::Malformed),
            }
        }
    }

    /// Takes usage from elsewhere if the response stated none, and cache reads if it stated all but those.
    pub(super) fn fall_back(&mut self) {
        if self.fallback.is_empty() {
            return;
        }
        let stated = Field::ALL.iter().any(|field| *field != Field::CacheRead && self.fallback.of(*field).is_some());
        if self.usages == 0 && stated {
            self.reported = self.fallback.clone();
            self.usages = 1;
        } else if self.usages > 0
            && self.reported.of(Field::CacheRead).is_none()
            && let Some(read) = self.fallback.of(Field::CacheRead)
        {
            self.reported.set(Field::CacheRead, read);
            self.usages += 1;
        }
    }

    /// Reads one usage object; what it states.
    fn read_one(&mut self, object: &[u8], event: &Event, grammar: &Grammar) -> Option<Reported> {
        let mut raw = object.to_vec();
        let Ok(tape) = BUFFERS.with_borrow_mut(|buffers| simd_json::to_tape_with_buffers(&mut raw, buffers)) else {
            self.faults.add(Fault::Malformed);
            return None;
        };
        let usage = tape.as_value();
        let mut reported = self.take_reading(Reading::of(grammar.tree, usage, "usage"));
        self.read_tool_usage(event, &mut reported);
        self.count_items(event, grammar, &mut reported);
        self.read_choices(usage);
        if reported.is_empty() {
            return None;
        }
        let by_itself = self.read_rounds(usage, grammar);
        if by_itself && self.opened_with_more(&reported) {
            self.faults.add(Fault::Inconsistent);
        }
        if grammar.replaces {
            self.reported = reported.clone();
        } else if grammar.cumulative && !by_itself {
            self.merge_cumulative(&reported);
        } else {
            self.reported.merge(&reported);
        }
        self.usages += 1;
        self.opening = event.kind_is("message_start");
        match stated_cost(object) {
            Ok(stated) => self.cost = stated.or(self.cost.take()),
            Err(()) => self.faults.add(Fault::BadCount),
        }
        self.own_account |= usage.get("is_byok").and_then(|own| own.as_bool()) == Some(true);
        Some(reported)
    }

    /// True if a stream opened with more input than all attempts together state.
    fn opened_with_more(&self, top: &Reported) -> bool {
        const INPUT: [Field; 3] = [Field::Input, Field::CacheRead, Field::CacheWrite];
        let sum = |of: &Reported| INPUT.iter().filter_map(|field| of.of(*field)).fold(0, u64::saturating_add);
        let rounds = self.rounds.iter().map(|round| sum(&round.reported)).fold(0, u64::saturating_add);
        self.opening && sum(&self.reported) > rounds.max(sum(top))
    }

    /// Members that select a price. Of several that state a tier, the last in [`TIERS`] counts.
    fn read_choices(&mut self, usage: Value<'_, '_>) {
        let Some(members) = usage.as_object() else { return };
        let mut stated: Option<(usize, &str)> = None;
        for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let rank = TIERS.iter().position(|tier| *tier == key);
            if rank.is_none() && key != "inference_geo" {
                continue;
            }
            let text = value.into_string().filter(|text| text.len() <= TEXT_BYTES_MAX);
            match (rank, text) {
                (Some(_), None) => self.faults.add(Fault::UnknownTier),
                (Some(_), Some("standard")) if key == "speed" => {}
                (Some(rank), Some(tier)) if stated.is_none_or(|(known, _)| rank > known) => stated = Some((rank, tier)),
                (Some(_), Some(_)) => {}
                (None, None) => self.faults.add(Fault::UnknownRegion),
                (None, Some(region)) => region.clone_into(&mut self.region),
            }
        }
        if let Some((rank, tier)) = stated.filter(|_| !self.header_tier) {
            self.tier = match TIERS.get(rank) {
                Some(&"serviceTier") => tier.to_ascii_lowercase(),
                Some(&"trafficType") => traffic_tier(tier),
                _ => tier.to_owned(),
            };
        }
    }

    /// Counts that only grow over a stream. A smaller one that comes later is a defect of the server, and the larger one
    /// counts; but the output that opens a message is a placeholder:
    /// <https://docs.claude.com/en/docs/build-with-claude/streaming#event-types>.
    fn merge_cumulative(&mut self, later: &Reported) {
        let mut merged = later.clone();
        for field in Field::ALL.iter().copied().filter(|field| !(self.opening && *field == Field::Output)) {
            if let (Some(before), Some(now)) = (self.reported.of(field), later.of(field))
                && now < before
            {
                merged.set(field, before);
                self.faults.add(Fault::Inconsistent);
            }
        }
        self.reported.merge(&merged);
    }

    /// Takes over the defects of a reading; its counts.
    pub(super) fn take_reading(&mut self, reading: Reading) -> Reported {
        for (fault, holds) in
            [(Fault::UnknownUsage, reading.has_unknown), (Fault::BadCount, reading.bad_count), (Fault::Inconsistent, reading.twice)]
        {
            if holds {
                self.faults.add(fault);
            }
        }
        self.keep_unknown(reading.unknown);
        reading.reported
    }

    pub(super) fn keep_unknown(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if self.unknown.len() < UNKNOWN_MAX && !self.unknown.contains(&name) {
                self.unknown.push(name);
            }
        }
    }

    pub(super) fn read_error(&mut self, event: &Event) {
        if let Some(code) = event.failed_status() {
            self.error = Some(code.to_owned());
        }
        if !event.marks.has_error {
            return;
        }
        let mut raw = event.error.clone();
        let code = simd_json::to_tape(&mut raw).ok().and_then(|tape| {
            let error = tape.as_value();
            let code = error.get("code").filter(|code| !code.is_null()).or_else(|| error.get("type"))?;
            code.into_string().map(str::to_owned).or_else(|| code.as_u64().map(|code| code.to_string()))
        });
        let mut code = code.unwrap_or_else(|| "error".to_owned());
        code.truncate(code.floor_char_boundary(TEXT_BYTES_MAX));
        self.error = Some(code);
    }
}

/// Vertex says how it took a request: <https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse#TrafficType>.
fn traffic_tier(kind: &str) -> String {
    match kind {
        "ON_DEMAND" | "TRAFFIC_TYPE_UNSPECIFIED" => String::new(),
        _ => kind.strip_prefix("ON_DEMAND_").unwrap_or(kind).to_ascii_lowercase(),
    }
}

/// The cost that the provider states, as written: `cost` (OpenRouter), `cost.total_cost` (Perplexity), or
/// `cost_in_usd_ticks` (xAI, 10^-10 dollars: <https://docs.x.ai/docs/api-reference>). `Err` if one is there and no number.
fn stated_cost(usage: &[u8]) -> Result<Option<String>, ()> {
    static COST: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"cost"));
    if COST.find(usage).is_none() {
        return Ok(None);
    }
    let stated: serde_json::Value = serde_json::from_slice(usage).map_err(|_| ())?;
    let number = |value: &serde_json::Value| match value {
        serde_json::Value::Number(number) => Ok(Some(number.to_string())),
        serde_json::Value::String(text) if text.parse::<rust_decimal::Decimal>().is_ok() => Ok(Some(text.clone())),
        serde_json::Value::Null => Ok(None),
        _ => Err(()),
    };
    let cost =
        stated.get("cost").map(|cost| if cost.is_object() { cost.get("total_cost").unwrap_or(&serde_json::Value::Null) } else { cost });
    if let Some(cost) = cost.map(number).transpose()?.flatten() {
        return Ok(Some(cost));
    }
    let ticks = stated.get("cost_in_usd_ticks").map(number).transpose()?.flatten();
    let dollars = |ticks: String| {
        let ticks = ticks.parse::<rust_decimal::Decimal>().map_err(|_| ())?;
        let dollars = ticks.checked_mul(rust_decimal::Decimal::from_i128_with_scale(1, 10)).ok_or(())?;
        Ok(dollars.normalize().to_string())
    };
    ticks.map(dollars).transpose()
}

pub(super) fn take_text(to: &mut String, raw: &[u8]) {
    if to.is_empty()
        && let Some(text) = text::decode(raw)
    {
        *to = text.into_owned();
    }
}
