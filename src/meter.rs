//! The meter: chunks of a response in, usage out. It observes and never fails: what it cannot understand becomes a
//! [`Fault`], and memory stays bounded whatever a peer sends.

use crate::dialect::{Grammar, Slot};
use crate::json::{Scanner, Visit, text};
use crate::stream::sse::{self, Piece, Sse};
use crate::usage::{Field, Reported, indexed};
use simd_json::prelude::*;

/// A usage object longer than this is not read. The longest recorded is 2 KiB.
pub const USAGE_BYTES_MAX: usize = 256 * 1024;
/// An error object longer than this is noticed but not read.
pub const ERROR_BYTES_MAX: usize = 16 * 1024;
/// A model name, id or tier longer than this is not read.
pub const TEXT_BYTES_MAX: usize = 512;

indexed! {
    /// A metering defect. It marks the entry; the bytes flow on.
    Fault {
        /// The body or an event that mattered is not JSON.
        Malformed = "malformed",
        /// A value is longer than it may be ([`USAGE_BYTES_MAX`] and its like).
        TooLong = "too_long",
        /// A count is negative, fractional or too large.
        BadCount = "bad_count",
        /// Parts of the usage do not add up to their whole.
        Inconsistent = "inconsistent",
        /// The usage has a round of a kind that is not known.
        UnknownRound = "unknown_round",
        /// The body is compressed in a way that cannot be read.
        Encoded = "encoded",
        /// The response ended before its document or last event did.
        CutOff = "cut_off",
        /// The charge does not fit its type.
        Overflow = "overflow",
        /// The tier that served has no price and was charged as standard.
        UnknownTier = "unknown_tier",
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u16);

impl Faults {
    /// Adds one.
    pub fn add(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u16;
    }
    /// True if `fault` occurred.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u16) != 0
    }
    /// Those that occurred.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.has(*fault))
    }
}

/// How the body is cut into frames.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    /// The response did not say; the first byte will.
    Undecided,
    /// One JSON document.
    Whole,
    Sse(Sse),
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
    /// The model stopped, or the last event of the response was seen.
    pub finished: bool,
    /// `[DONE]` was seen.
    pub done: bool,
    pub faults: Faults,
    /// Counts how often usage was read: a change means there is news to record.
    pub usages: u32,
}

/// An event ended, or a line end that belongs to the last event came late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The event ends at `end` in the chunk; `usage_only` if it carries usage, no choices and no error.
    Event { end: usize, usage_only: bool },
    /// The chunk's first byte still belongs to the event before.
    LateLineFeed,
}

/// Accumulates one response. A snapshot is a clone.
#[derive(Clone, Debug)]
pub struct Meter {
    grammar: &'static Grammar,
    framing: Framing,
    scanner: Scanner<Slot>,
    event: Event,
    found: Found,
    /// Model and id are known; events that have no needle need not be read.
    identified: bool,
}

impl Meter {
    pub fn new(grammar: &'static Grammar, framing: Framing) -> Self {
        let scanner = Scanner::new(grammar.root);
        Self { grammar, framing, scanner, event: Event::default(), found: Found::default(), identified: false }
    }

    /// What is known so far.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Marks a defect found by whoever feeds the meter.
    pub fn fault(&mut self, fault: Fault) {
        self.found.faults.add(fault);
    }

    /// True if the body turned out to be a stream of events.
    pub fn is_stream(&self) -> bool {
        matches!(self.framing, Framing::Sse(_))
    }

    /// Reads the next chunk; `on` hears of the events that end in it.
    pub fn push(&mut self, chunk: &[u8], mut on: impl FnMut(Boundary)) {
        if let Framing::Undecided = self.framing {
            match sse::looks_like_events(chunk) {
                Some(true) => self.framing = Framing::Sse(Sse::default()),
                Some(false) => self.framing = Framing::Whole,
                None => return,
            }
        }
        let Framing::Sse(mut sse) = self.framing else {
            self.scan(chunk);
            if self.scanner.is_done() {
                self.commit();
            }
            return;
        };
        sse.push(chunk, |piece| match piece {
            Piece::Line(line) => self.line(line),
            Piece::Part(part) => self.part(part),
            Piece::LineEnd => self.part(b"\n"),
            Piece::Event { end } => {
                let usage_only = self.end_event();
                on(Boundary::Event { end, usage_only });
            }
            Piece::LateLineFeed => on(Boundary::LateLineFeed),
        });
        self.framing = Framing::Sse(sse);
    }

    /// The body ended. `whole` says that its framing was intact.
    pub fn finish(&mut self, whole: bool) {
        match self.framing {
            Framing::Sse(_) => {
                self.end_event();
                if !whole || !(self.found.finished || self.found.done) {
                    self.fault(Fault::CutOff);
                }
            }
            Framing::Whole => {
                let complete = self.scanner.is_done();
                self.commit();
                self.found.finished |= complete;
                if !complete || !whole {
                    self.fault(Fault::CutOff);
                }
            }
            Framing::Undecided => {}
        }
    }

    /// True while the event that is being read may yet turn out to carry nothing but usage.
    pub fn may_be_usage_only(&self) -> bool {
        let at_boundary = matches!(self.framing, Framing::Sse(sse) if sse.at_line_start()) && !self.event.started;
        self.is_stream() && !at_boundary && !self.event.ruled_out()
    }

    /// True if the event that is being read carries usage and nothing else, though its blank line has not come.
    pub fn is_at_usage_only(&self) -> bool {
        self.event.is_usage_only()
    }

    /// A whole `data` line. Most cannot matter, and a substring search is all they cost.
    fn line(&mut self, line: &[u8]) {
        if self.identified && !self.event.started && !self.matters(line) {
            self.event.started = true;
            self.event.skipped = true;
            self.found.done |= line == DONE;
            return;
        }
        self.part(line);
        self.part(b"\n");
    }

    fn matters(&self, line: &[u8]) -> bool {
        self.grammar.needles.iter().any(|needle| sse::has_value(line, needle))
    }

    fn part(&mut self, part: &[u8]) {
        self.event.started = true;
        self.event.keep_head(part);
        self.scan(part);
        if self.scanner.is_done() {
            self.commit();
        }
    }

    fn scan(&mut self, bytes: &[u8]) {
        if self.event.broken {
            return;
        }
        if self.scanner.push(bytes, &mut self.event).is_err() {
            self.event.broken = true;
            // `[DONE]` is no JSON; a stretch of text without usage is none of the meter's business.
            if matches!(self.framing, Framing::Whole) || self.event.wanted {
                self.fault(Fault::Malformed);
            }
        }
    }

    /// Takes over what the event contained, once.
    fn commit(&mut self) {
        if std::mem::replace(&mut self.event.committed, true) {
            return;
        }
        let event = std::mem::take(&mut self.event);
        let mut found = std::mem::take(&mut self.found);
        if event.too_long {
            found.faults.add(Fault::TooLong);
        }
        let usage_before = found.usages;
        found.read_usage(&event, self.grammar);
        if !self.identified || found.usages != usage_before {
            found.take_tier(&event);
        }
        if !self.identified {
            take_text(&mut found.model, &event.model);
            take_text(&mut found.id, &event.id);
            self.identified = !found.model.is_empty();
        }
        found.read_error(&event);
        found.finished |= event.finish || self.grammar.last_types.iter().any(|last| event.kind_is(last));
        (self.found, self.event) = (found, event);
    }

    /// Ends the event at a blank line or at the end of the body; true if it carried usage and nothing else.
    fn end_event(&mut self) -> bool {
        if self.event.started && self.event.head() == DONE {
            self.found.done = true;
        } else if self.event.started && !self.event.skipped && !self.event.broken && !self.event.committed {
            if self.event.wanted {
                self.fault(Fault::Malformed);
            }
            self.event.committed = true;
        }
        let usage_only = self.event.is_usage_only();
        self.event.clear();
        self.scanner.reset();
        usage_only
    }
}

const DONE: &[u8] = b"[DONE]";

/// What one event (or the whole document) held. Its buffers are used again.
#[derive(Clone, Debug, Default)]
struct Event {
    usage: Vec<u8>,
    tool_usage: Vec<u8>,
    model: Vec<u8>,
    id: Vec<u8>,
    tier: Vec<u8>,
    error: Vec<u8>,
    kind: Vec<u8>,
    output: OutputItem,
    searches: Option<u64>,
    head: [u8; 8],
    head_len: usize,
    choices: bool,
    choice: bool,
    has_error: bool,
    finish: bool,
    too_long: bool,
    started: bool,
    skipped: bool,
    broken: bool,
    committed: bool,
    /// A usage or error value has begun.
    wanted: bool,
}

#[derive(Clone, Debug, Default)]
struct OutputItem {
    kind: Vec<u8>,
    action: Vec<u8>,
}

impl Event {
    fn clear(&mut self) {
        for buffer in
            [&mut self.usage, &mut self.tool_usage, &mut self.model, &mut self.id, &mut self.tier, &mut self.error, &mut self.kind]
        {
            buffer.clear();
        }
        let Self { usage, tool_usage, model, id, tier, error, kind, output, .. } = std::mem::take(self);
        *self = Self { usage, tool_usage, model, id, tier, error, kind, output, ..Self::default() };
    }

    fn keep_head(&mut self, part: &[u8]) {
        for &byte in part.iter().filter(|byte| **byte != b'\n').take(self.head.len()) {
            if let Some(place) = self.head.get_mut(self.head_len) {
                *place = byte;
                self.head_len += 1;
            }
        }
    }

    fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or_default().trim_ascii()
    }

    fn kind_is(&self, kind: &str) -> bool {
        text::decode(&self.kind).is_some_and(|text| text == kind)
    }

    fn is_usage_only(&self) -> bool {
        self.committed && !self.usage.is_empty() && self.choices && !self.ruled_out()
    }

    /// Something was seen that a usage-only event does not have.
    fn ruled_out(&self) -> bool {
        self.skipped || self.choice || self.has_error || self.broken
    }

    /// The buffer for a slot's bytes and how long they may get.
    fn buffer(&mut self, slot: Slot) -> Option<(&mut Vec<u8>, usize)> {
        Some(match slot {
            Slot::Usage => (&mut self.usage, USAGE_BYTES_MAX),
            Slot::ToolUsage => (&mut self.tool_usage, USAGE_BYTES_MAX),
            Slot::Model => (&mut self.model, TEXT_BYTES_MAX),
            Slot::Id => (&mut self.id, TEXT_BYTES_MAX),
            Slot::Tier => (&mut self.tier, TEXT_BYTES_MAX),
            Slot::Error => (&mut self.error, ERROR_BYTES_MAX),
            Slot::Type => (&mut self.kind, TEXT_BYTES_MAX),
            Slot::OutputType => (&mut self.output.kind, TEXT_BYTES_MAX),
            Slot::OutputAction => (&mut self.output.action, TEXT_BYTES_MAX),
            Slot::Finish | Slot::Choice | Slot::Output => return None,
        })
    }
}

impl Visit<Slot> for Event {
    fn begin(&mut self, slot: Slot, _at: u64, first: u8) {
        let null = first == b'n';
        match slot {
            Slot::Choice if first == b'[' => self.choices = true,
            Slot::Choice => self.choice = true,
            Slot::Finish => self.finish |= !null,
            Slot::Output => self.output = OutputItem::default(),
            Slot::Error => self.has_error |= matches!(first, b'{' | b'"'),
            _ => {}
        }
        self.wanted |= matches!(slot, Slot::Usage | Slot::Error) && !null;
        // A repeated null does not undo a value: Groq and others write usage in one place and null in another.
        if !null && let Some((buffer, _)) = self.buffer(slot) {
            buffer.clear();
        }
    }

    fn bytes(&mut self, slot: Slot, piece: &[u8]) {
        let Some((buffer, max)) = self.buffer(slot) else { return };
        if buffer.len() + piece.len() <= max {
            buffer.extend_from_slice(piece);
        } else {
            buffer.clear();
            self.too_long |= slot != Slot::Error;
        }
    }

    fn end(&mut self, slot: Slot, _at: u64) {
        if slot != Slot::Output {
            return;
        }
        // Only searching is charged, not opening or reading a page:
        // https://platform.openai.com/docs/guides/tools-web-search
        let searches = text::decode(&self.output.kind).is_some_and(|kind| kind == "web_search_call")
            && text::decode(&self.output.action).is_none_or(|action| action == "search");
        if searches {
            self.searches = Some(self.searches.unwrap_or(0) + 1);
        }
    }
}

fn take_text(to: &mut String, raw: &[u8]) {
    if to.is_empty()
        && let Some(text) = text::decode(raw)
    {
        *to = text.into_owned();
    }
}

impl Found {
    /// True if anything was reported.
    pub fn has_usage(&self) -> bool {
        self.usages > 0
    }

    fn take_tier(&mut self, event: &Event) {
        if let Some(tier) = text::decode(&event.tier) {
            self.tier = tier.into_owned();
        }
    }

    fn read_usage(&mut self, event: &Event, grammar: &Grammar) {
        if !event.usage.starts_with(b"{") {
            return;
        }
        let mut raw = event.usage.clone();
        let Ok(tape) = simd_json::to_tape(&mut raw) else {
            self.faults.add(Fault::Malformed);
            return;
        };
        let usage = tape.as_value();
        let mut reported = Reported::default();
        self.read_fields(usage, grammar, &mut reported);
        if let Some(searches) = tool_searches(&event.tool_usage).or(event.searches) {
            reported.set(Field::WebSearch, searches);
        }
        if reported.is_empty() {
            return;
        }
        self.reported.merge(&reported);
        self.usages += 1;
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
        self.cost = stated_cost(&event.usage).or(self.cost.take());
    }

    fn read_fields(&mut self, usage: simd_json::tape::Value<'_, '_>, grammar: &Grammar, reported: &mut Reported) {
        for (path, field) in grammar.usage {
            if reported.of(*field).is_some() {
                continue;
            }
            let mut value = Some(usage);
            for key in *path {
                value = value.and_then(|value| value.get(*key));
            }
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
    fn read_rounds(&mut self, usage: simd_json::tape::Value<'_, '_>, grammar: &Grammar) {
        let Some(rounds) = usage.get("iterations").and_then(|rounds| rounds.as_array()) else {
            return;
        };
        self.compaction = Reported::default();
        self.rounds.clear();
        for round in &rounds {
            let kind = round.get("type").and_then(|kind| kind.into_string());
            let model = round.get("model").and_then(|model| model.into_string());
            let mut reported = Reported::default();
            self.read_fields(round, grammar, &mut reported);
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

    fn read_error(&mut self, event: &Event) {
        if !event.has_error {
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

/// A count of tokens; a fraction of zero is tolerated (`12.0`).
fn count(value: simd_json::tape::Value<'_, '_>) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..EXACT_MAX).contains(number)).map(|number| number as u64))
}

/// `tool_usage.web_search.num_requests` of the Responses API.
fn tool_searches(raw: &[u8]) -> Option<u64> {
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
    if memchr::memmem::find(usage, b"\"cost").is_none() {
        return None;
    }
    let stated: Stated = serde_json::from_slice(usage).ok()?;
    let cost = stated.cost.as_ref().and_then(|cost| cost.get("total_cost").or(Some(cost))).filter(|cost| cost.is_number());
    let ticks = || stated.cost_in_usd_ticks.map(|ticks| rust_decimal::Decimal::from_i128_with_scale(ticks, 10).normalize().to_string());
    cost.map(ToString::to_string).or_else(ticks)
}
