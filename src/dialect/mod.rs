//! Dialects: the request and response formats callers and providers speak. Each says where in a response the usage
//! stands, how it counts, and what the errors look like; all of it is data.

mod audio;
mod batch;
mod chat;
mod cohere;
mod converse;
mod embeddings;
mod generate;
mod grammar;
mod images;
mod invoke;
mod messages;
mod rerank;
mod responses;
mod tools;
mod usage_tree;

pub(crate) use generate::GROUNDED_BY_PROMPT;
pub use grammar::{Detail, Grammar, Slot, UsagePath};
pub use invoke::{HEADERS as INVOKE_HEADERS, WRAPPER as INVOKE_WRAPPER};
pub(crate) use responses::{IMAGE_MODEL, IMAGE_USAGE, TOOL_USAGE};
pub use tools::{Billing, Tool};
pub use usage_tree::{Informational, Meaning, Node};

use crate::usage::indexed;
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

indexed! {
    /// A request and response format.
    Dialect {
        Chat = "chat",
        Completions = "completions",
        Responses = "responses",
        Embeddings = "embeddings",
        Messages = "messages",
        Generate = "generate",
        Converse = "converse",
        Invoke = "invoke",
        Cohere = "cohere",
        Images = "images",
        Audio = "audio",
        Rerank = "rerank",
        /// Results of batches.
        Batch = "batch",
        MessageBatch = "message_batch",
    }
}

indexed! {
    /// An operation of a dialect, named by how its path ends.
    Endpoint {
        ChatCompletions = "/chat/completions",
        Completions = "/completions",
        Responses = "/responses",
        ResponsesCompact = "/responses/compact",
        ResponsesInputTokens = "/responses/input_tokens",
        Embeddings = "/embeddings",
        Messages = "/messages",
        MessagesCountTokens = "/messages/count_tokens",
        GenerateContent = ":generateContent",
        StreamGenerateContent = ":streamGenerateContent",
        EmbedContent = ":embedContent",
        BatchEmbedContents = ":batchEmbedContents",
        CountTokens = ":countTokens",
        Predict = ":predict",
        /// Anthropic's models at Vertex AI: <https://docs.claude.com/en/api/claude-on-vertex-ai>.
        RawPredict = ":rawPredict",
        StreamRawPredict = ":streamRawPredict",
        RawCountTokens = "/count-tokens:rawPredict",
        Converse = "/converse",
        ConverseStream = "/converse-stream",
        InvokeModel = "/invoke",
        InvokeModelStream = "/invoke-with-response-stream",
        BedrockCountTokens = "/count-tokens",
        CohereChat = "/v2/chat",
        CohereEmbed = "/v2/embed",
        Images = "/images/generations",
        ImageEdits = "/images/edits",
        ImageVariations = "/images/variations",
        Moderations = "/moderations",
        Speech = "/audio/speech",
        Transcriptions = "/audio/transcriptions",
        Translations = "/audio/translations",
        Rerank = "/rerank",
        CohereRerank = "/v2/rerank",
    }
}

impl Endpoint {
    /// The endpoint whose path ends `path`; the longest wins (`/chat/completions` also ends in `/completions`).
    pub fn from_path(path: &str) -> Option<Self> {
        // Most differ in their last letter.
        static BY_LAST: Lazy<[Vec<Endpoint>; 256]> = Lazy::new(|| {
            let ends_in = |last: usize| move |endpoint: &&Endpoint| endpoint.name().bytes().last().map(usize::from) == Some(last);
            let longest_first = |last| {
                let mut endpoints: Vec<Endpoint> = Endpoint::ALL.iter().filter(ends_in(last)).copied().collect();
                endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.name().len()));
                endpoints
            };
            std::array::from_fn(longest_first)
        });
        let path = path.strip_suffix('/').unwrap_or(path);
        let candidates = BY_LAST.get(usize::from(*path.as_bytes().last()?))?;
        candidates.iter().find(|endpoint| path.ends_with(endpoint.name())).copied()
    }

    pub fn dialect(self) -> Dialect {
        match self {
            Self::ChatCompletions => Dialect::Chat,
            Self::Completions => Dialect::Completions,
            Self::Responses | Self::ResponsesCompact | Self::ResponsesInputTokens => Dialect::Responses,
            Self::Embeddings | Self::CohereEmbed => Dialect::Embeddings,
            Self::Messages | Self::MessagesCountTokens => Dialect::Messages,
            Self::RawPredict | Self::StreamRawPredict | Self::RawCountTokens => Dialect::Messages,
            Self::GenerateContent
            | Self::StreamGenerateContent
            | Self::EmbedContent
            | Self::BatchEmbedContents
            | Self::CountTokens
            | Self::Predict => Dialect::Generate,
            Self::Converse | Self::ConverseStream | Self::BedrockCountTokens => Dialect::Converse,
            Self::InvokeModel | Self::InvokeModelStream => Dialect::Invoke,
            Self::CohereChat => Dialect::Cohere,
            Self::Images | Self::ImageEdits | Self::ImageVariations | Self::Moderations => Dialect::Images,
            Self::Speech | Self::Transcriptions | Self::Translations => Dialect::Audio,
            Self::Rerank | Self::CohereRerank => Dialect::Rerank,
        }
    }

    /// The model (or deployment) that a path names, percent-encoded as it stands there.
    pub fn model_in(self, path: &str) -> Option<&str> {
        // What is shorter has no room for one.
        const SHORTEST: usize = "/model/m".len();
        let before = path.strip_suffix('/').unwrap_or(path).strip_suffix(self.name()).filter(|before| before.len() >= SHORTEST)?;
        let model = match self.dialect() {
            _ if self == Self::RawCountTokens => None,
            Dialect::Messages if self.has_model_in_path() => before.rsplit_once("/publishers/anthropic/models/").map(|(_, model)| model),
            Dialect::Generate => {
                let (collection, model) = before.rsplit_once("/models/")?;
                let publisher = collection.split_once("/publishers/").map(|(_, publisher)| publisher);
                Some(model).filter(|_| publisher.is_none_or(|publisher| publisher == "google"))
            }
            Dialect::Converse | Dialect::Invoke => before.rsplit_once("/model/").map(|(_, model)| model),
            _ => before.rsplit_once("/deployments/").map(|(_, deployment)| deployment),
        };
        model.filter(|model| !model.is_empty() && !model.contains('/'))
    }

    /// True if the model stands in the path.
    pub fn has_model_in_path(self) -> bool {
        self.dialect().has_model_in_path() || matches!(self, Self::RawPredict | Self::StreamRawPredict)
    }

    /// True if the path names who publishes the model, or is Google AI's, which has the same form without it.
    pub fn is_at_publisher(self) -> bool {
        self.dialect() == Dialect::Generate || matches!(self, Self::RawPredict | Self::StreamRawPredict | Self::RawCountTokens)
    }

    /// Counting endpoints return token numbers that nobody pays for; moderation is free:
    /// <https://platform.openai.com/docs/guides/moderation>.
    pub fn is_billed(self) -> bool {
        !matches!(
            self,
            Self::ResponsesInputTokens
                | Self::MessagesCountTokens
                | Self::RawCountTokens
                | Self::CountTokens
                | Self::BedrockCountTokens
                | Self::Moderations
        )
    }

    /// True if a request may be a form with files.
    pub fn takes_form(self) -> bool {
        matches!(self, Self::ImageEdits | Self::ImageVariations | Self::Transcriptions | Self::Translations)
    }

    /// True if what it generates is text for certain: not vectors, pictures or sound, nor what only a model's name tells.
    pub fn writes(self) -> bool {
        let other = matches!(self, Self::EmbedContent | Self::BatchEmbedContents | Self::Predict | Self::InvokeModel);
        !other && !self.dialect().grammar().text.is_empty()
    }

    /// True if the answer streams whatever the body says.
    pub fn streams(self) -> bool {
        matches!(self, Self::StreamGenerateContent | Self::StreamRawPredict | Self::ConverseStream | Self::InvokeModelStream)
    }
}

pub(crate) static USAGE: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"usage\""));
pub(crate) static ERROR: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"error\""));
pub(crate) static STOP_REASON: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"stop_reason\""));
pub(crate) static FINISH_REASON: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"finish_reason\""));

static CONTENT: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"content\""));
static REASONING: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"reasoning\""));
static REASONING_CONTENT: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"reasoning_content\""));
static ARGUMENTS: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"arguments\""));
static REFUSAL: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"refusal\""));
static TEXT: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"text\""));
static THINKING: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"thinking\""));
static PARTIAL_JSON: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"partial_json\""));
static DELTA: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"delta\""));
static INPUT: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"input\""));

impl Dialect {
    pub fn grammar(self) -> &'static Grammar {
        match self {
            Self::Chat | Self::Completions => &chat::GRAMMAR,
            Self::Responses => &responses::GRAMMAR,
            Self::Embeddings => &embeddings::GRAMMAR,
            Self::Messages => &messages::GRAMMAR,
            Self::Generate => &generate::GRAMMAR,
            Self::Converse => &converse::GRAMMAR,
            Self::Invoke => &invoke::GRAMMAR,
            Self::Cohere => &cohere::GRAMMAR,
            Self::Images => &images::GRAMMAR,
            Self::Audio => &audio::GRAMMAR,
            Self::Rerank => &rerank::GRAMMAR,
            Self::Batch => &batch::GRAMMAR,
            Self::MessageBatch => &batch::MESSAGES,
        }
    }

    /// True if the model stands in the path.
    pub fn has_model_in_path(self) -> bool {
        matches!(self, Self::Generate | Self::Converse | Self::Invoke)
    }

    /// True if asking for usage in a stream takes `stream_options` (and Responses would refuse it).
    pub fn has_stream_options(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// An error body as clients of this dialect expect it.
    /// Shapes: <https://platform.openai.com/docs/guides/error-codes>, <https://docs.anthropic.com/en/api/errors>,
    /// <https://cloud.google.com/apis/design/errors>,
    /// <https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html>, <https://docs.cohere.com/reference/errors>.
    pub fn error_body(self, status: u16, code: &str, message: &str, request_id: &str) -> String {
        let body = match self {
            Self::Messages | Self::MessageBatch => serde_json::json!({
                "type": "error",
                "error": {"type": messages::error_type(status), "message": message},
                "request_id": request_id,
            }),
            Self::Generate => serde_json::json!({
                "error": {"code": status, "message": message, "status": generate::error_status(status)},
            }),
            Self::Converse | Self::Invoke => serde_json::json!({"message": message}),
            Self::Cohere | Self::Rerank => serde_json::json!({"id": request_id, "message": message}),
            Self::Chat | Self::Completions | Self::Responses | Self::Embeddings | Self::Images | Self::Audio | Self::Batch => {
                serde_json::json!({
                    "error": {"message": message, "type": chat::error_type(status), "param": null, "code": code},
                })
            }
        };
        body.to_string()
    }
}

impl Dialect {
    /// A header that names the kind of error, where clients look for one.
    pub fn error_header(self, status: u16) -> Option<(&'static str, &'static str)> {
        matches!(self, Self::Converse | Self::Invoke).then(|| ("x-amzn-errortype", converse::error_type(status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_endpoints_by_their_paths() {
        for (path, want) in [
            ("/v1/chat/completions", Some(Endpoint::ChatCompletions)),
            ("/completions/", Some(Endpoint::Completions)),
            ("/openai/v1/responses", Some(Endpoint::Responses)),
            ("/v1/responses/input_tokens", Some(Endpoint::ResponsesInputTokens)),
            ("/v1/messages/count_tokens", Some(Endpoint::MessagesCountTokens)),
            ("/v1/responses/resp_1", None),
            ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:streamRawPredict", Some(Endpoint::StreamRawPredict)),
            ("/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", Some(Endpoint::RawCountTokens)),
            ("/v1/models", None),
            ("/", None),
        ] {
            assert_eq!(Endpoint::from_path(path), want, "{path}");
        }
    }

    #[test]
    fn speaks_errors_in_both_shapes() {
        let body: serde_json::Value = serde_json::from_str(&Dialect::Messages.error_body(413, "too_large", "m\"", "r")).unwrap();
        assert_eq!((body["type"].as_str(), body["error"]["type"].as_str()), (Some("error"), Some("request_too_large")));
        let body: serde_json::Value = serde_json::from_str(&Dialect::Chat.error_body(400, "bad_json", "m", "r")).unwrap();
        assert_eq!((body["error"]["code"].as_str(), body["error"]["type"].as_str()), (Some("bad_json"), Some("invalid_request_error")));
    }
}
