//! Turns of a WebSocket: how they start, which upstream messages belong to which, and how they end.

use super::{Progress, Turn, TurnRequest, WebSocketSession};
use crate::config::Config;
use crate::error::Error;
use crate::exchange::limits::CostBounds;
use crate::exchange::stored_response::StoredObject;
use crate::exchange::who::Who;
use crate::exchange::{Asked as AskedBy, Closed, Ending, Exchange, UnixMs, key_scope};
use crate::meter::Meter;
use crate::route::{self, Head as RequestHead, RequestFields, Target};
use std::sync::Arc;

/// Events of a session, in order; to be recorded before the bytes are forwarded.
#[derive(Debug)]
pub enum SessionEvent {
    /// A turn was requested: its entry's id and `start` record.
    Start(String, crate::ledger::Rendered),
    /// Responses that the provider stores.
    Stored(Vec<StoredObject>),
    /// A turn's usage, and its end.
    End(Box<Closed>),
}

impl Exchange {
    /// Plans a WebSocket, whose turns are yet to come.
    ///
    /// # Errors
    /// If no upstream takes one.
    pub fn plan_socket(head: &RequestHead<'_>, config: Arc<Config>, asked: AskedBy) -> Result<Box<Self>, Error> {
        let route = route::socket(head, &config)?;
        if let (Some(key), Some(upstream)) = (&asked.key, config.upstreams.get(route.upstream)) {
            key.allows_provider(&upstream.name)?;
            if route.target == Target::Pass && !key.models.is_empty() {
                return Err(Error::NotAllowed { path: head.path.to_owned() });
            }
        }
        let unmetered = route.target == Target::Pass;
        let who = Who::read(head, &RequestFields::default())?;
        let mut exchange = Self::of(head, route, config, asked)?;
        (exchange.unmetered, exchange.who, exchange.stream) = (unmetered, who, true);
        Ok(exchange)
    }

    /// The model of a turn as the upstream calls it.
    ///
    /// # Errors
    /// If the key may not use it, or another model that the turn names.
    pub fn admit_turn(&self, fields: &RequestFields) -> Result<String, Error> {
        let requested = fields.model.as_ref().map_or("", |model| model.value.as_str());
        let renamed = route::model_at(requested, self.route.upstream, &self.config);
        if let (Some(key), Some(upstream)) = (&self.key, self.upstream()) {
            key.allows(&upstream.name, requested, &renamed)?;
            key_scope::check_fields(key, fields, self.route.upstream, &self.config)?;
        }
        Ok(renamed)
    }

    /// Records that turns were requested. The events must be recorded before the messages are forwarded.
    pub fn start_turns(&mut self, session: &mut WebSocketSession, requests: Vec<TurnRequest>, now: UnixMs) -> Vec<SessionEvent> {
        let mut events = vec![];
        for request in requests {
            let current = self.suspend_turn(session);
            events.push(self.start_turn(session, request, now));
            if let Some(current) = current {
                session.waiting.extend(self.suspend_turn(session));
                self.resume_turn(session, current);
            }
        }
        events
    }

    fn start_turn(&mut self, session: &mut WebSocketSession, request: TurnRequest, now: UnixMs) -> SessionEvent {
        let turn = Turn {
            requested: request.requested,
            model: request.model,
            bytes: request.bytes,
            prompt: Some(request.bounds.input),
            conversation: request.conversation,
            hold: request.hold,
            attempt: None,
            progress: Progress { started: false, others_before: request.others_before },
        };
        self.resume_turn(session, turn);
        let (id, open) = self.attempt(now);
        let event = SessionEvent::Start(id.to_owned(), open.clone());
        let grammar = self.route.dialect.grammar();
        if let Some(attempt) = &mut self.attempt {
            attempt.status = 200;
            attempt.meter = Some(Box::new(Meter::of_messages(grammar)));
        }
        event
    }

    /// Takes the turn in progress out of the exchange, to make room for another one.
    fn suspend_turn(&mut self, session: &WebSocketSession) -> Option<Turn> {
        let attempt = self.attempt.take()?;
        Some(Turn {
            requested: std::mem::take(&mut self.route.model_requested),
            model: std::mem::take(&mut self.route.model),
            bytes: self.bytes_in,
            prompt: self.prompt.take(),
            conversation: self.keeping.conversation.take(),
            hold: self.hold.take(),
            attempt: Some(attempt),
            progress: session.current,
        })
    }

    fn resume_turn(&mut self, session: &mut WebSocketSession, turn: Turn) {
        (self.route.model_requested, self.route.model, self.stream) = (turn.requested, turn.model, true);
        (self.bytes_in, self.prompt, self.hold) = (turn.bytes, turn.prompt, turn.hold);
        (self.keeping.conversation, self.keeping.remembered) = (turn.conversation, false);
        (self.attempt, session.current) = (turn.attempt, turn.progress);
    }

    /// Reads bytes of the upstream. The events must be recorded before the bytes are forwarded.
    pub fn on_upstream_data(&mut self, session: &mut WebSocketSession, chunk: &[u8], now: UnixMs) -> Vec<SessionEvent> {
        let mut events = vec![];
        session.on_upstream_frames(chunk, |session, part| match part {
            Some(part) => self.upstream_part(session, part, now),
            None => self.upstream_message_end(session, now, &mut events),
        });
        events
    }

    fn upstream_part(&mut self, session: &mut WebSocketSession, part: &[u8], now: UnixMs) {
        let grammar = self.route.dialect.grammar();
        match &mut self.attempt {
            Some(attempt) => {
                attempt.first_byte_ms.get_or_insert(now);
                attempt.bytes_out += part.len() as u64;
                attempt.meter.iter_mut().for_each(|meter| meter.message_part(part));
            }
            None => session.unrequested.get_or_insert_with(|| Box::new(Meter::of_messages(grammar))).message_part(part),
        }
    }

    fn upstream_message_end(&mut self, session: &mut WebSocketSession, now: UnixMs, events: &mut Vec<SessionEvent>) {
        let grammar = self.route.dialect.grammar();
        if self.attempt.is_none() {
            let mut meter = session.unrequested.take().unwrap_or_else(|| Box::new(Meter::of_messages(grammar)));
            meter.message_end();
            if !has_started(&meter) {
                // An `error` event about an earlier message, or one that belongs to no response.
                session.unassigned_errors += u64::from(meter.take_error().is_some());
                session.unrequested = Some(meter);
                return self.assign_errors(session, now, None, events);
            }
            events.push(self.start_unrequested(session, meter, now));
        } else if let Some(meter) = self.attempt.as_mut().and_then(|attempt| attempt.meter.as_mut()) {
            meter.message_end();
        }
        let Some(meter) = self.attempt.as_mut().and_then(|attempt| attempt.meter.as_mut()) else { return };
        if !session.current.started && has_started(meter) {
            session.current.started = true;
            // Messages are handled in order: those before this turn's request cause no error any more.
            session.others_resolved = session.others_resolved.max(session.current.others_before);
        }
        if meter.found().ended || meter.found().names_failed_response() {
            return self.end_turn(session, now, events);
        }
        let error = meter.take_error();
        session.unassigned_errors += u64::from(error.is_some());
        if session.unassigned_errors > 0 {
            self.assign_errors(session, now, error, events);
        }
    }

    /// Begins a turn for a response that no client message requested. It is billed and counted against limits like any other.
    fn start_unrequested(&mut self, session: &mut WebSocketSession, meter: Box<Meter>, now: UnixMs) -> SessionEvent {
        let request = TurnRequest {
            requested: String::new(),
            model: meter.found().model.clone(),
            bytes: 0,
            bounds: CostBounds::default(),
            conversation: None,
            hold: None,
            others_before: session.others_resolved,
        };
        let event = self.start_turn(session, request, now);
        if let Some(attempt) = &mut self.attempt {
            attempt.unreserved = true;
            attempt.first_byte_ms = Some(now);
            attempt.meter = Some(meter);
        }
        event
    }

    fn end_turn(&mut self, session: &mut WebSocketSession, now: UnixMs, events: &mut Vec<SessionEvent>) {
        events.push(SessionEvent::Stored(self.take_stored_responses()));
        events.extend(self.close(&Ending::Complete, now).map(|closed| SessionEvent::End(Box::new(closed))));
        if let Some(next) = session.waiting.pop_front() {
            self.resume_turn(session, next);
        }
    }

    /// Finds out which messages the `error` events without a response concern. Each message causes one at most; a turn that has
    /// started ends with an event that names its response. As long as an error may concern one of several messages, no turn ends.
    fn assign_errors(&mut self, session: &mut WebSocketSession, now: UnixMs, kind: Option<String>, events: &mut Vec<SessionEvent>) {
        let current_unstarted = self.attempt.is_some() && !session.current.started;
        let candidates = u64::from(current_unstarted) + session.waiting.len() as u64 + session.unresolved_others();
        if candidates > session.unassigned_errors {
            return;
        }
        session.unassigned_errors = 0;
        session.others_resolved = session.others_sent;
        let kind = kind.unwrap_or_else(|| "error".to_owned());
        let current = if current_unstarted { None } else { self.suspend_turn(session) };
        while self.attempt.is_some() || !session.waiting.is_empty() {
            if self.attempt.is_none()
                && let Some(next) = session.waiting.pop_front()
            {
                self.resume_turn(session, next);
            }
            self.attempt.iter_mut().filter_map(|attempt| attempt.meter.as_mut()).for_each(|meter| meter.stated_error(&kind));
            events.extend(self.close(&Ending::Complete, now).map(|closed| SessionEvent::End(Box::new(closed))));
        }
        if let Some(current) = current {
            self.resume_turn(session, current);
        }
    }

    /// Ends all turns with the connection. What the upstream did not report is estimated.
    pub fn end_session(&mut self, session: &mut WebSocketSession, ending: &Ending, now: UnixMs) -> Vec<SessionEvent> {
        let mut events = vec![];
        loop {
            events.extend(self.close(ending, now).map(|closed| SessionEvent::End(Box::new(closed))));
            let Some(next) = session.waiting.pop_front() else { return events };
            self.resume_turn(session, next);
        }
    }
}

/// True once the upstream has sent something of a response.
fn has_started(meter: &Meter) -> bool {
    let found = meter.found();
    !found.id.is_empty() || found.has_usage() || found.ended || meter.estimated_output().is_some_and(|tokens| tokens > 0)
}
