//! AWS Bedrock. <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>,
//! API keys: <https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html>

use super::{Auth, CHAT_COMPATIBLE, CacheBy, Cloud, OnDisconnect, Place, Provider, StreamUsage};
use crate::dialect::Endpoint;

pub const BEDROCK: Provider = Provider {
    id: "bedrock",
    host: "bedrock-runtime.{region}.amazonaws.com",
    base_path: "/openai/v1",
    places: &[Place { name: "region", variables: &["AWS_REGION", "AWS_DEFAULT_REGION"] }],
    endpoints: &[
        Endpoint::Converse,
        Endpoint::ConverseStream,
        Endpoint::InvokeModel,
        Endpoint::InvokeModelStream,
        Endpoint::BedrockCountTokens,
        Endpoint::ChatCompletions,
    ],
    auth: Auth::Aws,
    cloud: Some(Cloud::Aws),
    key_variables: &["AWS_BEARER_TOKEN_BEDROCK"],
    // Vendors, and the prefixes of inference profiles that span regions.
    models: &[
        "amazon.*",
        "anthropic.*",
        "meta.*",
        "cohere.*",
        "mistral.*",
        "ai21.*",
        "deepseek.*",
        "qwen.*",
        "openai.*",
        "us.*",
        "us-gov.*",
        "eu.*",
        "apac.*",
        "jp.*",
        "au.*",
        "ca.*",
        "global.*",
        "arn:aws:bedrock:*",
        "arn:aws-us-gov:bedrock:*",
        "arn:aws-cn:bedrock:*",
    ],
    stream_usage: StreamUsage::OnRequest,
    cache_by: Some(CacheBy::Point),
    on_disconnect: OnDisconnect::Drain,
    ..CHAT_COMPATIBLE
};
