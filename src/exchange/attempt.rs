//! One upstream try: what has come of its answer so far, and how it ended.

use super::batch::Items;
use super::conceal::Conceal;
use super::objects::{ObjectReader, lists::ListFilter};
use super::stored_response::StoredObject;
use super::{Ending, Exchange, UnixMs, fresh_id};
use crate::dialect::Grammar;
use crate::ledger::{Close, Open, Outcome, Rendered, Used};
use crate::meter::{Fault, Meter};
use crate::route::Target;
use crate::usage::Reported;
use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: String,
    pub(super) open: (Open, Rendered),
    pub(super) status: u16,
    pub(super) first_byte_ms: Option<UnixMs>,
    /// When something came last, and the longest wait between two chunks.
    pub(super) last_ms: Option<UnixMs>,
    pub(super) gap_ms: Option<u64>,
    pub(super) bytes_out: u64,
    pub(super) meter: Option<Box<Meter>>,
    pub(super) conceal: Option<Conceal>,
    /// Of a batch, whose results are being read.
    pub(super) items: Option<Box<Items>>,
    /// Reads the response to a request about an object of the provider.
    pub(super) object: Option<Box<ObjectReader>>,
    /// Filters a list of objects.
    pub(super) list: Option<Box<ListFilter>>,
    /// Objects that a filtered list names.
    pub(super) learned: Vec<StoredObject>,
    pub(super) used: Option<(Used, Rendered)>,
    /// How many readings of usage the record reflects.
    pub(super) settled: u32,
    /// Records that told estimates.
    pub(super) estimates: u32,
    /// The upstream said that its body ends.
    pub(super) body_ended: bool,
    /// The request was sent to its end.
    sent: bool,
    /// The cause of a failure at the upstream.
    cause: Option<String>,
    /// No limit has a reservation for it.
    pub(super) unreserved: bool,
}

impl Exchange {
    /// Starts the next attempt: its id and its record, which must be appended before the upstream sees anything.
    pub fn attempt(&mut self, now: UnixMs) -> (&str, &Rendered) {
        self.attempts += 1;
        let id = fresh_id();
        let upstream = self.upstream();
        let (provider, name) = (upstream.map_or("", |upstream| upstream.provider.id), upstream.map_or("", |upstream| &upstream.name));
        let open = Open {
            request_id: self.request_id.clone(),
            attempt: self.attempts,
            start_ms: now,
            provider: provider.to_owned(),
            upstream: name.to_owned(),
            dialect: self.route.dialect.name().to_owned(),
            endpoint: match self.route.target {
                Target::Endpoint(endpoint) => endpoint.name().to_owned(),
                Target::Pass | Target::Stored => self.route.path.clone(),
            },
            model_requested: self.route.model_requested.clone(),
            model: self.route.model.clone(),
            stream: self.stream,
            bytes_in: self.bytes_in,
            billed: self.billed,
            key: self.key.as_ref().map(|key| key.id.clone()),
            key_name: self.key.as_ref().map(|key| key.name.clone()),
            org: self.key.as_ref().and_then(|key| key.org.clone()),
            project: self.key.as_ref().and_then(|key| key.project.clone()),
            user: self.who.user.clone(),
            tags: self.who.tags.clone(),
            credential: self.credential.clone(),
        };
        let rendered = Rendered::open(&open);
        let attempt = Box::new(Attempt {
            id,
            open: (open, rendered),
            status: 0,
            first_byte_ms: None,
            last_ms: None,
            gap_ms: None,
            bytes_out: 0,
            meter: None,
            conceal: None,
            items: None,
            object: None,
            list: None,
            learned: vec![],
            used: None,
            settled: 0,
            estimates: 0,
            body_ended: false,
            sent: false,
            cause: None,
            unreserved: false,
        });
        let attempt = self.attempt.insert(attempt);
        (&attempt.id, &attempt.open.1)
    }

    /// Whether the request went up, to its end.
    pub fn sent(&mut self, whole: bool) {
        self.attempt.iter_mut().for_each(|attempt| attempt.sent = whole);
    }

    /// Notes what went wrong at the upstream. The first cause holds.
    pub fn note_cause(&mut self, cause: String) {
        if let Some(attempt) = &mut self.attempt {
            attempt.cause.get_or_insert(cause);
        }
    }

    /// The attempt was not begun after all.
    pub fn abandon(&mut self) {
        self.attempt = None;
    }

    /// True while an attempt is under way.
    pub fn is_open(&self) -> bool {
        self.attempt.is_some()
    }
}

impl Attempt {
    /// Somebody asked and went away before there was an answer: nothing of it was read, which is what a meter says then, but
    /// for what the request itself says will be used.
    pub(super) fn leave(&mut self, grammar: &'static Grammar, implied: &Reported) {
        if self.sent && self.meter.is_none() && self.items.is_none() {
            self.meter = Some(Box::new(Meter::unread(grammar, implied)));
        }
    }

    /// Takes the next chunk of the response and returns what the client gets of it. Objects that it names belong to `owner`.
    pub(super) fn forward(&mut self, chunk: Bytes, end: bool, owner: Option<&str>) -> Bytes {
        if let Some(list) = &mut self.list {
            list.push(&chunk);
            if !end {
                return Bytes::new();
            }
            let (kept, learned) = list.finish(&self.open.0.upstream, owner);
            self.learned = learned;
            return kept;
        }
        if let Some(object) = &mut self.object {
            object.push(&chunk);
        }
        if let Some(items) = &mut self.items {
            items.push(&chunk);
            if end {
                items.end();
            }
            return chunk;
        }
        let Some(meter) = self.meter.as_mut().filter(|meter| !meter.found().faults.has(Fault::Encoded)) else {
            return chunk;
        };
        let Some(conceal) = &mut self.conceal else {
            meter.push(&chunk, |_| {});
            return chunk;
        };
        let out = conceal.push(meter, chunk);
        if !end {
            return out;
        }
        let rest = conceal.finish(meter.is_at_usage_only());
        if rest.is_empty() { out } else { [out, rest].concat().into() }
    }

    pub(super) fn close(&self, ending: &Ending, now: UnixMs, endpoint: bool) -> Close {
        let found = self.meter.as_ref().map(|meter| meter.found());
        let faults = found.map(|found| found.faults).unwrap_or_default();
        let carried = found.and_then(|found| found.error.clone());
        let cut_off = faults.has(Fault::CutOff) && endpoint;
        let outcome = match ending {
            // Clients close at an error, at the last event, or once a document is complete: nothing was left for them to read.
            _ if self.status >= 400 || carried.is_some() => Outcome::UpstreamError,
            Ending::Drained => Outcome::ClientClosed,
            Ending::ClientClosed if !found.is_some_and(|found| found.ended) => Outcome::ClientClosed,
            Ending::Failed(_) if self.first_byte_ms.is_none() => Outcome::UpstreamError,
            Ending::Failed(_) => Outcome::Truncated,
            Ending::Complete if cut_off && self.status < 300 => Outcome::Truncated,
            Ending::Complete | Ending::ClientClosed => Outcome::Ok,
        };
        let error = match ending {
            Ending::Failed(error) => Some(error.code().to_owned()),
            _ => carried,
        };
        Close {
            end_ms: now,
            first_byte_ms: self.first_byte_ms,
            status: self.status,
            outcome,
            error,
            cause: self.cause.clone().filter(|_| matches!(ending, Ending::Failed(_))),
            faults: faults.iter().map(|fault| fault.name().to_owned()).collect(),
            bytes_out: self.bytes_out,
            metered: self.used.is_some(),
            last_reading: self.used.as_ref().map(|(used, _)| used.reading),
            complete: false,
        }
    }
}
