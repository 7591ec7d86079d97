//! Settling: what a meter found becomes lines, charges and a usage record.

use super::{Ending, Exchange, UnixMs, who_of};
use crate::config::{Config, Upstream};
use crate::dialect::Dialect;
use crate::keys::Key;
use crate::ledger::{Line, Open, Rendered, Source, Used};
use crate::meter::{Fault, Faults, Found, prompt_tokens};
use crate::price::{Catalog, Markup, Moment, PicoUsd, Query, Sold, charge, factor};
use crate::route::Target;
use crate::usage::{Convention, Dimension, Field, Reported, Usage};
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
    /// Stands for what was not reported.
    pub estimate: Option<Estimate>,
    pub at: Moment,
    pub markups: Markups<'a>,
}

impl<'a> Terms<'a> {
    /// Of an answer that is whole.
    pub(super) fn new(upstream: &'a Upstream, dialect: Dialect, model: &'a str, config: &'a Config, buyer: Buyer<'a>, now: UnixMs) -> Self {
        Self {
            upstream,
            catalog: &config.prices,
            convention: upstream.provider.convention(dialect),
            model,
            asked_first: false,
            opening_only: false,
            estimate: None,
            at: Moment::of_ms(now),
            markups: Markups { rules: &config.markups, buyer },
        }
    }
}

/// Tokens as their text lets guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// `None`: it was reported.
    pub input: Option<u64>,
    pub output: u64,
}

/// What is charged beyond what something costs, and of whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Markups<'a> {
    pub rules: &'a [Markup],
    pub buyer: Buyer<'a>,
}

/// Who pays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buyer<'a> {
    /// Id and name.
    pub key: Option<(&'a str, &'a str)>,
    pub org: Option<&'a str>,
}

impl<'a> Buyer<'a> {
    /// Who asks now.
    pub fn of(key: Option<&'a Key>) -> Self {
        Self { key: key.map(|key| (key.id.as_str(), key.name.as_str())), org: key.and_then(|key| key.org.as_deref()) }
    }

    /// Who asked, also with a key that is no longer there.
    pub fn who(open: &'a Open) -> Self {
        let who = who_of(open);
        Self { key: who.key, org: who.org }
    }
}

impl Markups<'_> {
    /// The factor for a model of an upstream; `None`: what it costs.
    fn factor(&self, provider: &str, model: &str) -> Option<Decimal> {
        let Buyer { key, org } = self.buyer;
        factor(self.rules, &Sold { provider, model, key, org }).filter(|factor| *factor != Decimal::ONE)
    }
}

impl Exchange {
    /// Prices what was found so far, or is estimated, into the usage record.
    pub(super) fn settle(&mut self, now: UnixMs, estimate: Option<Estimate>) {
        let charged = self.is_charged();
        let (Some(upstream), Some(attempt)) = (self.config.upstreams.get(self.route.upstream), &mut self.attempt) else { return };
        let Some(meter) = attempt.meter.as_mut().filter(|_| charged) else { return };
        let found = meter.found();
        let model = upstream.priced_as(&self.route.model);
        let terms = Terms {
            opening_only: found.opening && !found.finished,
            estimate,
            asked_first: self.route.dialect == Dialect::Invoke,
            ..Terms::new(upstream, self.route.dialect, model, &self.config, Buyer::of(self.key.as_deref()), now)
        };
        let (mut used, faults) = settle(found, &terms);
        if self.keeping.owes.is_some() {
            // Whoever sees its end first bills it, as an entry of its own.
            used = Used { lines: vec![], total: PicoUsd::default(), source: Source::Reported, ..used };
        }
        attempt.settled = found.usages;
        // What is known later counts instead.
        attempt.estimates += u32::from(estimate.is_some());
        used.reading += attempt.estimates;
        let rendered = Rendered::used(&used);
        attempt.used = Some((used, rendered));
        faults.iter().for_each(|fault| meter.fault(fault));
    }

    fn is_charged(&self) -> bool {
        self.billed && self.attempt.as_ref().is_some_and(|attempt| attempt.status < 400)
    }

    /// What is to be charged where the provider's numbers did not come: for text that was generated, and for the prompt of
    /// a caller who left before there was any. An upstream that failed before it generated anything is owed nothing.
    pub(super) fn estimate(&self, ending: &Ending) -> Option<Estimate> {
        let meter = self.attempt.as_ref()?.meter.as_ref().filter(|_| self.is_charged())?;
        let output = meter.estimated_output().filter(|_| self.may_estimate())?;
        let found = meter.found();
        if !found.fallback.is_empty() {
            return None;
        }
        let left = *ending == Ending::ClientClosed && found.error.is_none();
        let input = if found.has_usage() { None } else { self.prompt_tokens() };
        (output > 0 || left).then_some(Estimate { input, output })
    }

    /// What is made in the background is billed when it is fetched.
    pub(super) fn may_estimate(&self) -> bool {
        matches!(self.route.target, Target::Endpoint(_)) && !self.keeping.background
    }

    /// The tokens of the prompt, if they may have to be estimated.
    pub(super) fn prompt_tokens(&self) -> Option<u64> {
        let wanted = self.attempt.as_ref()?.meter.as_ref()?.estimated_output().is_some();
        self.prompt.or_else(|| wanted.then(|| prompt_tokens(&self.body)))
    }
}

/// The usage record, and defects found on the way.
pub fn settle(found: &Found, terms: &Terms<'_>) -> (Used, Faults) {
    let mut faults = Faults::default();
    let mut own = found.reported.clone();
    own.add(&found.compaction);
    if let Some(Estimate { input, output }) = terms.estimate {
        input.into_iter().for_each(|input| own.set(Field::Input, input));
        own.set(Field::Output, output);
    }
    let mut lines = vec![];
    if found.has_usage() || terms.estimate.is_some() {
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
    let source = match (found.has_usage(), terms.estimate) {
        (false, Some(_)) => Source::Estimated,
        (false, None) => Source::None,
        (true, None) if found.finished => Source::Reported,
        (true, _) => Source::Partial,
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
    if terms.opening_only && terms.estimate.is_none() && main {
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
    if charge.unknown_region {
        faults.add(Fault::UnknownRegion);
    }
    let unpriced = if charge.unknown_model {
        vec!["model".to_owned()]
    } else if usage.is_empty() && main {
        // A total says neither what was read nor what was written.
        vec!["total".to_owned()]
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
