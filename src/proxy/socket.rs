//! WebSockets: the handshake, and the bytes of both directions once it is done.

use super::access;
use super::ctx::Ctx;
use super::gateway::{Gateway, request_head};
use super::head;
use super::state::now_ms;
use crate::config::Sync;
use crate::error::Error;
use crate::exchange::turns::News;
use crate::exchange::{Asked, Exchange};
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
        head::check_site(request, &config, &config.origins)?;
        // There is no body to wait for.
        access::verify(caller.as_ref(), request, &[], &config)?;
        let asked = Asked { request_id: ctx.request_id.clone(), key: caller.map(|caller| caller.key), ..Asked::default() };
        let exchange = Exchange::plan_socket(&request_head(request), config, asked)?;
        // Callers may think between turns.
        session.downstream_session.set_read_timeout(Some(exchange.config().timeouts.upstream_read));
        if !exchange.is_unmetered() {
            ctx.turns = Some(Box::default());
            self.state.metrics.sockets.inc();
        }
        ctx.exchange = Some(exchange);
        Ok(())
    }

    /// What the caller says.
    pub(super) async fn up(&self, session: &mut Session, ctx: &mut Ctx, body: &mut Option<Bytes>) -> Result<()> {
        // What waits for limits or the disk is under way already.
        ctx.count(true);
        let said = self.ask(ctx, body).await;
        let open = ctx.turns.is_none() || ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_open());
        ctx.count(open);
        // There is no other way to say no to one turn than to end the connection.
        if let (Err(_), Some(error), Some(turns)) = (&said, &ctx.refused, &mut ctx.turns) {
            let close = turns.refuse(&error.to_string());
            let _ = session.downstream_session.write_response_body(close.into(), true).await;
        }
        said
    }

    async fn ask(&self, ctx: &mut Ctx, body: &mut Option<Bytes>) -> Result<()> {
        let state = Arc::clone(&ctx.state);
        let (Some(turns), Some(exchange), Some(chunk)) = (&mut ctx.turns, &mut ctx.exchange, body.take()) else { return Ok(()) };
        if turns.has_parted() {
            return Err(pingora::Error::new_down(ErrorType::ConnectionClosed));
        }
        // A turn is asked for anew: a key that was revoked meanwhile buys no more of them.
        let memory = state.memory();
        let rename = |model: &str, kept: &[&str]| {
            let may = state.still_admits(exchange.key_id()) && kept.iter().all(|id| exchange.may_follow(id, &memory));
            may.then(|| exchange.rename(model)).flatten()
        };
        let (out, mut asked) = turns.up(&chunk, exchange.config().bounds.body_bytes_max, rename);
        let held = ctx.permit.get_or_insert_with(|| state.budget.permit());
        if !held.fit(turns.held_bytes() as u64, exchange.config().bounds.body_budget_bytes) {
            ctx.refused = Some(Error::BodyBudget);
            return Err(pingora::Error::new_in(ErrorType::HTTPStatus(503)));
        }
        let (rules, now) = (exchange.config().limits.clone(), now_ms());
        for turn in asked.iter_mut().filter(|_| !rules.is_empty()) {
            let (who, amount) = exchange.turn_may_come_to(turn, now);
            match self.take(&rules, &who, amount, now).await {
                Ok(hold) => turn.hold = hold,
                Err(error) => {
                    ctx.refused = Some(error);
                    return Err(pingora::Error::new_in(ErrorType::HTTPStatus(429)));
                }
            }
        }
        let news = exchange.ask(turns, asked, now_ms());
        let trace = ctx.trace.as_deref();
        for news in &news {
            if !write(&state, news, exchange, trace) {
                // What cannot be billed is not asked for.
                ctx.refused = Some(Error::Unbillable);
                return Err(pingora::Error::new_in(ErrorType::HTTPStatus(503)));
            }
        }
        if exchange.config().ledger.sync == Sync::Always && !news.is_empty() {
            state.commits.wait().await;
        }
        *body = Some(out);
        Ok(())
    }
}

/// The head of a 101.
pub(super) fn response(response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    // Turns count, their connection does not: nobody waits for one that is idle.
    ctx.count(ctx.turns.is_none());
    response.remove_header(&EXTENSIONS);
    response.remove_header(&header::SET_COOKIE);
    response.insert_header(head::REQUEST_ID, ctx.request_id.as_str())?;
    match ctx.caller_id.take() {
        Some(id) => response.insert_header(head::CALLER_REQUEST_ID, id),
        None => Ok(()),
    }
}

/// What the provider says.
pub(super) fn down(ctx: &mut Ctx, body: &mut Option<Bytes>) {
    let state = Arc::clone(&ctx.state);
    let (Some(turns), Some(exchange), Some(chunk)) = (&mut ctx.turns, &mut ctx.exchange, body.as_ref()) else { return };
    if turns.has_parted() {
        // Nothing follows a close.
        *body = Some(Bytes::new());
        return;
    }
    let (news, trace) = (exchange.hear(turns, chunk, now_ms()), ctx.trace.as_deref());
    for news in &news {
        write(&state, news, exchange, trace);
    }
    if exchange.config().ledger.sync == Sync::Always && news.iter().any(|news| matches!(news, News::Closed(_))) {
        // No filter of a connection that was upgraded may wait; another thread serves the others meanwhile.
        state.commits.wait_here();
    }
    let open = exchange.is_open();
    if !open
        && state.is_leaving()
        && let Some(close) = turns.part()
    {
        *body = Some([&chunk[..], &close[..]].concat().into());
    }
    ctx.count(open);
}

fn write(state: &super::state::State, news: &News, exchange: &Exchange, trace: Option<&Trace>) -> bool {
    match news {
        News::Open(id, record) => state.begin(id, record, exchange.config()),
        News::Kept(kept) => {
            state.keep(kept.clone());
            true
        }
        News::Closed(closed) => {
            state.closed(closed, exchange.config());
            state.trace(trace.map(Trace::turn).as_ref(), &closed.entry);
            true
        }
    }
}

/// True if the bytes are of a WebSocket whose handshake is done.
pub(super) fn is_open(session: &Session, ctx: &Ctx) -> bool {
    ctx.turns.is_some() && session.was_upgraded()
}
