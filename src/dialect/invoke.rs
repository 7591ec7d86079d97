//! Bedrock's InvokeModel and InvokeModelWithResponseStream: the native body of whichever model family was asked.
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html>

use super::{Grammar, Node, PARTIAL_JSON, Slot, TEXT, THINKING, UsagePath, chat, messages};
use crate::json::Want::{self, Fields, Items, Take};
use crate::usage::{Cache, Field, Reasoning};
use http::HeaderName;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));

/// Where the native body has no usage, `amazon-bedrock-invocationMetrics` of the last chunk or the headers do.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        // Anthropic, as in Messages; OpenAI's open models; Nova without streaming.
        ("usage", Take(Slot::Usage)),
        ("message", Fields(&[("usage", Take(Slot::Usage)), ("id", Take(Slot::Id)), ("model", Take(Slot::Model))])),
        ("delta", Fields(&[("stop_reason", Take(Slot::StopReason)), ("stop_details", messages::STOP_DETAILS)])),
        ("stop_details", messages::STOP_DETAILS),
        ("content", Items(Slot::Item, &messages::ITEM)),
        ("content_block", Fields(messages::ITEM_FIELDS)),
        ("type", Take(Slot::Type)),
        ("id", Take(Slot::Id)),
        ("model", Take(Slot::Model)),
        ("error", Take(Slot::Error)),
        // Nova's stream.
        ("metadata", Fields(&[("usage", Take(Slot::Usage))])),
        ("messageStop", Fields(&[("stopReason", Take(Slot::Finish))])),
        // Titan.
        ("inputTextTokenCount", Take(Slot::Set(Field::Input))),
        ("totalOutputTextTokenCount", Take(Slot::Set(Field::Output))),
        ("results", Items(Slot::Ignored, &Fields(&[("tokenCount", Take(Slot::Add(Field::Output)))]))),
        ("completionReason", Take(Slot::Finish)),
        // Llama.
        ("prompt_token_count", Take(Slot::Set(Field::Input))),
        ("generation_token_count", Take(Slot::Set(Field::Output))),
        ("stop_reason", Take(Slot::StopReason)),
        ("amazon-bedrock-invocationMetrics", Take(Slot::Metrics)),
    ]),
    usage: &[messages::USAGE_PATHS, USAGE_PATHS],
    informational: &[messages::INFORMATIONAL, chat::INFORMATIONAL],
    tree: &TREE,
    tools: messages::TOOLS,
    cumulative: true,
    metrics: &METRICS_TREE,
    cache: Cache::Beside,
    reasoning: Some(Reasoning::Inside),
    last_types: &["message_stop"],
    wrapped: true,
    text: &[&TEXT, &PARTIAL_JSON, &THINKING],
    ..Grammar::NONE
};

/// What other families than Anthropic's say.
const USAGE_PATHS: &[UsagePath] = &[
    (&["prompt_tokens"], Field::Input),
    (&["completion_tokens"], Field::Output),
    (&["total_tokens"], Field::Total),
    (&["completion_tokens_details", "reasoning_tokens"], Field::Reasoning),
    (&["inputTokens"], Field::Input),
    (&["outputTokens"], Field::Output),
    (&["totalTokens"], Field::Total),
    (&["cacheReadInputTokenCount"], Field::CacheRead),
    (&["cacheWriteInputTokenCount"], Field::CacheWrite),
];

static METRICS_TREE: Lazy<Node> = Lazy::new(|| Node::new(&[METRICS], &[], &[], &[]));

const METRICS: &[UsagePath] = &[
    (&["inputTokenCount"], Field::Input),
    (&["outputTokenCount"], Field::Output),
    (&["cacheReadInputTokenCount"], Field::CacheRead),
    (&["cacheWriteInputTokenCount"], Field::CacheWrite),
];

/// The same numbers in headers, where the body has none: input is what no cache touched.
/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html>
pub static HEADERS: [(HeaderName, Field); 4] = [
    (HeaderName::from_static("x-amzn-bedrock-input-token-count"), Field::Input),
    (HeaderName::from_static("x-amzn-bedrock-output-token-count"), Field::Output),
    (HeaderName::from_static("x-amzn-bedrock-cache-read-input-token-count"), Field::CacheRead),
    (HeaderName::from_static("x-amzn-bedrock-cache-write-input-token-count"), Field::CacheWrite),
];

/// What a chunk of a stream wraps.
pub static WRAPPER: Want<()> = Fields(&[("bytes", Take(()))]);
