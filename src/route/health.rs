//! Health of candidates: who failed is left out for a while, then probed by one request. Passive, and never a reason to
//! refuse: when nobody is left, everybody is asked. Time is an argument, in milliseconds.

use crate::config::Config;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A provider that asks for more than a day is not believed. An ejection is capped at [`Ejection::max`] besides.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
const EJECT_MIN_MS: u64 = 1000;
/// While one request probes, no other does.
const PROBE_MS: u64 = 5000;

/// What is known of one candidate.
#[derive(Debug)]
pub struct Circuit {
    /// Nothing is held against it: the only thing most requests look at.
    clean: AtomicBool,
    state: Mutex<Trouble>,
    /// Times it was left out.
    pub ejections: AtomicU64,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { clean: AtomicBool::new(true), state: Mutex::default(), ejections: AtomicU64::new(0) }
    }
}

#[derive(Debug, Default)]
struct Trouble {
    /// In a row.
    failures: u32,
    /// Left out until then.
    until: u64,
    /// For how long the last time.
    ejected_ms: u64,
    /// Its time has run out, and one request finds out how it is.
    probed: bool,
    /// The client that was refused by a rate limit last, and when.
    limited: Option<(u64, u64)>,
}

/// Why a target refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It failed.
    Failure,
    /// A rate limit that this client met, perhaps with the size of its own request.
    Limit { client: u64 },
    /// A rate limit of the whole account.
    AccountLimit,
}

/// Rate limits that two clients met within this time are the account's.
const LIMIT_EVIDENCE_MS: u64 = 60_000;

/// How many failures in a row eject, and for how long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    pub failures: u32,
    pub max: Duration,
}

impl Circuit {
    /// True if it may be asked. Of those that ask after an ejection has run out, one is told so: the probe.
    pub fn admits(&self, now: u64) -> bool {
        if self.clean.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.until > now {
            return false;
        }
        if state.until > 0 {
            state.until = now + PROBE_MS;
            state.probed = true;
        }
        true
    }

    /// It answered.
    pub fn succeeded(&self, now: u64) {
        if self.clean.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What it asked for itself stands, whoever got through meanwhile.
        if state.until <= now || state.failures > 0 || state.probed {
            *state = Trouble::default();
            self.clean.store(true, Ordering::Relaxed);
        }
    }

    /// It refused a request; `wait` if it said for how long it wants to be left alone. A limit that a single client met says
    /// nothing about the others, and changes nothing.
    pub fn failed(&self, now: u64, refusal: Refusal, wait: Option<Duration>, ejection: Ejection) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Refusal::Limit { client } = refusal {
            let before = state.limited.replace((client, now));
            let evidence = before.is_some_and(|(other, at)| other != client && now.saturating_sub(at) <= LIMIT_EVIDENCE_MS);
            if !evidence {
                return;
            }
        }
        self.clean.store(false, Ordering::Relaxed);
        let out = state.until > now && !state.probed;
        state.probed = false;
        if let Some(wait) = wait.filter(|wait| !wait.is_zero() && *wait <= WAIT_MAX) {
            self.ejections.fetch_add(u64::from(state.until <= now), Ordering::Relaxed);
            state.until = state.until.max(now + millis(wait.min(ejection.max)));
            return;
        }
        // Requests that were under way when it was left out say nothing new.
        if out {
            return;
        }
        state.failures += 1;
        if state.failures >= ejection.failures {
            state.ejected_ms = (state.ejected_ms * 2).clamp(EJECT_MIN_MS, millis(ejection.max).max(EJECT_MIN_MS));
            state.until = now + state.ejected_ms;
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// True while it is left out.
    pub fn is_ejected(&self, now: u64) -> bool {
        !self.clean.load(Ordering::Relaxed) && self.state.lock().unwrap_or_else(PoisonError::into_inner).until > now
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Circuits of all candidates of a configuration: those of aliases, since nobody else has alternatives.
#[derive(Debug, Default)]
pub struct Health {
    circuits: HashMap<(String, String), Arc<Circuit>>,
    pub budget: Budget,
}

impl Health {
    /// What is known of candidates that were there before stays known.
    pub fn new(config: &Config, old: Option<&Self>) -> Self {
        let mut circuits = HashMap::new();
        for target in config.aliases.values().flat_map(|alias| alias.targets()) {
            let Some(upstream) = config.upstreams.get(target.upstream) else { continue };
            let key = (upstream.name.clone(), target.model.clone());
            let known = old.and_then(|old| old.circuits.get(&key)).cloned();
            circuits.entry(key).or_insert_with(|| known.unwrap_or_default());
        }
        Self { circuits, budget: Budget::new(config.retry.budget_percent) }
    }

    /// Every candidate: its upstream, its model and what is known of it.
    pub fn candidates(&self) -> impl Iterator<Item = (&str, &str, &Circuit)> {
        self.circuits.iter().map(|((upstream, model), circuit)| (upstream.as_str(), model.as_str(), &**circuit))
    }

    pub fn circuit(&self, upstream: &str, model: &str) -> Option<Arc<Circuit>> {
        self.circuits.get(&(upstream.to_owned(), model.to_owned())).cloned()
    }
}

/// Keeps attempts after the first to a share of all requests, so that they do not bury who is already in trouble.
#[derive(Debug, Default)]
pub struct Budget {
    percent: i64,
    /// Hundredths of an attempt.
    saved: AtomicI64,
}

/// As many may follow each other when nothing was saved yet.
const BURST: i64 = 100;

impl Budget {
    pub fn new(percent: u32) -> Self {
        Self { percent: i64::from(percent), saved: AtomicI64::new(BURST * 100) }
    }

    /// A request came.
    pub fn earn(&self) {
        // Several may pass the bound at once, by no more than each its own share.
        if self.saved.load(Ordering::Relaxed) < BURST * 100 {
            self.saved.fetch_add(self.percent, Ordering::Relaxed);
        }
    }

    /// True if another attempt may be made.
    pub fn spend(&self) -> bool {
        let spend = |saved: i64| (saved >= 100).then_some(saved - 100);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
