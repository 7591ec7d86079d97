//! What a response was found to contain: usage merged over its events, and the rest of what a bill needs.

use super::event::{Event, TEXT_BYTES_MAX};
use super::fault::{Fault, Faults};
use crate::dialect::{Grammar, UsagePath};
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

/// The members of an object, side by side: many are looked for, and on the tape each search begins anew.
struct Members<'t, 'i>(Vec<(&'i str, Value<'t, 'i>)>);

impl<'t, 'i> Members<'t, 'i> {
    /// None if it is no object.
    fn of(value: Value<'t, 'i>) -> Self {
        Self(value.as_object().map(|object| object.iter().collect()).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<Value<'t, 'i>> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// Tokens that another model used within the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub model: String,
    pub reported: Reported,
}

/// What a response was found to contain so far.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The model that served, the first that was named.
    pub model: String,
    /// The provider's id of the response.
    pub id: String,
    pub tier: String,
    /// Where inference ran, if it affects the price (`inference_geo`).
    pub region: String,
    /// Merged usage of the model itself.
    pub reported: Reported,
    /// Rounds billed at the model's own rates on top of `reported` (Anthropic's compaction).
    pub compaction: Reported,
    /// Rounds of other models (Anthropic's advisor and fallback).
    pub rounds: Vec<Round>,
    /// The provider's own statement of the cost in US dollars, as it was written.
    pub cost: Option<String>,
    /// The `type` or `code` of an error carried in the body, `"error"` if it has none.
    pub error: Option<String>,
    /// The error came in an event that names this response.
    pub error_names_response: bool,
    /// The model stopped, or the last event of the response was seen.
    pub finished: bool,
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
        if let Some(tier) = text::decode(&event.tier) {
            self.tier = tier.into_owned();
        }
    }

    pub(super) fn read_usage(&mut self, event: &Event, grammar: &Grammar) {
        event.usages().filter(|usage| usage.starts_with(b"{")).for_each(|usage| self.read_one(usage, event, grammar));
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
                    let mut fallback = Reported::default();
                    self.read_fields(&Members::of(tape.as_value()), &[grammar.metrics], &mut fallback);
                    self.fallback.merge(&fallback);
                    (self.finished, self.ended) = (true, true);
                }
                Err(_) => self.faults.add(Fault::Malformed),
            }
        }
    }

    /// Takes usage from elsewhere if the response stated none, and cache reads if it stated all but those.
    pub(super) fn fall_back(&mut self) {
        if self.usages == 0 && !self.fallback.is_empty() {
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

    fn read_one(&mut self, object: &[u8], event: &Event, grammar: &Grammar) {
        let mut raw = object.to_vec();
        let Ok(tape) = BUFFERS.with_borrow_mut(|buffers| simd_json::to_tape_with_buffers(&mut raw, buffers)) else {
            self.faults.add(Fault::Malformed);
            return;
        };
        let usage = &Members::of(tape.as_value());
        let mut reported = Reported::default();
        self.read_fields(usage, grammar.usage, &mut reported);
        read_details(usage, grammar, &mut reported);
        if let Some(tier) = usage.get("serviceTier").and_then(|tier| tier.into_string()) {
            self.tier = tier.to_ascii_lowercase();
        }
        if let Some(tier) = usage.get("trafficType").and_then(|kind| kind.into_string()) {
            self.tier = traffic_tier(tier);
        }
        if let Some(searches) = tool_searches(&event.tool_usage).or(event.searches) {
            reported.set(Field::WebSearch, searches);
        }
        if reported.is_empty() {
            return;
        }
        if grammar.replaces {
            self.reported = reported;
        } else {
            self.reported.merge(&reported);
        }
        self.usages += 1;
        self.opening = event.kind_is("message_start");
        self.read_rounds(usage, grammar);
        if let Some(tier) = usage.get("service_tier").and_then(|tier| tier.into_string()) {
            self.tier = tier.to_owned();
        }
        // Fast mode has prices of its own, like a tier: https://docs.claude.com/en/docs/about-claude/pricing
        if usage.get("speed").and_then(|speed| speed.into_string()) == Some("fast") {
            self.tier = "fast".to_owned();
        }
        if let Some(region) = usage.get("inference_geo").and_then(|region| region.into_string()) {
            self.region = region.to_owned();
        }
        self.cost = stated_cost(object).or(self.cost.take());
    }

    fn read_fields(&mut self, usage: &Members<'_, '_>, paths: &[&[UsagePath]], reported: &mut Reported) {
        // Paths below one member stand together, and it is looked for once.
        let mut above: Option<(&str, Option<Value<'_, '_>>)> = None;
        for (path, field) in paths.iter().copied().flatten() {
            if reported.of(*field).is_some() {
                continue;
            }
            let Some((first, rest)) = path.split_first() else { continue };
            let found = match above {
                Some((name, found)) if name == *first => found,
                _ => usage.get(first),
            };
            above = Some((first, found));
            let value = rest.iter().fold(found, |value, key| value?.get(*key));
            match value {
                Some(value) if value.is_null() => {}
                Some(value) => match count(value) {
                    Some(count) => reported.set(*field, count),
                    None => self.faults.add(Fault::BadCount),
                },
                None => {}
            }
        }
    }

    /// Anthropic's `iterations`: rounds of the message itself are in the top-level numbers, the others are not.
    /// <https://docs.anthropic.com/en/api/messages> (`usage.iterations`), and recorded traffic.
    fn read_rounds(&mut self, usage: &Members<'_, '_>, grammar: &Grammar) {
        let Some(rounds) = usage.get("iterations").and_then(|rounds| rounds.as_array()) else {
            return;
        };
        self.compaction = Reported::default();
        self.rounds.clear();
        for round in &rounds {
            let round = &Members::of(round);
            let kind = round.get("type").and_then(|kind| kind.into_string());
            let model = round.get("model").and_then(|model| model.into_string());
            let mut reported = Reported::default();
            self.read_fields(round, grammar.usage, &mut reported);
            match (kind, model) {
                (Some("message"), None) => {}
                (Some("message"), Some(model)) if model == self.model => {}
                (Some("compaction"), None) => self.compaction.add(&reported),
                (_, Some(model)) if model.len() <= TEXT_BYTES_MAX => {
                    self.rounds.push(Round { model: model.to_owned(), reported });
                }
                _ => self.faults.add(Fault::UnknownRound),
            }
        }
    }

    pub(super) fn read_error(&mut self, event: &Event) {
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

/// Lists of objects, one a modality or lifetime. A field is set if any of its objects is there.
fn read_details(usage: &Members<'_, '_>, grammar: &Grammar, reported: &mut Reported) {
    if grammar.details.is_empty() {
        return;
    }
    let mut sums = [None::<i128>; Field::ALL.len()];
    for detail in grammar.details {
        let list = usage.get(detail.list).and_then(|list| list.as_array());
        for object in list.iter().flatten() {
            let fits = object.get(detail.key).and_then(|value| value.into_string()) == Some(detail.value);
            // Google leaves zeros out.
            let counted = object.get(detail.count).map_or(Some(0), count).filter(|_| fits);
            if let (Some(counted), Some(sum)) = (counted, sums.get_mut(detail.field as usize)) {
                *sum = Some(sum.unwrap_or(0) + i128::from(detail.sign) * i128::from(counted));
            }
        }
    }
    for (field, sum) in Field::ALL.iter().zip(sums) {
        if let Some(sum) = sum {
            reported.set(*field, u64::try_from(sum.max(0)).unwrap_or(u64::MAX));
        }
    }
}

/// Vertex says how it took a request: <https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse#TrafficType>.
fn traffic_tier(kind: &str) -> String {
    match kind {
        "ON_DEMAND" | "TRAFFIC_TYPE_UNSPECIFIED" => String::new(),
        _ => kind.strip_prefix("ON_DEMAND_").unwrap_or(kind).to_ascii_lowercase(),
    }
}

/// A count of tokens; a fraction of zero is tolerated (`12.0`).
fn count(value: simd_json::tape::Value<'_, '_>) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..EXACT_MAX).contains(number)).map(|number| number as u64))
}

/// `tool_usage.web_search.num_requests` of the Responses API.
fn tool_searches(raw: &[u8]) -> Option<u64> {
    if raw.is_empty() {
        return None;
    }
    let mut raw = raw.to_vec();
    let tape = simd_json::to_tape(&mut raw).ok()?;
    count(tape.as_value().get("web_search")?.get("num_requests")?)
}

/// What the provider says it costs, as written: `cost` (OpenRouter), `cost.total_cost` (Perplexity), or
/// `cost_in_usd_ticks` (xAI, 10^-10 dollars: <https://docs.x.ai/docs/api-reference>).
fn stated_cost(usage: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Stated {
        cost: Option<serde_json::Value>,
        cost_in_usd_ticks: Option<i128>,
    }
    static COST: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"cost"));
    COST.find(usage)?;
    let stated: Stated = serde_json::from_slice(usage).ok()?;
    let cost = stated.cost.as_ref().and_then(|cost| cost.get("total_cost").or(Some(cost))).filter(|cost| cost.is_number());
    let ticks = || stated.cost_in_usd_ticks.map(|ticks| rust_decimal::Decimal::from_i128_with_scale(ticks, 10).normalize().to_string());
    cost.map(ToString::to_string).or_else(ticks)
}

pub(super) fn take_text(to: &mut String, raw: &[u8]) {
    if to.is_empty()
        && let Some(text) = text::decode(raw)
    {
        *to = text.into_owned();
    }
}
