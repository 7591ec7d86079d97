//! Anthropic Messages. <https://docs.anthropic.com/en/api/messages>, <https://docs.anthropic.com/en/docs/build-with-claude/streaming>

use super::{Billing, ERROR, Grammar, Informational, Node, PARTIAL_JSON, STOP_REASON, Slot, TEXT, THINKING, Tool, USAGE, UsagePath};
use crate::json::Want::{self, Fields, Items, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));
static STOP: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"message_stop\""));

/// `message_start` opens with placeholders; `message_delta` is cumulative and replaces them field by field.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("type", Take(Slot::Type)),
        ("usage", Take(Slot::Usage)),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        ("error", Take(Slot::Error)),
        ("stop_reason", Take(Slot::StopReason)),
        ("stop_details", STOP_DETAILS),
        ("content", Items(Slot::Item, &ITEM)),
        ("content_block", Fields(ITEM_FIELDS)),
        ("container", CONTAINER),
        ("delta", Fields(&[("stop_reason", Take(Slot::StopReason)), ("stop_details", STOP_DETAILS), ("container", CONTAINER)])),
        (
            "message",
            Fields(&[("usage", Take(Slot::Usage)), ("model", Take(Slot::Model)), ("id", Take(Slot::Id)), ("container", CONTAINER)]),
        ),
    ]),
    usage: &[USAGE_PATHS],
    informational: &[INFORMATIONAL],
    tree: &TREE,
    tools: TOOLS,
    openings: OPENINGS,
    closings: &[b"{\"type\":\"content_block_stop\"", b"{\"type\": \"content_block_stop\""],
    reopenings: OPENINGS,
    cumulative: true,
    cache: Cache::Beside,
    needles: &[&USAGE, &STOP_REASON, &ERROR],
    last_types: &["message_stop"],
    marks: &[&STOP],
    text: &[&TEXT, &PARTIAL_JSON, &THINKING],
    ..Grammar::NONE
};

/// Where code ran: <https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool>.
const CONTAINER: Want<Slot> = Fields(&[("id", Take(Slot::Container))]);

pub(super) const STOP_DETAILS: Want<Slot> = Fields(&[("category", Take(Slot::RefusalCategory))]);
pub(super) static ITEM: Want<Slot> = Fields(ITEM_FIELDS);
pub(super) const ITEM_FIELDS: &[(&str, Want<Slot>)] = &[("type", Take(Slot::ItemType)), ("name", Take(Slot::ItemName))];
/// How Anthropic writes the events that open a block of content.
pub(super) const OPENINGS: &[&[u8]] = &[b"{\"type\":\"content_block_start\"", b"{\"type\": \"content_block_start\""];

/// <https://docs.claude.com/en/docs/agents-and-tools/tool-use/web-fetch-tool#usage-and-pricing>.
pub(super) const INFORMATIONAL: &[Informational] = &[
    Informational { path: &["server_tool_use", "web_fetch_requests"], why: "fetches cost the tokens that they bring in, and no fee" },
    Informational { path: &["iterations", "*"], why: "read one by one, as lines" },
];

/// Blocks of content: <https://docs.claude.com/en/api/messages>. Code execution is missing on purpose: it is charged by the hour beyond an
/// allowance of the organization, which no response states
/// (<https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool>).
pub(super) const TOOLS: &[Tool] = &[
    Tool::free("text"),
    Tool::free("thinking"),
    Tool::free("redacted_thinking"),
    Tool::free("tool_use"),
    Tool::free("compaction"),
    Tool::free("fallback"),
    Tool::free("container_upload"),
    Tool { kind: "server_tool_use", name: Some("web_search"), billing: Billing::Usage(Field::WebSearch) },
    Tool { kind: "server_tool_use", name: Some("web_fetch"), billing: Billing::Free },
    Tool { kind: "server_tool_use", name: Some("tool_search_tool_bm25"), billing: Billing::Free },
    Tool { kind: "server_tool_use", name: Some("tool_search_tool_regex"), billing: Billing::Free },
    // Its rounds are lines of their own.
    Tool { kind: "server_tool_use", name: Some("advisor"), billing: Billing::Free },
    Tool::free("mcp_tool_use"),
    Tool::free("mcp_tool_result"),
    Tool::free("web_search_tool_result"),
    Tool::free("web_fetch_tool_result"),
    Tool::free("tool_search_tool_result"),
    Tool::free("advisor_tool_result"),
    Tool::free("code_execution_tool_result"),
    Tool::free("bash_code_execution_tool_result"),
    Tool::free("text_editor_code_execution_tool_result"),
];

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
