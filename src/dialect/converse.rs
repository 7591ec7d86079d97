//! Bedrock's Converse and ConverseStream.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>

use super::{Detail, Grammar, INPUT, Slot, TEXT, UsagePath};
use crate::json::Want::{Fields, Take};
use crate::usage::{Cache, Field, Reasoning};

/// Streams state the usage once, in a `metadata` message after `messageStop`.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("usage", Take(Slot::Usage)),
        ("stopReason", Take(Slot::Finish)),
        ("serviceTier", Fields(&[("type", Take(Slot::Tier))])),
        ("trace", Fields(&[("promptRouter", Fields(&[("invokedModelId", Take(Slot::Model))]))])),
    ]),
    usage: &[USAGE_PATHS],
    details: DETAILS,
    cache: Cache::Beside,
    reasoning: Some(Reasoning::Inside),
    last_types: &["metadata"],
    messages: &["metadata", "messageStop"],
    text: &[&TEXT, &INPUT],
    ..Grammar::NONE
};

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

const DETAILS: &[Detail] =
    &[Detail { list: "cacheDetails", key: "ttl", value: "1h", count: "inputTokens", field: Field::CacheWrite1h, sign: 1 }];

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
