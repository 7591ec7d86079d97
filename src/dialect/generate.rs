//! Google's generateContent, at Google AI and Vertex, with the embeddings beside it.
//! <https://ai.google.dev/api/generate-content>, <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>

use super::{Detail, ERROR, Grammar, Informational, Node, Slot, TEXT, Tool, UsagePath};
use crate::json::Want::{self, Fields, Items, Take};
use crate::usage::{Cache, Field, Reasoning};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));
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
        ("candidates", Items(Slot::Ignored, &CANDIDATE)),
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
    informational: &[INFORMATIONAL],
    tree: &TREE,
    tools: TOOLS,
    details: DETAILS,
    cache: Cache::Inside,
    reasoning: Some(Reasoning::Beside),
    replaces: true,
    needles: &[&USAGE_METADATA, &FINISH, &BLOCKED, &ERROR],
    text: &[&TEXT],
    ..Grammar::NONE
};

static CANDIDATE: Want<Slot> = Fields(&[
    ("finishReason", Take(Slot::Finish)),
    ("content", Fields(&[("parts", Items(Slot::Item, &Fields(&[("toolCall", Fields(&[("toolType", Take(Slot::ItemType))]))])))])),
    (
        "groundingMetadata",
        Fields(&[
            ("webSearchQueries", Take(Slot::Queries)),
            ("imageSearchQueries", Take(Slot::Queries)),
            ("groundingChunks", Items(Slot::Ignored, &Fields(&[("web", Take(Slot::WebSource)), ("maps", Take(Slot::MapSource))]))),
        ]),
    ),
]);

/// Models that are charged for each grounded prompt; later ones are charged for each search query:
/// <https://ai.google.dev/gemini-api/docs/google-search#pricing>.
pub(crate) const GROUNDED_BY_PROMPT: &[&str] = &["gemini-1*", "gemini-2*", "models/gemini-1*", "models/gemini-2*"];

/// Types of `toolCall`: <https://ai.google.dev/api/caching#ToolType>. Searches are charged by their queries.
const TOOLS: &[Tool] =
    &[Tool::free("GOOGLE_SEARCH_WEB"), Tool::free("GOOGLE_SEARCH_IMAGE"), Tool::free("URL_CONTEXT"), Tool::free("FILE_SEARCH")];

const INFORMATIONAL: &[Informational] = &[Informational { path: &["pydantic_ai_gateway", "*"], why: "an estimate of another gateway" }];

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
    rest("promptTokensDetails", "TEXT"),
    rest("promptTokensDetails", UNSPECIFIED),
    // Embeddings at Google AI.
    rest("promptTokenDetails", "TEXT"),
    rest("promptTokenDetails", UNSPECIFIED),
    rest("cacheTokensDetails", "TEXT"),
    rest("cacheTokensDetails", UNSPECIFIED),
    rest("candidatesTokensDetails", "TEXT"),
    rest("candidatesTokensDetails", UNSPECIFIED),
    rest("toolUsePromptTokensDetails", "TEXT"),
    rest("toolUsePromptTokensDetails", UNSPECIFIED),
    rest("thoughtsTokensDetails", "TEXT"),
    rest("thoughtsTokensDetails", UNSPECIFIED),
];

const fn modality(list: &'static str, value: &'static str, field: Field, sign: i64) -> Detail {
    Detail { list, key: "modality", value, count: "tokenCount", field: Some(field), sign }
}

/// A modality that is charged as text: <https://ai.google.dev/api/generate-content#Modality>.
const UNSPECIFIED: &str = "MODALITY_UNSPECIFIED";

/// Text is what remains of the whole.
const fn rest(list: &'static str, value: &'static str) -> Detail {
    Detail { list, key: "modality", value, count: "tokenCount", field: None, sign: 1 }
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
