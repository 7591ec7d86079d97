//! What limits are measured with: a bucket that drains by the minute, and money by the day and the month.

use super::Left;
use crate::price::PicoUsd;

/// A unit in the bucket, in what drains of one unit a minute within a millisecond: so all of it is whole numbers.
const UNIT: u128 = 60_000;
/// A clock that shows less than before by more than this was set back.
const SLACK_MS: u64 = 5000;
const DAY_MS: u64 = 86_400_000;

/// How full it is, and when that was so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    level: u128,
    at_ms: u64,
}

impl Bucket {
    fn drain(&mut self, limit: u64, now: u64) {
        let drained = u128::from(now.saturating_sub(self.at_ms)).saturating_mul(u128::from(limit));
        self.level = self.level.saturating_sub(drained);
        self.at_ms = self.at_ms.max(now);
    }

    /// How long to wait until so many fit; `None`: they do. More than fit at all go in when it is empty.
    pub fn wait_ms(&mut self, limit: u64, count: u64, now: u64) -> Option<u64> {
        if self.at_ms > now + SLACK_MS {
            self.at_ms = now;
        }
        self.drain(limit, now);
        let over = (self.level + u128::from(count.min(limit)) * UNIT).saturating_sub(u128::from(limit) * UNIT);
        (over > 0).then(|| u64::try_from(over.div_ceil(u128::from(limit.max(1)))).unwrap_or(u64::MAX))
    }

    pub fn add(&mut self, limit: u64, count: u64, now: u64) {
        self.drain(limit, now);
        self.level += u128::from(count) * UNIT;
    }

    /// Puts one count in the place of another that was added.
    pub fn correct(&mut self, limit: u64, added: u64, actual: u64, now: u64) {
        self.drain(limit, now);
        self.level = (self.level + u128::from(actual) * UNIT).saturating_sub(u128::from(added) * UNIT);
    }

    pub fn left(&mut self, limit: u64, now: u64) -> Left {
        self.drain(limit, now);
        let free = (u128::from(limit) * UNIT).saturating_sub(self.level) / UNIT;
        let reset = self.level.div_ceil(u128::from(limit.max(1)));
        Left { limit, remaining: u64::try_from(free).unwrap_or(u64::MAX), reset_ms: u64::try_from(reset).unwrap_or(u64::MAX) }
    }
}

/// Whether more may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// Once requests under way have come to less than was reserved for them.
    Reserved,
    Spent,
}

/// Periods whose spending is remembered: the current one, and one more in case the clock is set back or forth.
const PERIODS: usize = 2;

/// Money spent per period, and the maximum cost of requests in flight.
///
/// A clock that is set back or forth ends no limit: a period that seems to lie in the past counts what later ones have spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// Period and amount.
    spent: [Option<(u64, i128)>; PERIODS],
    reserved: i128,
}

impl Spending {
    fn spent(&self, period: u64) -> i128 {
        self.spent.iter().flatten().filter(|(of, _)| *of >= period).map(|(_, spent)| *spent).max().unwrap_or(0)
    }

    pub(super) fn room(&self, period: u64, more: PicoUsd, limit: PicoUsd) -> Room {
        let spent = self.spent(period);
        // Something of the limit must be left, even for a request that seems to cost nothing.
        let fits = |taken: i128| taken < limit.0 && taken.saturating_add(more.0) <= limit.0;
        match (fits(spent.saturating_add(self.reserved)), fits(spent)) {
            (true, _) => Room::Enough,
            (false, true) => Room::Reserved,
            (false, false) => Room::Spent,
        }
    }

    /// True if it has spending of this period, or of requests in flight.
    pub fn matters(&self, period: u64) -> bool {
        self.reserved != 0 || self.spent(period) != 0
    }

    pub fn reserve(&mut self, spend: PicoUsd) {
        self.reserved = self.reserved.saturating_add(spend.0);
    }

    pub fn release(&mut self, spend: PicoUsd) {
        self.reserved = self.reserved.saturating_sub(spend.0).max(0);
    }

    /// Counts what was spent in a period of the past or the current one, if it is remembered.
    pub fn add(&mut self, period: u64, spend: PicoUsd) {
        self.remember(period);
        self.count(|of| of == period, spend);
    }

    /// Counts what was spent just now. A later period that is known means that the clock was set back: it counts there, too.
    pub fn add_now(&mut self, period: u64, spend: PicoUsd) {
        self.remember(period);
        self.count(|of| of >= period, spend);
    }

    fn count(&mut self, counts: impl Fn(u64) -> bool, spend: PicoUsd) {
        for (_, spent) in self.spent.iter_mut().flatten().filter(|(of, _)| counts(*of)) {
            *spent = spent.saturating_add(spend.0);
        }
    }

    /// Makes room for a period: the one that is farthest from it is forgotten. One before all that are known is not taken up.
    fn remember(&mut self, period: u64) {
        let known = |kept: &Option<(u64, i128)>| kept.map(|(of, _)| of);
        let past = self.spent.iter().all(|kept| known(kept).is_some_and(|of| of > period));
        if past || self.spent.iter().any(|kept| known(kept) == Some(period)) {
            return;
        }
        let distance = |kept: &&mut Option<(u64, i128)>| known(kept).map_or(u64::MAX, |of| of.abs_diff(period));
        if let Some(place) = self.spent.iter_mut().max_by_key(distance) {
            *place = Some((period, 0));
        }
    }
}

/// Days since 1970.
pub fn day(now: u64) -> u64 {
    now / DAY_MS
}

pub fn day_begins(now: u64) -> u64 {
    day(now) * DAY_MS
}

pub fn day_ends(now: u64) -> u64 {
    (day(now) + 1) * DAY_MS
}

/// Months since the year 0.
pub fn month(now: u64) -> u64 {
    let date = date(now);
    u64::try_from(i32::from(date.year()) * 12 + i32::from(date.month()) - 1).unwrap_or(0)
}

pub fn month_ends(now: u64) -> u64 {
    let next = date(now).last_of_month().tomorrow().ok();
    let at = next.and_then(|next| jiff::tz::Offset::UTC.to_timestamp(next.at(0, 0, 0, 0)).ok());
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(u64::MAX)
}

/// The first of the month `now` is in, in milliseconds since 1970.
pub fn month_begins(now: u64) -> u64 {
    let at = jiff::tz::Offset::UTC.to_timestamp(date(now).first_of_month().at(0, 0, 0, 0)).ok();
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(0)
}

fn date(now: u64) -> jiff::civil::Date {
    let at = i64::try_from(now).ok().and_then(|now| jiff::Timestamp::from_millisecond(now).ok()).unwrap_or_default();
    jiff::tz::Offset::UTC.to_datetime(at).date()
}
