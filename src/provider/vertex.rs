//! Google's Vertex AI, with Anthropic's models: <https://docs.claude.com/en/api/claude-on-vertex-ai>. <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>

use super::{CHAT_COMPATIBLE, Cloud, OnDisconnect, Place, Provider};
use crate::dialect::Endpoint;

pub const VERTEX: Provider = Provider {
    id: "vertex",
    host: "{location}-aiplatform.googleapis.com",
    base_path: "",
    resource: "/projects/{project}/locations/{location}/publishers/google",
    places: &[
        Place { name: "location", variables: &["GOOGLE_CLOUD_LOCATION"] },
        Place { name: "project", variables: &["GOOGLE_CLOUD_PROJECT"] },
    ],
    versions: &["v1", "v1beta1"],
    endpoints: &[
        Endpoint::GenerateContent,
        Endpoint::StreamGenerateContent,
        Endpoint::EmbedContent,
        Endpoint::Predict,
        Endpoint::CountTokens,
        Endpoint::RawPredict,
        Endpoint::StreamRawPredict,
        Endpoint::RawCountTokens,
    ],
    cloud: Some(Cloud::Google),
    key_variables: &["VERTEX_ACCESS_TOKEN"],
    on_disconnect: OnDisconnect::Drain,
    ..CHAT_COMPATIBLE
};
