//! Prometheus metrics, derived from entries. Labels are bounded: providers come from configuration, models from the
//! price catalog (any other is `other`), all else from fixed lists.

use crate::config::Config;
use crate::ledger::{Entry, Outcome, Source};
use crate::sink::Progress;
use crate::usage::Dimension;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Seconds; the gateway's own work takes microseconds.
const OVERHEAD_BUCKETS_S: &[f64] = &[0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1];
/// Seconds; providers take from tens of milliseconds to minutes.
const BUCKETS_S: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    attempts: Attempts,
    refused: IntCounterVec,
    intake: Histogram,
    /// From a request's last byte to the first attempt, in seconds.
    pub overhead: Histogram,
    /// Requests being served.
    pub in_flight: IntGauge,
    /// Answers read to their end though their callers left.
    pub draining: IntGauge,
    /// Ledger records that could not be written.
    pub ledger_failures: IntCounter,
    /// Ledger records lost because the disk took nothing for too long.
    pub ledger_lost: IntCounter,
    /// Access log lines dropped because the writer could not keep up.
    pub access_log_dropped: IntCounter,
    /// Requests served though nobody could say what is left of their limits.
    pub unlimited: IntCounter,
    /// Bills that shared limits never heard of.
    pub unheard: IntCounter,
    spans: IntCounterVec,
    retries: IntCounterVec,
    reloads: IntCounterVec,
    identities: IntCounterVec,
    prices: IntCounterVec,
    sink_entries: IntCounterVec,
    sink_failures: IntCounterVec,
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

/// What attempts came to.
struct Attempts {
    ended: IntCounterVec,
    tokens: IntCounterVec,
    spend: IntCounterVec,
    unpriced: IntCounterVec,
    sources: IntCounterVec,
    faults: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    gap: HistogramVec,
    providers: Kept<OfProvider>,
}

/// Series that every entry adds to, looked up once by the names they bear.
type Kept<T> = RwLock<HashMap<String, Arc<T>>>;

fn kept<T>(series: &Kept<T>, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(found) = series.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return found.clone();
    }
    series.write().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert_with(|| Arc::new(make())).clone()
}

/// Those of a provider.
struct OfProvider {
    duration: Histogram,
    first_byte: Histogram,
    models: Kept<OfModel>,
}

/// Those of a model of a provider.
struct OfModel {
    spend: IntCounter,
    tokens: [OnceLock<IntCounter>; Dimension::ALL.len()],
}

/// Makes metrics and registers them.
struct Make<'r>(&'r Registry);

impl Make<'_> {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS_S.to_vec()), labels)?;
        self.0.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> prometheus::Result<Histogram> {
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
        self.0.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let gauge = IntGauge::new(name, help)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

impl Attempts {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            ended: make.counters(
                "tollgate_attempts_total",
                "Attempts at providers, by how they ended.",
                &["provider", "dialect", "outcome", "status"],
            )?,
            tokens: make.counters(
                "tollgate_usage_total",
                "Tokens and other units used, by dimension.",
                &["provider", "model", "dimension"],
            )?,
            spend: make.counters(
                "tollgate_spend_nano_usd_total",
                "Charges in nano-dollars, each rounded down; entries have the exact sum.",
                &["provider", "model"],
            )?,
            unpriced: make.counters("tollgate_unpriced_total", "Entries with usage that has no price.", &["provider", "model"])?,
            sources: make.counters("tollgate_usage_source_total", "Entries by how their usage came about.", &["provider", "source"])?,
            faults: make.counters("tollgate_faults_total", "Metering defects.", &["provider", "fault"])?,
            duration: make.histograms("tollgate_attempt_duration_seconds", "From an attempt's start to its end.", &["provider"])?,
            first_byte: make.histograms(
                "tollgate_time_to_first_byte_seconds",
                "From an attempt's start to the first byte of the answer's body.",
                &["provider"],
            )?,
            gap: make.histograms(
                "tollgate_stream_longest_gap_seconds",
                "The longest wait between two chunks of a stream.",
                &["provider"],
            )?,
            providers: Kept::default(),
        })
    }
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
        let attempts = Attempts::new(&make)?;
        Ok(Self {
            attempts,
            refused: make.counters(
                "tollgate_requests_refused_total",
                "Requests the gateway answered with an error of its own.",
                &["code"],
            )?,
            intake: make.histogram("tollgate_request_body_bytes", "Size of request bodies.", sizes)?,
            overhead: make.histogram(
                "tollgate_overhead_seconds",
                "The gateway's own work on a request, from its last byte to the first attempt.",
                OVERHEAD_BUCKETS_S.to_vec(),
            )?,
            draining: make
                .gauge("tollgate_answers_draining", "Answers that are read to their end for the bill, though their callers left.")?,
            in_flight: make.gauge("tollgate_requests_in_flight", "Requests being served.")?,
            ledger_lost: make.counter("tollgate_ledger_lost_total", "Ledger records lost because the disk took nothing for too long.")?,
            ledger_failures: make
                .counter("tollgate_ledger_failures_total", "Writes to the ledger that failed; records are kept and written later.")?,
            access_log_dropped: make
                .counter("tollgate_access_log_dropped_total", "Access log lines dropped because the writer could not keep up.")?,
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

    /// How a sink is doing; its counts follow its own.
    pub fn sink(&self, name: &str, progress: &Progress) {
        follow(&self.sink_entries.with_label_values(&[name]), &progress.entries);
        follow(&self.sink_failures.with_label_values(&[name]), &progress.failures);
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

    /// The configuration was read again, at `now` seconds since 1970.
    pub fn reload(&self, taken: bool, now: i64) {
        self.reloads.with_label_values(&[if taken { "ok" } else { "refused" }]).inc();
        self.reload_ok.set(i64::from(taken));
        if taken {
            self.reloaded.set(now);
        }
    }

    /// An attempt ended.
    pub fn attempt(&self, entry: &Entry, config: &Config) {
        let provider = entry.open.upstream.as_str();
        let Some(close) = &entry.close else { return };
        let status = match close.status {
            0 => "none",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.attempts.ended.with_label_values(&[provider, entry.open.dialect.as_str(), close.outcome.name(), status]).inc();
        let seconds = |until: u64| std::time::Duration::from_millis(until.saturating_sub(entry.open.start_ms)).as_secs_f64();
        let series = kept(&self.attempts.providers, provider, || OfProvider {
            duration: self.attempts.duration.with_label_values(&[provider]),
            first_byte: self.attempts.first_byte.with_label_values(&[provider]),
            models: Kept::default(),
        });
        series.duration.observe(seconds(close.end_ms));
        close.first_byte_ms.into_iter().for_each(|first| series.first_byte.observe(seconds(first)));
        for fault in &close.faults {
            self.attempts.faults.with_label_values(&[provider, fault]).inc();
        }
        self.usage(entry, config, close.outcome, &series.models);
    }

    fn usage(&self, entry: &Entry, config: &Config, outcome: Outcome, models: &Kept<OfModel>) {
        let provider = entry.open.upstream.as_str();
        let catalog = config.upstream(provider).and_then(|at| config.upstreams.get(at)).map_or("", |upstream| &upstream.catalog);
        if entry.open.billed && outcome != Outcome::UpstreamError {
            let source = entry.used.as_ref().map_or(Source::None, |used| used.source);
            self.attempts.sources.with_label_values(&[provider, source.name()]).inc();
        }
        for line in entry.used.iter().flat_map(|used| &used.lines) {
            let model = config.prices.model(catalog, &line.model).map_or("other", |model| &model.id);
            let series = kept(models, model, || OfModel {
                spend: self.attempts.spend.with_label_values(&[provider, model]),
                tokens: [const { OnceLock::new() }; Dimension::ALL.len()],
            });
            for (dimension, count) in line.usage.iter().filter(|(_, count)| *count > 0) {
                let make = || self.attempts.tokens.with_label_values(&[provider, model, dimension.name()]);
                series.tokens.get(dimension as usize).into_iter().for_each(|counter| counter.get_or_init(make).inc_by(count));
            }
            series.spend.inc_by(u64::try_from(line.charge.0 / 1000).unwrap_or(0));
            if !line.unpriced.is_empty() {
                self.attempts.unpriced.with_label_values(&[provider, model]).inc();
            }
        }
    }

    /// The longest wait between two chunks of a stream.
    pub fn gap(&self, provider: &str, ms: u64) {
        self.attempts.gap.with_label_values(&[provider]).observe(std::time::Duration::from_millis(ms).as_secs_f64());
    }

    /// The gateway answered with an error of its own.
    pub fn refuse(&self, code: &str) {
        self.refused.with_label_values(&[code]).inc();
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
