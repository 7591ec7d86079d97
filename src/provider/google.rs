//! Google AI, by its OpenAI-compatible endpoint. <https://ai.google.dev/gemini-api/docs/openai>

use super::{CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const GOOGLE: Provider = Provider {
    id: "googleai",
    host: "generativelanguage.googleapis.com",
    base_path: "/v1beta/openai",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Embeddings],
    key_variables: &["GEMINI_API_KEY", "GOOGLE_AI_API_KEY", "GOOGLE_API_KEY"],
    models: &["gemini-*", "gemma-*"],
    stream_usage: StreamUsage::OnRequest,
    output_by_total: true,
    catalog: "google",
    ..CHAT_COMPATIBLE
};
