//! Prices as others publish them, read into the catalog's own terms. What has no place there is left out, and a model
//! without a price that could be read is not taken over: the one in force before stays.

mod genai_prices;
mod litellm;
mod models_dev;
pub mod write;

use super::catalog::{Catalog, Model, Origin, Price, RATE_PARTS, Rates};
use super::load::atto_dollars;
use crate::usage::{Dimension, indexed};
use rust_decimal::Decimal;
use serde_json::Value;
use std::sync::Arc;

indexed! {
    /// Who publishes prices, each in a format of its own.
    Format {
        /// <https://models.dev/api.json>
        ModelsDev = "models.dev",
        /// <https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json>
        LiteLlm = "litellm",
        /// <https://github.com/pydantic/genai-prices/tree/main/prices/new_data/v2>
        GenaiPrices = "genai-prices",
    }
}

impl Format {
    /// Where the newest ones are.
    pub fn url(self) -> &'static str {
        match self {
            Self::ModelsDev => "https://models.dev/api.json",
            Self::LiteLlm => "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json",
            Self::GenaiPrices => "https://raw.githubusercontent.com/pydantic/genai-prices/main/prices/new_data/v2/data.json",
        }
    }
}

/// A model of a provider, and the names it goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub provider: String,
    pub model: Model,
    pub names: Vec<String>,
}

/// Reads what someone published.
///
/// # Errors
/// If it is not in that format, or has no price that can be read.
pub fn import(format: Format, text: &str) -> Result<Vec<Imported>, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let found = match format {
        Format::ModelsDev => models_dev::read(&document),
        Format::LiteLlm => litellm::read(&document),
        Format::GenaiPrices => genai_prices::read(&document),
    };
    match found {
        Some(found) if !found.is_empty() => Ok(found.into_iter().map(|found| with_origin(found, format)).collect()),
        Some(_) => Err(format!("no price in it can be read as one of {}", format.name())),
        None => Err(format!("not in the format of {}", format.name())),
    }
}

/// Notes who published a model. The date stays the publisher's own, if it gives one.
fn with_origin(mut imported: Imported, format: Format) -> Imported {
    let checked = imported.model.origin.as_ref().and_then(|origin| origin.checked.clone());
    imported.model.origin = Some(Arc::new(Origin { version: format.name().to_owned(), checked, sources: vec![format.url().to_owned()] }));
    imported
}

/// Lays what was imported over a catalog.
pub fn lay_over(catalog: &mut Catalog, imported: Vec<Imported>) {
    for Imported { provider, model, names } in imported {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let known = catalog.models(&provider).find(|known| known.id == model.id);
        let model = match known {
            Some(known) => merged(known, model),
            // What is known of a region holds for a dated name, too.
            None => Model { regions: catalog.model(&provider, &model.id).map(|known| known.regions.clone()).unwrap_or_default(), ..model },
        };
        catalog.add(&provider, model, &names);
    }
    catalog.seal();
}

/// A model that was known, with what someone else says of it. Publishers leave out a good part (batches, tiers of service,
/// fees, times of day): as long as they agree on what both know, nothing of it is lost. If they do not, the price has
/// changed, and what hung on the old one is dropped, so that it is told as missing and not charged as it was; fees stay.
fn merged(known: &Model, new: Model) -> Model {
    let standard = |model: &Model| model.prices.iter().rfind(|price| price.is_standard() && !price.is_timed()).cloned();
    let (Some(before), Some(after)) = (standard(known), standard(&new)) else { return new };
    let agree =
        |dimension: &Dimension| before.rates.of(*dimension).zip(after.rates.of(*dimension)).is_none_or(|(before, after)| before == after);
    let same = Dimension::ALL.iter().all(agree);
    let mut prices = if same { known.prices.clone() } else { new.prices };
    for price in prices.iter_mut().filter(|price| price.is_standard()) {
        for dimension in Dimension::ALL {
            let lacking = match price.rates.of(*dimension) {
                Some(_) => None,
                None if same => after.rates.of(*dimension),
                None => before.rates.of(*dimension).filter(|_| dimension.is_fee()),
            };
            lacking.into_iter().for_each(|rate| price.rates.set(*dimension, rate));
        }
    }
    Model { id: new.id, not: known.not.clone(), prices, origin: new.origin, ..Model::default() }
}

/// Most that a rate may change from one catalog to the next before someone should look at it, as a factor.
pub const CHANGE_MAX: i128 = 10;
/// So few of the models that were known may be missing, as a share: one in so many.
pub const MISSING_MAX: usize = 5;

/// What makes new prices for models that had some suspicious: a rate that changed more than tenfold, or models gone.
///
/// # Errors
/// Says which, and how.
pub fn check_change(old: &Catalog, new: &[Imported]) -> Result<(), String> {
    for Imported { provider, model, .. } in new {
        let Some(known) = old.models(provider).find(|known| known.id == model.id) else { continue };
        for after in &model.prices {
            // The last of a kind is the one that holds.
            let Some(before) = known.prices.iter().rfind(|before| is_like(before, after)) else { continue };
            let tiers = after.tiers.iter().filter_map(|tier| {
                let known = before.tiers.iter().find(|known| known.over == tier.over)?;
                Some((&known.rates, &tier.rates))
            });
            for (before, after) in std::iter::once((&before.rates, &after.rates)).chain(tiers) {
                check_rates(before, after).map_err(|why| format!("`{}` of {provider} {why}", model.id))?;
            }
        }
    }
    Ok(())
}

/// True if both hold for the same kind of requests.
fn is_like(a: &Price, b: &Price) -> bool {
    (&a.service_tier, &a.region, a.batch, a.utc_minutes, a.weekdays, &a.except)
        == (&b.service_tier, &b.region, b.batch, b.utc_minutes, b.weekdays, &b.except)
}

fn check_rates(before: &Rates, after: &Rates) -> Result<(), String> {
    for dimension in Dimension::ALL.iter().copied() {
        let (Some(a), Some(b)) = (before.of(dimension), after.of(dimension)) else { continue };
        let jump = (a == 0) != (b == 0) || a.max(b) / a.min(b).max(1) >= CHANGE_MAX;
        if jump && a != b {
            let (a, b) = (write::per_million(a), write::per_million(b));
            return Err(format!("would cost ${b} per million of {} instead of ${a}", dimension.name()));
        }
    }
    Ok(())
}

/// True if so many models of an earlier import are gone that something must be wrong with the new one.
pub fn lost_many(before: &[Imported], after: &[Imported]) -> bool {
    let kept = |old: &&Imported| after.iter().any(|new| new.provider == old.provider && new.model.id == old.model.id);
    let gone = before.len() - before.iter().filter(kept).count();
    gone * MISSING_MAX > before.len()
}

/// A JSON number as it was written, as far as it has at most 18 decimals.
fn decimal(value: &Value) -> Option<Decimal> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    let parsed = if text.contains(['e', 'E']) { Decimal::from_scientific(&text) } else { text.parse() };
    parsed.ok().filter(|number| !number.is_sign_negative())
}

/// Dollars per so many units as a rate.
fn rate(dollars: Decimal, units: i128) -> Option<i128> {
    let atto = atto_dollars(dollars)?.checked_mul(RATE_PARTS)?.checked_mul(1_000_000)?;
    (atto % units == 0).then_some(atto / units)
}

/// Sets those rates that a table finds in an object of numbers, each for so many units.
fn take_rates(object: &Value, table: &[(&str, Dimension, i128)], rates: &mut Rates) {
    for (key, dimension, units) in table {
        if let Some(rate) = object.get(*key).and_then(decimal).and_then(|dollars| rate(dollars, *units)) {
            rates.set(*dimension, rate);
        }
    }
}

/// A model with one price.
fn single(provider: &str, id: &str, price: Price) -> Option<Imported> {
    let priced = price.rates != Rates::default();
    priced.then(|| Imported {
        provider: provider.to_owned(),
        model: Model { id: id.to_owned(), prices: vec![price], ..Model::default() },
        names: vec![id.to_owned()],
    })
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
