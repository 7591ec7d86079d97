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
