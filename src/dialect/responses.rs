//! OpenAI Responses. <https://platform.openai.com/docs/api-reference/responses/object> and `…/responses-streaming`.

use super::{Billing, DELTA, ERROR, Grammar, Informational, Node, Slot, TEXT, Tool, USAGE, UsagePath, chat};
use crate::json::Want::{self, Fields, Items, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));
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
        // In `error` events on a WebSocket.
        ("response_id", Take(Slot::Id)),
        ("service_tier", Take(Slot::Tier)),
        ("error", Take(Slot::Error)),
        ("output", Items(Slot::Item, &ITEM)),
        // Of `response.output_item.done`.
        ("item", Fields(ITEM_FIELDS)),
        ("tools", Items(Slot::Tool, &TOOL)),
    ]),
    usage: &[USAGE_PATHS],
    parts: chat::PARTS,
    informational: &[INFORMATIONAL, chat::INFORMATIONAL],
    tree: &TREE,
    tools: TOOLS,
    openings: &[b"{\"type\":\"response.output_item.done\"", b"{\"type\": \"response.output_item.done\""],
    closings: CLOSINGS,
    reopenings: &[
        b"{\"type\":\"response.output_item.added\"",
        b"{\"type\": \"response.output_item.added\"",
        b"{\"type\":\"response.content_part.added\"",
        b"{\"type\": \"response.content_part.added\"",
    ],
    cache: Cache::Inside,
    needles: &[&USAGE, &ERROR],
    last_types: &["response.completed", "response.incomplete", "response.failed"],
    marks: &[&COMPLETED, &INCOMPLETE, &FAILED],
    text: &[&DELTA],
    document_text: &[&TEXT],
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
    ("output", Items(Slot::Item, &ITEM)),
    ("tools", Items(Slot::Tool, &TOOL)),
];

const CLOSINGS: &[&[u8]] = &[
    b"{\"type\":\"response.output_text.done\"",
    b"{\"type\": \"response.output_text.done\"",
    b"{\"type\":\"response.refusal.done\"",
    b"{\"type\": \"response.refusal.done\"",
    b"{\"type\":\"response.content_part.done\"",
    b"{\"type\": \"response.content_part.done\"",
    b"{\"type\":\"response.output_item.done\"",
    b"{\"type\": \"response.output_item.done\"",
    b"{\"type\":\"response.function_call_arguments.done\"",
    b"{\"type\": \"response.function_call_arguments.done\"",
];

pub(super) const INFORMATIONAL: &[Informational] = &[
    Informational { path: &["input_tokens_details", "text_tokens"], why: "text is what remains of the input" },
    Informational { path: &["output_tokens_details", "text_tokens"], why: "text is what remains of the output" },
];

/// The numbers of `tool_usage`.
pub(crate) static TOOL_USAGE: Lazy<Node> = Lazy::new(|| {
    let fields: &[UsagePath] = &[(&["web_search", "num_requests"], Field::WebSearch)];
    Node::new(&[fields], &[], &[&[Informational { path: &["image_gen", "*"], why: "a line of its own" }]], &[])
});
/// The numbers of `tool_usage.image_gen`, of a model of its own.
pub(crate) static IMAGE_USAGE: Lazy<Node> = Lazy::new(|| Node::new(&[USAGE_PATHS], &[], &[INFORMATIONAL], &[]));
/// The model of the image generation tool that names none:
/// <https://platform.openai.com/docs/api-reference/responses/create> (`tools`, image generation, `model`).
pub(crate) const IMAGE_MODEL: &str = "gpt-image-1";

/// Items of `output`: <https://platform.openai.com/docs/api-reference/responses/object>, fees in
/// <https://platform.openai.com/docs/pricing#built-in-tools>. Code interpreters and hosted shells are missing on purpose: their containers
/// have a fee by the session, which no response states.
pub(super) const TOOLS: &[Tool] = &[
    Tool::free("message"),
    Tool::free("reasoning"),
    Tool::free("function_call"),
    Tool::free("function_call_output"),
    Tool::free("custom_tool_call"),
    Tool::free("custom_tool_call_output"),
    // Only searches are charged, not pages that are opened or read: https://platform.openai.com/docs/guides/tools-web-search
    Tool { kind: "web_search_call", name: Some("search"), billing: Billing::Call(Field::WebSearch) },
    Tool { kind: "web_search_call", name: Some("open_page"), billing: Billing::Free },
    Tool { kind: "web_search_call", name: Some("find_in_page"), billing: Billing::Free },
    Tool { kind: "web_search_call", name: Some("find"), billing: Billing::Free },
    Tool { kind: "web_search_call", name: Some(""), billing: Billing::Call(Field::WebSearch) },
    Tool { kind: "file_search_call", name: None, billing: Billing::Call(Field::ToolCall) },
    Tool { kind: "image_generation_call", name: None, billing: Billing::Image },
    Tool::free("computer_call"),
    Tool::free("computer_call_output"),
    Tool::free("local_shell_call"),
    Tool::free("local_shell_call_output"),
    Tool::free("apply_patch_call"),
    Tool::free("apply_patch_call_output"),
    Tool::free("mcp_list_tools"),
    Tool::free("mcp_call"),
    Tool::free("mcp_approval_request"),
    Tool::free("mcp_approval_response"),
    Tool::free("tool_search_call"),
    Tool::free("tool_search_output"),
    Tool::free("compaction"),
    Tool::free("compaction_summary"),
    // xAI: https://docs.x.ai/docs/guides/tools/overview
    Tool { kind: "x_search_call", name: None, billing: Billing::Usage(Field::WebSearch) },
    // Perplexity: https://docs.perplexity.ai/docs/agent-api/tools
    Tool { kind: "search_results", name: None, billing: Billing::Usage(Field::WebSearch) },
    Tool { kind: "fetch_url_results", name: None, billing: Billing::Usage(Field::ToolCall) },
    // OpenRouter: https://openrouter.ai/docs/features/web-search
    Tool { kind: "openrouter:web_search", name: None, billing: Billing::Usage(Field::WebSearch) },
    Tool::free("openrouter:datetime"),
];

/// Calls of server-side tools are counted from the output where `usage` and `tool_usage` do not state them.
static ITEM: Want<Slot> = Fields(ITEM_FIELDS);
const ITEM_FIELDS: &[(&str, Want<Slot>)] =
    &[("type", Take(Slot::ItemType)), ("action", Fields(&[("type", Take(Slot::ItemName))])), ("container_id", Take(Slot::Container))];
static TOOL: Want<Slot> = Fields(&[("type", Take(Slot::ToolType)), ("model", Take(Slot::ToolModel))]);
