//! `impl ProxyHttp`: each hook does its part and calls the exchange for the rest.

use super::cors::{self, Readers};
use super::costs::Telling;
use super::crew::Load;
use super::ctx::Ctx;
use super::downstream;
use super::failure::{client_left, failure};
use super::head::{self, Outgoing};
use super::limits;
use super::peer::Peer;
use super::plan::Planned;
use super::respond;
use super::retry::is_untouched;
use super::shared::Line;
use super::socket;
use super::state::{State, now_ms};
use super::timed;
use crate::config::Sync;
use crate::dialect::Dialect;
use crate::error::Error;
use crate::exchange::{Ending, fresh_id};
use crate::route::Head;
use crate::trace::TRACEPARENT;
use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora::{ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The proxy.
pub struct Gateway {
    pub(super) state: Arc<State>,
    load: Load,
    /// Its own way to what gateways share.
    pub(super) line: Option<Line>,
}

impl Gateway {
    /// That of a worker, whose load grows with what is under way.
    pub(super) fn new(state: Arc<State>, load: Load) -> Self {
        let line = state.shared.as_ref().map(|shared| shared.line());
        Self { state, load, line }
    }

    async fn refuse(&self, session: &mut Session, ctx: &mut Ctx, error: Error) {
        respond::error(&mut session.downstream_session, &error, ctx.dialect, ctx.asker()).await;
        ctx.refused = Some(error);
    }
}

pub(super) fn request_head(request: &RequestHeader) -> Head<'_> {
    Head { method: &request.method, path: request.uri.path(), query: request.uri.query(), headers: &request.headers }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed, since Pingora moves it about.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new(self.state.clone(), self.load.one()))
    }

    /// None: bodies pass as they are.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        ctx.count(true);
        timed::serves(true);
        ctx.request_id = fresh_id();
        ctx.trace = self.begin_trace(session.req_header());
        ctx.caller_id = head::caller_id(&session.req_header().headers).cloned();
        let live = self.state.live.load_full();
        session.downstream_session.set_write_timeout(Some(live.config.timeouts.downstream_write));
        ctx.readers = Readers::of(&session.req_header().headers, &live.config.origins);
        ctx.live = Some(live);
        let raw = || session.downstream_session.as_http1().map(|http1| http1.get_headers_raw_bytes());
        if let Err(error) = head::check_framing(&session.req_header().headers, raw) {
            session.downstream_session.set_keepalive(None);
            self.refuse(session, ctx, error).await;
            return Ok(true);
        }
        if socket::is_wanted(session.req_header()) {
            ctx.dialect = Dialect::Responses;
            return match self.plan_socket(session, ctx) {
                Ok(()) => Ok(false),
                Err(error) => {
                    self.refuse(session, ctx, error).await;
                    Ok(true)
                }
            };
        }
        // What a caller sends ahead of its next request waits for it instead of ending this one.
        session.downstream_session.set_pipelining_enabled(true);
        match self.plan(session, ctx).await {
            Ok(Planned::Forward(exchange)) => {
                let keep_alive = exchange.config().timeouts.keep_alive;
                downstream::install(&mut session.downstream_session, exchange.body().clone(), &ctx.outlet, keep_alive, &self.state);
                if exchange.is_stream() {
                    ctx.count_stream();
                }
                ctx.exchange = Some(exchange);
                Ok(false)
            }
            Ok(Planned::Answer(body)) => {
                respond::write(&mut session.downstream_session, 200, &[], body, ctx.asker()).await?;
                Ok(true)
            }
            Ok(Planned::Preflight) => {
                let head = cors::preflight(session.req_header())?;
                respond::write_head(&mut session.downstream_session, head, ctx.asker()).await?;
                session.downstream_session.write_response_body(Bytes::new(), true).await?;
                Ok(true)
            }
            Err(error) => {
                self.refuse(session, ctx, error).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        ctx.outlet.dues().settle(&self.state).await;
        self.next_attempt(session, ctx).await?;
        let (state, ctx) = (&self.state, &mut **ctx);
        ctx.decoder = None;
        let (Some(exchange), Some(live)) = (&mut ctx.exchange, ctx.live.clone()) else {
            return Err(pingora::Error::new_in(ErrorType::InternalError));
        };
        let at = exchange.upstream_index();
        if exchange.is_open() {
            let provider = exchange.upstream().map_or("", |upstream| &upstream.name).to_owned();
            state.close(exchange, &Ending::Failed(Error::UpstreamBroken { provider }), ctx.trace.as_deref());
        }
        if ctx.session.is_none() {
            self.begin_attempt(ctx, &live.config).await?;
        }
        ctx.decide_drain();
        let Some(exchange) = &ctx.exchange else { return Err(pingora::Error::new_in(ErrorType::InternalError)) };
        // Pingora upgrades HTTP/1.1 alone.
        let socket = ctx.session.is_some() || exchange.is_unmetered();
        let (patience, now) = (exchange.patience(), Instant::now());
        ctx.begins = Some(now);
        ctx.read.take().into_iter().for_each(|read| state.metrics.overhead.observe((now - read).as_secs_f64()));
        ctx.set_deadline(false);
        ctx.held = ctx.credential(&live, at).await?;
        let Some(peer) = live.peers.get(at) else { return Err(pingora::Error::new_in(ErrorType::InternalError)) };
        let peer = if socket { peer.get_http1().await } else { peer.get().await };
        let mut peer = peer.map_err(|error| ctx.judge_connect(error))?;
        Peer::wait(&mut peer, &patience);
        Ok(peer)
    }

    async fn upstream_request_filter(&self, _session: &mut Session, request: &mut RequestHeader, ctx: &mut Box<Ctx>) -> Result<()> {
        let Some(exchange) = &ctx.exchange else { return Ok(()) };
        let Some(upstream) = exchange.upstream() else { return Ok(()) };
        let (path, dialect) = (exchange.path_and_query(), exchange.dialect());
        let outgoing = Outgoing {
            upstream,
            proof: ctx.held.as_ref().map(|held| &held.proof),
            dialect,
            path: &path,
            body: exchange.body(),
            headers: exchange.headers(),
            request_id: &ctx.request_id,
            config: exchange.config(),
        };
        head::upstream_request(request, outgoing)?;
        match &ctx.trace {
            Some(trace) if ctx.session.is_some() => request.insert_header(TRACEPARENT, trace.connection()),
            Some(trace) => request.insert_header(TRACEPARENT, trace.header()),
            None => Ok(()),
        }
    }

    async fn request_body_filter(&self, session: &mut Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Box<Ctx>) -> Result<()> {
        if socket::is_open(session, ctx) {
            return self.up(session, ctx, body).await;
        }
        // Each attempt has a body of its own: the model may be called otherwise.
        let again = ctx.exchange.as_ref().filter(|exchange| exchange.attempts() > 1 && !exchange.is_unmetered());
        if let (Some(body), Some(exchange)) = (body, again) {
            *body = exchange.body().clone();
        }
        ctx.exchange.iter_mut().filter(|_| end).for_each(|exchange| exchange.sent(true));
        Ok(())
    }

    async fn upstream_response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Box<Ctx>) -> Result<()> {
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS && !socket::is_wanted(session.req_header()) {
            // Nobody asked for it.
            return Err(pingora::Error::explain(ErrorType::InvalidHTTPHeader, "a 101 that was not asked for").into_up());
        }
        for name in head::gateway_headers(&response.headers) {
            response.remove_header(&name);
        }
        if response.status.is_informational() {
            return Ok(());
        }
        ctx.undo_coding(&session.req_header().method, response)?;
        ctx.judge(session, response)
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Duration>> {
        ctx.decode(body, end)?;
        Ok(None)
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Box<Ctx>) -> Result<()> {
        if response.status.as_u16() == 101 {
            return socket::response(response, ctx);
        }
        if response.status.is_informational() {
            return Ok(());
        }
        let Some(exchange) = &ctx.exchange else { return Ok(()) };
        let told = exchange.may_tell_cost(&response.headers);
        ctx.comments = ctx.asks_comments && told == Some(true);
        ctx.outlet.costs().tell(match told.filter(|_| exchange.config().cost_headers) {
            Some(false) => Telling::Head,
            Some(true) if session.req_header().version == http::Version::HTTP_2 => Telling::Trailers,
            _ => Telling::Not,
        });
        if (exchange.changes_length() || ctx.comments) && response.headers.contains_key(header::CONTENT_LENGTH) {
            response.remove_header(&header::CONTENT_LENGTH);
            if session.req_header().version == http::Version::HTTP_11 {
                response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
            }
        }
        if session.req_header().version == http::Version::HTTP_10 {
            // It does not know chunks; the end of the connection is the end of the answer.
            response.remove_header(&header::TRANSFER_ENCODING);
        }
        if let Some(hold) = &ctx.hold {
            limits::tell(&hold.standing, response)?;
        }
        ctx.tell_debug(session, response)?;
        head::downstream_response(response, &ctx.request_id, ctx.caller_id.clone(), exchange.config())?;
        ctx.readers.tell(response)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Ctx>,
    ) -> Result<Option<Duration>> {
        if socket::is_open(session, ctx) {
            socket::down(ctx, body);
            return Ok(None);
        }
        let Some(exchange) = &mut ctx.exchange else { return Ok(None) };
        let now = now_ms();
        let chunk = body.take();
        let given = chunk.is_some();
        let out = exchange.push(chunk.unwrap_or_default(), end, now);
        if ctx.outlet.awaits_beginning() {
            ctx.judge_beginning(end)?;
        }
        ctx.decide_drain();
        let Some(exchange) = &mut ctx.exchange else { return Ok(None) };
        let always = exchange.config().ledger.sync == Sync::Always;
        if let Some((id, used)) = exchange.news(now) {
            if session.downstream_session.is_custom() {
                ctx.outlet.dues().await_written(self.state.ledger.put_used(id, used));
            } else {
                // Without the wrapper nobody waits.
                self.state.append(id, used);
            }
            if always {
                ctx.outlet.dues().await_synced();
            }
        }
        // Before the caller knows of it.
        self.state.remember(exchange, &mut ctx.hold);
        for item in exchange.items(now) {
            self.state.item(&item, None, exchange.config());
            if always {
                ctx.outlet.dues().await_synced();
            }
        }
        let mut out = out;
        if end {
            if let Some((id, bill)) = exchange.background_bill(now) {
                self.state.item(&bill, Some(&id), exchange.config());
                self.state.answers.billed(&id);
                if always {
                    ctx.outlet.dues().await_synced();
                }
            }
            let cost = exchange.cost();
            if let Some(cost) = cost.as_ref().filter(|_| ctx.comments && exchange.takes_comment()) {
                out = [&out[..], cost.comment(&ctx.request_id).as_bytes()].concat().into();
            }
            ctx.outlet.costs().set(cost);
        }
        ctx.outlet.set_between_events(exchange.is_between_events() && !end);
        if ctx.permit.is_some() && !out.is_empty() && !ctx.outlet.awaits_beginning() {
            // The answer is committed: nobody needs the request's body any more.
            exchange.drop_body();
            ctx.permit = None;
        }
        *body = (given || !out.is_empty()).then_some(out);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Ctx>,
        error: Box<pingora::Error>,
    ) -> Box<pingora::Error> {
        ctx.judge_connect(error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<pingora::Error>,
        ctx: &mut Box<Ctx>,
        reused: bool,
    ) -> Box<pingora::Error> {
        ctx.judge_error(session, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &pingora::Error, ctx: &mut Box<Ctx>) -> FailToProxy {
        ctx.outlet.dues().settle(&self.state).await;
        ctx.unwrap_session(session);
        let failure = ctx.refused.clone().unwrap_or_else(|| failure(error, ctx.provider()));
        let left = client_left(error);
        if is_untouched(session) && !left {
            session.downstream_session.set_keepalive(None);
            respond::error(&mut session.downstream_session, &failure, ctx.dialect, ctx.asker()).await;
        }
        let error_code = if left { 0 } else { failure.status() };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&pingora::Error>, ctx: &mut Box<Ctx>) {
        ctx.unwrap_session(session);
        timed::serves(false);
        // What was not sent is written all the same.
        ctx.outlet.dues().settle(&self.state).await;
        let upstream_error = error.filter(|error| !client_left(error));
        let failed = upstream_error.map(|error| failure(error, ctx.provider()));
        upstream_error.into_iter().for_each(|error| ctx.note_cause(error));
        if ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_open()) {
            let ending = match error {
                None if ctx.outlet.drain().has_left() => Ending::Drained,
                None => ctx.session.as_ref().map_or(Ending::Complete, |session| session.ending(ctx.provider())),
                Some(error) if client_left(error) => Ending::ClientClosed,
                Some(error) => Ending::Failed(ctx.refused.take().unwrap_or_else(|| failure(error, ctx.provider()))),
            };
            if ctx.session.is_some() {
                socket::end(ctx, &ending);
            } else if let Some(exchange) = &mut ctx.exchange {
                // Handed over is not written: HTTP/1.1 says how far that came.
                if session.upstream_body_bytes_sent().is_some_and(|sent| sent < exchange.body().len()) {
                    exchange.sent(false);
                }
                self.state.close(exchange, &ending, ctx.trace.as_deref());
            }
        }
        self.end_trace(session, ctx, failed);
        self.tell_refusal(session, ctx);
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        self.state.metrics.request(ctx.dialect.name(), status, ctx.came.elapsed());
    }

    /// Without the query, which may hold a key.
    fn request_summary(&self, session: &Session, ctx: &Box<Ctx>) -> String {
        let request = session.req_header();
        format!("{} {} request {}", request.method, request.uri.path(), ctx.request_id)
    }

    /// Callers that leave are in the entries, and who was refused in the access log; they are no news for the error log.
    fn suppress_error_log(&self, _session: &Session, ctx: &Box<Ctx>, error: &pingora::Error) -> bool {
        client_left(error) || ctx.refused.is_some()
    }
}
