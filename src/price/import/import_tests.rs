use super::*;
use crate::price::{Moment, Query, charge, embedded};
use crate::usage::Usage;

const MODELS_DEV: &str = r#"{
  "openai": {"id": "openai", "models": {
    "gpt-x": {"id": "gpt-x", "cost": {"input": 1.25, "output": 10, "cache_read": 0.125,
      "context_over_200k": {"input": 2.5, "output": 15, "cache_read": 0.25}}},
    "gpt-free": {"id": "gpt-free", "cost": {"input": 0, "output": 0}},
    "gpt-none": {"id": "gpt-none"}}},
  "google": {"models": {"gemini-x": {"cost": {"input": 0.1, "output": 0.4, "input_audio": 0.3}}}},
  "google-vertex": {"models": {"gemini-x": {"cost": {"input": 9, "output": 9}}}},
  "unheard-of": {"models": {"m": {"cost": {"input": 1}}}}}"#;

const LITELLM: &str = r#"{
  "sample_spec": {"litellm_provider": "one of https://docs.litellm.ai/docs/providers", "input_cost_per_token": 0.0},
  "gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05,
    "cache_read_input_token_cost": 1.25e-07, "input_cost_per_token_batches": 6.25e-07, "input_cost_per_token_flex": 6.25e-07,
    "output_cost_per_token_flex": 5e-06, "input_cost_per_token_above_200k_tokens": 2.5e-06},
  "groq/whisper-x": {"litellm_provider": "groq", "input_cost_per_second": 3e-05},
  "rerank-x": {"litellm_provider": "cohere", "input_cost_per_query": 0.002},
  "bedrock/us-east-1/anthropic.claude-x": {"litellm_provider": "bedrock", "input_cost_per_token": 8e-06},
  "1024-x-1024/gpt-image-x": {"litellm_provider": "openai", "input_cost_per_image": 0.02},
  "azure/gpt-x": {"litellm_provider": "azure", "output_cost_per_token": 1e-05, "input_cost_per_token": 1e-06}}"#;

const GENAI: &str = r#"[
  {"id": "anthropic", "models": [
    {"id": "claude-x", "match": {"or": [{"starts_with": "claude-x"}, {"contains": "x-claude"}, {"regex": "^c"}]}, "prices": [
      {"prices": {"input_mtok": {"base": 3, "tiers": [{"start": 199999, "price": 6}]}, "output_mtok": {"base": 15, "tiers": [{"start": 199999, "price": 22.5}]}, "web_searches_kcount": 10}},
      {"constraint": {"start_date": "2026-03-13"}, "prices": {"input_mtok": 3, "output_mtok": 15}},
      {"constraint": {"something": "new"}, "prices": {"input_mtok": 99}}]}]},
  {"id": "deepseek", "models": [{"id": "d", "match": {"equals": "d-1"}, "prices": [
      {"prices": {"input_mtok": 0.27}}, {"constraint": {"start_time": "16:30:00Z", "end_time": "00:30:00Z"}, "prices": {"input_mtok": 0.135}}]}]},
  {"id": "groq", "models": [{"id": "w", "match": {"equals": "w"}, "prices": {"input_audio_hours": 0.111}}]}]"#;

/// What this costs in dollars; `None` without a price.
fn cost(imported: &[Imported], provider: &str, model: &str, tier: &str, usage: &[(Dimension, u64)]) -> Option<String> {
    let mut catalog = Catalog::default();
    lay_over(&mut catalog, imported.to_vec());
    let query = Query { provider, model, tier, region: "", at: Moment { unix_s: 1_795_564_800 } };
    let charge = charge(&catalog, &query, &usage.iter().copied().collect::<Usage>(), 1);
    charge.is_priced().then(|| charge.amount.to_string())
}

#[test]
fn reads_models_dev() {
    let found = import(Format::ModelsDev, MODELS_DEV).unwrap();
    let million = 1_000_000;
    for (provider, model, usage, want) in [
        ("openai", "gpt-x", [(Dimension::Input, 200_000), (Dimension::Output, 1000)], Some("0.26")),
        ("openai", "gpt-x", [(Dimension::Input, 200_001), (Dimension::Output, 0)], Some("0.5000025")),
        ("openai", "gpt-free", [(Dimension::Input, million), (Dimension::Output, 0)], Some("0.00")),
        ("openai", "gpt-none", [(Dimension::Input, million), (Dimension::Output, 0)], None),
        ("google", "gemini-x", [(Dimension::Input, million), (Dimension::AudioIn, million)], Some("0.40")),
    ] {
        assert_eq!(cost(&found, provider, model, "", &usage).as_deref(), want, "{model}");
    }
    assert_eq!(found.len(), 3);
}

#[test]
fn reads_litellm() {
    let found = import(Format::LiteLlm, LITELLM).unwrap();
    let names: Vec<_> = found.iter().map(|found| format!("{}/{}", found.provider, found.model.id)).collect();
    assert_eq!(names, ["openai/gpt-x", "azure/gpt-x", "groq/whisper-x", "cohere/rerank-x"]);
    for (provider, model, tier, usage, want) in [
        ("openai", "gpt-x", "", [(Dimension::Input, 1000), (Dimension::CacheRead, 1000)], "0.001375"),
        ("openai", "gpt-x", "batch", [(Dimension::Input, 1000), (Dimension::Output, 1000)], "0.010625"),
        ("openai", "gpt-x", "flex", [(Dimension::Input, 1000), (Dimension::Output, 1000)], "0.005625"),
        ("openai", "gpt-x", "", [(Dimension::Input, 200_001), (Dimension::Output, 0)], "0.5000025"),
        ("groq", "whisper-x", "", [(Dimension::Seconds, 61), (Dimension::Output, 0)], "0.00183"),
        ("cohere", "rerank-x", "", [(Dimension::SearchUnit, 3), (Dimension::Output, 0)], "0.006"),
    ] {
        assert_eq!(cost(&found, provider, model, tier, &usage).as_deref(), Some(want), "{model} {tier}");
    }
}

#[test]
fn reads_genai_prices() {
    let found = import(Format::GenaiPrices, GENAI).unwrap();
    assert_eq!(found[0].names, ["claude-x", "claude-x*", "*x-claude*"]);
    let at = |unix_s: i64| {
        let mut catalog = Catalog::default();
        lay_over(&mut catalog, found.clone());
        move |provider: &str, model: &str, dimension: Dimension, count: u64| {
            let query = Query { provider, model, tier: "", region: "", at: Moment { unix_s } };
            charge(&catalog, &query, &[(dimension, count)].into_iter().collect(), 0).amount.to_string()
        }
    };
    // Before and after 2026-03-13.
    assert_eq!(at(1_700_000_000)("anthropic", "claude-x-1", Dimension::Input, 200_000), "1.20");
    assert_eq!(at(1_700_000_000)("anthropic", "claude-x-1", Dimension::Input, 199_999), "0.599997");
    assert_eq!(at(1_795_564_800)("anthropic", "my-x-claude", Dimension::Input, 200_000), "0.60");
    // 17:00 and 12:00 UTC.
    assert_eq!(at(1_795_564_800 + 17 * 3600)("deepseek", "d-1", Dimension::Input, 1_000_000), "0.135");
    assert_eq!(at(1_795_564_800 + 12 * 3600)("deepseek", "d-1", Dimension::Input, 1_000_000), "0.27");
    // By the hour, exactly: a rate a second would have no end.
    assert_eq!(at(0)("groq", "w", Dimension::Seconds, 3600), "0.111");
}

#[test]
fn what_is_written_is_read_as_the_same() {
    for (format, text) in [(Format::ModelsDev, MODELS_DEV), (Format::LiteLlm, LITELLM), (Format::GenaiPrices, GENAI)] {
        let found = import(format, text).unwrap();
        for provider in found.iter().map(|found| &found.provider) {
            let models: Vec<_> = found.iter().filter(|found| found.provider == *provider).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("p.yaml");
            std::fs::write(&path, write::write(provider, "v", &models)).unwrap();
            let mut catalog = Catalog::default();
            crate::price::overlay(&mut catalog, path.to_str().unwrap()).unwrap();
            let without_origin = |model: &Model| Model { origin: None, ..model.clone() };
            let read: Vec<_> = catalog.models(provider).map(without_origin).collect();
            assert_eq!(read, models.iter().map(|found| without_origin(&found.model)).collect::<Vec<_>>(), "{}", format.name());
        }
    }
}

#[test]
fn written_conditions_are_read_as_the_same() {
    let catalog = embedded().unwrap();
    for provider in ["deepseek", "perplexity", "openai"] {
        let imported = |model: &Model| Imported { provider: provider.to_owned(), model: model.clone(), names: vec![model.id.clone()] };
        let models: Vec<_> = catalog.models(provider).map(imported).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.yaml");
        std::fs::write(&path, write::write(provider, "v", &models.iter().collect::<Vec<_>>())).unwrap();
        let mut read = Catalog::default();
        crate::price::overlay(&mut read, path.to_str().unwrap()).unwrap();
        let prices: Vec<_> = read.models(provider).map(|model| model.prices.clone()).collect();
        assert_eq!(prices, models.iter().map(|found| found.model.prices.clone()).collect::<Vec<_>>(), "{provider}");
    }
}

#[test]
fn what_is_no_catalog_is_refused() {
    for format in Format::ALL {
        for text in ["", "null", "3", "{}", "[]", "[{}]", r#"{"openai": 3}"#, r#"[{"id":"openai","models":3}]"#] {
            assert!(import(*format, text).is_err(), "{} {text}", format.name());
        }
    }
}

#[test]
fn suspicious_changes_are_refused() {
    let catalog = embedded().unwrap();
    let import = |input: &str| {
        let text = format!(r#"{{"openai": {{"models": {{"gpt-5": {{"cost": {{"input": {input}, "output": 10}}}}}}}}}}"#);
        import(Format::ModelsDev, &text).unwrap()
    };
    for (input, sound) in [("1.25", true), ("12.4", true), ("0.126", true), ("12.5", false), ("0.125", false), ("0", false)] {
        assert_eq!(check_change(&catalog, &import(input)).is_ok(), sound, "{input}");
    }
    // Not only of what is asked for first.
    for (of, sound) in [("\"cache_read\": 0.12", true), ("\"cache_read\": 12", false), ("\"cache_read\": 0", false)] {
        let text = format!(r#"{{"openai": {{"models": {{"gpt-5": {{"cost": {{"input": 1.25, "output": 10, {of}}}}}}}}}}}"#);
        assert_eq!(check_change(&catalog, &super::import(Format::ModelsDev, &text).unwrap()).is_ok(), sound, "{of}");
    }
    let tiers = |over: &str| {
        let text = format!(
            r#"{{"gemini-2.5-pro": {{"litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05, "input_cost_per_token_above_200k_tokens": {over}, "output_cost_per_token_above_200k_tokens": 1.5e-05}}}}"#
        );
        check_change(&catalog, &super::import(Format::LiteLlm, &text).unwrap())
    };
    assert_eq!((tiers("2.5e-06").is_ok(), tiers("2.5e-04").is_ok()), (true, false));
    let many = |count: usize| {
        (0..count)
            .flat_map(|at| {
                import("1").into_iter().map(move |mut one| {
                    one.model.id = at.to_string();
                    one
                })
            })
            .collect::<Vec<_>>()
    };
    assert!(!lost_many(&many(10), &many(8)) && lost_many(&many(10), &many(7)));
}

/// What a publisher leaves out is not lost as long as the price is the same; with another price only fees stay.
#[test]
fn batches_tiers_and_fees_outlive_an_import_that_agrees() {
    for (input, batch, fee) in [("1.25", Some("0.625"), "0.01"), ("1.5", None, "0.01")] {
        let mut catalog = embedded().unwrap();
        let text = format!(r#"{{"openai": {{"models": {{"gpt-5": {{"cost": {{"input": {input}, "output": 10}}}}}}}}}}"#);
        lay_over(&mut catalog, import(Format::ModelsDev, &text).unwrap());
        let cost = |tier, usage: &[(Dimension, u64)]| {
            let query = Query { provider: "openai", model: "gpt-5-2025-08-07", tier, region: "", at: Moment { unix_s: 1_795_564_800 } };
            let charge = charge(&catalog, &query, &usage.iter().copied().collect::<Usage>(), 1);
            (!charge.unknown_tier && charge.unpriced.is_empty()).then(|| charge.amount.to_string())
        };
        assert_eq!(cost("batch", &[(Dimension::Input, 1_000_000)]).as_deref(), batch, "{input}");
        assert_eq!(cost("", &[(Dimension::WebSearch, 1)]).as_deref(), Some(fee));
        assert!(cost("", &[(Dimension::Input, 1_000_000)]).is_some_and(|usd| usd.trim_end_matches('0') == input));
    }
}

#[test]
fn what_regions_multiply_holds_for_imported_names() {
    for name in ["claude-opus-4-8", "claude-opus-4-8-20990101"] {
        let mut catalog = embedded().unwrap();
        let text = format!(r#"{{"anthropic": {{"models": {{"{name}": {{"cost": {{"input": 7, "output": 10}}}}}}}}}}"#);
        lay_over(&mut catalog, import(Format::ModelsDev, &text).unwrap());
        let query = Query { provider: "anthropic", model: name, tier: "", region: "us", at: Moment { unix_s: 1_795_564_800 } };
        let charge = charge(&catalog, &query, &[(Dimension::Input, 1_000_000)].into_iter().collect(), 1);
        assert_eq!((charge.amount.to_string().as_str(), charge.unknown_region), ("7.70", false), "{name}");
    }
}

#[test]
fn newer_ways_to_say_tiers_are_read() {
    let text = r#"{"openai": {"models": {"m": {"cost": {"input": 2.5, "output": 15, "context_over_200k": {"input": 5},
        "tiers": [{"tier": {"type": "context", "size": 272000}, "input": 5, "output": 22.5}]}}}}}"#;
    let found = import(Format::ModelsDev, text).unwrap();
    assert_eq!(found[0].model.prices[0].tiers.iter().map(|tier| tier.over).collect::<Vec<_>>(), [272_000]);
    let text = r#"{"a": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 9e-06},
        "vertex_ai/g": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 9e-06},
        "gemini/g": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06, "input_cost_per_token_batches": 5e-07,
          "input_cost_per_token_above_200k_tokens": 2e-06, "input_cost_per_token_above_200k_tokens_batches": 1e-06}}"#;
    let found = import(Format::LiteLlm, text).unwrap();
    let long = [(Dimension::Input, 1_000_000)];
    assert_eq!(cost(&found, "google", "g", "", &long).as_deref(), Some("2.00"));
    assert_eq!(cost(&found, "google", "g", "batch", &long).as_deref(), Some("1.00"));
    assert_eq!(cost(&found, "google", "a", "", &long).as_deref(), Some("9.00"));
}
