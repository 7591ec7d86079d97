//! LiteLLM: dollars per token, one flat list of models that say whose they are.
//! <https://docs.litellm.ai/docs/provider_registration/add_model_pricing>

use super::{Imported, take_rates};
use crate::price::catalog::{BATCH, Model, Price, Rates, Tier};
use crate::usage::Dimension;
use serde_json::Value;
use std::collections::HashSet;

/// Its names of providers, ours, and what stands before the names of their models.
const PROVIDERS: &[(&str, &str, &str)] = &[
    ("openai", "openai", "openai/"),
    ("text-completion-openai", "openai", ""),
    ("anthropic", "anthropic", "anthropic/"),
    ("gemini", "google", "gemini/"),
    ("vertex_ai-language-models", "google", "vertex_ai/"),
    ("vertex_ai-embedding-models", "google", "vertex_ai/"),
    ("azure", "azure", "azure/"),
    ("bedrock", "bedrock", "bedrock/"),
    ("bedrock_converse", "bedrock", "bedrock/"),
    ("groq", "groq", "groq/"),
    ("fireworks_ai", "fireworks", "fireworks_ai/"),
    ("xai", "xai", "xai/"),
    ("perplexity", "perplexity", "perplexity/"),
    ("deepseek", "deepseek", "deepseek/"),
    ("mistral", "mistral", "mistral/"),
    ("openrouter", "openrouter", "openrouter/"),
    ("together_ai", "together", "together_ai/"),
    ("cerebras", "cerebras", "cerebras/"),
    ("cohere", "cohere", "cohere/"),
    ("cohere_chat", "cohere", ""),
];

/// Keys of an item without their ending for a tier.
const RATES: &[(&str, Dimension, i128)] = &[
    ("input_cost_per_token", Dimension::Input, 1),
    ("output_cost_per_token", Dimension::Output, 1),
    ("output_cost_per_reasoning_token", Dimension::Reasoning, 1),
    ("cache_read_input_token_cost", Dimension::CacheRead, 1),
    ("cache_creation_input_token_cost", Dimension::CacheWrite5m, 1),
    ("cache_creation_input_token_cost_above_1hr", Dimension::CacheWrite1h, 1),
    ("input_cost_per_audio_token", Dimension::AudioIn, 1),
    ("output_cost_per_audio_token", Dimension::AudioOut, 1),
    ("input_cost_per_image_token", Dimension::ImageIn, 1),
    ("output_cost_per_image_token", Dimension::ImageOut, 1),
    ("input_cost_per_second", Dimension::Seconds, 1),
    ("input_cost_per_character", Dimension::Characters, 1),
    ("input_cost_per_query", Dimension::SearchUnit, 1),
    ("output_cost_per_image", Dimension::Picture, 1),
];

/// Endings of keys and what they hold for.
const TIERS: &[(&str, &str)] = &[("_batches", BATCH), ("_flex", "flex"), ("_priority", "priority")];
const ABOVE: &[(&str, u64)] = &[("_above_128k_tokens", 128_000), ("_above_200k_tokens", 200_000), ("_above_272k_tokens", 272_000)];

pub(super) fn read(document: &Value) -> Option<Vec<Imported>> {
    let mut found: Vec<Imported> = vec![];
    let mut known: HashSet<(&str, String)> = HashSet::new();
    let items = document.as_object()?;
    // Where two of theirs are one of ours, the one that stands first in the table counts.
    for (theirs, ours, prefix) in PROVIDERS {
        let own = |item: &&Value| item.get("litellm_provider").and_then(Value::as_str) == Some(theirs);
        for (name, item) in items.iter().filter(|(_, item)| own(item)) {
            let id = name.strip_prefix(prefix).unwrap_or(name);
            // Regional and sized variants (`us-east-1/…`, `1024-x-1024/…`) are other things than the model.
            let regional = *ours == "bedrock" && id.contains('/') || id.contains("-x-");
            let prices = prices(item);
            if !regional && !prices.is_empty() && known.insert((ours, id.to_owned())) {
                let model = Model { id: id.to_owned(), prices, ..Model::default() };
                found.push(Imported { provider: (*ours).to_owned(), model, names: vec![id.to_owned()] });
            }
        }
    }
    Some(found)
}

fn prices(item: &Value) -> Vec<Price> {
    let mut standard = Price::default();
    take_rates(item, RATES, &mut standard.rates);
    if standard.rates == Rates::default() {
        return vec![];
    }
    standard.tiers = tiers(item, "");
    let mut prices = vec![standard.clone()];
    for (ending, tier) in TIERS {
        let rates = with_ending(item, ending);
        if rates != Rates::default() {
            let (batch, service_tier) = (*tier == BATCH, Some((*tier).to_owned()).filter(|tier| tier != BATCH));
            // Long requests cost more there, too; where nobody says how much, as much more as usual.
            let own = tiers(item, ending);
            let tiers = if own.is_empty() { standard.tiers.clone() } else { own };
            prices.push(Price { batch, service_tier, rates: standard.rates.overlaid(&rates), tiers, ..Price::default() });
        }
    }
    prices
}

/// Rates for long requests, of keys that end so.
fn tiers(item: &Value, ending: &str) -> Vec<Tier> {
    let above = ABOVE.iter().map(|(above, over)| (*over, with_ending(item, &format!("{above}{ending}"))));
    above.filter(|(_, rates)| *rates != Rates::default()).map(|(over, rates)| Tier { over, inclusive: false, rates }).collect()
}

/// Rates whose keys have this ending.
fn with_ending(item: &Value, ending: &str) -> Rates {
    let mut rates = Rates::default();
    for (key, dimension, units) in RATES {
        take_rates(item, &[(&format!("{key}{ending}"), *dimension, *units)], &mut rates);
    }
    rates
}
