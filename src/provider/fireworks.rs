//! Fireworks. <https://docs.fireworks.ai/api-reference/introduction>

use super::{CHAT_COMPATIBLE, CacheBy, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const FIREWORKS: Provider = Provider {
    id: "fireworks",
    host: "api.fireworks.ai",
    base_path: "/inference/v1",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses, Endpoint::Embeddings, Endpoint::Messages],
    key_variables: &["FIREWORKS_API_KEY"],
    models: &["accounts/fireworks/*", "fireworks*"],
    // "usage is returned in the very last response chunk": https://docs.fireworks.ai/guides/querying-text-models
    stream_usage: StreamUsage::Always,
    cache_by: Some(CacheBy::Headers { key: "x-session-affinity", org: Some("x-prompt-cache-isolation-key") }),
    ..CHAT_COMPATIBLE
};
