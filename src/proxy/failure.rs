//! What Pingora's errors mean: who left, and what the caller is told.

use super::ctx::Ctx;
use super::gateway::Gateway;
use super::state::now_ms;
use crate::access_log::Refusal;
use crate::error::Error;
use crate::printable::printable;
use pingora::{ErrorSource, ErrorType};
use pingora_proxy::Session;

/// An upstream that takes longer than it may.
pub const LATE: &str = "the upstream took too long";

/// True if the upstream took longer than it may.
pub fn is_late(error: &pingora::Error) -> bool {
    matches!(error.etype(), ErrorType::Custom(LATE))
}

/// True if the caller went away, or does not take what is sent to it.
pub fn client_left(error: &pingora::Error) -> bool {
    *error.esource() == ErrorSource::Downstream && is_gone(error.etype())
}

/// What errors of a connection to a caller are if it went away, or takes nothing.
pub fn is_gone(kind: &ErrorType) -> bool {
    matches!(
        kind,
        ErrorType::ConnectionClosed
            | ErrorType::ConnectError
            | ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ReadTimedout
            | ErrorType::H2Error
    )
}

/// A longer cause is cut.
const CAUSE_BYTES_MAX: usize = 256;

/// What went wrong at an upstream, for the entry and the logs of the operator: the kind, and the system's or library's own words.
pub fn cause(error: &pingora::Error, late: &'static str) -> String {
    let kind = match error.root_etype() {
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectTimedout => "timeout while connecting",
        ErrorType::ConnectNoRoute => "no route",
        ErrorType::ConnectError | ErrorType::ConnectProxyFailure | ErrorType::SocketError | ErrorType::BindError => "connection failed",
        ErrorType::TLSHandshakeTimedout => "timeout in the TLS handshake",
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::TLSWantX509Lookup => "TLS handshake failed",
        ErrorType::ReadTimedout => "timeout while reading (upstream_read)",
        ErrorType::WriteTimedout => "timeout while writing (upstream_write)",
        ErrorType::ConnectionClosed => "connection closed",
        ErrorType::ReadError => "connection broken while reading",
        ErrorType::WriteError => "connection broken while writing",
        ErrorType::InvalidHTTPHeader => "invalid response head",
        ErrorType::H1Error | ErrorType::H2Error | ErrorType::InvalidH2 => "protocol error",
        ErrorType::Custom(LATE) => late,
        other => other.as_str(),
    };
    let own = error.cause.is_none().then(|| error.context.as_ref().map(|context| context.as_str().to_owned())).flatten();
    let words = own.or_else(|| error.cause.as_ref().map(|_| root_words(error)));
    let text = words.filter(|words| !words.is_empty()).map_or_else(|| kind.to_owned(), |words| format!("{kind}: {words}"));
    let text = printable(&text);
    text.get(..text.floor_char_boundary(CAUSE_BYTES_MAX)).unwrap_or_default().to_owned()
}

/// The words of the error at the root of the chain, without Pingora's own.
fn root_words(error: &pingora::Error) -> String {
    let Some(cause) = error.cause.as_deref() else {
        return error.context.as_ref().map(|context| context.as_str().to_owned()).unwrap_or_default();
    };
    cause.downcast_ref::<pingora::BError>().map_or_else(|| cause.to_string(), |inner| root_words(inner))
}

impl Ctx {
    /// Notes in the attempt what went wrong at the upstream.
    pub(super) fn note_cause(&mut self, error: &pingora::Error) {
        let begun = self.exchange.as_ref().is_some_and(|exchange| exchange.is_answered());
        let late = if begun { "timeout of the whole response (total)" } else { "timeout before the first byte (first_byte)" };
        self.exchange.iter_mut().for_each(|exchange| exchange.note_cause(cause(error, late)));
    }
}

/// What the caller hears of a failure at the upstream.
pub fn failure(error: &pingora::Error, provider: String) -> Error {
    if is_late(error) {
        return Error::UpstreamTimeout { provider };
    }
    match (error.esource(), error.etype()) {
        (_, ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout) => {
            Error::UpstreamTimeout { provider }
        }
        (
            _,
            ErrorType::ConnectError
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectProxyFailure
            | ErrorType::TLSHandshakeFailure
            | ErrorType::InvalidCert
            | ErrorType::BindError
            | ErrorType::SocketError,
        ) => Error::UpstreamUnreachable { provider },
        (ErrorSource::Upstream, _) => Error::UpstreamBroken { provider },
        _ => Error::Internal,
    }
}

impl Gateway {
    /// Counts and logs what was refused; it has no entry.
    pub(super) fn tell_refusal(&self, session: &Session, ctx: &Ctx) {
        let Some(refused) = &ctx.refused else { return };
        self.state.metrics.refuse(refused.code());
        let request = session.req_header();
        self.state.access_log.refusal(&Refusal {
            request_id: &ctx.request_id,
            end_ms: now_ms(),
            method: request.method.as_str(),
            path: request.uri.path(),
            status: refused.status(),
            outcome: "refused",
            error: refused.code(),
            client: session.client_addr().map(ToString::to_string),
            key_name: ctx.key_name.as_deref(),
            model: ctx.model.as_deref(),
        });
        self.state.put_off.notify_one();
    }
}
