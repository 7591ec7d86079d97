//! Body intake: reads a request body under a size cap, a deadline and a budget that all bodies in flight share.

use crate::error::Error;
use bytes::{Bytes, BytesMut};
use http::header;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is read and thrown away of a refused body, so that the caller sees the answer and not a reset.
const DISCARD_BYTES_MAX: u64 = 64 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that request bodies may take together.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0) })
    }

    /// A share that is yet to grow.
    pub fn permit(self: &Arc<Self>) -> Permit {
        Permit { budget: self.clone(), bytes: 0 }
    }
}

impl Permit {
    /// Grows the share to `bytes`; false if the budget does not allow it.
    fn grow(&mut self, bytes: u64, max: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > max {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }

    /// Makes the share as large as `bytes`; false if the budget does not allow it.
    pub fn fit(&mut self, bytes: u64, max: u64) -> bool {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.used.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
        self.grow(bytes, max)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The bounds of one intake.
#[derive(Clone, Copy)]
pub struct Limits {
    pub bytes_max: u64,
    pub budget_bytes: u64,
    pub timeout: Duration,
}

/// Reads the whole body.
///
/// # Errors
/// [`Error::BodyTooLarge`], [`Error::BodyTimeout`], [`Error::BodyBudget`] or [`Error::BodyBroken`].
pub async fn read(session: &mut ServerSession, limits: Limits, budget: &Arc<Budget>) -> Result<(Bytes, Permit), Error> {
    match tokio::time::timeout(limits.timeout, read_all(session, limits, budget)).await {
        Ok(result) => result,
        Err(_) => Err(Error::BodyTimeout),
    }
}

async fn read_all(session: &mut ServerSession, limits: Limits, budget: &Arc<Budget>) -> Result<(Bytes, Permit), Error> {
    let too_large = Error::BodyTooLarge { bytes_max: limits.bytes_max };
    let mut permit = budget.permit();
    let announced = content_length(session);
    if announced.is_some_and(|bytes| bytes > limits.bytes_max) {
        return Err(too_large);
    }
    if !permit.grow(announced.unwrap_or(0), limits.budget_bytes) {
        return Err(Error::BodyBudget);
    }
    ask_to_continue(session).await?;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = session.read_request_body().await.map_err(|_| Error::BodyBroken)? {
        let bytes = (first.len() + rest.len() + chunk.len()) as u64;
        if bytes > limits.bytes_max {
            return Err(too_large);
        }
        if !permit.grow(bytes, limits.budget_bytes) {
            return Err(Error::BodyBudget);
        }
        if first.is_empty() && rest.is_empty() {
            first = chunk;
        } else {
            if rest.is_empty() {
                let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
                rest.reserve(announced.unwrap_or(first.len() + chunk.len()));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&chunk);
        }
    }
    Ok((if rest.is_empty() { first } else { rest.freeze() }, permit))
}

fn content_length(session: &ServerSession) -> Option<u64> {
    session.req_header().headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A client that asked first waits for this before it sends its body.
async fn ask_to_continue(session: &mut ServerSession) -> Result<(), Error> {
    let expects = session.req_header().version > http::Version::HTTP_10
        && session.req_header().headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expects {
        return Ok(());
    }
    session.set_close_on_response_before_downstream_finish(false);
    let written = session.write_continue_response().await;
    session.set_close_on_response_before_downstream_finish(true);
    written.map_err(|_| Error::BodyBroken)
}

/// Throws away what a refused request still sends. True if the connection can be used again.
pub async fn discard(session: &mut ServerSession) -> bool {
    let drain = async {
        let mut bytes = 0;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            bytes += chunk.len() as u64;
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, drain).await;
    session.is_body_done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_comes_back() {
        let budget = Budget::new();
        let mut first = budget.permit();
        assert!(first.grow(60, 100) && first.grow(60, 100));
        let mut second = budget.permit();
        assert!(!second.grow(41, 100) && second.grow(40, 100));
        drop(first);
        assert!(second.grow(100, 100) && !second.grow(101, 100));
        // What is held of a message on a WebSocket comes and goes.
        assert!(second.fit(30, 100) && !second.fit(101, 100) && second.fit(100, 100) && second.fit(0, 100));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
