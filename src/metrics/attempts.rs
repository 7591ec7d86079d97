//! What attempts come to.

use super::make::Make;
use super::requests::status_class;
use crate::config::Config;
use crate::ledger::{Entry, Outcome, Source};
use crate::usage::Dimension;
use ahash::HashMap;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Series that every request adds to, looked up once by the names they bear.
pub(super) type SeriesMap<T> = RwLock<HashMap<String, Arc<T>>>;

pub(super) fn kept<T>(series: &SeriesMap<T>, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(found) = series.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return found.clone();
    }
    series.write().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert_with(|| Arc::new(make())).clone()
}

/// What attempts came to.
pub(super) struct Attempts {
    ended: IntCounterVec,
    tokens: IntCounterVec,
    spend: IntCounterVec,
    unpriced: IntCounterVec,
    sources: IntCounterVec,
    faults: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    gap: HistogramVec,
    providers: SeriesMap<OfProvider>,
}

/// Those of a provider.
struct OfProvider {
    duration: Histogram,
    first_byte: Histogram,
    models: SeriesMap<OfModel>,
}

/// Those of a model of a provider.
struct OfModel {
    spend: IntCounter,
    tokens: [OnceLock<IntCounter>; Dimension::ALL.len()],
}

impl Attempts {
    pub(super) fn new(make: &Make<'_>) -> prometheus::Result<Self> {
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
            providers: SeriesMap::default(),
        })
    }

    /// An attempt ended.
    pub(super) fn add(&self, entry: &Entry, config: &Config) {
        let provider = entry.open.upstream.as_str();
        let Some(close) = &entry.close else { return };
        let (_, status) = status_class(close.status);
        self.ended.with_label_values(&[provider, entry.open.dialect.as_str(), close.outcome.name(), status]).inc();
        let seconds = |until: u64| std::time::Duration::from_millis(until.saturating_sub(entry.open.start_ms)).as_secs_f64();
        let series = kept(&self.providers, provider, || OfProvider {
            duration: self.duration.with_label_values(&[provider]),
            first_byte: self.first_byte.with_label_values(&[provider]),
            models: SeriesMap::default(),
        });
        series.duration.observe(seconds(close.end_ms));
        close.first_byte_ms.into_iter().for_each(|first| series.first_byte.observe(seconds(first)));
        for fault in &close.faults {
            self.faults.with_label_values(&[provider, fault]).inc();
        }
        self.usage(entry, config, close.outcome, &series.models);
    }

    fn usage(&self, entry: &Entry, config: &Config, outcome: Outcome, models: &SeriesMap<OfModel>) {
        let provider = entry.open.upstream.as_str();
        let catalog = config.upstream(provider).and_then(|at| config.upstreams.get(at)).map_or("", |upstream| &upstream.catalog);
        if entry.open.billed && outcome != Outcome::UpstreamError {
            let source = entry.used.as_ref().map_or(Source::None, |used| used.source);
            self.sources.with_label_values(&[provider, source.name()]).inc();
        }
        for line in entry.used.iter().flat_map(|used| &used.lines) {
            let model = config.prices.model(catalog, &line.model).map_or("other", |model| &model.id);
            let series = kept(models, model, || OfModel {
                spend: self.spend.with_label_values(&[provider, model]),
                tokens: [const { OnceLock::new() }; Dimension::ALL.len()],
            });
            for (dimension, count) in line.usage.iter().filter(|(_, count)| *count > 0) {
                let make = || self.tokens.with_label_values(&[provider, model, dimension.name()]);
                series.tokens.get(dimension as usize).into_iter().for_each(|counter| counter.get_or_init(make).inc_by(count));
            }
            series.spend.inc_by(u64::try_from(line.charge.0 / 1000).unwrap_or(0));
            if !line.unpriced.is_empty() {
                self.unpriced.with_label_values(&[provider, model]).inc();
            }
        }
    }

    /// The longest wait between two chunks of a stream.
    pub(super) fn gap(&self, provider: &str, ms: u64) {
        self.gap.with_label_values(&[provider]).observe(std::time::Duration::from_millis(ms).as_secs_f64());
    }
}
