//! Cerebras. <https://inference-docs.cerebras.ai/api-reference/chat-completions>

use super::{CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const CEREBRAS: Provider = Provider {
    id: "cerebras",
    host: "api.cerebras.ai",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions],
    key_variables: &["CEREBRAS_API_KEY"],
    credentials: &[("authorization", "Bearer csk-")],
    // The last chunk carries the usage.
    stream_usage: StreamUsage::Always,
    ..CHAT_COMPATIBLE
};
