//! Our charges against those of the genai-prices package, for every model that both know and a grid of usages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use rust_decimal::{Decimal, RoundingStrategy};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use tollgate::price::{Moment, Query, charge, embedded};
use tollgate::usage::{Dimension, Usage};

#[derive(serde::Deserialize)]
struct Case {
    provider: String,
    model: String,
    tier: String,
    region: String,
    at: i64,
    usage: BTreeMap<String, u64>,
    usd: String,
}

#[test]
fn charges_what_genai_prices_charges() {
    let Some(path) = std::env::var_os("TOLLGATE_PRICE_GRID") else {
        eprintln!("skipped: TOLLGATE_PRICE_GRID names no grid (tests/prices/grid.py makes one)");
        return;
    };
    let catalog = embedded().unwrap();
    let (mut compared, mut unknown, mut differing) = (BTreeMap::new(), BTreeSet::new(), vec![]);
    for line in BufReader::new(std::fs::File::open(path).unwrap()).lines() {
        let case: Case = serde_json::from_str(&line.unwrap()).unwrap();
        let query =
            Query { provider: &case.provider, model: &case.model, tier: &case.tier, region: &case.region, at: Moment { unix_s: case.at } };
        let usage: Usage = case.usage.iter().map(|(name, count)| (Dimension::from_name(name).unwrap(), *count)).collect();
        let ours = charge(&catalog, &query, &usage, 1);
        if ours.unknown_model {
            unknown.insert(format!("{}/{}", case.provider, case.model));
            continue;
        }
        // Theirs goes on without end where a rate is a third; a pico-dollar is as far as a bill goes.
        let theirs = case.usd.parse::<Decimal>().unwrap().round_dp_with_strategy(12, RoundingStrategy::MidpointNearestEven);
        *compared.entry(case.tier.clone()).or_insert(0) += 1;
        if Decimal::from_i128_with_scale(ours.amount.0, 12) != theirs || !ours.unpriced.is_empty() {
            differing.push(format!(
                "{}/{} {:?} {:?} at {}: {} here, {theirs} there, unpriced {:?}",
                case.provider,
                case.model,
                (&case.tier, &case.region),
                case.usage,
                case.at,
                ours.amount,
                ours.unpriced
            ));
        }
    }
    eprintln!("compared, by tier: {compared:?}");
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing[..differing.len().min(20)].join("\n"));
    assert!(unknown.is_empty(), "unknown here: {unknown:?}");
    assert!(compared.values().sum::<usize>() > 100_000, "{compared:?}");
    assert!(["batch", "flex", "priority", "fast"].iter().all(|tier| compared.get(*tier) > Some(&1_000)), "{compared:?}");
}
