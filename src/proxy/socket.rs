//! WebSockets: the handshake, and the bytes of both directions once it is done.

use super::access;
use super::ctx::Ctx;
use super::gateway::{Gateway, request_head};
use super::head;
use super::state::now_ms;
use crate::config::Sync;
use crate::error::Error;
use crate::exchange::websocket::{ClientData, SessionEvent};
use crate::exchange::{Asked, Ending, Exchange};
use crate::route::RequestFields;
use crate::trace::Trace;
use bytes::Bytes;
use http::{HeaderName, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, Result};
use pingora_proxy::Session;
use std::sync::Arc;

/// Compressed frames could not be read: none is asked for, and none agreed on.
const EXTENSIONS: HeaderName = HeaderName::from_static("sec-websocket-extensions");

/// True if a request wants to become a WebSocket.
pub fn is_wanted(request: &RequestHeader) -> bool {
    let upgrades = request.headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    upgrades && request.method == http::Method::GET && request.version == http::Version::HTTP_11
}

impl Gateway {
    /// Plans a connection. Pages of other sites are refused whoever may come: a browser would lend them its address.
    pub(super) fn plan_socket(&self, session: &mut Session, ctx: &mut Ctx) -> Result<(), Error> {
        let config = ctx.live.as_ref().ok_or(Error::Internal)?.config.clone();
        let request = session.req_header();
        let caller = self.admit(request, &config)?;
        ctx.key_name = caller.as_ref().map(|caller| caller.key.name.clone());
        head::check_site(request, &config, &config.origins)?;
        // There is no body to wait for.
        access::verify(caller.as_ref(), request, &[], &config)?;
        let (key, max) = (caller.as_ref().map(|caller| caller.key.id.as_str()), config.process.websockets_per_key);
        ctx.socket_slot = Some(self.state.socket_slots.take(key, max).ok_or(Error::TooManyWebSockets { max })?);
        let asked = Asked { request_id: ctx.request_id.clone(), key: caller.map(|caller| caller.key), ..Asked::default() };
        let exchange = Exchange::plan_socket(&request_head(request), config, asked)?;
        // Callers may think between turns.
        session.downstream_session.set_read_timeout(Some(exchange.config().timeouts.upstream_read));
        if !exchange.is_unmetered() {
            ctx.session = Some(Box::default());
            self.state.metrics.sockets.inc();
        }
        ctx.exchange = Some(exchange);
        Ok(())
    }

    /// Handles bytes of the client.
    pub(super) async fn up(&self, session: &mut Session, ctx: &mut Ctx, body: &mut Option<Bytes>) -> Result<()> {
        // A turn that waits for limits or the disk is in progress already.
        ctx.count(true);
        let handled = self.forward_turns(ctx, body).await;
        let open = ctx.session.is_none() || ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_open());
        ctx.count(open);
        // One turn cannot be refused alone: an error closes the connection.
        if let (Some(error), Some(websocket)) = (&ctx.refused, &mut ctx.session) {
            let close = websocket.close_with(error);
            let _ = session.downstream_session.write_response_body(close.into(), true).await;
        }
        handled
    }

    async fn forward_turns(&self, ctx: &mut Ctx, body: &mut Option<Bytes>) -> Result<()> {
        let state = Arc::clone(&ctx.state);
        let (Some(session), Some(exchange), Some(chunk)) = (&mut ctx.session, &mut ctx.exchange, body.take()) else { return Ok(()) };
        if session.close_sent() {
            return Err(pingora::Error::new_down(ErrorType::ConnectionClosed));
        }
        // Each turn is authorized anew: a key that was revoked meanwhile gets no further turn.
        let store = state.store();
        let admit = |fields: &RequestFields, message: &[u8]| {
            if !state.still_admits(exchange.key_id()) {
                return Err(Error::InvalidKey);
            }
            for id in [&fields.previous, &fields.conversation].into_iter().flatten() {
                exchange.may_continue(id, &store)?;
            }
            exchange.check_objects(message, &store)?;
            exchange.admit_turn(fields)
        };
        let ClientData { forward, mut turns, refused } = session.on_client_data(&chunk, exchange.config().bounds.body_bytes_max, admit);
        let held = ctx.permit.get_or_insert_with(|| state.budget.permit());
        if !held.fit(session.buffered_bytes() as u64, exchange.config().bounds.body_budget_bytes) {
            return Err(refuse(&mut ctx.refused, Error::BodyBudget));
        }
        let (rules, now) = (exchange.config().limits.clone(), now_ms());
        for turn in turns.iter_mut().filter(|_| !rules.is_empty()) {
            let admitted = exchange.check_turn_priced(turn);
            let (who, amount) = exchange.max_turn_cost(turn, now);
            let taken = match admitted {
                Ok(()) => self.take(&rules, &who, amount, now).await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(hold) => turn.hold = hold,
                Err(error) => return Err(refuse(&mut ctx.refused, error)),
            }
        }
        let events = exchange.start_turns(session, turns, now_ms());
        let trace = ctx.trace.as_deref();
        for event in &events {
            if !record(&state, event, exchange, trace) {
                // A turn that cannot be billed is not forwarded.
                return Err(refuse(&mut ctx.refused, Error::Unbillable));
            }
        }
        if exchange.config().ledger.sync == Sync::Always && !events.is_empty() {
            state.commits.wait().await;
        }
        // Messages before the refused one are forwarded, and a close frame behind them.
        (*body, ctx.refused) = (Some(forward), refused);
        Ok(())
    }
}

/// Notes why the connection is closed.
fn refuse(refused: &mut Option<Error>, error: Error) -> Box<pingora::Error> {
    let status = error.status();
    *refused = Some(error);
    pingora::Error::new_in(ErrorType::HTTPStatus(status))
}

/// Ends the turns of a session with its connection.
pub(super) fn end(ctx: &mut Ctx, ending: &Ending) {
    let state = Arc::clone(&ctx.state);
    let (Some(session), Some(exchange)) = (&mut ctx.session, &mut ctx.exchange) else { return };
    let events = exchange.end_session(session, ending, now_ms());
    for event in &events {
        record(&state, event, exchange, ctx.trace.as_deref());
    }
}

/// The head of a 101.
pub(super) fn response(response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    // Turns count as in flight; an idle connection does not.
    ctx.count(ctx.session.is_none());
    response.remove_header(&EXTENSIONS);
    response.remove_header(&header::SET_COOKIE);
    response.insert_header(head::REQUEST_ID, ctx.request_id.as_str())?;
    match ctx.caller_id.take() {
        Some(id) => response.insert_header(head::CALLER_REQUEST_ID, id),
        None => Ok(()),
    }
}

/// Handles bytes of the upstream.
pub(super) fn down(ctx: &mut Ctx, body: &mut Option<Bytes>) {
    let state = Arc::clone(&ctx.state);
    let (Some(session), Some(exchange), Some(chunk)) = (&mut ctx.session, &mut ctx.exchange, body.as_ref()) else { return };
    let close_sent = session.close_sent();
    let (events, trace) = (exchange.on_upstream_data(session, chunk, now_ms()), ctx.trace.as_deref());
    for event in &events {
        record(&state, event, exchange, trace);
    }
    if exchange.config().ledger.sync == Sync::Always && events.iter().any(|event| matches!(event, SessionEvent::End(_))) {
        // Filters of an upgraded connection cannot await; another thread serves the other connections meanwhile.
        state.commits.wait_here();
    }
    let open = exchange.is_open();
    if close_sent {
        // Nothing follows a close frame.
        *body = Some(Bytes::new());
    } else if !open
        && state.is_leaving()
        && let Some(close) = session.close_for_shutdown()
    {
        *body = Some([&chunk[..], &close[..]].concat().into());
    }
    ctx.count(open);
}

/// Records an event of a session. False if a turn must not start because the ledger cannot be written.
fn record(state: &super::state::State, event: &SessionEvent, exchange: &Exchange, trace: Option<&Trace>) -> bool {
    match event {
        SessionEvent::Start(id, record) => state.begin(id, record, exchange.config()),
        SessionEvent::Stored(stored) => {
            state.keep(stored.clone());
            true
        }
        SessionEvent::End(closed) => {
            state.closed(closed, exchange.config());
            state.trace(trace.map(Trace::turn).as_ref(), &closed.entry);
            true
        }
    }
}

/// True if the bytes are of a WebSocket whose handshake is done.
pub(super) fn is_open(session: &Session, ctx: &Ctx) -> bool {
    ctx.session.is_some() && session.was_upgraded()
}
