//! Cohere. <https://docs.cohere.com/reference/chat>, its OpenAI-compatible endpoint:
//! <https://docs.cohere.com/docs/compatibility-api>

use super::{CHAT_COMPATIBLE, Provider};
use crate::dialect::Endpoint;

pub const COHERE: Provider = Provider {
    id: "cohere",
    host: "api.cohere.com",
    base_path: "/compatibility/v1",
    endpoints: &[Endpoint::CohereChat, Endpoint::CohereEmbed, Endpoint::CohereRerank, Endpoint::ChatCompletions, Endpoint::Embeddings],
    key_variables: &["COHERE_API_KEY", "CO_API_KEY"],
    models: &["command-*", "c4ai-*", "rerank-*"],
    ..CHAT_COMPATIBLE
};
