//! Server-side tools that a response shows to have run: how often each is charged, and which are unknown.

use super::event::{Event, TEXT_BYTES_MAX};
use super::fault::Fault;
use super::found::Found;
use super::rounds::{Round, RoundKind};
use super::usage_object::{PATH_BYTES_MAX, Reading, UNKNOWN_MAX, count};
use crate::dialect::{Billing, Grammar, IMAGE_MODEL, IMAGE_USAGE, TOOL_USAGE, Tool};
use crate::json::text;
use crate::printable::printable;
use crate::usage::{Field, Reported};
use simd_json::prelude::*;

/// Search queries that one response is charged for at most; more are marked.
const QUERIES_MAX: usize = 256;

impl Found {
    /// The items of an event's content: notes what is unknown, and what must be in the usage.
    pub(super) fn read_items(&mut self, event: &Event, grammar: &Grammar) {
        self.has_content |= event.marks.content;
        if event.marks.many_items {
            self.faults.add(Fault::UnknownTool);
        }
        if event.marks.map_source {
            self.unknown_tool("google_maps", "");
        }
        for (item, times) in event.items() {
            let Some((kind, name)) = item.text() else {
                self.faults.add(Fault::UnknownTool);
                continue;
            };
            match Tool::find(grammar.tools, &kind, &name).map(|tool| tool.billing) {
                Some(Billing::Usage(field)) => self.counted_tool(&kind, field),
                // Of an item by itself; the event with the usage has all of them.
                Some(Billing::Call(field)) if event.usages().next().is_none() => {
                    self.calls.increase(field, *times);
                }
                Some(Billing::Image) => self.made_pictures = true,
                Some(_) => {}
                None => self.unknown_tool(&kind, &name),
            }
        }
    }

    fn counted_tool(&mut self, kind: &str, field: Field) {
        if self.counted_tools.len() < UNKNOWN_MAX && !self.counted_tools.iter().any(|(_, known)| *known == field) {
            self.counted_tools.push((kind.to_owned(), field));
        }
    }

    /// Marks a tool; its name is kept within bounds.
    pub fn unknown_tool(&mut self, kind: &str, name: &str) {
        self.faults.add(Fault::UnknownTool);
        let dot = if name.is_empty() { "" } else { "." };
        let mut text = printable(&format!("tool.{kind}{dot}{name}")).into_owned();
        text.truncate(text.floor_char_boundary(PATH_BYTES_MAX));
        self.keep_unknown([text]);
    }

    /// Counts calls by their items, where the usage does not state them.
    pub(super) fn count_items(&mut self, event: &Event, grammar: &Grammar, reported: &mut Reported) {
        let mut calls = Reported::default();
        for (item, times) in event.items() {
            let Some((kind, name)) = item.text() else { continue };
            if let Some(Billing::Call(field)) = Tool::find(grammar.tools, &kind, &name).map(|tool| tool.billing) {
                calls.increase(field, *times);
            }
        }
        let counted = !calls.is_empty() || !self.calls.is_empty();
        for field in Field::ALL.iter().copied().filter(|_| counted) {
            // The last event repeats the items of those before it, but not always.
            let Some(counted) = calls.of(field).max(self.calls.of(field)) else { continue };
            match reported.of(field) {
                None => reported.set(field, counted),
                Some(stated) if stated < counted => self.faults.add(Fault::Inconsistent),
                Some(_) => {}
            }
        }
        if self.made_pictures && self.images.is_none() {
            self.unknown_tool("image_generation_call", "");
        }
        if event.marks.search_preview
            && let Some(searches) = reported.of(Field::WebSearch)
        {
            reported.clear(Field::WebSearch);
            reported.set(Field::WebSearchPreview, searches);
        }
    }

    /// `tool_usage` of the Responses API: <https://platform.openai.com/docs/api-reference/responses/object>.
    pub(super) fn read_tool_usage(&mut self, event: &Event, reported: &mut Reported) {
        if event.tool_usage.is_empty() {
            return;
        }
        let mut raw = event.tool_usage.clone();
        let Ok(tape) = simd_json::to_tape(&mut raw) else { return self.faults.add(Fault::Malformed) };
        let value = tape.as_value();
        reported.merge(&self.take_reading(Reading::of(&TOOL_USAGE, value, "tool_usage")));
        let Some(images) = value.get("image_gen").filter(|images| images.is_object()) else { return };
        if images.get("output_tokens").and_then(count).unwrap_or(0) == 0 {
            return;
        }
        let reported = self.take_reading(Reading::of(&IMAGE_USAGE, images, "tool_usage.image_gen"));
        let model = text::decode(&event.image_model).filter(|model| !model.is_empty()).unwrap_or(IMAGE_MODEL.into());
        self.images =
            Some(Round { kind: RoundKind::Other, model: model.into_owned(), reported }).filter(|round| !round.reported.is_empty());
    }

    /// Queries of a grounded response. A stream repeats them.
    pub(super) fn read_queries(&mut self, event: &Event) {
        self.cites_web |= event.marks.web_source;
        for raw in &event.queries {
            let Ok(queries) = serde_json::from_slice::<Vec<String>>(raw) else {
                self.faults.add(Fault::Malformed);
                continue;
            };
            for query in queries.into_iter().filter(|query| !query.trim().is_empty()) {
                if self.queries.len() == QUERIES_MAX {
                    self.faults.add(Fault::TooLong);
                } else if query.len() > TEXT_BYTES_MAX || !self.queries.contains(&query) {
                    let end = query.floor_char_boundary(TEXT_BYTES_MAX);
                    self.queries.push(query.get(..end).unwrap_or_default().to_owned());
                }
            }
        }
    }

    /// A refusal at the end of a response without content.
    pub(super) fn read_refusal(&mut self, event: &Event) {
        if text::decode(&event.stop_reason).is_some_and(|reason| reason == "refusal") && !self.has_content {
            self.refusal = Some(text::decode(&event.refusal).map_or_else(|| "null".to_owned(), std::borrow::Cow::into_owned));
        }
    }
}
