//! The maximum that a request may cost, and its actual cost, as limits count them.

use super::again::Candidates;
use super::websocket::TurnRequest;
use super::{Exchange, UnixMs};
use crate::config::Upstream;
use crate::dialect::{Dialect, Endpoint};
use crate::error::Error;
use crate::ledger::{Entry, Open, Outcome};
use crate::limit::{Amount, Hold, Who};
use crate::meter::prompt_tokens;
use crate::price::{Charge, Moment, Query, Sold, charge, factor};
use crate::route::{Count, RequestFields, Route, Target};
use crate::usage::{Dimension, Field, Usage};
use memchr::memmem;

/// The bounds on the cost of a request.
#[derive(Clone, Debug, Default)]
pub struct CostBounds {
    /// Estimated tokens of the prompt.
    pub input: u64,
    /// True if the prompt may be written to a cache for an hour.
    pub hour: bool,
    /// The maximum of output tokens per choice, as the request states it.
    pub output_max: Count,
    /// Choices, over all prompts.
    pub choices: u64,
    /// The service tier.
    pub tier: String,
    /// Models that may serve in place of the one that is named.
    pub other_models: Vec<String>,
    /// Characters of text to be spoken.
    pub characters: u64,
    /// Bytes of a form, which may be audio.
    pub form_bytes: u64,
}

impl CostBounds {
    /// The bounds that the fields of a request state.
    pub fn of(fields: &RequestFields) -> Self {
        let choices = match fields.choices {
            Count::Absent => 1,
            Count::Known(choices) => choices.max(1),
            Count::Unreadable => CHOICES_MAX,
        };
        Self {
            output_max: fields.output_max,
            choices: choices.saturating_mul(fields.prompts.max(1)),
            tier: fields.tier.clone().unwrap_or_default(),
            other_models: fields.other_models.clone(),
            ..Self::default()
        }
    }
}

/// Output tokens reserved for a model whose maximum is not in the catalog.
pub const UNKNOWN_OUTPUT_MAX: u64 = 128_000;
/// Choices reserved where their number cannot be read: <https://platform.openai.com/docs/api-reference/completions/create>.
const CHOICES_MAX: u64 = 128;
/// The most tokens of one picture, high quality at 1,024 by 1,536 pixels:
/// <https://platform.openai.com/docs/guides/image-generation#cost-and-latency>.
const PICTURE_TOKENS_MAX: u64 = 6_240;
/// Spoken tokens per character: 14 characters and 21 tokens are a second of speech.
const SPOKEN_TOKENS_PER_CHARACTER: u64 = 2;
/// Bytes of a second of recorded speech at the lowest usual rate, 16 kbit/s.
const AUDIO_BYTES_PER_SECOND: u64 = 2_000;
/// Audio tokens of a second heard, and text tokens of its transcript, rounded up:
/// <https://platform.openai.com/docs/pricing#transcription-and-speech-generation> ($6 per million and $0.006 per minute).
const HEARD_TOKENS_PER_SECOND: u64 = 17;
const TRANSCRIPT_TOKENS_PER_SECOND: u64 = 5;
/// Documents of one search unit: <https://cohere.com/pricing>. Each has at least one token.
const DOCUMENTS_PER_SEARCH_UNIT: u64 = 100;

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
            others: &self.bounds.other_models,
        }
    }

    /// The maximum that the request may cost: its estimated prompt, and the longest output that it allows.
    pub fn max_cost(&self, now: UnixMs) -> Amount {
        if !self.billed || !matches!(self.route.target, Target::Endpoint(_)) {
            return Amount::default();
        }
        // Files in forms are not text.
        let (input, form_bytes) = if self.form { (0, self.bytes_in) } else { (prompt_tokens(&self.body), 0) };
        let hour = memmem::find(&self.body, b"\"1h\"").is_some();
        let characters = self.implied.of(Field::Characters).unwrap_or(0);
        let bounds = CostBounds { input, hour, characters, form_bytes, ..self.bounds.clone() };
        let amount = |route: &Route| self.amount(&bounds, (route.upstream, &route.model), now);
        // The dearest of the targets that may answer.
        let dearest = self.candidates.as_ref().and_then(|candidates| candidates.routes().map(amount).reduce(Amount::max));
        dearest.unwrap_or_else(|| amount(&self.route))
    }

    /// The client that a turn counts for, and the maximum that it may cost.
    pub fn max_turn_cost<'t>(&'t self, turn: &'t TurnRequest, now: UnixMs) -> (Who<'t>, Amount) {
        let who = Who { model: &turn.requested, served: &turn.model, others: &turn.bounds.other_models, ..self.who() };
        (who, self.amount(&turn.bounds, (self.route.upstream, &turn.model), now))
    }

    /// The maximum at an upstream, of the model and of those that may serve in its place.
    fn amount(&self, bounds: &CostBounds, (upstream, model): (usize, &str), now: UnixMs) -> Amount {
        let Some(of) = self.config.upstreams.get(upstream) else { return Amount::default() };
        let others = bounds.other_models.iter().map(|other| crate::route::model_at(other, upstream, &self.config));
        let first = self.amount_of_model(bounds, of, model, now);
        others.map(|other| self.amount_of_model(bounds, of, &other, now)).fold(first, Amount::max)
    }

    fn amount_of_model(&self, bounds: &CostBounds, upstream: &Upstream, model: &str, now: UnixMs) -> Amount {
        let model = upstream.priced_as(model);
        let usage = self.max_usage(bounds, upstream, model);
        let tokens = usage.sum(|dimension| dimension.is_input() || dimension.is_output()).unwrap_or(0);
        if !self.config.limits.iter().any(crate::limit::Rule::counts_money) {
            return Amount { tokens, ..Amount::default() };
        }
        let query = Query { provider: &upstream.catalog, model, tier: "", region: "", at: Moment::of_ms(now) };
        // The provider decides whether the prompt is written to a cache, and in which tier and region the request is served.
        let mut written = usage.clone();
        written.set(Dimension::Input, None);
        written.set(if bounds.hour { Dimension::CacheWrite1h } else { Dimension::CacheWrite5m }, usage.of(Dimension::Input));
        let asked = (!bounds.tier.is_empty()).then_some(bounds.tier.as_str());
        let mut dearest = Charge::default();
        for region in self.config.prices.model(&upstream.catalog, model).into_iter().flat_map(|model| model.regions()) {
            for tier in std::iter::once("").chain(asked) {
                for usage in [&usage, &written] {
                    let charged = charge(&self.config.prices, &Query { tier, region, ..query }, usage, 1);
                    dearest = std::cmp::max_by_key(dearest, charged, |charge| charge.amount);
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

    /// The most that a request may use, by dimension.
    fn max_usage(&self, bounds: &CostBounds, upstream: &Upstream, model: &str) -> Usage {
        let mut usage: Usage = [(Dimension::Input, bounds.input)].into_iter().collect();
        match self.route.dialect {
            Dialect::Images => {
                usage.set(Dimension::Picture, Some(bounds.choices));
                usage.set(Dimension::ImageOut, Some(bounds.choices.saturating_mul(PICTURE_TOKENS_MAX)));
            }
            Dialect::Audio if bounds.form_bytes > 0 => {
                let seconds = bounds.form_bytes.div_ceil(AUDIO_BYTES_PER_SECOND);
                usage.set(Dimension::Seconds, Some(seconds));
                usage.set(Dimension::AudioIn, Some(seconds.saturating_mul(HEARD_TOKENS_PER_SECOND)));
                usage.set(Dimension::Output, Some(seconds.saturating_mul(TRANSCRIPT_TOKENS_PER_SECOND)));
            }
            Dialect::Audio => {
                usage.set(Dimension::Characters, Some(bounds.characters));
                usage.set(Dimension::AudioOut, Some(bounds.characters.saturating_mul(SPOKEN_TOKENS_PER_CHARACTER)));
            }
            Dialect::Rerank => usage.set(Dimension::SearchUnit, Some(1 + bounds.input / DOCUMENTS_PER_SEARCH_UNIT)),
            _ if !self.generates_text() => {}
            _ => {
                let model_max = || {
                    let known = || self.config.prices.max_output(&upstream.catalog, model).unwrap_or(UNKNOWN_OUTPUT_MAX);
                    self.config.process.unbounded_output.unwrap_or_else(known)
                };
                let each = match bounds.output_max {
                    Count::Known(most) => most,
                    Count::Absent | Count::Unreadable => model_max(),
                };
                usage.set(Dimension::Output, Some(each.saturating_mul(bounds.choices)));
            }
        }
        usage
    }

    /// True unless the response has no text for certain. Only a model's name tells what `InvokeModel` generates.
    fn generates_text(&self) -> bool {
        match self.route.target {
            Target::Endpoint(Endpoint::InvokeModel) => true,
            Target::Endpoint(endpoint) => endpoint.writes(),
            Target::Stored | Target::Pass => false,
        }
    }

    /// Settles the request's reservation by the cost of its attempts. If that is unknown, the reservation stands.
    pub fn settle_hold(&self, hold: Hold, now: UnixMs) {
        if self.cost_unknown { hold.keep(now) } else { hold.settle(self.came_to, now) }
    }

    /// Checks that a budget can count the request: each target's model has a price, or its provider has none at all.
    ///
    /// # Errors
    /// [`Error::UnpricedModel`] if a rule about money holds for the client, unless the configuration admits such models.
    pub fn check_priced(&self) -> Result<(), Error> {
        if !self.billed || !matches!(self.route.target, Target::Endpoint(_)) {
            return Ok(());
        }
        let candidates = self.candidates.as_deref().into_iter().flat_map(Candidates::routes);
        let targets = std::iter::once(&self.route).chain(candidates).map(|route| (route.upstream, route.model.as_str()));
        self.check_prices(&self.who(), targets, &self.bounds.other_models)
    }

    /// The same for a turn of a WebSocket.
    ///
    /// # Errors
    /// As [`Exchange::check_priced`].
    pub fn check_turn_priced(&self, turn: &TurnRequest) -> Result<(), Error> {
        let who = Who { model: &turn.requested, served: &turn.model, others: &turn.bounds.other_models, ..self.who() };
        self.check_prices(&who, std::iter::once((self.route.upstream, turn.model.as_str())), &turn.bounds.other_models)
    }

    fn check_prices<'t>(&self, who: &Who<'_>, targets: impl Iterator<Item = (usize, &'t str)>, others: &[String]) -> Result<(), Error> {
        let counted = || self.config.limits.iter().any(|rule| rule.counts_money() && rule.group(who).is_some());
        if self.config.process.admits_unpriced || !counted() {
            return Ok(());
        }
        let prices = &self.config.prices;
        for (at, model) in targets {
            let Some(upstream) = self.config.upstreams.get(at).filter(|upstream| prices.models(&upstream.catalog).next().is_some()) else {
                continue;
            };
            let others = others.iter().map(|other| crate::route::model_at(other, at, &self.config));
            for model in std::iter::once(model.to_owned()).chain(others) {
                if prices.model(&upstream.catalog, upstream.priced_as(&model)).is_none() {
                    return Err(Error::UnpricedModel { model });
                }
            }
        }
        Ok(())
    }
}

/// What an entry came to.
pub fn amount_of(entry: &Entry) -> Amount {
    let Some(used) = &entry.used else { return Amount::default() };
    let counts = |dimension: Dimension| dimension.is_input() || dimension.is_output();
    let tokens = used.lines.iter().filter_map(|line| line.usage.sum(counts)).fold(0, u64::saturating_add);
    Amount { tokens, spend: used.total }
}

/// True if a request was served and nothing is known of its cost: the response states no usage and no text was seen, or its
/// model has no price. An attempt that failed owes nothing.
pub(super) fn is_cost_unknown(entry: &Entry) -> bool {
    let served = entry.open.billed
        && entry.close.as_ref().is_some_and(|close| (200..300).contains(&close.status) && close.outcome != Outcome::UpstreamError);
    let lines = entry.used.as_ref().map(|used| used.lines.as_slice()).unwrap_or_default();
    served && lines.iter().all(|line| line.unpriced.iter().any(|what| what == "model"))
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
        others: &[],
    }
}
