//! models.dev: dollars per million tokens, by provider and model. <https://github.com/sst/models.dev>

use super::{Imported, single, take_rates};
use crate::price::catalog::{Origin, Price, Rates, Tier};
use crate::usage::Dimension;
use serde_json::Value;
use std::sync::Arc;

/// Its names of providers, and ours.
const PROVIDERS: &[(&str, &str)] = &[
    ("openai", "openai"),
    ("anthropic", "anthropic"),
    ("google", "google"),
    ("google-vertex", "google"),
    ("azure", "azure"),
    ("amazon-bedrock", "bedrock"),
    ("groq", "groq"),
    ("fireworks-ai", "fireworks"),
    ("xai", "xai"),
    ("perplexity", "perplexity"),
    ("deepseek", "deepseek"),
    ("mistral", "mistral"),
    ("openrouter", "openrouter"),
    ("togetherai", "together"),
    ("cerebras", "cerebras"),
    ("cohere", "cohere"),
];

const MILLION: i128 = 1_000_000;
const RATES: &[(&str, Dimension, i128)] = &[
    ("input", Dimension::Input, MILLION),
    ("output", Dimension::Output, MILLION),
    ("reasoning", Dimension::Reasoning, MILLION),
    ("cache_read", Dimension::CacheRead, MILLION),
    ("cache_write", Dimension::CacheWrite5m, MILLION),
    ("input_audio", Dimension::AudioIn, MILLION),
    ("output_audio", Dimension::AudioOut, MILLION),
];

pub(super) fn read(document: &Value) -> Option<Vec<Imported>> {
    let all = document.as_object()?;
    let mut found: Vec<Imported> = vec![];
    for (theirs, ours) in PROVIDERS {
        let models = all.get(*theirs).and_then(|provider| provider.get("models")).and_then(Value::as_object);
        for (id, model) in models.into_iter().flatten() {
            // Vertex sells under Google's names at Google's prices; the first wins.
            let known = found.iter().any(|other| other.provider == *ours && other.model.id == *id);
            let price = model.get("cost").filter(|_| !known).map(price);
            // When the publisher last looked at the model.
            let checked = model.get("last_updated").and_then(Value::as_str).map(str::to_owned);
            found.extend(price.and_then(|price| single(ours, id, price)).map(|mut found| {
                found.model.origin = Some(Arc::new(Origin { checked, ..Origin::default() }));
                found
            }));
        }
    }
    Some(found)
}

fn price(cost: &Value) -> Price {
    let mut price = Price::default();
    take_rates(cost, RATES, &mut price.rates);
    let tier = |cost: &Value, over: u64| {
        let mut rates = Rates::default();
        take_rates(cost, RATES, &mut rates);
        Tier { over, inclusive: false, rates }
    };
    // The list is the newer way, and says where each begins.
    let size = |tier: &Value| tier.pointer("/tier/size").and_then(Value::as_u64);
    let listed = cost.get("tiers").and_then(Value::as_array).into_iter().flatten();
    price.tiers.extend(listed.filter_map(|cost| Some(tier(cost, size(cost)?))));
    if price.tiers.is_empty() {
        price.tiers.extend(cost.get("context_over_200k").map(|cost| tier(cost, 200_000)));
    }
    price
}
