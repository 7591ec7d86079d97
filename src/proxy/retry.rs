//! Attempts after the first, as Pingora makes them: an error that may be retried leads back to `upstream_peer`.

use super::ctx::Ctx;
use super::failure::{failure, is_late};
use super::gateway::Gateway;
use super::identity::Held;
use super::reload::Live;
use super::state::now_ms;
use crate::config::{Config, Credentials, Sync};
use crate::error::Error;
use crate::exchange::{Beginning, Ending, Limit};
use crate::route::{is_account_limit, wait_asked};
use http::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::{ErrorSource, ErrorType, Result};
use pingora_proxy::Session;
use std::sync::Arc;

/// Asks to be told who answered (`true`), and how that is told.
pub const DEBUG: HeaderName = HeaderName::from_static("x-gateway-debug");
const UPSTREAM: HeaderName = HeaderName::from_static("x-gateway-upstream");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-gateway-attempts");

/// A connection that was dead all along is found so within this.
const DEAD_AT_ONCE_MS: u64 = 2000;

/// True for what another attempt, or another provider, may do better.
fn is_failure(status: u16) -> bool {
    status == 429 || (status >= 500 && status != 501)
}

/// Leads back to `upstream_peer`.
fn again(status: u16) -> Box<pingora::Error> {
    let mut error = pingora::Error::new_up(ErrorType::HTTPStatus(status));
    error.set_retry(true);
    error
}

/// True if the caller has seen nothing of an answer yet.
pub(super) fn is_untouched(session: &Session) -> bool {
    // After a 101 it has: whatever follows belongs to the other protocol.
    let begun = |status: http::StatusCode| !status.is_informational() || status == http::StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().is_none_or(|response| !begun(response.status))
}

impl Ctx {
    /// Ends a failed attempt whose caller has seen nothing. True if another follows.
    fn try_again(&mut self, ending: &Ending, refused: Option<(&ResponseHeader, u16)>) -> bool {
        let may = self.refused.is_none() && !self.outlet.drain().has_left();
        let Some(exchange) = self.exchange.as_mut().filter(|exchange| may && exchange.is_open()) else { return false };
        let status = refused.map(|(_, status)| status);
        let asked = refused.and_then(|(response, status)| wait_asked(status, &response.headers, now_ms()));
        let account = refused.is_some_and(|(response, _)| is_account_limit(&response.headers));
        let limited = status == Some(429) || exchange.is_limited();
        let limit = limited.then_some(if account { Limit::Account } else { Limit::Request });
        let Some(wait) = exchange.fail(asked, limit, now_ms()) else { return false };
        if let Some(status) = status {
            exchange.refused(status);
        }
        self.state.metrics.retry(exchange.upstream().map_or("", |upstream| &upstream.name));
        self.state.close(exchange, ending, self.trace.as_deref());
        // There is nothing to read on until the next attempt.
        self.outlet.drain().allow(None);
        self.outlet.set_deadline(None);
        self.again = Some(wait);
        true
    }

    /// The upstream's head is here: somebody else is asked, or it is answered by what follows.
    pub(super) fn judge(&mut self, session: &Session, response: &ResponseHeader) -> Result<()> {
        let status = response.status.as_u16();
        self.doubt_credential(status);
        if is_failure(status) && is_untouched(session) && self.try_again(&Ending::Complete, Some((response, status))) {
            return Err(again(status));
        }
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        exchange.respond(status, &response.headers);
        let waits = exchange.may_begin_again();
        if waits {
            self.outlet.await_beginning(exchange.attempts());
        } else if !is_failure(status) {
            exchange.succeed(now_ms());
        }
        self.outlet.set_between_events(false);
        self.set_deadline(!waits);
        Ok(())
    }

    /// The first event of an answer may be here: one that begins with an error is asked of somebody else, where there is
    /// somebody and the caller has seen nothing.
    pub(super) fn judge_beginning(&mut self, end: bool) -> Result<()> {
        let beginning = self.exchange.as_ref().map_or(Beginning::Good, |exchange| exchange.beginning());
        if beginning == Beginning::Trouble && self.try_again(&Ending::Complete, None) {
            self.outlet.forget_beginning();
            return Err(again(503));
        }
        if end || beginning != Beginning::Unknown {
            if let Some(exchange) = self.exchange.as_ref().filter(|_| beginning != Beginning::Trouble) {
                exchange.succeed(now_ms());
            }
            self.outlet.begin();
            self.set_deadline(true);
        }
        Ok(())
    }

    /// An upstream that takes no credential of its cloud's may take the next.
    fn doubt_credential(&self, status: u16) {
        let at = self.exchange.as_ref().map(|exchange| exchange.upstream_index());
        let holder = self.live.as_ref().zip(at).and_then(|(live, at)| live.identities.get(at)?.as_ref());
        if let Some((holder, held)) = holder.zip(self.held.as_ref()).filter(|_| matches!(status, 401 | 403)) {
            // A 403 is also what AWS says of keys that have ended, and everybody of what an account may not do.
            holder.renew(held, status == 401);
        }
    }

    /// Something broke on the way to the upstream or back.
    pub(super) fn judge_error(&mut self, session: &Session, mut error: Box<pingora::Error>, reused: bool) -> Box<pingora::Error> {
        if self.again.is_some() {
            return error;
        }
        let held = self.outlet.awaits_beginning();
        let answered = self.exchange.as_ref().is_some_and(|exchange| exchange.is_answered()) && !held;
        if held {
            self.outlet.forget_beginning();
        }
        if answered || !is_untouched(session) || (*error.esource() == ErrorSource::Downstream && !is_late(&error)) {
            error.retry = false.into();
            return error;
        }
        // A connection that was kept alive and found dead: the request was not taken, and goes out again on a new one.
        // Later than that it may have been, and the provider may be at work on it.
        // Handshakes of WebSockets are no attempts.
        let at_once =
            self.exchange.as_ref().is_some_and(|exchange| !exchange.is_open() || exchange.attempt_age(now_ms()) <= DEAD_AT_ONCE_MS);
        error.retry.decide_reuse(reused && at_once);
        if !error.retry() && (*error.esource() == ErrorSource::Upstream || is_late(&error)) {
            self.note_cause(&error);
            let ending = Ending::Failed(failure(&error, self.provider()));
            error.set_retry(self.try_again(&ending, None));
        }
        error
    }

    /// Nobody could be reached.
    pub(super) fn judge_connect(&mut self, mut error: Box<pingora::Error>) -> Box<pingora::Error> {
        self.note_cause(&error);
        let ending = Ending::Failed(failure(&error, self.provider()));
        error.set_retry(self.try_again(&ending, None));
        error
    }

    /// What a cloud handed out for this upstream, where that is how it is paid for.
    pub(super) async fn credential(&mut self, live: &Live, at: usize) -> Result<Option<Arc<Held>>> {
        let own = live.config.upstreams.get(at).is_some_and(|upstream| upstream.credentials == Credentials::Gateway);
        let Some(holder) = live.identities.get(at).and_then(Option::as_ref).filter(|_| own) else { return Ok(None) };
        if let Some(held) = holder.held(live.config.timeouts.connect).await {
            return Ok(Some(held));
        }
        let failure = Error::NoCredential { provider: self.provider() };
        let again = self.try_again(&Ending::Failed(failure.clone()), None);
        self.refused = Some(failure).filter(|_| !again);
        let mut error = pingora::Error::new_up(ErrorType::HTTPStatus(503));
        error.set_retry(again);
        Err(error)
    }

    /// Who asks for it is told who answered.
    pub(super) fn tell_debug(&self, session: &Session, response: &mut ResponseHeader) -> Result<()> {
        let asked = session.req_header().headers.get(&DEBUG).is_some_and(|value| value == "true");
        let Some(exchange) = self.exchange.as_ref().filter(|_| asked) else { return Ok(()) };
        if let Ok(name) = HeaderValue::from_str(&self.provider()) {
            response.insert_header(UPSTREAM, name)?;
        }
        response.insert_header(ATTEMPTS, exchange.attempts())
    }
}

impl Gateway {
    /// Writes the `start` record of an attempt before anything of it is sent.
    pub(super) async fn begin_attempt(&self, ctx: &mut Ctx, config: &Config) -> Result<()> {
        let Some(exchange) = &mut ctx.exchange else { return Ok(()) };
        ctx.trace.iter_mut().for_each(|trace| trace.attempt());
        let (id, open) = exchange.attempt(now_ms());
        if !self.state.begin_together(id, open, config).await {
            exchange.abandon();
            return Err(unbillable(ctx));
        }
        if config.ledger.sync == Sync::Always {
            self.state.commits.wait().await;
            if self.state.ledger.is_unsynced() && !config.ledger.serve_unwritten {
                self.state.close(exchange, &Ending::Failed(Error::Unbillable), ctx.trace.as_deref());
                return Err(unbillable(ctx));
            }
        }
        Ok(())
    }

    /// Waits if the attempt before said so, and moves on to whom is asked next. A caller that leaves ends the wait.
    pub(super) async fn next_attempt(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let Some(wait) = ctx.again.take() else { return Ok(()) };
        if !wait.is_zero() {
            let pause = tokio::time::sleep(wait);
            tokio::pin!(pause);
            tokio::select! {
                () = &mut pause => {}
                left = session.downstream_session.read_body_or_idle(true) => {
                    left.map_err(pingora::Error::into_down)?;
                    pause.await;
                }
            }
        }
        let Some(exchange) = &mut ctx.exchange else { return Ok(()) };
        exchange.advance(&session.req_header().headers, now_ms()).map_err(|_| pingora::Error::new_in(ErrorType::InternalError))
    }
}

/// Refuses a request that could not be billed.
fn unbillable(ctx: &mut Ctx) -> Box<pingora::Error> {
    ctx.refused = Some(Error::Unbillable);
    pingora::Error::new_in(ErrorType::HTTPStatus(503))
}
