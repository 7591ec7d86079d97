//! What all requests share, and what is done with an entry once its attempt has ended.

use super::body::Budget;
use super::certificates::Certificates;
use super::reload::Live;
use crate::access_log::Log;
use crate::config::Config;
use crate::exchange::{Closed, Ending, Exchange};
use crate::ledger::{Ledger, Rendered};
use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What all requests share.
pub struct State {
    pub(super) live: ArcSwap<Live>,
    pub(super) certificates: Certificates,
    pub ledger: Ledger,
    pub metrics: Arc<Metrics>,
    pub access_log: Log,
    pub(super) budget: Arc<Budget>,
}

impl State {
    /// Puts together what was opened.
    ///
    /// # Errors
    /// If certificates cannot be read.
    pub fn new(config: Arc<Config>, ledger: Ledger, metrics: Arc<Metrics>, access_log: Log) -> io::Result<Arc<Self>> {
        let certificates = Certificates::new(&config).map_err(io::Error::other)?;
        let live = ArcSwap::from_pointee(Live::new(config, None)?);
        Ok(Arc::new(Self { live, certificates, ledger, metrics, access_log, budget: Budget::new() }))
    }

    /// The configuration that holds now.
    pub fn config(&self) -> Arc<Config> {
        self.live.load().config.clone()
    }

    pub(super) fn append(&self, id: &str, record: &Rendered) -> bool {
        let written = self.ledger.append(id, record);
        if let Err(error) = &written {
            log::error!("a ledger record of entry {id} was not written: {error}");
        }
        written.is_ok()
    }

    /// Writes what requests put off.
    pub fn write_out(&self) {
        if let Err(error) = self.ledger.flush() {
            log::error!("the ledger was not written: {error}");
        }
        // The ledger counts; the metric follows.
        let failures = self.ledger.failures();
        self.metrics.ledger_failures.inc_by(failures.saturating_sub(self.metrics.ledger_failures.get()));
        self.access_log.write_out();
    }

    /// Ends an attempt: the ledger first, then what is derived from the entry.
    pub(super) fn close(&self, exchange: &mut Exchange, ending: &Ending) {
        if let Some(closed) = exchange.close(ending, now_ms()) {
            self.closed(&closed, exchange.config());
        }
    }

    /// Writes down what has ended.
    pub(super) fn closed(&self, closed: &Closed, config: &Config) {
        let id = &closed.entry.id;
        if let Some(used) = closed.usage_news() {
            self.append(id, used);
        }
        self.ledger.append_later(id, &closed.records.close);
        self.metrics.attempt(&closed.entry, config);
        self.access_log.line(|buffer| closed.write_line(buffer));
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
