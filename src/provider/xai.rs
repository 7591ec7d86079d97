//! xAI. <https://docs.x.ai/docs/api-reference>

use super::{CHAT_COMPATIBLE, CacheBy, Provider, StreamUsage};
use crate::dialect::Endpoint;
use crate::usage::Reasoning;

pub const XAI: Provider = Provider {
    id: "xai",
    host: "api.x.ai",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses, Endpoint::Embeddings, Endpoint::Messages],
    key_variables: &["XAI_API_KEY"],
    models: &["grok-*"],
    credentials: &[("authorization", "Bearer xai-")],
    // "The last chunk contains the usage": https://docs.x.ai/docs/guides/streaming-response
    stream_usage: StreamUsage::Always,
    reasoning: Reasoning::ByTotal,
    cache_by: Some(CacheBy::Headers { key: "x-grok-conv-id", org: None }),
    ..CHAT_COMPATIBLE
};
