//! DeepSeek. <https://api-docs.deepseek.com/>

use super::{CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const DEEPSEEK: Provider = Provider {
    id: "deepseek",
    host: "api.deepseek.com",
    base_path: "",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses, Endpoint::Messages],
    // Fill-in-the-middle is a beta of its own, Anthropic's format has a path of its own.
    paths: &[(Endpoint::Completions, "/beta/completions"), (Endpoint::Messages, "/anthropic/v1/messages")],
    key_variables: &["DEEPSEEK_API_KEY"],
    models: &["deepseek-*"],
    stream_usage: StreamUsage::OnRequest,
    ..CHAT_COMPATIBLE
};
