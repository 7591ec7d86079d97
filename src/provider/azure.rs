//! Azure OpenAI. <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference>, the version-less API:
//! <https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle>

use super::{Auth, Batch, CHAT_COMPATIBLE, CacheBy, Cloud, Place, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const AZURE: Provider = Provider {
    id: "azure",
    host: "{resource}.openai.azure.com",
    base_path: "/openai/v1",
    places: &[Place { name: "resource", variables: &["AZURE_OPENAI_RESOURCE"] }],
    endpoints: &[
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Responses,
        Endpoint::ResponsesCompact,
        Endpoint::ResponsesInputTokens,
        Endpoint::Embeddings,
        Endpoint::Images,
        Endpoint::ImageEdits,
        Endpoint::Speech,
        Endpoint::Transcriptions,
        Endpoint::Translations,
    ],
    auth: Auth::Header("api-key"),
    cloud: Some(Cloud::Entra),
    key_variables: &["AZURE_OPENAI_API_KEY"],
    token_variables: &["AZURE_OPENAI_AD_TOKEN"],
    url_variables: &["AZURE_OPENAI_ENDPOINT"],
    credentials: &[("api-key", "")],
    stream_usage: StreamUsage::OnRequest,
    cache_by: Some(CacheBy::Key),
    batch: Some(Batch::FILES),
    // Recorded: 10 of text in, 161 cached, `prompt_tokens` 10.
    cache_beside: &["grok-*"],
    routers: &["model-router*"],
    ..CHAT_COMPATIBLE
};
