//! Prometheus metrics, derived from entries. Labels are bounded: providers come from configuration, models from the
//! price catalog (any other is `other`), all else from fixed lists.

mod attempts;
mod make;
mod requests;

use crate::config::Config;
use crate::ledger::Entry;
use crate::sink::Progress;
use attempts::Attempts;
use make::Make;
use prometheus::{Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};
use requests::Requests;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds; the gateway's own work takes microseconds.
const OVERHEAD_BUCKETS_S: &[f64] = &[0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1];
/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    attempts: Attempts,
    requests: Requests,
    intake: Histogram,
    /// From a request's last byte to the first attempt, in seconds.
    pub overhead: Histogram,
    /// Requests being served.
    pub in_flight: IntGauge,
    /// Those of them that are answered by streams.
    pub streams: IntGauge,
    /// WebSockets that are open.
    pub sockets: IntGauge,
    /// Answers read to their end though their callers left.
    pub draining: IntGauge,
    /// Ledger records that could not be written.
    pub ledger_failures: IntCounter,
    /// Ledger records lost because the disk took nothing for too long.
    pub ledger_lost: IntCounter,
    /// Access log lines that were dropped.
    pub access_log_dropped: IntCounter,
    /// Requests served though nobody could say what is left of their limits.
    pub unlimited: IntCounter,
    /// Bills that shared limits never heard of.
    pub unheard: IntCounter,
    spans: IntCounterVec,
    retries: IntCounterVec,
    /// Hand-overs to another process that came to nothing.
    pub upgrades_failed: IntCounter,
    ejections: IntCounterVec,
    ejected: IntGaugeVec,
    ledger_waiting: IntGauge,
    reloads: IntCounterVec,
    identities: IntCounterVec,
    prices: IntCounterVec,
    sink_entries: IntCounterVec,
    sink_failures: IntCounterVec,
    sink_damaged: IntCounterVec,
    databases_set_aside: IntCounter,
    sink_lag: IntGaugeVec,
    reload_ok: IntGauge,
    reloaded: IntGauge,
}

/// Counts as much as is counted elsewhere.
pub fn follow(metric: &IntCounter, count: &AtomicU64) {
    metric.inc_by(count.load(Ordering::Relaxed).saturating_sub(metric.get()));
}

fn set(gauge: IntGauge, value: i64) -> IntGauge {
    gauge.set(value);
    gauge
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two share a name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Make(&registry);
        let sizes = prometheus::exponential_buckets(256.0, 4.0, 10)?;
        let reload_ok = make.gauge("tollgate_config_reload_successful", "1 if the configuration read last holds, 0 if it was refused.")?;
        let (attempts, requests) = (Attempts::new(&make)?, Requests::new(&make)?);
        Ok(Self {
            attempts,
            requests,
            intake: make.histogram("tollgate_request_body_bytes", "Size of request bodies.", sizes)?,
            overhead: make.histogram(
                "tollgate_overhead_seconds",
                "From a request's last byte to its first attempt: the gateway's own work, waits for shared limits and synced disks included.",
                OVERHEAD_BUCKETS_S.to_vec(),
            )?,
            draining: make
                .gauge("tollgate_answers_draining", "Answers that are read to their end for the bill, though their callers left.")?,
            in_flight: make.gauge("tollgate_requests_in_flight", "Requests being served.")?,
            streams: make.gauge("tollgate_streams_in_flight", "Requests being answered by streams.")?,
            sockets: make.gauge("tollgate_websockets_open", "WebSockets that are open, with a turn under way or not.")?,
            upgrades_failed: make.counter(
                "tollgate_upgrades_failed_total",
                "Times this process was told to hand over and nobody took over; it serves on.",
            )?,
            ejections: make.counters(
                "tollgate_ejections_total",
                "Times a candidate of an alias was left out for failing, or because it asked for it.",
                &["provider", "model"],
            )?,
            ejected: make.gauges(
                "tollgate_candidate_ejected",
                "1 while a candidate of an alias is left out, 0 otherwise.",
                &["provider", "model"],
            )?,
            ledger_waiting: make.gauge("tollgate_ledger_waiting_bytes", "Bytes of ledger records that wait for the disk.")?,
            ledger_lost: make.counter("tollgate_ledger_lost_total", "Ledger records lost because the disk took nothing for too long.")?,
            ledger_failures: make
                .counter("tollgate_ledger_failures_total", "Writes to the ledger that failed; records are kept and written later.")?,
            access_log_dropped: make
                .counter("tollgate_access_log_dropped_total", "Access log lines that were dropped: who reads them did not keep up, or they could not be written.")?,
            unlimited: make.counter(
                "tollgate_limits_unlimited_total",
                "Requests served while shared limits could not be asked for (`on_failure: open`).",
            )?,
            unheard: make
                .counter("tollgate_limits_lost_total", "Bills that shared limits never heard of, since they were out for too long.")?,
            spans: make.counters("tollgate_spans_total", "Spans of traces, by what became of them.", &["result"])?,
            retries: make.counters("tollgate_retries_total", "Attempts that failed and were followed by another.", &["provider"])?,
            reloads: make.counters("tollgate_config_reload_total", "Times the configuration was read again.", &["result"])?,
            sink_entries: make.counters("tollgate_sink_entries_total", "Entries a sink has taken.", &["sink"])?,
            sink_failures: make.counters("tollgate_sink_failures_total", "Times a sink took nothing; it is tried again.", &["sink"])?,
            sink_damaged: make.counters("tollgate_sink_damaged_lines_total", "Lines of the ledger that are no records.", &["sink"])?,
            databases_set_aside: make.counter("tollgate_databases_set_aside_total", "Damaged databases that were replaced by fresh ones.")?,
            sink_lag: make.gauges("tollgate_sink_lag_bytes", "Bytes of the ledger that a sink has not read.", &["sink"])?,
            prices: make.counters(
                "tollgate_prices_fetches_total",
                "Times published prices were asked for, by how that went.",
                &["source", "result"],
            )?,
            identities: make.counters(
                "tollgate_identity_fetches_total",
                "Times a cloud was asked for a credential, by how that went.",
                &["provider", "result"],
            )?,
            reload_ok: set(reload_ok, 1),
            reloaded: make
                .gauge("tollgate_config_reload_success_timestamp_seconds", "When the configuration in use was read, or 0: at the start.")?,
            registry,
        })
    }

    /// An attempt failed and another follows.
    pub fn retry(&self, provider: &str) {
        self.retries.with_label_values(&[provider]).inc();
    }

    /// How a candidate is doing; the count follows its own.
    pub fn candidate(&self, provider: &str, model: &str, ejections: &AtomicU64, is_ejected: bool) {
        follow(&self.ejections.with_label_values(&[provider, model]), ejections);
        self.ejected.with_label_values(&[provider, model]).set(i64::from(is_ejected));
    }

    /// How much of the ledger waits.
    pub fn waiting(&self, bytes: usize) {
        self.ledger_waiting.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How a sink is doing; its counts follow its own.
    pub fn sink(&self, name: &str, progress: &Progress) {
        follow(&self.sink_entries.with_label_values(&[name]), &progress.entries);
        follow(&self.sink_failures.with_label_values(&[name]), &progress.failures);
        follow(&self.sink_damaged.with_label_values(&[name]), &progress.damaged);
        let lag = i64::try_from(progress.lag_bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.sink_lag.with_label_values(&[name]).set(lag);
    }

    /// How traces are doing.
    pub fn spans(&self, sent: &AtomicU64, dropped: &AtomicU64) {
        follow(&self.spans.with_label_values(&["sent"]), sent);
        follow(&self.spans.with_label_values(&["dropped"]), dropped);
    }

    /// Published prices were asked for.
    pub fn prices(&self, source: &str, sound: bool) {
        self.prices.with_label_values(&[source, if sound { "ok" } else { "failed" }]).inc();
    }

    /// A cloud was asked for a credential.
    pub fn identity(&self, provider: &str, got: bool) {
        self.identities.with_label_values(&[provider, if got { "ok" } else { "failed" }]).inc();
    }

    /// True if the configuration read last holds.
    pub fn config_holds(&self) -> bool {
        self.reload_ok.get() == 1
    }

    /// Databases that were set aside so far.
    pub fn set_aside(&self, count: u64) {
        self.databases_set_aside.inc_by(count.saturating_sub(self.databases_set_aside.get()));
    }

    /// The configuration was read again, at `now` seconds since 1970.
    pub fn reload(&self, taken: bool, now: i64) {
        self.reloads.with_label_values(&[if taken { "ok" } else { "refused" }]).inc();
        self.reload_ok.set(i64::from(taken));
        if taken {
            self.reloaded.set(now);
        }
    }

    /// A request ended; `status` 0: without an answer.
    pub fn request(&self, dialect: &str, status: u16, took: Duration) {
        self.requests.add(dialect, status, took);
    }

    /// An attempt ended.
    pub fn attempt(&self, entry: &Entry, config: &Config) {
        self.attempts.add(entry, config);
    }

    /// The longest wait between two chunks of a stream.
    pub fn gap(&self, provider: &str, ms: u64) {
        self.attempts.gap(provider, ms);
    }

    /// The gateway answered with an error of its own.
    pub fn refuse(&self, code: &str) {
        self.requests.refuse(code);
    }

    /// A request body was read.
    pub fn read_body(&self, bytes: usize) {
        self.intake.observe(bytes as f64);
    }

    /// The text exposition.
    pub fn render(&self) -> String {
        let mut out = vec![];
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(error) => format!("# {error}\n"),
        }
    }
}
