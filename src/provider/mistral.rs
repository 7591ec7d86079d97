//! Mistral. <https://docs.mistral.ai/api/>

use super::{Batch, CHAT_COMPATIBLE, OnDisconnect, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const MISTRAL: Provider = Provider {
    id: "mistral",
    host: "api.mistral.ai",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Embeddings, Endpoint::Moderations, Endpoint::Transcriptions],
    key_variables: &["MISTRAL_API_KEY"],
    models: &[
        "mistral-*",
        "ministral-*",
        "magistral-*",
        "codestral-*",
        "devstral-*",
        "pixtral-*",
        "voxtral-*",
        "open-mistral-*",
        "open-mixtral-*",
    ],
    // The last chunk carries the usage (recorded), and unknown fields are refused with 422.
    stream_usage: StreamUsage::Always,
    batch: Some(Batch::FILES),
    audio_by_total: true,
    on_disconnect: OnDisconnect::Drain,
    ..CHAT_COMPATIBLE
};
