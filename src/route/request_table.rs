//! The table of request fields that select route, model, price, amount, owner or visibility, per dialect. A field that is missing
//! here can be used without being billed or limited.

use crate::dialect::Dialect;
use crate::json::Want::{self, Fields, Items, Take};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Model,
    Stream,
    StreamOptions,
    Messages,
    Input,
    Prompt,
    System,
    Contents,
    User,
    SafetyIdentifier,
    Metadata,
    Previous,
    Conversation,
    Background,
    OutputMax,
    Choices,
    Tier,
    Speed,
    /// A list of models, or of objects that name one.
    Models(&'static str),
    /// A model beside `model`.
    OtherModel,
    /// The provider selects a model that the request does not name.
    Hidden(&'static str),
    /// The provider stores the completion.
    Store,
    /// The type of a tool, and the id of a plugin: some select models.
    ToolType,
    Plugin,
    /// The response comes at another endpoint, which is not metered.
    Deferred,
    /// The type of a message on a WebSocket.
    Kind,
    /// An array element that matters only for its fields.
    Ignored,
}

/// The fields of every dialect, and those of one.
macro_rules! fields {
    ($($own:tt)*) => {
        Fields(&[
            ("model", Take(Key::Model)),
            ("stream", Take(Key::Stream)),
            ("stream_options", Take(Key::StreamOptions)),
            ("messages", Take(Key::Messages)),
            ("input", Take(Key::Input)),
            ("prompt", Take(Key::Prompt)),
            ("system", Take(Key::System)),
            ("contents", Take(Key::Contents)),
            // OpenAI's old and new name; Anthropic's `user_id` is in `metadata`, whose other keys are the client's own.
            ("user", Take(Key::User)),
            ("safety_identifier", Take(Key::SafetyIdentifier)),
            ("metadata", Take(Key::Metadata)),
            ("previous_response_id", Take(Key::Previous)),
            ("conversation", Take(Key::Conversation)),
            ("background", Take(Key::Background)),
            ("service_tier", Take(Key::Tier)),
            // <https://platform.claude.com/docs/en/build-with-claude/fast-mode>; the meter reports it as a tier.
            ("speed", Take(Key::Speed)),
            // <https://openrouter.ai/docs/guides/routing/model-fallbacks>, <https://docs.litellm.ai/docs/proxy/reliability>
            ("models", Take(Key::Models("models"))),
            ("fallbacks", Take(Key::Models("fallbacks"))),
            ("route", Take(Key::Hidden("route"))),
            // <https://openrouter.ai/docs/guides/features/presets>
            ("preset", Take(Key::Hidden("preset"))),
            // <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/references/on-your-data>
            ("data_sources", Take(Key::Hidden("data_sources"))),
            // Server-side tools with a model of their own: image generation (OpenAI), advisor (Anthropic).
            ("tools", Items(Key::Ignored, &Fields(&[("model", Take(Key::OtherModel)), ("type", Take(Key::ToolType))]))),
            ("plugins", Items(Key::Ignored, &Fields(&[("id", Take(Key::Plugin))]))),
            // <https://console.groq.com/docs/compound>
            ("compound_custom", Fields(&[
                ("models", Fields(&[("answering_model", Take(Key::OtherModel)), ("reasoning_model", Take(Key::OtherModel))])),
            ])),
            // <https://docs.x.ai/docs/guides/deferred-chat-completions>
            ("deferred", Take(Key::Deferred)),
            $($own)*
        ])
    };
}

/// <https://platform.openai.com/docs/api-reference/chat/create>; `best_of` as vLLM has it.
static CHAT: Want<Key> = fields![
    ("max_tokens", Take(Key::OutputMax)),
    ("max_completion_tokens", Take(Key::OutputMax)),
    ("n", Take(Key::Choices)),
    ("best_of", Take(Key::Choices)),
    ("store", Take(Key::Store)),
];

/// <https://platform.openai.com/docs/api-reference/completions/create>
static COMPLETIONS: Want<Key> = fields![("max_tokens", Take(Key::OutputMax)), ("n", Take(Key::Choices)), ("best_of", Take(Key::Choices)),];

/// <https://platform.openai.com/docs/api-reference/responses/create>
static RESPONSES: Want<Key> = fields![("max_output_tokens", Take(Key::OutputMax)), ("type", Take(Key::Kind)),];

/// <https://platform.claude.com/docs/en/api/messages>
static MESSAGES: Want<Key> = fields![("max_tokens", Take(Key::OutputMax)),];

/// <https://ai.google.dev/api/generate-content>. Proto JSON takes both spellings of every name:
/// <https://protobuf.dev/programming-guides/json/>.
static GENERATE: Want<Key> = fields![
    ("generationConfig", GENERATION_CONFIG),
    ("generation_config", GENERATION_CONFIG),
    ("serviceTier", Take(Key::Tier)),
    // `:batchEmbedContents` and `:countTokens` name the model once more.
    ("requests", Items(Key::Ignored, &Fields(&[("model", Take(Key::OtherModel))]))),
];
const GENERATION_CONFIG: Want<Key> = Fields(&[
    ("maxOutputTokens", Take(Key::OutputMax)),
    ("max_output_tokens", Take(Key::OutputMax)),
    ("candidateCount", Take(Key::Choices)),
    ("candidate_count", Take(Key::Choices)),
    ("routingConfig", ROUTING_CONFIG),
    ("routing_config", ROUTING_CONFIG),
    ("modelConfig", Take(Key::Hidden("modelConfig"))),
    ("model_config", Take(Key::Hidden("model_config"))),
]);
/// <https://cloud.google.com/vertex-ai/docs/reference/rest/v1/GenerationConfig#RoutingConfig>
const ROUTING_CONFIG: Want<Key> = Fields(&[
    ("manualMode", MANUAL_MODE),
    ("manual_mode", MANUAL_MODE),
    ("autoMode", Take(Key::Hidden("autoMode"))),
    ("auto_mode", Take(Key::Hidden("auto_mode"))),
]);
const MANUAL_MODE: Want<Key> = Fields(&[("modelName", Take(Key::OtherModel)), ("model_name", Take(Key::OtherModel))]);

/// The native bodies of Bedrock's model families, one after another: Claude (new, old), Mistral, Cohere, Jamba; Nova; Titan;
/// Llama; AI21 J2. <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html>
macro_rules! native {
    ($with:ident!($($common:tt)*)) => {
        $with![
            $($common)*
            ("max_tokens", Take(Key::OutputMax)),
            ("max_tokens_to_sample", Take(Key::OutputMax)),
            ("max_completion_tokens", Take(Key::OutputMax)),
            ("max_new_tokens", Take(Key::OutputMax)),
            ("textGenerationConfig", Fields(&[("maxTokenCount", Take(Key::OutputMax))])),
            ("max_gen_len", Take(Key::OutputMax)),
            ("maxTokens", Take(Key::OutputMax)),
            ("inferenceConfig", Fields(&[("maxTokens", Take(Key::OutputMax)), ("max_new_tokens", Take(Key::OutputMax))])),
            ("n", Take(Key::Choices)),
            ("num_generations", Take(Key::Choices)),
            ("numResults", Take(Key::Choices)),
        ]
    };
}
macro_rules! object {
    ($($own:tt)*) => { Fields(&[$($own)*]) };
}
static INVOKE: Want<Key> = native!(fields!());

/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>. `additionalModelRequestFields` is
/// merged into the native body.
static CONVERSE: Want<Key> = fields![
    ("inferenceConfig", Fields(&[("maxTokens", Take(Key::OutputMax))])),
    ("serviceTier", Fields(&[("type", Take(Key::Tier))])),
    ("additionalModelRequestFields", native!(object!())),
];

/// <https://docs.cohere.com/reference/chat>
static COHERE: Want<Key> = fields![("max_tokens", Take(Key::OutputMax)),];

/// <https://platform.openai.com/docs/api-reference/images/create>
static IMAGES: Want<Key> = fields![("n", Take(Key::Choices)),];

/// Dialects whose output no request field bounds.
static OTHERS: Want<Key> = fields![];

pub(super) fn table(dialect: Option<Dialect>) -> &'static Want<Key> {
    match dialect {
        // Read again once the dialect is known.
        None => &OTHERS,
        Some(Dialect::Chat) => &CHAT,
        Some(Dialect::Completions) => &COMPLETIONS,
        Some(Dialect::Responses) => &RESPONSES,
        Some(Dialect::Messages) => &MESSAGES,
        Some(Dialect::Generate) => &GENERATE,
        Some(Dialect::Invoke) => &INVOKE,
        Some(Dialect::Converse) => &CONVERSE,
        Some(Dialect::Cohere) => &COHERE,
        Some(Dialect::Images) => &IMAGES,
        Some(Dialect::Embeddings | Dialect::Audio | Dialect::Rerank | Dialect::Batch | Dialect::MessageBatch) => &OTHERS,
    }
}

impl Key {
    /// The name of a field that a request may have only once.
    pub(super) fn once(self) -> Option<&'static str> {
        Some(match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::StreamOptions => "stream_options",
            Self::User => "user",
            Self::SafetyIdentifier => "safety_identifier",
            Self::Metadata => "metadata",
            Self::Previous => "previous_response_id",
            Self::Conversation => "conversation",
            Self::Background => "background",
            Self::Tier => "service_tier",
            Self::Speed => "speed",
            Self::Deferred => "deferred",
            Self::Kind => "type",
            Self::Models(name) => name,
            Self::Hidden(_) | Self::Messages | Self::Input | Self::Prompt | Self::System | Self::Contents => return None,
            Self::OutputMax | Self::Choices | Self::OtherModel | Self::Ignored | Self::ToolType | Self::Plugin | Self::Store => {
                return None;
            }
        })
    }
}
