//! OpenAI chat completions and completions, and everything compatible with them.
//! <https://platform.openai.com/docs/api-reference/chat/object>

use super::{ARGUMENTS, CONTENT, ERROR, FINISH_REASON, Grammar, REASONING, REASONING_CONTENT, REFUSAL, Slot, TEXT, USAGE, UsagePath};
use crate::json::Want::{Fields, Items, Take};
use crate::usage::{Cache, Field};

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
        ("choices", Items(Slot::Choice, &Fields(&[("finish_reason", Take(Slot::Finish))]))),
    ]),
    usage: &[USAGE_PATHS],
    cache: Cache::Inside,
    needles: &[&USAGE, &FINISH_REASON, &ERROR],
    text: &[&CONTENT, &REASONING_CONTENT, &REASONING, &ARGUMENTS, &REFUSAL, &TEXT],
    ..Grammar::NONE
};

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
    (&["prompt_tokens_details", "cache_write_tokens"], Field::CacheWrite),
    (&["prompt_tokens_details", "audio_tokens"], Field::AudioIn),
    (&["prompt_tokens_details", "image_tokens"], Field::ImageIn),
    (&["prompt_tokens_details", "video_tokens"], Field::VideoIn),
    (&["completion_tokens_details", "reasoning_tokens"], Field::Reasoning),
    (&["reasoning_tokens"], Field::Reasoning),
    (&["completion_tokens_details", "audio_tokens"], Field::AudioOut),
    (&["completion_tokens_details", "image_tokens"], Field::ImageOut),
    // Perplexity: https://docs.perplexity.ai/getting-started/pricing
    (&["citation_tokens"], Field::Citation),
    (&["num_search_queries"], Field::WebSearch),
    (&["server_tool_use_details", "web_search_requests"], Field::WebSearch),
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
