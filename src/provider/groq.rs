//! Groq. <https://console.groq.com/docs/openai>

use super::{Batch, CHAT_COMPATIBLE, OnDisconnect, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const GROQ: Provider = Provider {
    id: "groq",
    host: "api.groq.com",
    base_path: "/openai/v1",
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Responses,
        Endpoint::Embeddings,
        Endpoint::Speech,
        Endpoint::Transcriptions,
        Endpoint::Translations,
    ],
    key_variables: &["GROQ_API_KEY"],
    credentials: &[("authorization", "Bearer gsk_")],
    // The last chunk carries `x_groq.usage` whether asked or not (recorded).
    stream_usage: StreamUsage::Always,
    batch: Some(Batch::FILES),
    on_disconnect: OnDisconnect::Drain,
    ..CHAT_COMPATIBLE
};
