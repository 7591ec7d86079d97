//! The heart: one request from its body to its entries. No sockets and no clock of its own; the shell drives it, one
//! short call a phase, and appends the records it hands out.

mod again;
mod attempt;
mod batch;
mod closed;
mod conceal;
mod cost;
mod heads;
mod key_scope;
mod limits;
mod objects;
pub mod settle;
pub mod stored_response;
pub mod websocket;
pub mod who;

use crate::config::{Config, Patience, Upstream};
use crate::dialect::Dialect;
use crate::error::Error;
use crate::keys::Key;
use crate::ledger::{Entry, Rendered};
use crate::limit::{Amount, Hold};
use crate::meter::Fault;
use crate::rewrite::cache::{Header, Headers};
use crate::rewrite::rewrite;
use crate::route::{self, Destination, Head, Health, RequestFields, Route, Target};
use crate::usage::Reported;
use again::Candidates;
pub use again::{BEGINNING_BYTES_MAX, Beginning, Limit};
use attempt::Attempt;
use batch::Items;
use bytes::Bytes;
pub use closed::{Closed, Records};
use conceal::Conceal;
pub use cost::Cost;
pub use heads::response_meter;
use heads::{check_query, implied, is_document, is_encoded, query};
use http::{HeaderMap, Method};
use key_scope::permit;
use limits::CostBounds;
use limits::is_cost_unknown;
pub use limits::{amount_of, who_of};
use objects::ObjectAccess;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use stored_response::{StoreHandle, StoredState, bound};
use who::Who;

/// Milliseconds since 1970.
pub type UnixMs = u64;

/// How an attempt came to its end, as the shell saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The upstream's answer was forwarded to its end.
    Complete,
    /// The caller left.
    ClientClosed,
    /// The caller left, and the answer was read to its end all the same.
    Drained,
    /// The gateway gave up on the upstream.
    Failed(Error),
}

/// Which request it is, and who asks.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub request_id: String,
    pub key: Option<Arc<Key>>,
    /// When, and who is known to be in trouble then.
    pub now: UnixMs,
    pub health: Arc<Health>,
    /// Answers that providers keep.
    pub memory: StoreHandle,
}

/// One request.
#[derive(Debug)]
pub struct Exchange {
    config: Arc<Config>,
    request_id: String,
    /// Who asked.
    key: Option<Arc<Key>>,
    health: Arc<Health>,
    /// Who else may answer; dropped once an answer is committed.
    candidates: Option<Box<Candidates>>,
    route: Route,
    query: Option<String>,
    /// As the upstream gets it; dropped once an answer is committed.
    body: Bytes,
    bytes_in: u64,
    stream: bool,
    usage_asked: bool,
    headers: Headers,
    billed: bool,
    /// A connection that passes unread.
    unmetered: bool,
    credential: Option<String>,
    who: Who,
    /// What the request itself says will be used, for want of better.
    implied: Reported,
    /// The tokens of the prompt as they are estimated, once the body is gone.
    prompt: Option<u64>,
    keeping: StoredState,
    bounds: CostBounds,
    access: ObjectAccess,
    /// The path leads to results of a batch that was created through the gateway.
    batch_results: bool,
    form: bool,
    /// What is reserved for the turn under way.
    hold: Option<Hold>,
    /// What its attempts came to so far.
    came_to: Amount,
    /// The last attempt was served and its cost is unknown.
    cost_unknown: bool,
    attempts: u32,
    attempt: Option<Box<Attempt>>,
}

impl Exchange {
    /// Plans a request whose body has been read.
    ///
    /// # Errors
    /// If the body is of no use or no upstream fits.
    pub fn plan(head: &Head<'_>, destination: Destination, body: &Bytes, config: Arc<Config>, asked: Asked) -> Result<Box<Self>, Error> {
        let mut fields = RequestFields::of(body, head, &destination)?;
        let undecided = matches!(destination, Destination::Endpoint { endpoint: None, .. });
        let (bound, pending) = bound(fields.stored_ids(&destination), &destination, head, &config, &asked)?;
        let objects = objects::check(body, &destination, head, &config, &asked)?;
        if bound.zip(objects.upstream).is_some_and(|(one, other)| one != other) {
            return Err(Error::ObjectsApart);
        }
        let bound = bound.or(objects.upstream);
        let (mut route, mut others) = route::routes(head, destination, &fields, &config, again::draw(&asked.request_id), bound)?;
        if undecided {
            // Which fields bound the output depends on the dialect.
            fields = RequestFields::read(body, Some(route.dialect))?;
        }
        check_query(route.dialect, head.query)?;
        let (background, stores_chat, conversation) = (fields.background, fields.store, fields.conversation.clone());
        let keeping = StoredState { background, stores_chat, conversation, pending, ..StoredState::default() };
        if let Some(key) = &asked.key {
            others.retain(|other| permit(key, other, &fields, &config, head).is_ok());
            if let Err(error) = permit(key, &route, &fields, &config, head) {
                route = if others.is_empty() { return Err(error) } else { others.remove(0) };
            }
        }
        let candidates = Candidates::new((&mut route, others), body, &fields, head, &config, &asked);
        let upstream = config.upstreams.get(route.upstream).ok_or(Error::Internal)?;
        let rewritten = rewrite(body, &fields, &route, upstream, asked.key.as_deref(), head.headers);
        let billed = match route.target {
            Target::Endpoint(endpoint) => endpoint.is_billed(),
            Target::Stored => false,
            // Reading something again is not generating it again.
            Target::Pass => head.method != Method::GET && !upstream.manages_batches(&route.path),
        };
        let streams = match route.target {
            Target::Endpoint(endpoint) => endpoint.streams() || fields.stream.as_ref().is_some_and(|stream| stream.value),
            Target::Stored => head.query.is_some_and(|query| query.split('&').any(|pair| pair == "stream=true")),
            Target::Pass => false,
        };
        let (implied, who) = (implied(&route.target, body), Who::read(head, &fields)?);
        let mut exchange = Self::of(head, route, config.clone(), asked)?;
        (exchange.implied, exchange.keeping, exchange.who, exchange.candidates) = (implied, keeping, who, candidates);
        exchange.bounds = CostBounds::of(&fields);
        (exchange.access, exchange.batch_results) = (objects.access, objects.results);
        (exchange.form, exchange.stream, exchange.billed) = (fields.form, streams, billed);
        exchange.bytes_in = body.len() as u64;
        (exchange.body, exchange.usage_asked, exchange.headers) = (rewritten.body, rewritten.usage_asked, rewritten.headers);
        Ok(exchange)
    }

    /// True for a WebSocket that passes unread.
    pub fn is_unmetered(&self) -> bool {
        self.unmetered
    }

    /// Boxed, since it is large and goes from hand to hand.
    fn of(head: &Head<'_>, route: Route, config: Arc<Config>, asked: Asked) -> Result<Box<Self>, Error> {
        let upstream = config.upstreams.get(route.upstream).ok_or(Error::Internal)?;
        let credential = credential_hash(upstream, route.dialect, head.headers);
        Ok(Box::new(Self {
            request_id: asked.request_id,
            key: asked.key,
            health: asked.health,
            unmetered: false,
            candidates: None,
            query: query(route.dialect, head.query, route.query.as_ref()),
            bytes_in: 0,
            stream: false,
            usage_asked: false,
            headers: vec![],
            body: Bytes::new(),
            billed: true,
            credential,
            who: Who::default(),
            implied: Reported::default(),
            prompt: None,
            keeping: StoredState::default(),
            bounds: CostBounds::default(),
            access: ObjectAccess::None,
            batch_results: false,
            form: false,
            hold: None,
            came_to: Amount::default(),
            cost_unknown: false,
            attempts: 0,
            attempt: None,
            route,
            config,
        }))
    }

    /// How long the candidate that is being asked is waited for, where that was said of it.
    pub fn patience(&self) -> Patience {
        self.route.patience
    }

    /// True if it is to be answered by a stream.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// The upstream chosen.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.config.upstreams.get(self.route.upstream)
    }

    /// Its place in the configuration.
    pub fn upstream_index(&self) -> usize {
        self.route.upstream
    }

    /// True if what the caller gets may be shorter than what the upstream sends.
    pub fn changes_length(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.conceal.is_some() || attempt.list.is_some())
    }

    /// True once the upstream has begun to answer: nothing may be tried again without the caller knowing.
    pub fn is_answered(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.status != 0)
    }

    /// The model as the client named it; empty if it named none.
    pub fn model_requested(&self) -> &str {
        &self.route.model_requested
    }

    /// The configuration this request was planned with.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn dialect(&self) -> Dialect {
        self.route.dialect
    }

    /// The path and query at the upstream.
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.route.path),
            None => self.route.path.clone(),
        }
    }

    /// Headers that go up besides the caller's.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The body this attempt sends.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// An answer is committed: no other attempt will need the body.
    pub fn drop_body(&mut self) {
        self.prompt = self.prompt_tokens();
        self.body = Bytes::new();
        self.candidates = None;
    }

    /// The upstream answered with this head.
    pub fn respond(&mut self, status: u16, headers: &HeaderMap) {
        let hides = self.usage_asked && status < 300;
        let encoded = is_encoded(headers);
        self.read_objects(status, encoded);
        let batch =
            if self.route.target == Target::Pass && self.batch_results { self.batch_results().map(|(dialect, _)| dialect) } else { None };
        let Some(attempt) = &mut self.attempt else { return };
        attempt.status = status;
        if let Some(dialect) = batch.filter(|_| status < 300 && !encoded) {
            attempt.items = Some(Box::new(Items::new(dialect.grammar())));
            return;
        }
        let meter = Box::new(response_meter(self.route.dialect, headers, &self.implied));
        attempt.conceal = (hides && !encoded && !is_document(headers)).then(Conceal::default);
        attempt.meter = Some(meter);
    }

    /// Takes the next chunk of the answer and returns what goes on. If [`Exchange::news`] has a record after this, it
    /// must be appended before the chunk leaves.
    pub fn push(&mut self, chunk: Bytes, end: bool, now: UnixMs) -> Bytes {
        let owner = self.key.as_ref().map(|key| key.id.as_str()).or(self.credential.as_deref());
        let Some(attempt) = &mut self.attempt else { return chunk };
        if !chunk.is_empty() {
            attempt.first_byte_ms.get_or_insert(now);
            let gap = attempt.last_ms.replace(now).map(|last| now.saturating_sub(last));
            attempt.gap_ms = attempt.gap_ms.max(gap);
        }
        attempt.body_ended |= end;
        let out = attempt.forward(chunk, end, owner);
        attempt.bytes_out += out.len() as u64;
        out
    }

    /// Usage that has become final since the last record: the entry's id and a record to append.
    pub fn news(&mut self, now: UnixMs) -> Option<(&str, &Rendered)> {
        let attempt = self.attempt.as_ref()?;
        let found = attempt.meter.as_ref()?.found();
        let fresh = found.usages != attempt.settled && (found.finished || attempt.body_ended);
        // What has not come by now never will.
        let given_up = attempt.body_ended && !(found.finished && found.has_usage()) && attempt.estimates == 0;
        let estimate = if given_up { self.estimate(&Ending::Complete) } else { None };
        if !fresh && estimate.is_none() {
            return None;
        }
        self.settle(now, estimate);
        let attempt = self.attempt.as_ref()?;
        attempt.used.as_ref().map(|used| (attempt.id.as_str(), &used.1))
    }

    /// Ends the attempt.
    pub fn close(&mut self, ending: &Ending, now: UnixMs) -> Option<Closed> {
        let whole = matches!(ending, Ending::Complete | Ending::Drained);
        let attempt = self.attempt.as_mut()?;
        let settled = attempt.settled;
        if let Some(meter) = &mut attempt.meter {
            meter.finish(whole);
        }
        let owes = matches!(self.route.target, Target::Endpoint(endpoint) if endpoint.writes()) || !self.implied.is_empty();
        if *ending == Ending::ClientClosed && owes && self.billed && !self.unmetered && self.may_estimate() {
            self.attempt.as_mut()?.leave(self.route.dialect.grammar(), &self.implied);
        }
        let attempt = self.attempt.as_mut()?;
        let stale = attempt.meter.as_ref().is_some_and(|meter| meter.found().usages != settled);
        let unsettled = stale || attempt.used.is_none();
        let estimate = if attempt.estimates == 0 { self.estimate(ending) } else { None };
        let usage_news = unsettled || estimate.is_some();
        if usage_news {
            self.settle(now, estimate);
        }
        let attempt = *self.attempt.take()?;
        let mut close = attempt.close(ending, now, matches!(self.route.target, Target::Endpoint(_)));
        // What a list lets through and nobody can read costs something all the same.
        let unread = self.route.target == Target::Pass
            && self.billed
            && close.status < 300
            && attempt.used.as_ref().is_none_or(|used| used.0.lines.is_empty());
        if (self.unmetered || unread) && !close.faults.iter().any(|fault| fault == Fault::Unmetered.name()) {
            close.faults.push(Fault::Unmetered.name().to_owned());
        }
        let gap_ms = attempt.gap_ms.filter(|_| self.stream);
        let unreserved = attempt.unreserved;
        let (open, rendered_open) = attempt.open;
        let (used, rendered_used) = attempt.used.unzip();
        close.complete = close.is_exact(open.billed, used.as_ref());
        let records = Records { open: rendered_open, used: rendered_used, close: Rendered::close(&close) };
        let entry = Entry { id: attempt.id, open, used, close: Some(close) };
        let came_to = amount_of(&entry);
        self.came_to = self.came_to.and(came_to);
        self.cost_unknown = self.keeping.owes.is_none() && is_cost_unknown(&entry);
        match self.hold.take() {
            Some(hold) if self.cost_unknown => hold.keep(now),
            hold => hold.into_iter().for_each(|hold| hold.settle(came_to, now)),
        }
        Some(Closed { entry, records, usage_news, gap_ms, unreserved, cost_unknown: self.cost_unknown })
    }
}

/// A new id of a request or an entry: a UUIDv7 in its text form, so that ids sort by when they were given.
pub fn fresh_id() -> String {
    uuid::Uuid::now_v7().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).to_owned()
}

/// A short hash by which a caller's own credential can be told from another's.
fn credential_hash(upstream: &Upstream, dialect: Dialect, headers: &HeaderMap) -> Option<String> {
    let (_, value) = upstream.callers_credential(dialect, headers)?;
    Some(hex::encode(Sha256::digest(value.as_bytes()).get(..8).unwrap_or_default()))
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod simulation;
