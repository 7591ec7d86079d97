//! Anthropic. <https://docs.anthropic.com/en/api/overview>, and its OpenAI-compatible endpoint
//! <https://docs.anthropic.com/en/api/openai-sdk>.

use super::{Auth, Batch, CHAT_COMPATIBLE, CacheBy, Provider, StreamUsage};
use crate::dialect::{Dialect, Endpoint};

pub const ANTHROPIC: Provider = Provider {
    id: "anthropic",
    host: "api.anthropic.com",
    endpoints: &[Endpoint::Messages, Endpoint::MessagesCountTokens, Endpoint::ChatCompletions],
    auth: Auth::Header("x-api-key"),
    headers: &[("anthropic-version", "2023-06-01")],
    key_variables: &["ANTHROPIC_API_KEY"],
    token_variables: &["ANTHROPIC_AUTH_TOKEN"],
    models: &["claude*"],
    credentials: &[("anthropic-version", ""), ("x-api-key", "sk-ant-")],
    stream_usage: StreamUsage::OnRequest,
    cache_by: Some(CacheBy::Control),
    batch: Some(Batch {
        paths: &["/messages/batches*", "/files*"],
        before: "/messages/batches/",
        after: "/results",
        dialect: Dialect::MessageBatch,
    }),
    ..CHAT_COMPATIBLE
};
