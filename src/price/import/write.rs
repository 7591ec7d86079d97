//! Writes models as a price file of our own, to be looked at, kept and laid over the catalog.

use super::Imported;
use crate::price::catalog::{Model, Price, RATE_PARTS, Rates, Region};
use crate::price::moment::Moment;
use crate::usage::Dimension;
use rust_decimal::Decimal;
use std::fmt::Write;

/// The price file of one provider.
pub fn write(provider: &str, version: &str, models: &[&Imported]) -> String {
    let mut out = format!("provider: {provider}\nversion: {}\nmodels:\n", quoted(version));
    for Imported { model, names, .. } in models {
        let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(out, "  {}:\n    match: [{}]", quoted(&model.id), names.join(", "));
        if !model.not.is_empty() {
            let not: Vec<_> = model.not.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(out, "    not: [{}]", not.join(", "));
        }
        let _ = writeln!(out, "    prices:");
        for price in &model.prices {
            let _ = writeln!(out, "      - {}", item(price));
        }
    }
    out
}

/// What regions multiply.
pub fn regions(model: &Model) -> Option<String> {
    let factor = |region: &Region| {
        let factor = Decimal::try_from_i128_with_scale(region.percent, 2).unwrap_or(Decimal::MAX).normalize();
        format!("{}: {factor}", quoted(&region.name))
    };
    let listed: Vec<_> = model.regions.iter().map(factor).collect();
    (!listed.is_empty()).then(|| format!("regions: {{{}}}", listed.join(", ")))
}

/// One price.
pub fn item(price: &Price) -> String {
    let mut parts = vec![];
    let named = |key: &str, value: &Option<String>| value.as_ref().map(|value| format!("{key}: {}", quoted(value)));
    parts.extend(named("service_tier", &price.service_tier));
    parts.extend(named("region", &price.region));
    parts.extend(price.batch.then(|| "batch: true".to_owned()));
    parts.extend(price.from.map(|from| format!("from: {}", day(from))));
    parts.extend(price.until.map(|until| format!("until: {}", day(until))));
    parts.extend(price.utc_minutes.map(|(from, until)| format!("utc: [\"{}\", \"{}\"]", time(from), time(until))));
    parts.extend(price.weekdays.map(|days| format!("weekdays: [{}]", days.names().collect::<Vec<_>>().join(", "))));
    if !price.except.is_empty() {
        parts.push(format!("except: [{}]", days(&price.except).join(", ")));
    }
    parts.extend(rates(&price.rates));
    if !price.minimum.is_empty() {
        let listed: Vec<_> = price.minimum.iter().map(|(dimension, count)| format!("{}: {count}", dimension.name())).collect();
        parts.push(format!("minimum: {{{}}}", listed.join(", ")));
    }
    if !price.tiers.is_empty() {
        let tier = |tier: &crate::price::catalog::Tier| {
            format!("{{over: {}, inclusive: {}, {}}}", tier.over, tier.inclusive, rates(&tier.rates).join(", "))
        };
        parts.push(format!("tiers: [{}]", price.tiers.iter().map(tier).collect::<Vec<_>>().join(", ")));
    }
    format!("{{{}}}", parts.join(", "))
}

/// Rates, fees and hours, as far as there are any.
fn rates(rates: &Rates) -> Vec<String> {
    let table = |name: &str, of: fn(Dimension) -> bool, times: i128, per: i128| {
        let listed = Dimension::ALL.iter().filter(|dimension| of(**dimension)).filter_map(|dimension| {
            let rate = rates.of(*dimension)?;
            Some(format!("{}: {}", dimension.name(), dollars(rate.saturating_mul(times) / per)))
        });
        let listed: Vec<_> = listed.collect();
        (!listed.is_empty()).then(|| format!("{name}: {{{}}}", listed.join(", ")))
    };
    let all = [
        table("rates", |dimension| dimension != Dimension::Seconds && !dimension.is_fee(), 1, RATE_PARTS),
        table("fees", Dimension::is_fee, 1, RATE_PARTS * 1_000),
        table("hours", |dimension| dimension == Dimension::Seconds, 3_600, RATE_PARTS * 1_000_000),
    ];
    all.into_iter().flatten().collect()
}

/// A rate in dollars per million.
pub(super) fn per_million(rate: i128) -> Decimal {
    dollars(rate / RATE_PARTS)
}

fn dollars(atto: i128) -> Decimal {
    Decimal::try_from_i128_with_scale(atto, 18).unwrap_or(Decimal::MAX).normalize()
}

/// Dates of days since 1970.
pub(in crate::price) fn days(days: &[i64]) -> Vec<String> {
    days.iter().map(|at| day(Moment { unix_s: at.saturating_mul(86_400) })).collect()
}

/// A date, or a time if it is not midnight.
pub(in crate::price) fn day(at: Moment) -> String {
    let format = if at.unix_s.rem_euclid(86_400) == 0 { "%Y-%m-%d" } else { "\"%Y-%m-%dT%H:%M:%SZ\"" };
    jiff::Timestamp::from_second(at.unix_s).map(|at| at.strftime(format).to_string()).unwrap_or_default()
}

pub(in crate::price) fn time(minutes: i64) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// A text that YAML takes for nothing else.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
