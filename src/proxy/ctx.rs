//! What a request carries through Pingora's hooks.

use super::body::Permit;
use super::cors::Readers;
use super::crew::Busy;
use super::downstream::{self, Outlet};
use super::identity::Held;
use super::reload::Live;
use super::respond::Asker;
use super::socket_slots::SocketSlot;
use super::state::{State, now_ms};
use crate::dialect::Dialect;
use crate::error::Error;
use crate::exchange::websocket::WebSocketSession;
use crate::exchange::{Ending, Exchange};
use crate::limit::Hold;
use crate::stream::decode::Decoder;
use crate::trace::Trace;
use http::HeaderValue;
use pingora_proxy::Session;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// One request's way through the hooks.
pub struct Ctx {
    pub(super) state: Arc<State>,
    _busy: Busy,
    pub(super) request_id: String,
    pub(super) caller_id: Option<HeaderValue>,
    pub(super) readers: Readers,
    pub(super) dialect: Dialect,
    /// What holds for this request, whatever is reloaded meanwhile.
    pub(super) live: Option<Arc<Live>>,
    pub(super) exchange: Option<Box<Exchange>>,
    /// The session of a metered WebSocket.
    pub(super) session: Option<Box<WebSocketSession>>,
    pub(super) outlet: Outlet,
    /// The response is read on if the client leaves.
    pub(super) drains: bool,
    pub(super) permit: Option<Permit>,
    /// A comment with the cost ends a stream.
    pub(super) comments: bool,
    /// That was asked for.
    pub(super) asks_comments: bool,
    pub(super) refused: Option<Error>,
    /// The name of the key, and the model that was requested, for the log of a refusal.
    pub(super) key_name: Option<String>,
    pub(super) model: Option<String>,
    /// Counts a WebSocket for its key.
    pub(super) socket_slot: Option<SocketSlot>,
    /// Another attempt follows, after so long.
    pub(super) again: Option<Duration>,
    /// What a cloud handed out for the upstream.
    pub(super) held: Option<Arc<Held>>,
    /// Takes off what the upstream compressed.
    pub(super) decoder: Option<Box<Decoder>>,
    counted: bool,
    streams: bool,
    /// When its head was there.
    pub(super) came: Instant,
    /// When the request had been read.
    pub(super) read: Option<Instant>,
    /// When the attempt began.
    pub(super) begins: Option<Instant>,
    /// What is reserved with limits; turns have their own.
    pub(super) hold: Option<Hold>,
    /// Its place in a trace that is sampled.
    pub(super) trace: Option<Box<Trace>>,
}

impl Drop for Ctx {
    /// After a panic in a hook nobody calls `logging`: the attempt is closed here.
    fn drop(&mut self) {
        if self.session.is_some() {
            super::socket::end(self, &Ending::Failed(Error::Internal));
        } else if let Some(exchange) = self.exchange.as_mut().filter(|exchange| exchange.is_open()) {
            self.state.close(exchange, &Ending::Failed(Error::Internal), self.trace.as_deref());
        }
        match (self.hold.take(), &self.exchange) {
            (Some(hold), Some(exchange)) => exchange.settle_hold(hold, now_ms()),
            (hold, _) => drop(hold),
        }
        self.count(false);
        if self.streams {
            self.state.metrics.streams.dec();
        }
        if self.session.is_some() {
            self.state.metrics.sockets.dec();
        }
    }
}

impl Ctx {
    pub(super) fn new(state: Arc<State>, busy: Busy) -> Self {
        Self {
            state,
            _busy: busy,
            request_id: String::new(),
            caller_id: None,
            readers: Readers::default(),
            dialect: Dialect::Chat,
            live: None,
            exchange: None,
            session: None,
            outlet: Outlet::default(),
            drains: false,
            permit: None,
            comments: false,
            asks_comments: false,
            refused: None,
            key_name: None,
            model: None,
            socket_slot: None,
            again: None,
            held: None,
            decoder: None,
            counted: false,
            streams: false,
            came: Instant::now(),
            read: None,
            begins: None,
            hold: None,
            trace: None,
        }
    }

    /// By when the upstream must have begun to answer, or to have ended once it has.
    pub(super) fn set_deadline(&self, begun: bool) {
        let Some((exchange, begins)) = self.exchange.as_ref().zip(self.begins) else { return };
        let own = exchange.upstream().and_then(|upstream| upstream.timeouts);
        let (patience, usual) = (exchange.patience(), own.unwrap_or(exchange.config().timeouts));
        let (first_byte, total) = (patience.first_byte.or(usual.first_byte), patience.total.or(usual.total));
        if first_byte.is_none() && total.is_none() {
            return;
        }
        let soonest = first_byte.filter(|_| !begun).into_iter().chain(total).min();
        self.outlet.set_deadline(soonest.map(|time| begins + time));
    }

    /// Says whether something is under way that a process must not leave.
    pub(super) fn count(&mut self, under_way: bool) {
        match (self.counted, under_way) {
            (false, true) => self.state.metrics.in_flight.inc(),
            (true, false) => self.state.metrics.in_flight.dec(),
            _ => {}
        }
        self.counted = under_way;
    }

    /// It is to be answered by a stream.
    pub(super) fn count_stream(&mut self) {
        self.state.metrics.streams.inc();
        self.streams = true;
    }

    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { request_id: &self.request_id, readers: &self.readers }
    }

    pub(super) fn unwrap_session(&mut self, session: &mut Session) {
        downstream::uninstall(&mut session.downstream_session, &self.outlet);
    }

    pub(super) fn provider(&self) -> String {
        self.exchange.as_ref().and_then(|exchange| exchange.upstream()).map(|upstream| upstream.name.clone()).unwrap_or_default()
    }
}
