//! Charges by the embedded catalog against prices that providers publish, one row each.

use super::embedded;
use crate::price::{Moment, Query, charge};
use crate::usage::{Dimension, Usage};

/// Tuesday, 2026-12-01 12:00 UTC.
const NOW: i64 = 1_796_126_400;

/// A served request and its published price in dollars; `None` if the catalog must not know one.
struct Row<'a> {
    provider: &'a str,
    model: &'a str,
    tier: &'a str,
    at: i64,
    usage: &'a [(Dimension, u64)],
    usd: Option<&'a str>,
}

/// A row for a request now, served as usual.
fn row<'a>(provider: &'a str, model: &'a str, usage: &'a [(Dimension, u64)], usd: Option<&'a str>) -> Row<'a> {
    Row { provider, model, tier: "", at: NOW, usage, usd }
}

fn check(rows: &[Row<'_>]) {
    let catalog = embedded().unwrap();
    for Row { provider, model, tier, at, usage, usd } in rows {
        let query = Query { provider, model, tier, region: "", at: Moment { unix_s: *at } };
        let charge = charge(&catalog, &query, &usage.iter().copied().collect::<Usage>(), 1);
        let amount = charge.is_priced().then(|| charge.amount.to_string());
        assert_eq!(amount.as_deref(), *usd, "{provider}/{model} {tier} {at} {usage:?}");
        assert!(!charge.unknown_tier, "{provider}/{model} {tier}");
    }
}

#[test]
fn server_side_tools_cost_their_published_fee() {
    use Dimension::{CodeCall, ToolCall, WebSearch, WebSearchPreview};
    check(&[
        // https://developers.openai.com/api/docs/pricing#built-in-tools
        row("openai", "gpt-5.5", &[(ToolCall, 2)], Some("0.005")),
        row("openai", "gpt-5-2025-08-07", &[(WebSearchPreview, 1)], Some("0.01")),
        row("openai", "gpt-4.1-mini", &[(WebSearchPreview, 1)], Some("0.025")),
        row("openai", "gpt-4o", &[(WebSearch, 1)], Some("0.01")),
        row("openai", "o3-pro", &[(WebSearchPreview, 1)], Some("0.01")),
        row("azure", "gpt-5.5", &[(ToolCall, 2)], Some("0.005")),
        row("openai", "gpt-4o-transcribe", &[(ToolCall, 1)], None),
        // https://developers.openai.com/api/docs/models/gpt-4o-search-preview
        row("openai", "gpt-4o-search-preview-2025-03-11", &[(Dimension::Input, 20), (Dimension::Output, 100)], Some("0.02605")),
        row("openai", "gpt-4o-mini-search-preview", &[(Dimension::Input, 20)], Some("0.025003")),
        // https://docs.x.ai/developers/pricing
        row("xai", "grok-4.5", &[(WebSearch, 3)], Some("0.015")),
        row("xai", "grok-4.5", &[(ToolCall, 2), (CodeCall, 1)], Some("0.01")),
        // https://docs.perplexity.ai/docs/getting-started/pricing
        row("perplexity", "perplexity/sonar", &[(WebSearch, 2), (ToolCall, 2)], Some("0.006")),
        // https://ai.google.dev/gemini-api/docs/pricing
        row("google", "gemini-2.5-flash", &[(WebSearch, 1)], Some("0.035")),
        row("google", "gemini-3-flash-preview", &[(WebSearch, 2)], Some("0.028")),
        // https://cloud.google.com/gemini-enterprise-agent-platform/generative-ai/pricing
        row("google", "claude-opus-4-5@20251101", &[(WebSearch, 1)], Some("0.01")),
    ]);
}

#[test]
fn pictures_of_the_image_tool_cost_the_image_models_rates() {
    use Dimension::{ImageOut, Input};
    // https://developers.openai.com/api/docs/pricing#image-tokens
    check(&[
        row("openai", "gpt-image-1", &[(Input, 50), (ImageOut, 1056)], Some("0.04249")),
        row("openai", "gpt-image-2", &[(Input, 61), (ImageOut, 1756)], Some("0.052985")),
    ]);
}

#[test]
fn peak_hours_hold_on_weekdays_that_are_no_holidays() {
    use Dimension::{Input, Output};
    let pro =
        |at: i64, usd: &'static str| Row { at, ..row("deepseek", "deepseek-v4-pro", &[(Input, 1_000_000), (Output, 100_000)], Some(usd)) };
    let flash = |at: i64, usd: &'static str| Row { at, ..row("deepseek", "deepseek-v4-flash", &[(Input, 1_000_000)], Some(usd)) };
    // https://api-docs.deepseek.com/quick_start/pricing
    check(&[
        // Saturday 2026-11-28 and Monday 2026-11-30, 02:00 UTC; Monday 00:59:59, 04:00, 06:00 and 10:00.
        pro(1_795_831_200, "0.858"),
        pro(1_796_004_000, "1.716"),
        pro(1_796_000_399, "0.858"),
        pro(1_796_011_200, "0.858"),
        pro(1_796_018_400, "1.716"),
        pro(1_796_032_800, "0.858"),
        // Thursday 2026-10-01, a holiday, and Thursday 2026-10-08, 02:00 UTC.
        pro(1_790_820_000, "0.858"),
        pro(1_791_424_800, "1.716"),
        // 2026-08-16 15:59 and 16:00 UTC, when peak hours began; Saturday 2026-08-22, 02:00, the last one with peak hours.
        pro(1_786_895_940, "0.522"),
        pro(1_786_896_000, "0.858"),
        pro(1_787_364_000, "1.716"),
        pro(1_787_450_400, "0.858"),
        // Monday 2026-08-24 and Thursday 2026-09-10, 02:00, before and after the price of Flash fell.
        flash(1_787_536_800, "0.44"),
        flash(1_789_005_600, "0.30"),
        row("deepseek", "deepseek-flash", &[(Input, 1_000_000)], Some("0.15")),
    ]);
}

#[test]
fn request_fees_follow_the_search_context_size() {
    let usage = &[(Dimension::Input, 7), (Dimension::Output, 149)];
    let sonar = |tier: &'static str, usd: &'static str| Row { tier, ..row("perplexity", "sonar", usage, Some(usd)) };
    // https://docs.perplexity.ai/getting-started/pricing
    check(&[sonar("", "0.005156"), sonar("low", "0.005156"), sonar("medium", "0.008156"), sonar("high", "0.012156")]);
    check(&[Row { tier: "medium", ..row("perplexity", "sonar-deep-research", &[(Dimension::WebSearch, 3)], Some("0.015")) }]);
}

#[test]
fn tiers_of_service_cost_a_factor() {
    use Dimension::{Input, Output};
    let usage: &[(Dimension, u64)] = &[(Input, 1_000), (Output, 100)];
    let of = |tier: &'static str, model: &'static str, usd: &'static str| Row { tier, ..row("vertex", model, usage, Some(usd)) };
    // https://ai.google.dev/gemini-api/docs/pricing
    check(&[
        of("flex", "gemini-2.5-flash", "0.000275"),
        of("priority", "gemini-2.5-flash", "0.00099"),
        of("flex", "gemini-3.8-flash", "0.0005625"),
        Row { tier: "flex", ..row("google", "gemini-2.5-pro", &[(Input, 200_001)], Some("0.25000125")) },
    ]);
}

#[test]
fn audio_and_clouds_have_rates_of_their_own() {
    use Dimension::{AudioIn, AudioOut, Input, Output, Seconds};
    check(&[
        // https://developers.openai.com/api/docs/models/gpt-4o-audio-preview
        row("openai", "gpt-4o-audio-preview-2024-12-17", &[(AudioIn, 1000), (Output, 10)], Some("0.0401")),
        row("azure", "gpt-4o-mini-audio-preview", &[(AudioIn, 1000), (AudioOut, 1000)], Some("0.03")),
        // https://docs.mistral.ai/models/voxtral-small-25-07
        row("mistral", "voxtral-small-latest", &[(Input, 9), (AudioIn, 375), (Seconds, 3600)], Some("0.2400009")),
        // https://cloud.google.com/gemini-enterprise-agent-platform/generative-ai/pricing
        row("vertex", "gemini-2.0-flash", &[(Input, 1_000_000), (Output, 1000)], Some("0.1506")),
        row("google", "gemini-2.0-flash", &[(Input, 1_000_000), (Output, 1000)], Some("0.1004")),
        row("vertex", "gemini-2.5-flash", &[(Input, 1_000_000)], Some("0.30")),
        // https://learn.microsoft.com/en-us/azure/foundry/openai/concepts/model-router-faq
        row("azure", "model-router", &[(Input, 1_000_000)], Some("0.14")),
        row("azure", "model-router", &[(Input, 1_000_000), (Output, 1)], None),
    ]);
}

#[test]
fn dated_and_preview_names_are_their_model() {
    use Dimension::Input;
    let million: &[(Dimension, u64)] = &[(Input, 100_000)];
    check(&[
        row("google", "gemini-2.5-pro-preview-06-05", million, Some("0.125")),
        row("google", "models/gemini-2.5-pro", million, Some("0.125")),
        row("vertex", "publishers/google/models/gemini-2.5-pro", million, Some("0.125")),
        row("vertex", "models/gemini-2.0-flash", million, Some("0.015")),
        row("google", "gemini-2.5-flash-lite-preview-09-2025", million, Some("0.01")),
        row("google", "gemini-2.5-pro-preview-06-05-tts", million, None),
        row("google", "gemini-3.5-flash-001", &[(Dimension::WebSearch, 1)], Some("0.014")),
        row("google", "gemini-3.5-flash-image", &[(Dimension::WebSearch, 1)], None),
        row("anthropic", "claude-opus-5@20260801", &[(Dimension::WebSearch, 1)], Some("0.01")),
    ]);
}

#[test]
fn models_that_only_other_lists_have_are_priced() {
    use Dimension::{Input, Output};
    let both: &[(Dimension, u64)] = &[(Input, 1_000_000), (Output, 1_000_000)];
    let input: &[(Dimension, u64)] = &[(Input, 1_000_000)];
    // https://aws.amazon.com/bedrock/pricing/ and the pages that the files name.
    check(&[
        row("bedrock", "ai21.j2-mid-v1", both, Some("25.00")),
        row("bedrock", "ai21.jamba-1-5-mini-v1:0", both, Some("0.60")),
        row("bedrock", "amazon.nova-2-multimodal-embeddings-v1:0", input, Some("0.135")),
        row("bedrock", "anthropic.claude-v2:1", both, Some("32.00")),
        row("bedrock", "cohere.embed-v4:0", input, Some("0.12")),
        Row { tier: "flex", ..row("bedrock", "minimax.minimax-m2", both, Some("0.75")) },
        row("bedrock", "moonshot.kimi-k2-thinking", both, Some("3.10")),
        row("bedrock", "nvidia.nemotron-nano-12b-v2", both, Some("0.80")),
        row("bedrock", "zai.glm-4.7-flash", both, Some("0.47")),
        row("vertex", "text-embedding-005", &[(Dimension::Characters, 1_000_000)], Some("0.025")),
        row("vertex", "text-embedding-005", input, None),
        row("cohere", "embed-english-light-v3.0", input, Some("0.10")),
        row("mistral", "mistral-large-latest", both, Some("2.00")),
        row("mistral", "mistral-large-2411", both, Some("8.00")),
        row("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", both, Some("2.08")),
        Row { at: 1_777_000_000, ..row("deepseek", "deepseek-chat", both, Some("0.42")) },
    ]);
}
