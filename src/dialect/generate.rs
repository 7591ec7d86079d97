//! Google's generateContent, at Google AI and Vertex, with the embeddings beside it.
//! <https://ai.google.dev/api/generate-content>, <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>

use super::{Detail, ERROR, Grammar, Slot, TEXT, UsagePath};
use crate::json::Want::{Fields, Items, Take};
use crate::usage::{Cache, Field, Reasoning};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static USAGE_METADATA: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"usageMetadata\""));
static FINISH: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"finishReason\""));
static BLOCKED: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"blockReason\""));

/// Nearly every chunk carries usage, and it is not monotonic: the last object that has counts replaces the others.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("usageMetadata", Take(Slot::Usage)),
        ("modelVersion", Take(Slot::Model)),
        ("responseId", Take(Slot::Id)),
        ("error", Take(Slot::Error)),
        ("candidates", Items(Slot::Ignored, &Fields(&[("finishReason", Take(Slot::Finish))]))),
        ("promptFeedback", Fields(&[("blockReason", Take(Slot::Finish))])),
        // Embeddings at Vertex.
        (
            "predictions",
            Items(
                Slot::Ignored,
                &Fields(&[("embeddings", Fields(&[("statistics", Fields(&[("token_count", Take(Slot::Add(Field::Input)))]))]))]),
            ),
        ),
    ]),
    usage: &[USAGE_PATHS],
    details: DETAILS,
    cache: Cache::Inside,
    reasoning: Some(Reasoning::Beside),
    replaces: true,
    needles: &[&USAGE_METADATA, &FINISH, &BLOCKED, &ERROR],
    text: &[&TEXT],
    ..Grammar::NONE
};

const USAGE_PATHS: &[UsagePath] = &[
    (&["promptTokenCount"], Field::Input),
    (&["toolUsePromptTokenCount"], Field::ToolInput),
    (&["candidatesTokenCount"], Field::Output),
    (&["thoughtsTokenCount"], Field::Reasoning),
    (&["cachedContentTokenCount"], Field::CacheRead),
    (&["totalTokenCount"], Field::Total),
];

/// Cached tokens of a modality leave that modality. Documents are read as images:
/// <https://ai.google.dev/gemini-api/docs/document-processing>.
const DETAILS: &[Detail] = &[
    modality("promptTokensDetails", "AUDIO", Field::AudioIn, 1),
    modality("promptTokensDetails", "IMAGE", Field::ImageIn, 1),
    modality("promptTokensDetails", "DOCUMENT", Field::ImageIn, 1),
    modality("promptTokensDetails", "VIDEO", Field::VideoIn, 1),
    modality("cacheTokensDetails", "AUDIO", Field::CacheReadAudio, 1),
    modality("cacheTokensDetails", "AUDIO", Field::AudioIn, -1),
    modality("cacheTokensDetails", "IMAGE", Field::ImageIn, -1),
    modality("cacheTokensDetails", "DOCUMENT", Field::ImageIn, -1),
    modality("cacheTokensDetails", "VIDEO", Field::VideoIn, -1),
    modality("candidatesTokensDetails", "AUDIO", Field::AudioOut, 1),
    modality("candidatesTokensDetails", "IMAGE", Field::ImageOut, 1),
];

const fn modality(list: &'static str, value: &'static str, field: Field, sign: i64) -> Detail {
    Detail { list, key: "modality", value, count: "tokenCount", field, sign }
}

/// The `status` Google gives an error: <https://cloud.google.com/apis/design/errors#handling_errors>.
pub fn error_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        502 | 503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}
