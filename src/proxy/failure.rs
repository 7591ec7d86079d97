//! What Pingora's errors mean: who left, and what the caller is told.

use super::ctx::Ctx;
use super::gateway::Gateway;
use super::state::now_ms;
use crate::access_log::Refusal;
use crate::error::Error;
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
        });
        self.state.put_off.notify_one();
    }
}
