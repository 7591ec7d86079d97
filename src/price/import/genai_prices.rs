//! genai-prices: dollars per million tokens and per thousand events, with dates, times of day and tiers.
//! <https://github.com/pydantic/genai-prices>. `conf/prices/from_genai_prices.py` knows more of it (variants, patterns
//! of dates); this is for what is newer than the binary.

use super::{Imported, decimal, rate, take_rates};
use crate::price::catalog::{Model, Price, Rates, Tier};
use crate::price::load::{date, minutes};
use crate::usage::Dimension;
use serde_json::Value;
use std::collections::BTreeMap;

const PROVIDERS: &[(&str, &str)] = &[
    ("openai", "openai"),
    ("anthropic", "anthropic"),
    ("groq", "groq"),
    ("fireworks", "fireworks"),
    ("x-ai", "xai"),
    ("perplexity", "perplexity"),
    ("deepseek", "deepseek"),
    ("mistral", "mistral"),
    ("openrouter", "openrouter"),
    ("together", "together"),
    ("cerebras", "cerebras"),
    ("google", "google"),
    ("aws", "bedrock"),
    ("azure", "azure"),
    ("cohere", "cohere"),
];

const MILLION: i128 = 1_000_000;
const THOUSAND: i128 = 1_000;
const HOUR: i128 = 3_600;
const RATES: &[(&str, Dimension, i128)] = &[
    ("input_mtok", Dimension::Input, MILLION),
    ("cache_read_mtok", Dimension::CacheRead, MILLION),
    ("cache_write_mtok", Dimension::CacheWrite5m, MILLION),
    ("cache_write_5m_mtok", Dimension::CacheWrite5m, MILLION),
    ("cache_write_1h_mtok", Dimension::CacheWrite1h, MILLION),
    ("input_audio_mtok", Dimension::AudioIn, MILLION),
    ("input_image_mtok", Dimension::ImageIn, MILLION),
    ("input_video_mtok", Dimension::VideoIn, MILLION),
    ("cache_audio_read_mtok", Dimension::CacheReadAudio, MILLION),
    ("output_mtok", Dimension::Output, MILLION),
    ("output_reasoning_mtok", Dimension::Reasoning, MILLION),
    ("output_audio_mtok", Dimension::AudioOut, MILLION),
    ("output_image_mtok", Dimension::ImageOut, MILLION),
    ("output_citation_mtok", Dimension::Citation, MILLION),
    ("input_mchars", Dimension::Characters, MILLION),
    ("web_searches_kcount", Dimension::WebSearch, THOUSAND),
    ("storage_searches_kcount", Dimension::ToolCall, THOUSAND),
    ("requests_kcount", Dimension::Request, THOUSAND),
    ("audio_hours", Dimension::Seconds, HOUR),
    ("input_audio_hours", Dimension::Seconds, HOUR),
];

pub(super) fn read(document: &Value) -> Option<Vec<Imported>> {
    let mut found = vec![];
    for provider in document.as_array()? {
        let theirs = provider.get("id").and_then(Value::as_str)?;
        let Some((_, ours)) = PROVIDERS.iter().find(|(name, _)| *name == theirs) else { continue };
        for model in provider.get("models").and_then(Value::as_array)? {
            let id = model.get("id").and_then(Value::as_str)?;
            let mut names = vec![id.to_owned()];
            patterns(model.get("match")?, &mut names);
            let prices = prices(model.get("prices")?);
            if !prices.is_empty() {
                let model = Model { id: id.to_owned(), prices, ..Model::default() };
                found.push(Imported { provider: (*ours).to_owned(), model, names });
            }
        }
    }
    Some(found)
}

/// Names and patterns, of those clauses that can be said so.
fn patterns(clause: &Value, names: &mut Vec<String>) {
    let pattern = |key: &str, before: &str, after: &str| {
        let name = clause.get(key).and_then(Value::as_str).filter(|name| !name.is_empty() && !name.contains('*'))?;
        Some(format!("{before}{name}{after}"))
    };
    let one = [pattern("equals", "", ""), pattern("starts_with", "", "*"), pattern("ends_with", "*", ""), pattern("contains", "*", "*")];
    names.extend(one.into_iter().flatten());
    for clause in clause.get("or").and_then(Value::as_array).into_iter().flatten() {
        patterns(clause, names);
    }
}

/// One price, or several under conditions; an item with a condition nobody here knows is left out.
fn prices(value: &Value) -> Vec<Price> {
    let Some(items) = value.as_array() else { return price(value).into_iter().collect() };
    items
        .iter()
        .filter_map(|item| {
            let mut price = price(item.get("prices")?)?;
            let Some(constraint) = item.get("constraint").filter(|constraint| !constraint.is_null()) else { return Some(price) };
            let text = |key: &str| constraint.get(key).and_then(Value::as_str);
            if let Some(start) = text("start_date") {
                price.from = Some(date(start)?);
            } else {
                // `22:00:00Z`: times in other zones are not said so.
                let time = |key: &str| text(key)?.strip_suffix('Z')?.get(..5);
                price.utc_minutes = Some(minutes(&[time("start_time")?, time("end_time")?])?);
            }
            Some(price)
        })
        .collect()
}

fn price(value: &Value) -> Option<Price> {
    let mut price = Price::default();
    let mut tiers: BTreeMap<u64, Rates> = BTreeMap::new();
    for entry @ (key, dimension, units) in RATES {
        match value.get(*key) {
            Some(tiered @ Value::Object(_)) => {
                price.rates.set(*dimension, tiered.get("base").and_then(decimal).and_then(|base| rate(base, *units))?);
                for tier in tiered.get("tiers").and_then(Value::as_array).into_iter().flatten() {
                    let over = tier.get("start").and_then(Value::as_u64)?;
                    let dollars = tier.get("price").and_then(decimal)?;
                    tiers.entry(over).or_default().set(*dimension, rate(dollars, *units)?);
                }
            }
            _ => take_rates(value, &[*entry], &mut price.rates),
        }
    }
    // A tier says only what changes with it; what changed with an earlier one stays changed.
    let mut before = Rates::default();
    for (over, rates) in tiers {
        before = before.overlaid(&rates);
        // "More than 199999" is how it says "200000 or more".
        let inclusive = over % 1000 == 999;
        price.tiers.push(Tier { over: over + u64::from(inclusive), inclusive, rates: before.clone() });
    }
    (price.rates != Rates::default()).then_some(price)
}
