//! One event of a stream (or the whole document) as the scanner reports it: the wanted values, each within its bound.

use crate::dialect::Slot;
use crate::json::{Visit, text};
use crate::usage::Reported;
use std::borrow::Cow;

/// A usage object longer than this is not read. The longest recorded is 2 KiB.
pub const USAGE_BYTES_MAX: usize = 256 * 1024;
/// More usage objects in one event are not read apart.
const USAGES_MAX: usize = 8;
/// An error object longer than this is noticed but not read.
pub const ERROR_BYTES_MAX: usize = 16 * 1024;
/// Containers that one event may name.
const CONTAINERS_MAX: usize = 16;
/// Kinds of items that are told apart in one event; of more it is only known that there are some.
const ITEMS_MAX: usize = 64;
/// Longer lists of search queries are not read.
const QUERIES_BYTES_MAX: usize = 64 * 1024;
/// A longer number is no count.
const NUMBER_BYTES_MAX: usize = 32;
/// A model name, id or tier longer than this is not read.
pub const TEXT_BYTES_MAX: usize = 512;

/// What one event (or the whole document) held. Its buffers are used again.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// Usage objects one after another, and where each starts.
    usage: Vec<u8>,
    usage_starts: Vec<usize>,
    pub tool_usage: Vec<u8>,
    pub model: Vec<u8>,
    pub id: Vec<u8>,
    pub tier: Vec<u8>,
    pub error: Vec<u8>,
    pub kind: Vec<u8>,
    pub metrics: Vec<u8>,
    number: Vec<u8>,
    /// Counts that stand outside usage objects.
    pub counts: Reported,
    /// Counts that matter if there is no usage.
    pub fallback: Reported,
    /// What kind of exception the message reports, if it does.
    pub exception: Option<String>,
    item: Item,
    /// Kinds of items, and how many there are of each.
    items: Vec<(Item, u64)>,
    tool: Item,
    /// The model of the image generation tool.
    pub image_model: Vec<u8>,
    pub stop_reason: Vec<u8>,
    pub refusal: Vec<u8>,
    pub latency: Vec<u8>,
    status: Vec<u8>,
    /// Lists of search queries, one after another.
    pub queries: Vec<Vec<u8>>,
    /// Raw ids of containers, of which there are few.
    pub containers: Vec<Vec<u8>>,
    head: [u8; 8],
    head_len: usize,
    pub marks: Marks,
}

/// What was seen of the event, and what was done with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// The value that is being read is null, or longer than it may be: the rest of it is not kept.
    pub passed_over: bool,
    pub bad_count: bool,
    pub choices: bool,
    pub choice: bool,
    pub has_error: bool,
    pub finish: bool,
    pub too_long: bool,
    pub started: bool,
    pub skipped: bool,
    pub broken: bool,
    pub committed: bool,
    /// A usage or error value has begun.
    pub wanted: bool,
    /// A part of the response's content has begun.
    pub content: bool,
    /// More kinds of items than are told apart.
    pub many_items: bool,
    /// The request has OpenAI's earlier tool for searches.
    pub search_preview: bool,
    pub web_source: bool,
    pub map_source: bool,
}

/// A part of what a response contains, in raw JSON strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    kind: Vec<u8>,
    name: Vec<u8>,
}

impl Item {
    /// Its kind and its name, decoded.
    pub fn text(&self) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
        let name = if self.name.is_empty() { Cow::Borrowed("") } else { text::decode(&self.name)? };
        let kind = if self.kind.is_empty() { Cow::Borrowed("") } else { text::decode(&self.kind)? };
        Some((kind, name))
    }

    fn clear(&mut self) {
        self.kind.clear();
        self.name.clear();
    }
}

impl Event {
    pub fn clear(&mut self) {
        // Field by field: this is done for every event, and most of it is memory to be used again.
        let Self { usage, usage_starts, tool_usage, model, id, tier, error, kind, metrics, number, item, .. } = self;
        let texts = [usage, tool_usage, model, id, tier, error, kind, metrics, number, &mut item.kind, &mut item.name];
        texts.into_iter().for_each(Vec::clear);
        let Self { tool, image_model, stop_reason, refusal, latency, status, .. } = self;
        [&mut tool.kind, &mut tool.name, image_model, stop_reason, refusal, latency, status].into_iter().for_each(Vec::clear);
        usage_starts.clear();
        self.items.clear();
        self.queries.clear();
        self.containers.clear();
        let Self { counts, fallback, exception, head_len, .. } = self;
        (*exception, *head_len) = (None, 0);
        for counts in [counts, fallback] {
            if !counts.is_empty() {
                *counts = Reported::default();
            }
        }
        self.marks = Marks::default();
    }

    pub fn keep_head(&mut self, part: &[u8]) {
        for &byte in part.iter().filter(|byte| **byte != b'\n').take(self.head.len()) {
            if let Some(place) = self.head.get_mut(self.head_len) {
                *place = byte;
                self.head_len += 1;
            }
        }
    }

    pub fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or_default().trim_ascii()
    }

    pub fn kind_is(&self, kind: &str) -> bool {
        text::decode(&self.kind).is_some_and(|text| text == kind)
    }

    /// The usage objects of the event, in order.
    pub fn usages(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.usage_starts.iter().skip(1).copied().chain(std::iter::once(self.usage.len()));
        self.usage_starts.iter().zip(ends).filter_map(|(start, end)| self.usage.get(*start..end))
    }

    pub fn is_usage_only(&self) -> bool {
        self.marks.committed && !self.usage.is_empty() && self.marks.choices && !self.ruled_out()
    }

    /// Something was seen that a usage-only event does not have.
    pub fn ruled_out(&self) -> bool {
        self.marks.skipped || self.marks.choice || self.marks.has_error || self.marks.broken
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
            Slot::ItemType => (&mut self.item.kind, TEXT_BYTES_MAX),
            Slot::ItemName => (&mut self.item.name, TEXT_BYTES_MAX),
            Slot::ToolType => (&mut self.tool.kind, TEXT_BYTES_MAX),
            Slot::ToolModel => (&mut self.tool.name, TEXT_BYTES_MAX),
            Slot::StopReason => (&mut self.stop_reason, TEXT_BYTES_MAX),
            Slot::RefusalCategory => (&mut self.refusal, TEXT_BYTES_MAX),
            Slot::Latency => (&mut self.latency, TEXT_BYTES_MAX),
            Slot::StatusCode => (&mut self.status, NUMBER_BYTES_MAX),
            Slot::Queries => (self.queries.last_mut()?, QUERIES_BYTES_MAX),
            Slot::Metrics => (&mut self.metrics, USAGE_BYTES_MAX),
            Slot::Container => (self.containers.last_mut()?, TEXT_BYTES_MAX),
            Slot::Set(_) | Slot::Add(_) | Slot::Begun(_) => (&mut self.number, NUMBER_BYTES_MAX),
            Slot::Finish | Slot::Choice | Slot::Item | Slot::Tool | Slot::Each(_) | Slot::Ignored => return None,
            Slot::WebSource | Slot::MapSource => return None,
        })
    }
}

impl Visit<Slot> for Event {
    fn begin(&mut self, slot: Slot, _at: u64, first: u8) {
        let null = first == b'n';
        self.marks.passed_over = null;
        match slot {
            Slot::Choice if first == b'[' => self.marks.choices = true,
            Slot::Choice => self.marks.choice = true,
            Slot::Finish | Slot::StopReason => self.marks.finish |= !null,
            Slot::Item => {
                self.marks.content |= first != b'[';
                self.item.clear();
            }
            Slot::ItemType => self.marks.content = true,
            Slot::Tool => self.tool.clear(),
            Slot::WebSource => self.marks.web_source |= !null,
            Slot::MapSource => self.marks.map_source |= !null,
            Slot::Queries if self.queries.len() == ITEMS_MAX => self.marks.passed_over = true,
            Slot::Queries if !null => self.queries.push(vec![]),
            Slot::Container if !null && self.containers.len() < CONTAINERS_MAX => self.containers.push(vec![]),
            Slot::Error => self.marks.has_error |= matches!(first, b'{' | b'"'),
            _ => {}
        }
        self.marks.wanted |= matches!(slot, Slot::Usage | Slot::Error | Slot::Metrics) && !null;
        if self.marks.passed_over {
            // It does not undo a value: some write usage in one place and null in another.
        } else if slot == Slot::Usage {
            // Groq and others state usage in two places; the later object is merged over the earlier.
            self.marks.passed_over = self.usage_starts.len() == USAGES_MAX;
            self.marks.too_long |= self.marks.passed_over;
            if !self.marks.passed_over {
                self.usage_starts.push(self.usage.len());
            }
        } else if let Some((buffer, _)) = self.buffer(slot) {
            buffer.clear();
        }
    }

    fn bytes(&mut self, slot: Slot, piece: &[u8]) {
        if self.marks.passed_over {
            return;
        }
        let Some((buffer, max)) = self.buffer(slot) else { return };
        if buffer.len() + piece.len() <= max {
            buffer.extend_from_slice(piece);
        } else {
            // What is left of a value is no value. Usage objects before this one stay.
            let start = if slot == Slot::Usage { self.usage_starts.pop() } else { None };
            if let Some((buffer, _)) = self.buffer(slot) {
                buffer.truncate(start.unwrap_or(0));
            }
            self.marks.passed_over = true;
            self.marks.too_long |= slot != Slot::Error;
        }
    }

    fn end(&mut self, slot: Slot, _at: u64) {
        match slot {
            Slot::Item => self.end_item(),
            Slot::Tool => self.end_tool(),
            Slot::Begun(field) if !self.marks.passed_over => match begun(&self.number) {
                Some(count) => self.fallback.set(field, count),
                None => self.marks.bad_count = true,
            },
            Slot::Each(field) if !self.marks.passed_over => {
                self.fallback.set(field, self.fallback.of(field).unwrap_or(0).saturating_add(1));
            }
            Slot::Set(field) | Slot::Add(field) if !self.marks.passed_over => {
                // A fraction of zero is tolerated, as in usage objects.
                let text = std::str::from_utf8(&self.number).unwrap_or_default();
                let whole = text.split_once('.').filter(|(_, part)| !part.is_empty() && part.bytes().all(|digit| digit == b'0'));
                let count = whole.map_or(text, |(whole, _)| whole).parse::<u64>().ok();
                let before = if slot == Slot::Add(field) { self.counts.of(field).unwrap_or(0) } else { 0 };
                match count {
                    Some(count) => self.counts.set(field, before.saturating_add(count)),
                    None => self.marks.bad_count = true,
                }
            }
            _ => {}
        }
    }
}

/// A decimal number rounded up, in quotes or not.
fn begun(raw: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(raw).ok()?.trim_matches('"');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = !fraction.is_empty() && fraction.bytes().all(|digit| digit.is_ascii_digit());
    let begun = fraction.bytes().any(|digit| digit != b'0');
    whole.parse::<u64>().ok().filter(|_| digits)?.checked_add(u64::from(begun))
}

impl Event {
    /// Takes over an item that ended, or that no list holds.
    pub fn end_item(&mut self) {
        if self.item.kind.is_empty() {
            return;
        }
        let item = std::mem::take(&mut self.item);
        if let Some((_, count)) = self.items.iter_mut().find(|(known, _)| *known == item) {
            *count += 1;
        } else if self.items.len() < ITEMS_MAX {
            self.items.push((item, 1));
        } else {
            self.marks.many_items = true;
        }
    }

    fn end_tool(&mut self) {
        let is = |kind: &str| text::decode(&self.tool.kind).is_some_and(|known| known.starts_with(kind));
        let (preview, image) = (is("web_search_preview"), is("image_generation"));
        self.marks.search_preview |= preview;
        if image {
            self.image_model.clone_from(&self.tool.name);
        }
    }

    /// Kinds of items, and how many there are of each.
    pub fn items(&self) -> &[(Item, u64)] {
        &self.items
    }

    /// An error code stated by a response with status 200.
    pub fn failed_status(&self) -> Option<&str> {
        std::str::from_utf8(&self.status).ok().map(|code| code.trim_matches('"')).filter(|code| !matches!(*code, "" | "0"))
    }
}
