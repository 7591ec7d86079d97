//! Bedrock's Converse and ConverseStream.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>

use super::{Detail, Grammar, INPUT, Node, Slot, TEXT, Tool, UsagePath};
use crate::json::Want::{self, Fields, Items, Take};
use crate::usage::{Cache, Field, Reasoning};
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));

/// Streams state the usage once, in a `metadata` message after `messageStop`.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("usage", Take(Slot::Usage)),
        ("stopReason", Take(Slot::Finish)),
        ("serviceTier", Fields(&[("type", Take(Slot::Tier))])),
        // Latency-optimized inference has prices of its own: https://aws.amazon.com/bedrock/pricing/
        ("performanceConfig", Fields(&[("latency", Take(Slot::Latency))])),
        ("output", Fields(&[("message", Fields(&[("content", Items(Slot::Item, &Fields(&[("toolUse", TOOL_USE)])))]))])),
        ("start", Fields(&[("toolUse", TOOL_USE)])),
        ("trace", Fields(&[("promptRouter", Fields(&[("invokedModelId", Take(Slot::Model))]))])),
    ]),
    usage: &[USAGE_PATHS],
    tree: &TREE,
    tools: TOOLS,
    details: DETAILS,
    cache: Cache::Beside,
    reasoning: Some(Reasoning::Inside),
    last_types: &["metadata"],
    messages: &["metadata", "messageStop", "contentBlockStart"],
    text: &[&TEXT, &INPUT],
    ..Grammar::NONE
};

/// A `type` says that the provider runs the tool:
/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolUseBlock.html>.
const TOOL_USE: Want<Slot> = Fields(&[("type", Take(Slot::ItemType)), ("name", Take(Slot::ItemName))]);
/// Grounding and code interpreters (Nova) have fees that no response states.
const TOOLS: &[Tool] = &[Tool::free("tool_use")];

/// `…TokenCount` is a second spelling of the same number.
const USAGE_PATHS: &[UsagePath] = &[
    (&["inputTokens"], Field::Input),
    (&["outputTokens"], Field::Output),
    (&["totalTokens"], Field::Total),
    (&["cacheReadInputTokens"], Field::CacheRead),
    (&["cacheReadInputTokenCount"], Field::CacheRead),
    (&["cacheWriteInputTokens"], Field::CacheWrite),
    (&["cacheWriteInputTokenCount"], Field::CacheWrite),
];

const DETAILS: &[Detail] = &[written("1h", Some(Field::CacheWrite1h)), written("5m", None)];

const fn written(value: &'static str, field: Option<Field>) -> Detail {
    Detail { list: "cacheDetails", key: "ttl", value, count: "inputTokens", field, sign: 1 }
}

/// The error type AWS gives an answer of this status, as `x-amzn-errortype` names it:
/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors>.
pub fn error_type(status: u16) -> &'static str {
    match status {
        401 | 403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 | 504 => "ModelTimeoutException",
        429 => "ThrottlingException",
        502 | 503 => "ServiceUnavailableException",
        500.. => "InternalServerException",
        _ => "ValidationException",
    }
}
