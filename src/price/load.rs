//! Reads price files: our own format, one file a provider, described in `conf/prices/README.md`.

use super::catalog::{Catalog, Model, Origin, Price, RATE_PARTS, Rates, Region, Tier};
use super::moment::{Moment, Weekdays};
use crate::usage::Dimension;
use crate::yaml::{self, Map, Node, Problem, Problems};
use rust_decimal::Decimal;
use std::sync::Arc;

/// The catalog this binary was built with, and the file each part came from.
const EMBEDDED: &[(&str, &str)] = &[
    ("anthropic.yaml", include_str!("../../conf/prices/anthropic.yaml")),
    ("azure.yaml", include_str!("../../conf/prices/azure.yaml")),
    ("azure_more.yaml", include_str!("../../conf/prices/azure_more.yaml")),
    ("bedrock.yaml", include_str!("../../conf/prices/bedrock.yaml")),
    ("bedrock_more.yaml", include_str!("../../conf/prices/bedrock_more.yaml")),
    ("cerebras.yaml", include_str!("../../conf/prices/cerebras.yaml")),
    ("cohere.yaml", include_str!("../../conf/prices/cohere.yaml")),
    ("cohere_more.yaml", include_str!("../../conf/prices/cohere_more.yaml")),
    ("cohere_rerank.yaml", include_str!("../../conf/prices/cohere_rerank.yaml")),
    ("deepseek.yaml", include_str!("../../conf/prices/deepseek.yaml")),
    ("deepseek_more.yaml", include_str!("../../conf/prices/deepseek_more.yaml")),
    ("fireworks.yaml", include_str!("../../conf/prices/fireworks.yaml")),
    ("google.yaml", include_str!("../../conf/prices/google.yaml")),
    ("groq.yaml", include_str!("../../conf/prices/groq.yaml")),
    ("mistral.yaml", include_str!("../../conf/prices/mistral.yaml")),
    ("mistral_more.yaml", include_str!("../../conf/prices/mistral_more.yaml")),
    ("mock.yaml", include_str!("../../conf/prices/mock.yaml")),
    ("openai.yaml", include_str!("../../conf/prices/openai.yaml")),
    ("openai_more.yaml", include_str!("../../conf/prices/openai_more.yaml")),
    ("openrouter.yaml", include_str!("../../conf/prices/openrouter.yaml")),
    ("perplexity.yaml", include_str!("../../conf/prices/perplexity.yaml")),
    ("perplexity_more.yaml", include_str!("../../conf/prices/perplexity_more.yaml")),
    ("together.yaml", include_str!("../../conf/prices/together.yaml")),
    ("together_more.yaml", include_str!("../../conf/prices/together_more.yaml")),
    ("vertex.yaml", include_str!("../../conf/prices/vertex.yaml")),
    ("xai.yaml", include_str!("../../conf/prices/xai.yaml")),
];

/// Reads the embedded catalog.
///
/// # Errors
/// Every mistake in it; a test sees to it that there are none.
pub fn embedded() -> Result<Catalog, Vec<Problem>> {
    let (mut catalog, mut list) = (Catalog::default(), vec![]);
    for (name, text) in EMBEDDED {
        let mut problems = Problems::of(name);
        read(text, &mut catalog, &mut problems);
        list.extend(problems.into_list());
    }
    catalog.seal();
    if list.is_empty() { Ok(catalog) } else { Err(list) }
}

/// Lays an operator's file over a catalog; its models replace those of the same id.
///
/// # Errors
/// Every mistake in the file, or that it cannot be read.
pub fn overlay(catalog: &mut Catalog, path: &str) -> Result<(), Vec<Problem>> {
    let mut problems = Problems::of(path);
    match std::fs::read_to_string(path) {
        Ok(text) => read(&text, catalog, &mut problems),
        Err(error) => problems.add(0, format!("cannot be read: {error}")),
    }
    catalog.seal();
    let list = problems.into_list();
    if list.is_empty() { Ok(()) } else { Err(list) }
}

fn read(text: &str, catalog: &mut Catalog, problems: &mut Problems) {
    let Some(document) = yaml::parse(text, problems) else { return };
    let mut map = Map::new(Node(&document), problems);
    let provider = map.take_text("provider", problems);
    let version = map.take_text("version", problems);
    let sources = map.take_list("sources", problems).unwrap_or_default().into_iter().map(str::to_owned).collect();
    let checked = map.take_as("checked", problems, "a date (2026-01-31)", |text| date(text).map(|_| text.to_owned()));
    let also = map.take_list("also", problems).unwrap_or_default();
    let models = map.take("models");
    let line = map.line();
    map.finish(problems);
    let Some((_, provider)) = provider else {
        return problems.add(line, "`provider` is missing");
    };
    let Some((_, version)) = version else {
        return problems.add(line, "`version` is missing: it is stamped on every entry priced by this file");
    };
    for part in version.split('+') {
        if !catalog.version.split('+').any(|known| known == part) {
            let joint = if catalog.version.is_empty() { "" } else { "+" };
            catalog.version = format!("{}{joint}{part}", catalog.version);
        }
    }
    let origin = Some(Arc::new(Origin { version: version.to_owned(), checked, sources }));
    catalog.also(provider, &also);
    for (id, node) in models.and_then(Node::entries).into_iter().flatten() {
        let mut map = Map::new(node, problems);
        let names = map.take_list("match", problems).unwrap_or_else(|| vec![id]);
        let not = map.take_list("not", problems).unwrap_or_default().into_iter().map(str::to_owned).collect();
        let prices = map.take("prices").and_then(Node::items);
        let prices: Vec<Price> = prices.into_iter().flatten().map(|node| price(node, problems)).collect();
        let regions = regions(map.take("regions"), problems);
        let max_output = map.take_as("max_output", problems, "a number of tokens", |text| text.parse().ok());
        if prices.is_empty() {
            problems.add(map.line(), format!("model `{id}` has no `prices`"));
        }
        map.finish(problems);
        catalog.add(provider, Model { id: id.to_owned(), not, prices, regions, max_output, origin: origin.clone() }, &names);
    }
}

fn price(node: Node<'_>, problems: &mut Problems) -> Price {
    let mut map = Map::new(node, problems);
    let mut price = Price {
        service_tier: map.take_text("service_tier", problems).map(|(_, text)| text.to_owned()),
        region: map.take_text("region", problems).map(|(_, text)| text.to_owned()),
        batch: map.take_bool("batch", problems).unwrap_or(false),
        from: map.take_as("from", problems, MOMENT, moment),
        until: map.take_as("until", problems, MOMENT, moment),
        ..Price::default()
    };
    if let Some(window) = map.take_list("utc", problems) {
        price.utc_minutes = minutes(&window);
        if price.utc_minutes.is_none() {
            problems.add(map.line(), "`utc` must be two times of day (\"00:30\", \"16:30\")");
        }
    }
    if let Some(names) = map.take_list("weekdays", problems) {
        price.weekdays = Weekdays::of(&names);
        if price.weekdays.is_none() {
            problems.add(map.line(), "`weekdays` must be a list of mon, tue, wed, thu, fri, sat and sun");
        }
    }
    for day in map.take_list("except", problems).into_iter().flatten() {
        match date(day) {
            Some(at) => price.except.push(at.day()),
            None => problems.add(map.line(), format!("`{day}` in `except` is not a date (2026-01-31)")),
        }
    }
    // Rates are dollars per million; fees dollars per thousand; hours are of what is counted in seconds.
    rates(map.take("rates"), RATE_PARTS, &mut price.rates, problems);
    rates(map.take("fees"), 1_000 * RATE_PARTS, &mut price.rates, problems);
    rates(map.take("hours"), 1_000_000 * (RATE_PARTS / 3600), &mut price.rates, problems);
    for (name, count) in map.take("minimum").and_then(Node::entries).into_iter().flatten() {
        match Dimension::from_name(name).zip(count.text().and_then(|text| text.parse().ok())) {
            Some(minimum) => price.minimum.push(minimum),
            None => problems.add(count.line(), format!("`{name}` in `minimum` is not a dimension and a count")),
        }
    }
    for node in map.take("tiers").and_then(Node::items).into_iter().flatten() {
        price.tiers.extend(tier(node, problems));
    }
    map.finish(problems);
    price
}

/// What regions multiply: numbers with at most two decimals.
fn regions(node: Option<Node<'_>>, problems: &mut Problems) -> Vec<Region> {
    let (Some(node), mut found) = (node, vec![]) else { return vec![] };
    if node.entries().is_none() {
        problems.add(node.line(), "`regions` must say factors by name: {us: 1.1}");
    }
    for (name, value) in node.entries().into_iter().flatten() {
        let factor = value.text().and_then(|text| text.parse::<Decimal>().ok()).filter(|factor| !factor.is_sign_negative());
        let percent = factor.and_then(|factor| factor.checked_mul(Decimal::ONE_HUNDRED)).map(|percent| percent.normalize());
        match percent.filter(|percent| percent.scale() == 0) {
            Some(percent) => found.push(Region { name: name.to_owned(), percent: percent.mantissa() }),
            None => problems.add(value.line(), format!("`{name}` in `regions` is not a factor with at most two decimals")),
        }
    }
    found
}

fn tier(node: Node<'_>, problems: &mut Problems) -> Option<Tier> {
    let mut map = Map::new(node, problems);
    let over = map.take_as("over", problems, "a number of tokens", |text| text.parse().ok());
    let inclusive = map.take_bool("inclusive", problems);
    let mut own = Rates::default();
    rates(map.take("rates"), RATE_PARTS, &mut own, problems);
    if over.is_none() || inclusive.is_none() {
        problems.add(map.line(), "a tier needs `over` and `inclusive`");
    }
    map.finish(problems);
    Some(Tier { over: over?, inclusive: inclusive?, rates: own })
}

/// Reads rates into `to`; `scale` makes parts of a rate of what the file says.
fn rates(node: Option<Node<'_>>, scale: i128, to: &mut Rates, problems: &mut Problems) {
    for (name, value) in node.and_then(Node::entries).into_iter().flatten() {
        let Some(dimension) = Dimension::from_name(name) else {
            problems.add(value.line(), format!("`{name}` is not a dimension"));
            continue;
        };
        let rate = value.text().and_then(|text| text.parse::<Decimal>().ok()).filter(|rate| !rate.is_sign_negative());
        match rate.and_then(atto_dollars) {
            Some(rate) => to.set(dimension, rate.saturating_mul(scale)),
            None => problems.add(value.line(), format!("`{name}` is not an amount of dollars with at most 18 decimals")),
        }
    }
}

pub(super) fn atto_dollars(dollars: Decimal) -> Option<i128> {
    let dollars = dollars.normalize();
    let power = 18u32.checked_sub(dollars.scale())?;
    dollars.mantissa().checked_mul(10i128.checked_pow(power)?)
}

pub(super) fn date(text: &str) -> Option<Moment> {
    if text.contains(['T', 't', ' ']) {
        return None;
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    let midnight = jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight())).ok()?;
    Some(Moment { unix_s: midnight.as_second() })
}

/// What `from` and `until` are.
const MOMENT: &str = "a date (2026-01-31) or a time (\"2026-01-31T16:00Z\")";

/// Midnight UTC of a date, or a time with its zone.
fn moment(text: &str) -> Option<Moment> {
    let exact = || text.parse::<jiff::Timestamp>().ok().map(|at| Moment { unix_s: at.as_second() });
    date(text).or_else(exact)
}

pub(super) fn minutes(window: &[&str]) -> Option<(i64, i64)> {
    let minute = |text: &str| -> Option<i64> {
        let (hours, minutes) = text.split_once(':')?;
        let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
        ((0..=24).contains(&hours) && (0..60).contains(&minutes)).then_some(hours * 60 + minutes)
    };
    match window {
        [from, until] => Some((minute(from)?, minute(until)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Query, charge};
    use crate::usage::Usage;

    #[test]
    fn the_embedded_catalog_is_sound() {
        let catalog = embedded().unwrap_or_else(|list| panic!("{}", list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
        for provider in crate::provider::REGISTRY {
            let prices = if provider.catalog.is_empty() { provider.id } else { provider.catalog };
            assert!(provider.id == "googleai" || catalog.models(prices).count() > 0, "{prices}");
        }
        let at = Moment { unix_s: 1_795_564_800 };
        let usage: Usage = [(Dimension::Input, 1_000), (Dimension::CacheRead, 2_000), (Dimension::Output, 300)].into_iter().collect();
        // $1.25, $0.125 and $10 per million: https://platform.openai.com/docs/pricing
        let query = Query { provider: "openai", model: "gpt-5", tier: "default", region: "", at };
        assert_eq!(charge(&catalog, &query, &usage, 1).amount.to_string(), "0.0045");
        let flex = Query { tier: "flex", ..query };
        assert_eq!(charge(&catalog, &flex, &usage, 1).amount.to_string(), "0.00225");
        assert!(charge(&catalog, &Query { tier: "marble", ..query }, &usage, 1).unknown_tier);
        assert!(charge(&catalog, &Query { region: "us", ..query }, &usage, 1).unknown_region);
        assert!(["", "global"].iter().all(|region| !charge(&catalog, &Query { region, ..query }, &usage, 1).unknown_region));
        assert!(charge(&catalog, &Query { model: "gpt-0", ..query }, &usage, 1).unknown_model);
    }

    #[test]
    fn regions_multiply_whatever_else_holds() {
        let catalog = embedded().unwrap();
        let at = Moment { unix_s: 1_795_564_800 };
        let usage: Usage = [(Dimension::Input, 1_000), (Dimension::Output, 100), (Dimension::WebSearch, 1)].into_iter().collect();
        let of = |model, tier, region| charge(&catalog, &Query { provider: "anthropic", model, tier, region, at }, &usage, 1);
        let amount = |tier, region| of("claude-opus-4-8", tier, region).amount.to_string();
        // $5 and $25 per million, doubled when fast, halved in batches, a tenth more in the US; a search is one cent:
        // https://platform.claude.com/docs/en/about-claude/pricing
        assert_eq!(["", "global", "us"].map(|region| amount("standard", region)), ["0.0175", "0.0175", "0.01825"]);
        assert_eq!(["global", "US"].map(|region| amount("fast", region)), ["0.025", "0.0265"]);
        assert_eq!(["global", "us"].map(|region| amount("batch", region)), ["0.01375", "0.014125"]);
        assert!(!of("claude-opus-4-8", "", "us").unknown_region);
        assert!(of("claude-opus-4-8", "", "eu").unknown_region && of("claude-sonnet-4-5", "", "us").unknown_region);
    }

    #[test]
    fn tells_every_mistake_of_a_file() {
        let text = "provider: p\nversion: v\nmodels:\n  a: {prices: [{rates: {input: 1, inptu: 2, output: -1}}]}\n  b: {}\n  c: {prices: [{from: soon, tiers: [{over: 3}]}]}\n  d: {regions: {us: 1.10, eu: 1.125}, prices: [{}]}\n  e: {regions: [us], prices: [{}]}\n";
        let mut problems = Problems::of("p.yaml");
        read(text, &mut Catalog::default(), &mut problems);
        let list: Vec<_> = problems.into_list().iter().map(|problem| problem.line).collect();
        assert_eq!(list, [4, 4, 5, 6, 6, 7, 8]);
    }
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod embedded_tests;
