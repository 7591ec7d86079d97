//! What requests come to, whoever served them.

use super::attempts::{SeriesMap, kept};
use super::make::Make;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::sync::OnceLock;
use std::time::Duration;

/// What an answer's status begins with; `none`: there was no answer.
const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn status_class(status: u16) -> (usize, &'static str) {
    let at = usize::from(status / 100).min(STATUSES.len() - 1);
    (at, STATUSES.get(at).copied().unwrap_or_default())
}

/// How they ended, and after what time.
pub(super) struct Requests {
    ended: IntCounterVec,
    refused: IntCounterVec,
    durations: HistogramVec,
    dialects: SeriesMap<OfDialect>,
}

/// Series of requests of a dialect.
struct OfDialect {
    duration: Histogram,
    ended: [OnceLock<IntCounter>; STATUSES.len()],
}

impl Requests {
    pub(super) fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            ended: make.counters("tollgate_requests_total", "Requests, by what they were answered with.", &["dialect", "status"])?,
            refused: make.counters(
                "tollgate_requests_refused_total",
                "Requests the gateway answered with an error of its own.",
                &["code"],
            )?,
            durations: make.histograms(
                "tollgate_request_duration_seconds",
                "From a request's head to the end of its answer, all attempts included.",
                &["dialect"],
            )?,
            dialects: SeriesMap::default(),
        })
    }

    pub(super) fn refuse(&self, code: &str) {
        self.refused.with_label_values(&[code]).inc();
    }

    pub(super) fn add(&self, dialect: &str, status: u16, took: Duration) {
        let series = kept(&self.dialects, dialect, || OfDialect {
            duration: self.durations.with_label_values(&[dialect]),
            ended: Default::default(),
        });
        series.duration.observe(took.as_secs_f64());
        let (at, class) = status_class(status);
        let make = || self.ended.with_label_values(&[dialect, class]);
        series.ended.get(at).into_iter().for_each(|counter| counter.get_or_init(make).inc());
    }
}
