//! Settling: what a meter found becomes lines, charges and a usage record.

use super::{Ending, Exchange, UnixMs, who_of};
use crate::config::{Config, Upstream};
use crate::dialect::Dialect;
use crate::dialect::GROUNDED_BY_PROMPT;
use crate::keys::Key;
use crate::ledger::{Line, Open, Rendered, Source, Used};
use crate::meter::{Fault, Faults, Found, Round, RoundKind, UNKNOWN_MAX, prompt_tokens};
use crate::price::{Catalog, Charge, Markup, Moment, PICO, PicoUsd, Query, Sold, Tolerance, charge, factor, is_same_model};
use crate::provider::fits;
use crate::route::Target;
use crate::usage::{Cache, Convention, Dimension, Field, Reasoning, Usage};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use std::str::FromStr;

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
    pub tolerance: Tolerance,
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
            tolerance: config.cost_tolerance,
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
        if found.has_usage() && !found.opening {
            // Input came, and output did not: zero output is stated, and what a total leaves is no estimate.
            let by_total = self.upstream().is_some_and(|upstream| upstream.provider.convention(self.route.dialect).output_by_total);
            let stated = found.reported.of(Field::Output).is_some() || found.reported.of(Field::Reasoning).is_some();
            let known = stated || (by_total && found.reported.of(Field::Total).is_some());
            return (!known && output > 0).then_some(Estimate { input: None, output });
        }
        // Headers may state all of it (Bedrock), or a part (Fireworks' cached tokens).
        if found.fallback.of(Field::Output).is_some() || found.fallback.of(Field::Characters).is_some() {
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
    let mut bill = Bill { found, terms, faults: Faults::default(), lines: vec![], cost: Some(0), unknown: found.unknown.clone() };
    if found.has_usage() || terms.estimate.is_some() {
        bill.main_line();
        for round in found.rounds.iter().filter(|round| round.kind == RoundKind::Other).chain(&found.images) {
            bill.other_line(round);
        }
    }
    // A total alone says neither what was read nor what was written; zeros say that nothing was.
    let understood = bill.lines.iter().any(|line| !line.usage.is_empty());
    if found.has_usage() && !understood {
        bill.lines.clear();
        bill.faults.add(Fault::Unmetered);
    }
    bill.used(understood)
}

/// A usage record in the making.
struct Bill<'a> {
    found: &'a Found,
    terms: &'a Terms<'a>,
    faults: Faults,
    lines: Vec<Line>,
    /// Sum of the lines before markups, in pico-dollars; `None` if a part of it is unknown.
    cost: Option<i128>,
    unknown: Vec<String>,
}

impl Bill<'_> {
    /// The line of the model that served.
    fn main_line(&mut self) {
        let Self { found, terms, .. } = *self;
        let (mut whole, mut parts, agrees) = found.served();
        if !agrees || found.unstated_output {
            self.faults.add(Fault::Inconsistent);
        }
        if let Some(Estimate { input, output }) = terms.estimate {
            input.into_iter().for_each(|input| whole.set(Field::Input, input));
            whole.set(Field::Output, output);
            parts.clear();
        }
        let model = if found.model.is_empty() { terms.model } else { &found.model };
        if let Some(searches) = grounding(found, model) {
            whole.set(Field::WebSearch, searches);
            parts.clear();
        } else if found.cites_web {
            self.unknown_tool("google_search");
        }
        for (tool, _) in found.counted_tools.iter().filter(|(_, field)| whole.of(*field).is_none()) {
            self.unknown_tool(tool);
        }
        let convention = self.convention(model);
        let (mut usage, consistent) = whole.settle(convention);
        if !consistent && !usage.is_empty() {
            self.faults.add(Fault::Inconsistent);
        }
        if terms.opening_only && terms.estimate.is_none() {
            Dimension::ALL.iter().filter(|dimension| dimension.is_output()).for_each(|dimension| usage.set(*dimension, None));
            parts.clear();
        }
        let charge = if parts.len() > 1 {
            let settled = parts.iter().map(|part| part.settle(convention).0);
            let charges = settled.enumerate().map(|(at, usage)| charge_for(&usage, found, model, Some(u64::from(at == 0)), terms));
            charges.reduce(Charge::plus).unwrap_or_default()
        } else {
            charge_for(&usage, found, model, Some(1), terms)
        };
        let free = self.is_free_refusal();
        self.line(usage, model, charge, free);
        let fit = |patterns: &[&str], name: &str| patterns.iter().any(|pattern| fits(name, pattern));
        if fit(terms.upstream.provider.routers, terms.model) && !is_same_model(terms.model, model) {
            self.lines.iter_mut().for_each(|line| line.unpriced.push("router".to_owned()));
        }
        if fit(terms.upstream.provider.unstated_searches, model) {
            self.unknown_tool("web_search");
        }
    }

    /// Marks a tool whose fee is not in the lines.
    fn unknown_tool(&mut self, tool: &str) {
        self.faults.add(Fault::UnknownTool);
        self.unknown.push(format!("tool.{tool}"));
    }

    fn other_line(&mut self, round: &Round) {
        let (usage, consistent) = round.reported.settle(self.convention(&round.model));
        if !consistent {
            self.faults.add(Fault::Inconsistent);
        }
        let charge = charge_for(&usage, self.found, &round.model, None, self.terms);
        self.line(usage, &round.model, charge, false);
    }

    fn convention(&self, model: &str) -> Convention {
        let Terms { upstream, convention, .. } = self.terms;
        let fit = |patterns: &[&str]| patterns.iter().any(|pattern| fits(model, pattern));
        let cache = if fit(upstream.provider.cache_beside) { Cache::Beside } else { convention.cache };
        let excess = convention.reasoning == Reasoning::Inside && fit(upstream.provider.reasoning_by_excess);
        let reasoning = if excess { Reasoning::ByExcess } else { convention.reasoning };
        Convention { cache, reasoning, ..*convention }
    }

    /// Anthropic charges nothing if a model refuses before it writes anything, in some categories:
    /// <https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback>. What it says of others is not clear.
    fn is_free_refusal(&mut self) -> bool {
        const FREE: &[&str] = &["cyber"];
        let found = self.found;
        let written = found.has_content || found.unstated_output || found.reported.of(Field::Output) != Some(0);
        let fees = Field::TOOL_FEES.iter().any(|field| found.reported.of(*field).is_some_and(|fee| fee > 0));
        let Some(category) = found.refusal.as_deref().filter(|_| !written && !fees) else { return false };
        let free = self.terms.upstream.provider.id == "anthropic" && FREE.contains(&category);
        if !free {
            self.faults.add(Fault::UnclearRefusal);
        }
        free
    }

    fn line(&mut self, usage: Usage, model: &str, charge: Charge, free: bool) {
        let charge = if free { Charge::default() } else { charge };
        self.cost = self.cost.filter(|_| charge.is_priced()).and_then(|cost| cost.checked_add(charge.amount.0));
        let markup = self.terms.markups.factor(&self.terms.upstream.name, model);
        let charge = match markup {
            Some(factor) => charge.times(factor),
            None => charge,
        };
        for (fault, holds) in
            [(Fault::Overflow, charge.overflow), (Fault::UnknownTier, charge.unknown_tier), (Fault::UnknownRegion, charge.unknown_region)]
        {
            if holds {
                self.faults.add(fault);
            }
        }
        let unpriced = if charge.unknown_model {
            vec!["model".to_owned()]
        } else {
            charge.unpriced.iter().map(|dimension| dimension.name().to_owned()).collect()
        };
        self.lines.push(Line {
            model: model.to_owned(),
            service_tier: self.found.tier.clone(),
            region: self.found.region.clone(),
            usage,
            markup: markup.map(|factor| factor.to_string()),
            charge: charge.amount,
            unpriced,
            free: free.then(|| "refusal".to_owned()),
        });
    }

    fn used(mut self, understood: bool) -> (Used, Faults) {
        let Self { found, terms, .. } = self;
        let mut total = PicoUsd::default();
        for line in &self.lines {
            total = total.checked_add(line.charge).unwrap_or_else(|| {
                self.faults.add(Fault::Overflow);
                total
            });
        }
        let source = match (found.has_usage() && understood, terms.estimate) {
            (false, Some(_)) => Source::Estimated,
            (false, None) => Source::None,
            (true, None) if found.finished && !found.faults.has(Fault::BadCount) => Source::Reported,
            (true, _) => Source::Partial,
        };
        let stated = found.cost.as_deref().filter(|_| source == Source::Reported && !found.own_account);
        if let (Some(stated), Some(cost)) = (stated, self.cost)
            && dollars(stated).is_none_or(|stated| terms.tolerance.exceeded(stated, cost))
        {
            self.faults.add(Fault::CostMismatch);
        }
        self.unknown.truncate(UNKNOWN_MAX);
        let used = Used {
            reading: found.usages,
            source,
            lines: self.lines,
            total,
            catalog: terms.catalog.version.clone(),
            provider_cost: found.cost.clone(),
            response_id: found.id.clone(),
            unknown: self.unknown,
        };
        (used, self.faults)
    }
}

/// Pico-dollars of an amount in dollars, as a provider wrote it.
fn dollars(text: &str) -> Option<i128> {
    let amount = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok()?;
    (amount.checked_mul(Decimal::from_i128_with_scale(PICO, 0))?).round().to_i128()
}

/// Searches that a grounded response is charged for.
fn grounding(found: &Found, model: &str) -> Option<u64> {
    let queries = u64::try_from(found.queries.len()).unwrap_or(u64::MAX);
    let by_prompt = GROUNDED_BY_PROMPT.iter().any(|pattern| fits(model, pattern));
    match (queries, by_prompt) {
        (0, true) if found.cites_web => Some(1),
        (0, _) => None,
        (_, true) => Some(1),
        (queries, false) => Some(queries),
    }
}

/// The charge by the model that served. `requests` is for the main line of a response, `None` for the others: the main line
/// may go by the requested model, if that is known to be the same.
fn charge_for(usage: &Usage, found: &Found, model: &str, requests: Option<u64>, terms: &Terms<'_>) -> Charge {
    let (main, requests) = (requests.is_some(), requests.unwrap_or(0));
    let (first, second) = if terms.asked_first && main && !terms.model.is_empty() { (terms.model, model) } else { (model, terms.model) };
    let query = Query { provider: &terms.upstream.catalog, model: first, tier: &found.tier, region: &found.region, at: terms.at };
    let charged = charge(terms.catalog, &query, usage, requests);
    if charged.unknown_model && main && second != first && (terms.asked_first || is_same_model(second, first)) {
        return charge(terms.catalog, &Query { model: second, ..query }, usage, requests);
    }
    charged
}
