//! Together AI. <https://docs.together.ai/docs/openai-api-compatibility>

use super::{Batch, CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const TOGETHER: Provider = Provider {
    id: "together",
    host: "api.together.xyz",
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Embeddings,
        Endpoint::Images,
        Endpoint::Speech,
        Endpoint::Transcriptions,
        Endpoint::Rerank,
    ],
    key_variables: &["TOGETHER_API_KEY"],
    // The last chunk carries the usage: https://docs.together.ai/docs/chat-overview#streaming-responses
    stream_usage: StreamUsage::Always,
    batch: Some(Batch::FILES),
    ..CHAT_COMPATIBLE
};
