//! A log that a repeated failure cannot flood. It drops lines; it never delays or fails its caller.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Time between two lines, in milliseconds.
const PERIOD_MS: u64 = 10_000;

/// Logs one line per [`PERIOD_MS`] and counts the lines in between.
#[derive(Debug)]
pub struct Seldom {
    begin: Instant,
    /// When the next line may be logged, in milliseconds since `begin`.
    next_ms: AtomicU64,
    dropped: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self { begin: Instant::now(), next_ms: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// Logs an error, with the number of lines dropped before it.
    pub fn error(&self, line: fmt::Arguments<'_>) {
        let now_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(dropped) = self.admit(now_ms) {
            let more = if dropped == 0 { String::new() } else { format!(" ({dropped} lines of this kind were dropped before)") };
            log::error!("{line}{more}");
        }
    }

    /// The number of lines dropped since the last one, if a line may be logged now.
    fn admit(&self, now_ms: u64) -> Option<u64> {
        let next = self.next_ms.load(Ordering::Relaxed);
        let admitted = next <= now_ms
            && self.next_ms.compare_exchange(next, now_ms.saturating_add(PERIOD_MS), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if admitted {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_period_is_logged_and_the_others_are_counted() {
        let seldom = Seldom::default();
        let lines = [0, 1, PERIOD_MS - 1, PERIOD_MS, PERIOD_MS + 1, 3 * PERIOD_MS].map(|now_ms| seldom.admit(now_ms));
        assert_eq!(lines, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
