//! Settling: what a meter found becomes lines, charges and a usage record.

use crate::config::Upstream;
use crate::keys::Key;
use crate::ledger::{Line, Source, Used};
use crate::meter::{Fault, Faults, Found};
use crate::price::{Catalog, Markup, Moment, PicoUsd, Query, Sold, charge, factor};
use crate::usage::{Convention, Dimension, Reported, Usage};
use rust_decimal::Decimal;

/// What settling needs besides what was found.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    pub upstream: &'a Upstream,
    pub catalog: &'a Catalog,
    pub convention: Convention,
    /// The model that was asked for, in case the answer names none that has a price.
    pub model: &'a str,
    /// Prices go by what was asked for (Bedrock's ids tell the reach of a model, the names in its answers do not).
    pub asked_first: bool,
    /// Only the opening numbers of a stream came (Anthropic): its output count is a placeholder.
    pub opening_only: bool,
    pub at: Moment,
    pub markups: Markups<'a>,
}

/// What is charged beyond what something costs, and of whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Markups<'a> {
    pub rules: &'a [Markup],
    pub key: Option<&'a Key>,
}

impl Markups<'_> {
    /// The factor for a model of an upstream; `None`: what it costs.
    fn factor(&self, provider: &str, model: &str) -> Option<Decimal> {
        let key = self.key.map(|key| (key.id.as_str(), key.name.as_str()));
        let org = self.key.and_then(|key| key.org.as_deref());
        factor(self.rules, &Sold { provider, model, key, org }).filter(|factor| *factor != Decimal::ONE)
    }
}

/// The usage record, and defects found on the way.
pub fn settle(found: &Found, terms: &Terms<'_>) -> (Used, Faults) {
    let mut faults = Faults::default();
    let mut own = found.reported.clone();
    own.add(&found.compaction);
    let mut lines = vec![];
    if found.has_usage() {
        let model = if found.model.is_empty() { terms.model } else { &found.model };
        lines.push(line(found, &own, model, true, terms, &mut faults));
        for round in &found.rounds {
            lines.push(line(found, &round.reported, &round.model, false, terms, &mut faults));
        }
    }
    let mut total = PicoUsd::default();
    for line in &lines {
        total = total.checked_add(line.charge).unwrap_or_else(|| {
            faults.add(Fault::Overflow);
            total
        });
    }
    let source = match (found.has_usage(), found.finished) {
        (false, _) => Source::None,
        (true, true) => Source::Reported,
        (true, false) => Source::Partial,
    };
    let used = Used {
        reading: found.usages,
        source,
        lines,
        total,
        catalog: terms.catalog.version.clone(),
        provider_cost: found.cost.clone(),
        response_id: found.id.clone(),
    };
    (used, faults)
}

fn line(found: &Found, reported: &Reported, model: &str, main: bool, terms: &Terms<'_>, faults: &mut Faults) -> Line {
    let (mut usage, consistent) = reported.settle(terms.convention);
    if !consistent {
        faults.add(Fault::Inconsistent);
    }
    if terms.opening_only && main {
        Dimension::ALL.iter().filter(|dimension| dimension.is_output()).for_each(|dimension| usage.set(*dimension, None));
    }
    let charge = charge_for(&usage, found, model, main, terms);
    let markup = terms.markups.factor(&terms.upstream.name, model);
    let charge = match markup {
        Some(factor) => charge.times(factor),
        None => charge,
    };
    if charge.overflow {
        faults.add(Fault::Overflow);
    }
    if charge.unknown_tier {
        faults.add(Fault::UnknownTier);
    }
    let unpriced = if charge.unknown_model {
        vec!["model".to_owned()]
    } else {
        charge.unpriced.iter().map(|dimension| dimension.name().to_owned()).collect()
    };
    Line {
        model: model.to_owned(),
        service_tier: found.tier.clone(),
        region: found.region.clone(),
        usage,
        markup: markup.map(|factor| factor.to_string()),
        charge: charge.amount,
        unpriced,
    }
}

/// By the model that served; by the one that was asked for if the catalog does not know the former by its name.
fn charge_for(usage: &Usage, found: &Found, model: &str, main: bool, terms: &Terms<'_>) -> crate::price::Charge {
    let (first, second) = if terms.asked_first && main && !terms.model.is_empty() { (terms.model, model) } else { (model, terms.model) };
    let query = Query { provider: &terms.upstream.catalog, model: first, tier: &found.tier, region: &found.region, at: terms.at };
    let charged = charge(terms.catalog, &query, usage, u64::from(main));
    if charged.unknown_model && main && second != first {
        return charge(terms.catalog, &Query { model: second, ..query }, usage, 1);
    }
    charged
}
