//! Prices in words: the unit of each rate and the conditions of each price. For people; price files are `import/write.rs`.

use super::catalog::{Model, Price, RATE_PARTS, Rates};
use super::import::write;
use crate::usage::Dimension;
use rust_decimal::Decimal;

/// What a rate of this dimension is per, and how many units that are.
pub fn unit(dimension: Dimension) -> (&'static str, i128) {
    match dimension {
        Dimension::Seconds => ("per hour", 3_600),
        Dimension::Characters => ("per million characters", 1_000_000),
        Dimension::WebSearch | Dimension::WebSearchPreview | Dimension::SearchUnit => ("per thousand searches", 1_000),
        Dimension::ToolCall | Dimension::CodeCall => ("per thousand calls", 1_000),
        Dimension::Request => ("per thousand requests", 1_000),
        Dimension::Picture => ("per thousand pictures", 1_000),
        _ => ("per million tokens", 1_000_000),
    }
}

/// A rate in dollars per its [`unit`].
pub fn dollars(dimension: Dimension, rate: i128) -> Decimal {
    let (_, units) = unit(dimension);
    let atto = rate.saturating_mul(units) / (RATE_PARTS * 1_000_000);
    Decimal::try_from_i128_with_scale(atto, 18).unwrap_or(Decimal::MAX).normalize()
}

/// A model's prices, a line each rate.
pub fn model(model: &Model) -> Vec<String> {
    let mut lines = vec![];
    for price in &model.prices {
        lines.push(format!("  {}", conditions(price)));
        rates(&price.rates, "    ", &mut lines);
        lines.extend(price.minimum.iter().map(|(dimension, count)| format!("    at least {count} {}", dimension.name())));
        for tier in &price.tiers {
            let over =
                if tier.inclusive { format!("{} input tokens or more", tier.over) } else { format!("over {} input tokens", tier.over) };
            lines.push(format!("    {over}"));
            rates(&tier.rates, "      ", &mut lines);
        }
    }
    lines.extend(write::regions(model).map(|factors| format!("  {factors} (factors of all rates, not of fees)")));
    lines.extend(model.max_output.map(|tokens| format!("  max_output: {tokens} tokens")));
    lines.extend(model.origin.iter().flat_map(|origin| {
        let read = origin.checked.as_ref().map_or_else(|| "date unknown".to_owned(), |date| format!("as of {date}"));
        let pages = origin.sources.iter().map(|page| format!("    {page}"));
        std::iter::once(format!("  source: {}, {read}", origin.version)).chain(pages).collect::<Vec<_>>()
    }));
    lines
}

fn rates(rates: &Rates, indent: &str, lines: &mut Vec<String>) {
    let named = Dimension::ALL.iter().filter_map(|dimension| Some((*dimension, rates.of(*dimension)?)));
    lines.extend(
        named.map(|(dimension, rate)| format!("{indent}{:<20} ${} {}", dimension.name(), dollars(dimension, rate), unit(dimension).0)),
    );
}

/// When a price holds.
fn conditions(price: &Price) -> String {
    let mut parts = vec![];
    parts.extend(price.service_tier.as_ref().map(|tier| format!("service tier {tier}")));
    parts.extend(price.region.as_ref().map(|region| format!("region {region}")));
    parts.extend(price.batch.then(|| "batch jobs".to_owned()));
    parts.extend(price.from.map(|at| format!("from {}", write::day(at).trim_matches('"'))));
    parts.extend(price.until.map(|at| format!("until {}", write::day(at).trim_matches('"'))));
    parts.extend(price.utc_minutes.map(|(from, until)| format!("{} to {} UTC", write::time(from), write::time(until))));
    parts.extend(price.weekdays.map(|days| days.names().collect::<Vec<_>>().join(" ")));
    if !price.except.is_empty() {
        parts.push(format!("except {}", write::days(&price.except).join(" ")));
    }
    if parts.is_empty() { "always, unless a price below holds".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::embedded;

    #[test]
    fn rates_have_units_sources_and_conditions() {
        let catalog = embedded().unwrap();
        let shown = |provider: &str, name: &str| model(catalog.model(provider, name).unwrap()).join("\n");
        for (provider, name, want) in [
            ("openai", "gpt-5", "    input                $1.25 per million tokens\n"),
            ("openai", "gpt-5", "    web_search_preview   $10 per thousand searches\n"),
            ("openai", "gpt-5", "  service tier flex, from 2026-10-12\n"),
            (
                "openai",
                "gpt-5",
                "  source: genai-prices-0.2.3+facts-2026-12, as of 2026-11-25\n    https://developers.openai.com/api/docs/pricing\n",
            ),
            ("google", "gemini-2.5-pro", "    over 200000 input tokens\n      input                $2.5 per million tokens\n"),
            ("groq", "whisper-large-v3", "    seconds              $0.111 per hour\n    at least 10 seconds\n"),
            ("anthropic", "claude-opus-4-8", "  regions: {\"us\": 1.1} (factors of all rates, not of fees)\n"),
            ("deepseek", "deepseek-flash", "  01:00 to 04:00 UTC, mon tue wed thu fri, except 2026-09-25 2026-10-01"),
            ("deepseek", "deepseek-v4-pro", "  from 2026-08-16T16:00:00Z\n"),
            ("cohere", "rerank-v3.5", "    search_unit          $2 per thousand searches\n"),
        ] {
            assert!(shown(provider, name).contains(want), "{want}\n{}", shown(provider, name));
        }
    }
}
