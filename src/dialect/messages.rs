//! Anthropic Messages. <https://docs.anthropic.com/en/api/messages>, <https://docs.anthropic.com/en/docs/build-with-claude/streaming>

use super::{ERROR, Grammar, PARTIAL_JSON, STOP_REASON, Slot, TEXT, THINKING, USAGE, UsagePath};
use crate::json::Want::{self, Fields, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static STOP: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"message_stop\""));

/// `message_start` opens with placeholders; `message_delta` is cumulative and replaces them field by field.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("type", Take(Slot::Type)),
        ("usage", Take(Slot::Usage)),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        ("error", Take(Slot::Error)),
        ("stop_reason", Take(Slot::Finish)),
        ("container", CONTAINER),
        ("delta", Fields(&[("stop_reason", Take(Slot::Finish)), ("container", CONTAINER)])),
        (
            "message",
            Fields(&[("usage", Take(Slot::Usage)), ("model", Take(Slot::Model)), ("id", Take(Slot::Id)), ("container", CONTAINER)]),
        ),
    ]),
    usage: &[USAGE_PATHS],
    cache: Cache::Beside,
    needles: &[&USAGE, &STOP_REASON, &ERROR],
    last_types: &["message_stop"],
    marks: &[&STOP],
    text: &[&TEXT, &PARTIAL_JSON, &THINKING],
    ..Grammar::NONE
};

/// Where code ran: <https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool>.
const CONTAINER: Want<Slot> = Fields(&[("id", Take(Slot::Container))]);

pub(super) const USAGE_PATHS: &[UsagePath] = &[
    (&["input_tokens"], Field::Input),
    (&["output_tokens"], Field::Output),
    (&["cache_read_input_tokens"], Field::CacheRead),
    (&["cache_creation_input_tokens"], Field::CacheWrite),
    (&["cache_creation", "ephemeral_5m_input_tokens"], Field::CacheWrite5m),
    (&["cache_creation", "ephemeral_1h_input_tokens"], Field::CacheWrite1h),
    (&["output_tokens_details", "thinking_tokens"], Field::Reasoning),
    (&["server_tool_use", "web_search_requests"], Field::WebSearch),
];

/// The `type` Anthropic gives an error of this status.
pub fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}
