//! The built-in mock: answers without a key, so that the first request works and tests have an upstream.

use super::{Auth, Batch, CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const MOCK: Provider = Provider {
    id: "mock",
    host: "127.0.0.1",
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Responses,
        Endpoint::ResponsesInputTokens,
        Endpoint::Embeddings,
        Endpoint::Messages,
        Endpoint::MessagesCountTokens,
        Endpoint::GenerateContent,
        Endpoint::StreamGenerateContent,
        Endpoint::EmbedContent,
        Endpoint::BatchEmbedContents,
        Endpoint::CountTokens,
        Endpoint::Predict,
        Endpoint::RawPredict,
        Endpoint::StreamRawPredict,
        Endpoint::RawCountTokens,
        Endpoint::Converse,
        Endpoint::ConverseStream,
        Endpoint::InvokeModel,
        Endpoint::InvokeModelStream,
        Endpoint::BedrockCountTokens,
        Endpoint::CohereChat,
        Endpoint::CohereRerank,
        Endpoint::Images,
        Endpoint::ImageEdits,
        Endpoint::Speech,
        Endpoint::Transcriptions,
        Endpoint::Translations,
        Endpoint::Rerank,
        Endpoint::Moderations,
    ],
    auth: Auth::None,
    models: &["mock-*"],
    stream_usage: StreamUsage::OnRequest,
    socket: true,
    batch: Some(Batch::FILES),
    ..CHAT_COMPATIBLE
};
