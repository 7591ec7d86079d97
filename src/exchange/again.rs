//! Another attempt after one that failed before its caller saw anything: who is asked next, and after what wait.

use super::{Asked, Exchange, UnixMs, credential_hash, query};
use crate::config::Config;
use crate::error::Error;
use crate::provider::OnDisconnect;
use crate::rewrite::{Rewritten, rewrite};
use crate::route::{Circuit, Head, Refusal, RequestFields, Route, Target};
use bytes::Bytes;
use http::HeaderMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Everyone who may answer, and what is needed to ask them.
#[derive(Debug)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    /// The one being asked.
    at: usize,
    round: u32,
    /// The body and query as the caller sent them.
    body: Bytes,
    query: Option<String>,
    fields: RequestFields,
}

#[derive(Debug)]
struct Candidate {
    route: Route,
    circuit: Option<Arc<Circuit>>,
    tried: bool,
}

/// Decides among those that share the load: the same for all attempts at a request.
pub(super) fn draw(request_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    request_id.hash(&mut hasher);
    hasher.finish()
}

impl Candidates {
    /// `None` if there is nobody but the first, who will not be asked again; else the first healthy one is to be asked.
    pub(super) fn new(
        (first, others): (&mut Route, Vec<Route>),
        body: &Bytes,
        fields: &RequestFields,
        head: &Head<'_>,
        config: &Config,
        asked: &Asked,
    ) -> Option<Box<Self>> {
        if others.is_empty() && config.retry.again == 0 {
            return None;
        }
        asked.health.budget.earn();
        let candidate = |route: Route| {
            let upstream = config.upstreams.get(route.upstream).map_or("", |upstream| &upstream.name);
            Candidate { circuit: asked.health.circuit(upstream, &route.model), route, tried: false }
        };
        let list = std::iter::once(first.clone()).chain(others).map(candidate).collect();
        let query = head.query.map(str::to_owned);
        let mut candidates = Self { list, at: 0, round: 0, body: body.clone(), query, fields: fields.clone() };
        candidates.choose(asked.now);
        if let Some(chosen) = candidates.list.get(candidates.at).filter(|_| candidates.at > 0) {
            first.clone_from(&chosen.route);
        }
        Some(Box::new(candidates))
    }

    /// The next healthy one that was not tried yet; if there is none, the next one.
    fn choose(&mut self, now: UnixMs) {
        let untried = |candidate: &Candidate| !candidate.tried;
        let healthy = |candidate: &Candidate| untried(candidate) && candidate.circuit.as_ref().is_none_or(|circuit| circuit.admits(now));
        self.at = self.list.iter().position(healthy).or_else(|| self.list.iter().position(untried)).unwrap_or(0);
        if let Some(candidate) = self.list.get_mut(self.at) {
            candidate.tried = true;
        }
    }

    /// Of all of them.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.list.iter().map(|candidate| &candidate.route)
    }

    fn circuit(&self) -> Option<&Circuit> {
        self.list.get(self.at)?.circuit.as_deref()
    }
}

/// Errors that another attempt may not meet, by the words of providers:
/// <https://docs.anthropic.com/en/api/errors>, <https://platform.openai.com/docs/guides/error-codes>,
/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html>,
/// <https://cloud.google.com/apis/design/errors#handling_errors>.
const PASSING: &[&str] = &[
    "overloaded_error",
    "api_error",
    "rate_limit_error",
    "timeout_error",
    "rate_limit_exceeded",
    "server_error",
    "internal_server_error",
    "engine_overloaded",
    "throttlingException",
    "serviceUnavailableException",
    "internalServerException",
    "modelStreamErrorException",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "INTERNAL",
    "429",
    "500",
    "502",
    "503",
    "529",
];

/// Those of them that are limits.
const LIMITS: &[&str] = &["rate_limit_error", "rate_limit_exceeded", "throttlingException", "RESOURCE_EXHAUSTED", "429"];

/// An answer whose first event takes longer than this has begun.
pub const BEGINNING_BYTES_MAX: u64 = 64 * 1024;

/// A rate limit that refused an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It may be the size of the request.
    Request,
    /// The headers say that the account has nothing left.
    Account,
}

/// What the beginning of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Not enough of it has come.
    Unknown,
    Good,
    /// An error that another attempt may not meet.
    Trouble,
}

impl Exchange {
    /// True for a stream that somebody else could give if it begins with an error.
    pub fn may_begin_again(&self) -> bool {
        let good = self.attempt.as_ref().is_some_and(|attempt| attempt.status == 200 && attempt.meter.is_some());
        let left = |candidates: &Candidates| {
            candidates.list.iter().any(|candidate| !candidate.tried) || candidates.round < self.config.retry.again
        };
        good && self.stream && self.candidates.as_ref().is_some_and(|candidates| left(candidates))
    }

    /// What the first event says, once it is there.
    pub fn beginning(&self) -> Beginning {
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.first_byte_ms.is_some());
        let Some(meter) = attempt.and_then(|attempt| attempt.meter.as_ref()) else { return Beginning::Unknown };
        match meter.found().error.as_deref() {
            Some(kind) if PASSING.contains(&kind) => Beginning::Trouble,
            Some(_) => Beginning::Good,
            // Whatever has no events has begun with its first byte; and nothing is held for ever.
            None if !meter.has_events() || meter.has_had_event() => Beginning::Good,
            None if attempt.is_some_and(|attempt| attempt.bytes_out > BEGINNING_BYTES_MAX) => Beginning::Good,
            None => Beginning::Unknown,
        }
    }

    /// True if the error that the answer carries is a limit that was reached.
    pub fn is_limited(&self) -> bool {
        let found = self.attempt.as_ref().and_then(|attempt| attempt.meter.as_ref()).and_then(|meter| meter.found().error.as_deref());
        found.is_some_and(|kind| LIMITS.contains(&kind))
    }

    /// The attempt failed and its caller has seen nothing; `asked` if the upstream said for how long it wants to be left
    /// alone. Returns after what time another attempt may follow, if one may: see [`Exchange::advance`].
    pub fn fail(&mut self, asked: Option<Duration>, limit: Option<Limit>, now: UnixMs) -> Option<Duration> {
        let retry = self.config.retry;
        let refusal = self.refusal(limit);
        // A limit of the client's own account does not concern other clients.
        let own_limit = limit.is_some() && self.credential.is_some();
        let candidates = self.candidates.as_mut()?;
        if let Some(circuit) = candidates.circuit().filter(|_| !own_limit) {
            circuit.failed(now, refusal, asked, retry.ejection);
        }
        let wait = if candidates.list.iter().any(|candidate| !candidate.tried) {
            Duration::ZERO
        } else if candidates.round < retry.again {
            let delay = retry.delay.saturating_mul(1 << candidates.round);
            asked.map_or(delay, |asked| asked.max(delay))
        } else {
            return None;
        };
        (wait <= retry.wait_max && self.health.budget.spend()).then_some(wait)
    }

    /// What a failed attempt says about its target. Without gateway keys, or with a single one, all clients are one.
    fn refusal(&self, limit: Option<Limit>) -> Refusal {
        let others = self.config.keys.as_ref().is_some_and(|keys| keys.len() > 1);
        match (limit, &self.key) {
            (None, _) => Refusal::Failure,
            (Some(Limit::Request), Some(key)) if others => Refusal::Limit { client: draw(&key.id) },
            (Some(_), _) => Refusal::AccountLimit,
        }
    }

    /// The upstream answered, and not with a failure of its own.
    pub fn succeed(&self, now: UnixMs) {
        if let Some(circuit) = self.candidates.as_ref().and_then(|candidates| candidates.circuit()) {
            circuit.succeeded(now);
        }
    }

    /// Moves on to the next candidate.
    ///
    /// # Errors
    /// If that is not there any more, which cannot happen.
    pub fn advance(&mut self, headers: &HeaderMap, now: UnixMs) -> Result<(), Error> {
        let candidates = self.candidates.as_mut().ok_or(Error::Internal)?;
        if candidates.list.iter().all(|candidate| candidate.tried) {
            candidates.round += 1;
            candidates.list.iter_mut().for_each(|candidate| candidate.tried = false);
        }
        candidates.choose(now);
        let route = candidates.list.get(candidates.at).map(|candidate| candidate.route.clone()).ok_or(Error::Internal)?;
        let upstream = self.config.upstreams.get(route.upstream).ok_or(Error::Internal)?;
        let rewritten = rewrite(&candidates.body, &candidates.fields, &route, upstream, self.key.as_deref(), headers);
        let Rewritten { body, usage_asked, headers: added } = rewritten;
        (self.body, self.usage_asked, self.headers) = (body, usage_asked, added);
        self.query = query(route.dialect, candidates.query.as_deref(), route.query.as_ref());
        self.credential = credential_hash(upstream, route.dialect, headers);
        self.route = route;
        Ok(())
    }

    /// The upstream refused with this status; its answer is not for the caller.
    pub fn refused(&mut self, status: u16) {
        if let Some(attempt) = &mut self.attempt {
            attempt.status = status;
        }
    }

    /// For how long the attempt has been under way, in milliseconds.
    pub fn attempt_age(&self, now: UnixMs) -> u64 {
        self.attempt.as_ref().map_or(u64::MAX, |attempt| now.saturating_sub(attempt.open.0.start_ms))
    }

    /// True if the answer is read to its end even if the caller leaves: it will be billed. One that is made in the background
    /// goes on whoever leaves, and says by what name it is to be asked for.
    pub fn drains(&self) -> bool {
        let endpoint = matches!(self.route.target, Target::Endpoint(_));
        // Nothing is left to cancel.
        let awaits_usage = || {
            let meter = self.attempt.as_ref().and_then(|attempt| attempt.meter.as_ref());
            meter.is_some_and(|meter| meter.is_stream() && meter.found().awaits_usage())
        };
        let drained = self.upstream().is_some_and(|upstream| upstream.on_disconnect == OnDisconnect::Drain);
        endpoint && self.billed && (drained || self.keeping.background || awaits_usage())
    }

    /// The key that asked.
    pub fn key_id(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.id.as_str())
    }

    /// How many attempts were made so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}
