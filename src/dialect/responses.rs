//! OpenAI Responses. <https://platform.openai.com/docs/api-reference/responses/object> and `…/responses-streaming`.

use super::{DELTA, ERROR, Grammar, Slot, USAGE, UsagePath};
use crate::json::Want::{self, Fields, Items, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static COMPLETED: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"response.completed\""));
static INCOMPLETE: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"response.incomplete\""));
static FAILED: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"response.failed\""));

/// Streams repeat the whole response object, with usage once it is completed, incomplete or failed.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("type", Take(Slot::Type)),
        ("response", Fields(RESPONSE)),
        ("usage", Take(Slot::Usage)),
        ("tool_usage", Take(Slot::ToolUsage)),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        // Of `error` events on a WebSocket.
        ("response_id", Take(Slot::Id)),
        ("service_tier", Take(Slot::Tier)),
        ("error", Take(Slot::Error)),
        ("output", Items(Slot::Output, &ITEM)),
    ]),
    usage: &[USAGE_PATHS],
    cache: Cache::Inside,
    needles: &[&USAGE, &ERROR],
    last_types: &["response.completed", "response.incomplete", "response.failed"],
    marks: &[&COMPLETED, &INCOMPLETE, &FAILED],
    text: &[&DELTA],
    ..Grammar::NONE
};

pub(super) const USAGE_PATHS: &[UsagePath] = &[
    (&["input_tokens"], Field::Input),
    (&["output_tokens"], Field::Output),
    (&["total_tokens"], Field::Total),
    (&["input_tokens_details", "cached_tokens"], Field::CacheRead),
    (&["input_tokens_details", "cache_write_tokens"], Field::CacheWrite),
    (&["input_tokens_details", "audio_tokens"], Field::AudioIn),
    (&["input_tokens_details", "image_tokens"], Field::ImageIn),
    (&["output_tokens_details", "reasoning_tokens"], Field::Reasoning),
    (&["output_tokens_details", "audio_tokens"], Field::AudioOut),
    (&["output_tokens_details", "image_tokens"], Field::ImageOut),
];

pub(super) const RESPONSE: &[(&str, Want<Slot>)] = &[
    ("usage", Take(Slot::Usage)),
    ("tool_usage", Take(Slot::ToolUsage)),
    ("model", Take(Slot::Model)),
    ("id", Take(Slot::Id)),
    ("service_tier", Take(Slot::Tier)),
    ("error", Take(Slot::Error)),
    ("output", Items(Slot::Output, &ITEM)),
];

/// Calls of built-in tools are counted from the output where `tool_usage` is not given.
static ITEM: Want<Slot> = Fields(&[
    ("type", Take(Slot::OutputType)),
    ("action", Fields(&[("type", Take(Slot::OutputAction))])),
    ("container_id", Take(Slot::Container)),
]);
