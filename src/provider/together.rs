//! Together AI. <https://docs.together.ai/docs/openai-api-compatibility>

use super::{CHAT_COMPATIBLE, Provider, StreamUsage};

pub const TOGETHER: Provider = Provider {
    id: "together",
    host: "api.together.xyz",
    key_variables: &["TOGETHER_API_KEY"],
    // The last chunk carries the usage: https://docs.together.ai/docs/chat-overview#streaming-responses
    stream_usage: StreamUsage::Always,
    ..CHAT_COMPATIBLE
};
