//! OpenAI chat completions and completions, and everything compatible with them.
//! <https://platform.openai.com/docs/api-reference/chat/object>

use super::{
    ARGUMENTS, CONTENT, ERROR, FINISH_REASON, Grammar, Informational, Node, REASONING, REASONING_CONTENT, REFUSAL, Slot, TEXT, USAGE,
    UsagePath,
};
use crate::json::Want::{self, Fields, Items, Take};
use crate::usage::{Cache, Field};
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));

/// Usage rides on a chunk of its own, on the last chunk, on every chunk (Perplexity), or under `x_groq` (Groq, which
/// repeats the same numbers at the top in newer recordings: they merge, they are never added).
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("usage", Take(Slot::Usage)),
        ("x_groq", Fields(&[("usage", Take(Slot::Usage)), ("error", Take(Slot::Error))])),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        ("service_tier", Take(Slot::Tier)),
        ("error", Take(Slot::Error)),
        // MiniMax: https://platform.minimax.io/docs/api-reference/errorcode
        ("base_resp", Fields(&[("status_code", Take(Slot::StatusCode))])),
        (
            "choices",
            Items(
                Slot::Choice,
                &Fields(&[
                    ("finish_reason", Take(Slot::Finish)),
                    // Moonshot, in the last chunk: https://platform.moonshot.ai/docs/guide/utilize-the-streaming-output-feature-of-kimi-api
                    ("usage", Take(Slot::Usage)),
                    ("message", Fields(&[("executed_tools", EXECUTED)])),
                    ("delta", Fields(&[("executed_tools", EXECUTED)])),
                ]),
            ),
        ),
    ]),
    usage: &[USAGE_PATHS],
    parts: PARTS,
    informational: &[INFORMATIONAL],
    tree: &TREE,
    cumulative: true,
    cache: Cache::Inside,
    needles: &[&USAGE, &FINISH_REASON, &ERROR],
    text: &[&CONTENT, &REASONING_CONTENT, &REASONING, &ARGUMENTS, &REFUSAL, &TEXT],
    ..Grammar::NONE
};

/// Tools that Groq's compound models ran, each at a fee: <https://groq.com/pricing>. None of them is known here.
const EXECUTED: Want<Slot> = Items(Slot::Item, &Fields(&[("type", Take(Slot::ItemType))]));

/// OpenAI's keys first; then DeepSeek's, Mistral's and Hugging Face's own spellings of the cached tokens, as recorded.
pub(super) const USAGE_PATHS: &[UsagePath] = &[
    (&["prompt_tokens"], Field::Input),
    (&["completion_tokens"], Field::Output),
    (&["total_tokens"], Field::Total),
    (&["prompt_tokens_details", "cached_tokens"], Field::CacheRead),
    (&["prompt_token_details", "cached_tokens"], Field::CacheRead),
    (&["prompt_cache_hit_tokens"], Field::CacheRead),
    (&["num_cached_tokens"], Field::CacheRead),
    (&["cached_tokens"], Field::CacheRead),
    // Databricks and others that put Anthropic's counts beside OpenAI's; `prompt_tokens` contains them.
    (&["cache_read_input_tokens"], Field::CacheRead),
    (&["prompt_tokens_details", "cache_write_tokens"], Field::CacheWrite),
    // Alibaba: https://help.aliyun.com/zh/model-studio/context-cache
    (&["prompt_tokens_details", "cache_creation_input_tokens"], Field::CacheWrite),
    (&["cache_creation_input_tokens"], Field::CacheWrite),
    (&["prompt_tokens_details", "cache_creation", "ephemeral_5m_input_tokens"], Field::CacheWrite5m),
    (&["prompt_tokens_details", "cache_creation", "ephemeral_1h_input_tokens"], Field::CacheWrite1h),
    (&["prompt_tokens_details", "audio_tokens"], Field::AudioIn),
    // Mistral: https://docs.mistral.ai/capabilities/audio
    (&["prompt_audio_seconds"], Field::Seconds),
    (&["prompt_tokens_details", "image_tokens"], Field::ImageIn),
    (&["prompt_tokens_details", "video_tokens"], Field::VideoIn),
    (&["completion_tokens_details", "reasoning_tokens"], Field::Reasoning),
    (&["reasoning_tokens"], Field::Reasoning),
    (&["completion_tokens_details", "audio_tokens"], Field::AudioOut),
    (&["completion_tokens_details", "image_tokens"], Field::ImageOut),
    // Perplexity: https://docs.perplexity.ai/getting-started/pricing
    (&["citation_tokens"], Field::Citation),
    (&["num_search_queries"], Field::WebSearch),
    // OpenRouter: https://openrouter.ai/docs/features/web-search
    (&["server_tool_use", "web_search_requests"], Field::WebSearch),
    (&["server_tool_use_details", "web_search_requests"], Field::WebSearch),
    // Servers that answer chat with the keys of Responses.
    (&["input_tokens"], Field::Input),
    (&["output_tokens"], Field::Output),
];

/// xAI's calls by tool: <https://docs.x.ai/docs/guides/tools/overview>, fees in <https://docs.x.ai/docs/models#tools-pricing>.
pub(super) const PARTS: &[UsagePath] = &[
    (&["server_side_tool_usage_details", "web_search_calls"], Field::WebSearch),
    (&["server_side_tool_usage_details", "x_search_calls"], Field::WebSearch),
    (&["server_side_tool_usage_details", "code_interpreter_calls"], Field::CodeCall),
    (&["server_side_tool_usage_details", "file_search_calls"], Field::ToolCall),
    // Perplexity's agents: https://docs.perplexity.ai/docs/agent-api/tools
    (&["tool_calls_details", "search_web", "invocation"], Field::WebSearch),
    (&["tool_calls_details", "web_search", "invocation"], Field::WebSearch),
    (&["tool_calls_details", "fetch_url", "invocation"], Field::ToolCall),
];

/// Numbers that OpenAI's API and those modelled on it state and that are not charged.
pub(super) const INFORMATIONAL: &[Informational] = &[
    Informational { path: &["prompt_tokens_details", "text_tokens"], why: "text is what remains of the prompt" },
    Informational { path: &["prompt_tokens_details", "cache_type"], why: "how the cache was asked for: DashScope" },
    Informational { path: &["completion_tokens_details", "text_tokens"], why: "text is what remains of the completion" },
    Informational { path: &["completion_tokens_details", "accepted_prediction_tokens"], why: "a part of the completion, at its rate" },
    Informational {
        path: &["completion_tokens_details", "rejected_prediction_tokens"],
        why: "a part of the completion, at its rate: https://platform.openai.com/docs/guides/predicted-outputs",
    },
    Informational { path: &["prompt_cache_miss_tokens"], why: "prompt less cache hits: https://api-docs.deepseek.com/guides/kv_cache" },
    Informational { path: &["cost", "*"], why: "the provider's own amount, kept as provider_cost" },
    Informational { path: &["cost_details", "*"], why: "parts of the provider's own amount: OpenRouter" },
    Informational { path: &["cost_in_usd_ticks"], why: "the provider's own amount, kept as provider_cost: xAI" },
    Informational { path: &["pydantic_ai_gateway", "*"], why: "an estimate of another gateway" },
    Informational { path: &["num_server_side_tools_used"], why: "sum of server_side_tool_usage_details: xAI" },
    Informational { path: &["server_tool_use", "tool_calls_requested"], why: "includes calls of the client's tools: OpenRouter" },
    Informational { path: &["server_tool_use", "tool_calls_executed"], why: "searches are counted by themselves: OpenRouter" },
    Informational { path: &["server_tool_use_details", "tool_calls_requested"], why: "includes calls of the client's tools: OpenRouter" },
    Informational { path: &["server_tool_use_details", "tool_calls_executed"], why: "searches are counted by themselves: OpenRouter" },
    Informational { path: &["audio_prompt_tokens"], why: "the same as prompt_tokens_details.audio_tokens: Azure" },
    // Times and speeds, in seconds and tokens per second.
    Informational { path: &["queue_time"], why: "a time: https://console.groq.com/docs/api-reference" },
    Informational { path: &["prompt_time"], why: "a time: Groq" },
    Informational { path: &["completion_time"], why: "a time: Groq" },
    Informational { path: &["total_time"], why: "a time: Groq" },
    Informational { path: &["prompt_tps"], why: "a speed: mlx servers" },
    Informational { path: &["generation_tps"], why: "a speed: mlx servers" },
    Informational { path: &["peak_memory"], why: "memory of the server: mlx servers" },
    Informational { path: &["start_time"], why: "a time: https://docs.sambanova.ai/cloud/api-reference" },
    Informational { path: &["end_time"], why: "a time: SambaNova" },
    Informational { path: &["total_latency"], why: "a time: SambaNova" },
    Informational { path: &["time_to_first_token"], why: "a time: SambaNova" },
    Informational { path: &["completion_tokens_per_sec"], why: "a speed: SambaNova" },
    Informational { path: &["completion_tokens_after_first_per_sec"], why: "a speed: SambaNova" },
    Informational { path: &["completion_tokens_after_first_per_sec_first_ten"], why: "a speed: SambaNova" },
    Informational { path: &["total_tokens_per_sec"], why: "a speed: SambaNova" },
    Informational { path: &["acceptance_rate"], why: "of speculative decoding: SambaNova" },
];

/// The `type` OpenAI gives an error of this status.
pub fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}
