//! What a request may come to, and what it came to, as limits count it.

use super::turns::Asked;
use super::{Exchange, UnixMs};
use crate::ledger::{Entry, Open};
use crate::limit::{Amount, Who};
use crate::meter::prompt_tokens;
use crate::price::{Charge, Moment, Query, Sold, charge, factor};
use crate::route::{Facts, Route, Target};
use crate::usage::{Dimension, Usage};
use memchr::memmem;

/// What a request says of what it may use.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// Tokens of the prompt, as they are estimated.
    pub input: u64,
    /// True if it may be written to a cache for an hour.
    pub hour: bool,
    /// The most tokens that may be generated, over all answers.
    pub output_max: Option<u64>,
    /// The tier of service.
    pub tier: String,
}

impl Bounds {
    /// As far as its facts tell.
    pub fn of(facts: &Facts) -> Self {
        let output_max = facts.output_max.map(|most| most.saturating_mul(facts.choices.unwrap_or(1).max(1)));
        Self { output_max, tier: facts.tier.clone().unwrap_or_default(), ..Self::default() }
    }
}

/// Reserved for an answer whose length nothing bounds.
pub const OUTPUT_TOKENS_ASSUMED: u64 = 1000;

impl Exchange {
    /// Who asks, and for what.
    pub fn who(&self) -> Who<'_> {
        let key = self.key.as_deref();
        Who {
            key: key.map(|key| (key.id.as_str(), key.name.as_str())),
            org: key.and_then(|key| key.org.as_deref()),
            project: key.and_then(|key| key.project.as_deref()),
            user: self.who.user.as_deref(),
            model: &self.route.model_requested,
            served: &self.route.model,
        }
    }

    /// What the request may come to: its prompt as it is estimated, and the longest answer it allows.
    pub fn may_come_to(&self, now: UnixMs) -> Amount {
        if !self.billed || !matches!(self.route.target, Target::Endpoint(_)) {
            return Amount::default();
        }
        // Files in forms are no text.
        let input = if self.form { 0 } else { prompt_tokens(&self.body) };
        let hour = memmem::find(&self.body, b"\"1h\"").is_some();
        let bounds = Bounds { input, hour, ..self.bounds.clone() };
        let amount = |route: &Route| self.amount(&bounds, (route.upstream, &route.model), now);
        // Of those who may answer, the dearest; what it counts is the same for all.
        let dearest = self.candidates.as_ref().and_then(|candidates| candidates.routes().map(amount).max_by_key(|amount| amount.spend));
        dearest.unwrap_or_else(|| amount(&self.route))
    }

    /// Who asks for a turn, and what it may come to.
    pub fn turn_may_come_to<'t>(&'t self, turn: &'t Asked, now: UnixMs) -> (Who<'t>, Amount) {
        let who = Who { model: &turn.requested, served: &turn.model, ..self.who() };
        (who, self.amount(&turn.bounds, (self.route.upstream, &turn.model), now))
    }

    fn amount(&self, bounds: &Bounds, (upstream, model): (usize, &str), now: UnixMs) -> Amount {
        let writes = !self.route.dialect.grammar().text.is_empty();
        let output = if writes { bounds.output_max.unwrap_or(OUTPUT_TOKENS_ASSUMED) } else { 0 };
        let tokens = bounds.input.saturating_add(output);
        let Some(upstream) =
            self.config.upstreams.get(upstream).filter(|_| self.config.limits.iter().any(crate::limit::Rule::counts_money))
        else {
            return Amount { tokens, ..Amount::default() };
        };
        let model = upstream.priced_as(model);
        let query = Query { provider: &upstream.catalog, model, tier: "", region: "", at: Moment::of_ms(now) };
        let charged = |input: Dimension, tier: &str, region: &str| {
            let usage: Usage = [(input, bounds.input), (Dimension::Output, output)].into_iter().collect();
            charge(&self.config.prices, &Query { tier, region, ..query }, &usage, 1)
        };
        // Whether the prompt is written to a cache (some do so unasked), in which tier it is served and where is the
        // provider's to say.
        let written = if bounds.hour { Dimension::CacheWrite1h } else { Dimension::CacheWrite5m };
        let asked = (!bounds.tier.is_empty()).then_some(bounds.tier.as_str());
        let mut dearest = Charge::default();
        for region in self.config.prices.model(&upstream.catalog, model).into_iter().flat_map(|model| model.regions()) {
            for tier in std::iter::once("").chain(asked) {
                for input in [Dimension::Input, written] {
                    dearest = std::cmp::max_by_key(dearest, charged(input, tier, region), |charge| charge.amount);
                }
            }
        }
        let who = self.who();
        let sold = Sold { provider: &upstream.name, model, key: who.key, org: who.org };
        let spend = match factor(&self.config.markups, &sold) {
            Some(factor) => dearest.times(factor).amount,
            None => dearest.amount,
        };
        Amount { tokens, spend }
    }

    /// What its attempts came to.
    pub fn came_to(&self) -> Amount {
        self.came_to
    }
}

/// What an entry came to.
pub fn amount_of(entry: &Entry) -> Amount {
    let Some(used) = &entry.used else { return Amount::default() };
    let counts = |dimension: Dimension| dimension.is_input() || dimension.is_output();
    let tokens = used.lines.iter().filter_map(|line| line.usage.sum(counts)).fold(0, u64::saturating_add);
    Amount { tokens, spend: used.total }
}

/// Whom an attempt was for.
pub fn who_of(open: &Open) -> Who<'_> {
    Who {
        key: open.key.as_deref().map(|id| (id, open.key_name.as_deref().unwrap_or_default())),
        org: open.org.as_deref(),
        project: open.project.as_deref(),
        user: open.user.as_deref(),
        model: &open.model_requested,
        served: &open.model,
    }
}
