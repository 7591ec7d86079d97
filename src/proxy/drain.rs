//! Reading on after the caller left, where cancelling would not stop the provider's meter: the bill is known only at the
//! end of the answer. Bounded in time, in bytes, and in how many do so at once.

use super::ctx::Ctx;
use crate::config::DrainBounds;
use pingora::protocols::http::HttpTask;
use pingora::{ErrorType, Result};
use prometheus::IntGauge;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// What a request may do when its caller leaves.
#[derive(Debug, Default)]
pub struct Drain(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Cancel,
    Drain(Terms),
    Left,
}

/// Under which terms it reads on.
#[derive(Clone, Debug)]
pub struct Terms {
    pub bounds: DrainBounds,
    /// How many do.
    pub draining: IntGauge,
}

impl Drain {
    /// Decides for the attempt that is under way, unless the client has left; `None`: it is cancelled.
    pub fn allow(&self, terms: Option<Terms>) {
        let mut state = self.state();
        if !matches!(*state, State::Left) {
            *state = terms.map_or(State::Cancel, State::Drain);
        }
    }

    /// True if the caller has left, and the answer is read all the same.
    pub fn has_left(&self) -> bool {
        matches!(*self.state(), State::Left)
    }

    /// The caller left: how it is read on, if it is.
    pub fn begin(&self) -> Option<Left> {
        let mut state = self.state();
        let State::Drain(terms) = &*state else { return None };
        let left = Left::new(terms)?;
        *state = State::Left;
        Some(left)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ctx {
    /// Decides what becomes of the response if the client leaves: at its beginning, and again as it comes.
    pub(super) fn decide_drain(&mut self) {
        let Some(exchange) = &self.exchange else { return };
        let drains = exchange.drains();
        if drains != self.drains {
            self.drains = drains;
            let terms = drains.then(|| Terms { bounds: exchange.config().drain, draining: self.state.metrics.draining.clone() });
            self.outlet.drain().allow(terms);
        }
    }
}

/// An answer that is read for its bill alone.
#[derive(Debug)]
pub struct Left {
    until: Instant,
    bytes: u64,
    draining: IntGauge,
}

impl Left {
    fn new(Terms { bounds, draining }: &Terms) -> Option<Self> {
        draining.inc();
        let left = Self { until: Instant::now() + bounds.time, bytes: bounds.bytes, draining: draining.clone() };
        // Counted before it is compared: no two take the last place.
        (draining.get() <= bounds.exchanges).then_some(left)
    }

    /// Waits as long as it may take.
    pub async fn wait(&self) -> Box<pingora::Error> {
        tokio::time::sleep_until(self.until).await;
        over()
    }

    /// Takes what is not sent any more. True at the end.
    ///
    /// # Errors
    /// If it is more than may be read, or the upstream failed.
    pub fn swallow(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended |= task.is_end();
            let bytes = match task {
                HttpTask::Failed(error) => return Err(error),
                HttpTask::Body(Some(data), _) => data.len() as u64,
                _ => 0,
            };
            self.bytes = self.bytes.checked_sub(bytes).ok_or_else(over)?;
        }
        Ok(ended)
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.draining.dec();
    }
}

fn over() -> Box<pingora::Error> {
    pingora::Error::explain(ErrorType::ConnectionClosed, "the caller left").into_down()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    fn terms(bytes: u64, exchanges: i64) -> Terms {
        let draining = IntGauge::new("draining", "of the test").unwrap();
        Terms { bounds: DrainBounds { time: Duration::from_secs(60), bytes, exchanges }, draining }
    }

    #[tokio::test]
    async fn no_more_read_on_than_may() {
        let terms = terms(1, 1);
        let (first, second, cancelled) = (Drain::default(), Drain::default(), Drain::default());
        first.allow(Some(terms.clone()));
        second.allow(Some(terms.clone()));
        let left = first.begin().unwrap();
        assert!(first.has_left() && first.begin().is_none());
        assert!(second.begin().is_none() && !second.has_left() && cancelled.begin().is_none());
        assert_eq!(terms.draining.get(), 1);
        drop(left);
        assert!(second.begin().is_some());
        assert_eq!(terms.draining.get(), 0);
    }

    #[tokio::test]
    async fn no_more_bytes_are_read_than_may() {
        let drain = Drain::default();
        drain.allow(Some(terms(10, 1)));
        let mut left = drain.begin().unwrap();
        let body = |bytes: &'static [u8], end| HttpTask::Body(Some(Bytes::from_static(bytes)), end);
        assert!(!left.swallow(vec![body(b"12345", false)]).unwrap());
        assert!(left.swallow(vec![body(b"67890", false), HttpTask::Done]).unwrap());
        assert!(left.swallow(vec![body(b"1", false)]).is_err());
        let failed = HttpTask::Failed(pingora::Error::new_up(ErrorType::ReadError));
        assert_eq!(*left.swallow(vec![failed]).unwrap_err().etype(), ErrorType::ReadError);
    }

    #[tokio::test]
    async fn no_longer_than_may() {
        let (drain, mut terms) = (Drain::default(), terms(10, 1));
        terms.bounds.time = Duration::from_millis(20);
        let began = Instant::now();
        drain.allow(Some(terms));
        assert_eq!(*drain.begin().unwrap().wait().await.etype(), ErrorType::ConnectionClosed);
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
