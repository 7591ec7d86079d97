//! OpenRouter. <https://openrouter.ai/docs/api-reference/overview>

use super::{CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const OPENROUTER: Provider = Provider {
    id: "openrouter",
    host: "openrouter.ai",
    base_path: "/api/v1",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses, Endpoint::Embeddings, Endpoint::Messages],
    key_variables: &["OPENROUTER_API_KEY"],
    models: &["openrouter/*"],
    credentials: &[("authorization", "Bearer sk-or-")],
    // "Usage accounting is always included": https://openrouter.ai/docs/use-cases/usage-accounting
    stream_usage: StreamUsage::Always,
    ..CHAT_COMPATIBLE
};
