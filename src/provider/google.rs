//! Google AI: its own API, and beside it an OpenAI-compatible endpoint.
//! <https://ai.google.dev/api>, <https://ai.google.dev/gemini-api/docs/openai>

use super::{Auth, CHAT_COMPATIBLE, OnDisconnect, Provider, StreamUsage};
use crate::dialect::{Dialect, Endpoint};

pub const GOOGLE: Provider = Provider {
    id: "googleai",
    host: "generativelanguage.googleapis.com",
    base_path: "/v1beta/openai",
    endpoints: &[
        Endpoint::GenerateContent,
        Endpoint::StreamGenerateContent,
        Endpoint::EmbedContent,
        Endpoint::BatchEmbedContents,
        Endpoint::CountTokens,
        Endpoint::ChatCompletions,
        Endpoint::Embeddings,
    ],
    native_auth: Some((Dialect::Generate, Auth::Header("x-goog-api-key"))),
    key_variables: &["GEMINI_API_KEY", "GOOGLE_AI_API_KEY", "GOOGLE_API_KEY"],
    models: &["gemini-*", "gemma-*", "palm-*"],
    stream_usage: StreamUsage::OnRequest,
    output_by_total: true,
    catalog: "google",
    on_disconnect: OnDisconnect::Drain,
    ..CHAT_COMPATIBLE
};
