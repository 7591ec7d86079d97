//! OpenAI. <https://platform.openai.com/docs/api-reference>

use super::{Batch, CHAT_COMPATIBLE, CacheBy, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const OPENAI: Provider = Provider {
    id: "openai",
    host: "api.openai.com",
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Responses,
        Endpoint::ResponsesCompact,
        Endpoint::ResponsesInputTokens,
        Endpoint::Embeddings,
        Endpoint::Images,
        Endpoint::ImageEdits,
        Endpoint::ImageVariations,
        Endpoint::Speech,
        Endpoint::Transcriptions,
        Endpoint::Translations,
        Endpoint::Moderations,
    ],
    key_variables: &["OPENAI_API_KEY"],
    models: &[
        "gpt-*",
        "o1*",
        "o3*",
        "o4*",
        "chatgpt-*",
        "text-*",
        "davinci-*",
        "babbage-*",
        "codex-*",
        "computer-use-*",
        "dall-e-*",
        "omni-moderation-*",
        "whisper-1",
        "tts-*",
    ],
    credentials: &[("authorization", "Bearer sk-proj-")],
    stream_usage: StreamUsage::OnRequest,
    socket: true,
    cache_by: Some(CacheBy::Key),
    batch: Some(Batch::FILES),
    ..CHAT_COMPATIBLE
};
