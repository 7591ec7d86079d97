//! Limits: how much may be asked for, used and spent, and by whom. What a request may come to is reserved before it goes
//! up and settled when its bill is known, in one step each, so that no two requests take the same last token.
//!
//! Requests and tokens a minute drain evenly, as a bucket with a hole does, and the whole of a minute may come at once;
//! money is counted by the day and the month (UTC). The clock is an argument.

mod meter;
mod rule;

use meter::Room;
pub use meter::{Bucket, Spending, day, day_begins, day_ends, month, month_begins, month_ends};
pub use rule::{Per, Rule, Who};

use crate::price::PicoUsd;
use crate::usage::indexed;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Groups of who asks that are counted apart, over all rules; beyond it those nobody has used lately are dropped. Those that
/// have spent something under a rule about money stay until its month is over.
pub const GROUPS_MAX: usize = 100_000;

indexed! {
    /// What ran out.
    Kind {
        Requests = "requests",
        Tokens = "tokens",
        Concurrent = "concurrent",
        Day = "usd_per_day",
        Month = "usd_per_month",
        /// Money that requests under way may come to.
        Reserved = "reserved",
    }
}

/// What a request may come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub tokens: u64,
    pub spend: PicoUsd,
}

impl Amount {
    /// The larger of both, by money and by tokens.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { tokens: self.tokens.max(other.tokens), spend: self.spend.max(other.spend) }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { tokens: self.tokens.saturating_add(other.tokens), spend: [self.spend, other.spend].into_iter().sum() }
    }
}

/// A request that must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub kind: Kind,
    /// The limit that it met.
    pub limit: u64,
    /// When it may come again.
    pub retry_ms: u64,
}

/// How much is left of a minute, for the caller to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub limit: u64,
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset_ms: u64,
}

/// What is left of the rule that leaves least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub requests: Option<Left>,
    pub tokens: Option<Left>,
}

/// Tells what leaves less.
pub fn less(told: &mut Option<Left>, left: Left) {
    if told.is_none_or(|known| left.remaining < known.remaining) {
        *told = Some(left);
    }
}

/// What a group has used.
#[derive(Debug, Default)]
struct Counter {
    requests: Bucket,
    tokens: Bucket,
    day: Spending,
    month: Spending,
    concurrent: u64,
    used_ms: u64,
}

/// By rule and group.
#[derive(Debug, Default)]
struct Counters {
    by_rule: HashMap<String, HashMap<String, Counter>>,
    pruned_ms: u64,
}

/// Counts for all rules, across changes of the configuration.
#[derive(Debug, Default)]
pub struct Limits(Mutex<Counters>);

/// What one request holds until it is settled.
#[derive(Debug)]
pub struct Hold {
    /// Taken when it is settled.
    place: Option<Place>,
    pub standing: Standing,
    at_ms: u64,
}

/// Where it is counted.
#[derive(Debug)]
enum Place {
    Here { limits: Arc<Limits>, rules: Arc<[Rule]>, groups: Vec<(usize, String)>, reserved: Amount },
    Elsewhere { settle: Box<dyn Settle>, reserved: Amount },
}

/// What is counted outside this process.
pub trait Settle: fmt::Debug + Send + Sync {
    /// Puts what it came to in the place of what was reserved.
    fn settle(self: Box<Self>, actual: Amount, now: u64);
}

impl Limits {
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves what a request may come to with every rule that holds for who asks, or with none.
    ///
    /// # Errors
    /// The first limit that it would exceed.
    pub fn reserve(self: &Arc<Self>, rules: &Arc<[Rule]>, who: &Who<'_>, amount: Amount, now: u64) -> Result<Hold, Exceeded> {
        let groups = groups(rules, who);
        let mut counters = self.counters();
        for (rule, group) in held(rules, &groups) {
            counters.of(rule, group).check(rule, amount, now)?;
        }
        let mut standing = Standing::default();
        for (rule, group) in held(rules, &groups) {
            let counter = counters.of(rule, group);
            counter.take(rule, amount, now);
            counter.tell(rule, now, &mut standing);
        }
        counters.prune(now);
        drop(counters);
        let place = Place::Here { limits: self.clone(), rules: rules.clone(), groups, reserved: amount };
        Ok(Hold { place: Some(place), standing, at_ms: now })
    }

    /// Counts what was used without having been reserved.
    pub fn recall<'r>(&self, rules: impl IntoIterator<Item = &'r Rule>, who: &Who<'_>, amount: Amount, at: u64) {
        let mut counters = self.counters();
        for rule in rules {
            if let Some(group) = rule.group(who) {
                let counter = counters.of(rule, &group);
                counter.used_ms = counter.used_ms.max(at);
                rule.tokens_per_minute.into_iter().for_each(|limit| counter.tokens.add(limit, amount.tokens, at));
                if rule.counts_money() {
                    counter.day.add(meter::day(at), amount.spend);
                    counter.month.add(meter::month(at), amount.spend);
                }
            }
        }
    }
}

/// The rules that hold for who asks, and the group of each.
pub fn groups(rules: &[Rule], who: &Who<'_>) -> Vec<(usize, String)> {
    rules.iter().enumerate().filter_map(|(at, rule)| Some((at, rule.group(who)?))).collect()
}

/// The rules that count, and the group of each.
fn held<'h>(rules: &'h [Rule], groups: &'h [(usize, String)]) -> impl Iterator<Item = (&'h Rule, &'h str)> {
    groups.iter().filter_map(|(at, group)| Some((rules.get(*at)?, group.as_str())))
}

impl Counters {
    fn of(&mut self, rule: &Rule, group: &str) -> &mut Counter {
        self.by_rule.entry(rule.name.clone()).or_default().entry(group.to_owned()).or_default()
    }

    /// Drops groups that matter no more once there are many; callers name users and models as they like.
    fn prune(&mut self, now: u64) {
        const PERIOD_MS: u64 = 10_000;
        let due = now.saturating_sub(self.pruned_ms) >= PERIOD_MS;
        if due && self.by_rule.values().map(HashMap::len).sum::<usize>() > GROUPS_MAX {
            self.pruned_ms = now;
            self.by_rule.values_mut().for_each(|groups| groups.retain(|_, counter| !counter.is_idle(now)));
        }
    }
}

impl Hold {
    /// One that is counted elsewhere.
    pub fn elsewhere(settle: Box<dyn Settle>, reserved: Amount, standing: Standing, now: u64) -> Self {
        Self { place: Some(Place::Elsewhere { settle, reserved }), standing, at_ms: now }
    }

    /// Keeps the reservation as the settlement, for a response whose cost is unknown.
    pub fn keep(mut self, now: u64) {
        let reserved = match &self.place {
            Some(Place::Here { reserved, .. } | Place::Elsewhere { reserved, .. }) => *reserved,
            None => return,
        };
        self.release(reserved, now);
    }

    /// Puts what it came to in the place of what was reserved.
    pub fn settle(mut self, actual: Amount, now: u64) {
        self.release(actual, now);
    }

    fn release(&mut self, actual: Amount, now: u64) {
        match self.place.take() {
            Some(Place::Here { limits, rules, groups, reserved }) => {
                let mut counters = limits.counters();
                for (rule, group) in held(&rules, &groups) {
                    counters.of(rule, group).settle(rule, reserved, actual, now);
                }
            }
            Some(Place::Elsewhere { settle, .. }) => settle.settle(actual, now),
            None => {}
        }
    }
}

impl Drop for Hold {
    /// What was given up before it could be settled used nothing.
    fn drop(&mut self) {
        self.release(Amount::default(), self.at_ms);
    }
}

impl Counter {
    fn check(&mut self, rule: &Rule, amount: Amount, now: u64) -> Result<(), Exceeded> {
        if let Some(limit) = rule.concurrent.filter(|limit| self.concurrent >= *limit) {
            return Err(Exceeded { kind: Kind::Concurrent, limit, retry_ms: 1000 });
        }
        for (limit, bucket, count, kind) in [
            (rule.requests_per_minute, &mut self.requests, 1, Kind::Requests),
            (rule.tokens_per_minute, &mut self.tokens, amount.tokens, Kind::Tokens),
        ] {
            if let Some(limit) = limit {
                bucket.wait_ms(limit, count, now).map_or(Ok(()), |retry_ms| Err(Exceeded { kind, limit, retry_ms }))?;
            }
        }
        for (limit, spending, period, ends, kind) in [
            (rule.spend_per_day, &mut self.day, meter::day(now), meter::day_ends(now), Kind::Day),
            (rule.spend_per_month, &mut self.month, meter::month(now), meter::month_ends(now), Kind::Month),
        ] {
            let Some(limit) = limit else { continue };
            let dollars = u64::try_from(limit.0 / 1_000_000_000_000).unwrap_or(u64::MAX);
            match spending.room(period, amount.spend, limit) {
                Room::Enough => {}
                // Requests under way may come to less than they might.
                Room::Reserved => return Err(Exceeded { kind: Kind::Reserved, limit: dollars, retry_ms: 1000 }),
                Room::Spent => return Err(Exceeded { kind, limit: dollars, retry_ms: ends.saturating_sub(now) }),
            }
        }
        Ok(())
    }

    fn take(&mut self, rule: &Rule, amount: Amount, now: u64) {
        self.used_ms = now;
        self.concurrent += 1;
        rule.requests_per_minute.into_iter().for_each(|limit| self.requests.add(limit, 1, now));
        rule.tokens_per_minute.into_iter().for_each(|limit| self.tokens.add(limit, amount.tokens, now));
        if rule.counts_money() {
            self.day.reserve(amount.spend);
            self.month.reserve(amount.spend);
        }
    }

    fn settle(&mut self, rule: &Rule, reserved: Amount, actual: Amount, now: u64) {
        self.used_ms = now;
        self.concurrent = self.concurrent.saturating_sub(1);
        if let Some(limit) = rule.tokens_per_minute {
            self.tokens.correct(limit, reserved.tokens, actual.tokens, now);
        }
        if rule.counts_money() {
            self.day.release(reserved.spend);
            self.month.release(reserved.spend);
        }
        // Rules without a budget need no memory of what was spent.
        if rule.counts_money() {
            self.day.add_now(meter::day(now), actual.spend);
            self.month.add_now(meter::month(now), actual.spend);
        }
    }

    fn tell(&mut self, rule: &Rule, now: u64, standing: &mut Standing) {
        let buckets = [
            (rule.requests_per_minute, &mut self.requests, &mut standing.requests),
            (rule.tokens_per_minute, &mut self.tokens, &mut standing.tokens),
        ];
        for (limit, bucket, told) in buckets {
            let Some(limit) = limit else { continue };
            less(told, bucket.left(limit, now));
        }
    }

    /// Money is remembered as long as its month lasts.
    fn is_idle(&self, now: u64) -> bool {
        const IDLE_MS: u64 = 120_000;
        self.concurrent == 0 && !self.month.matters(meter::month(now)) && self.used_ms.saturating_add(IDLE_MS) < now
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
