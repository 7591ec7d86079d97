//! Perplexity. <https://docs.perplexity.ai/api-reference/chat-completions-post>

use super::{CHAT_COMPATIBLE, OnDisconnect, Provider, StreamUsage};
use crate::dialect::Endpoint;
use crate::usage::Reasoning;

pub const PERPLEXITY: Provider = Provider {
    id: "perplexity",
    host: "api.perplexity.ai",
    base_path: "",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Responses, Endpoint::Embeddings],
    paths: &[(Endpoint::Responses, "/v1/responses"), (Endpoint::Embeddings, "/v1/embeddings")],
    key_variables: &["PERPLEXITY_API_KEY", "PPLX_API_KEY"],
    models: &["*sonar*"],
    credentials: &[("authorization", "Bearer pplx-")],
    // Every chunk carries the usage so far.
    stream_usage: StreamUsage::Always,
    // Deep research states reasoning beside the completion: https://docs.perplexity.ai/getting-started/pricing
    reasoning: Reasoning::Beside,
    on_disconnect: OnDisconnect::Drain,
    ..CHAT_COMPATIBLE
};
