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

/// Money of one period, and what requests under way may come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    period: u64,
    spent: i128,
    reserved: i128,
}

impl Spending {
    fn turn(&mut self, period: u64) {
        if period > self.period {
            (self.period, self.spent) = (period, 0);
        }
    }

    pub(super) fn room(&mut self, period: u64, more: PicoUsd, limit: PicoUsd) -> Room {
        self.turn(period);
        // A clock that was set back does not make what is spent from now on forgotten.
        self.period = self.period.min(period);
        // What is spent must leave something, also for what seems to cost nothing.
        let fits = |taken: i128| taken < limit.0 && taken.saturating_add(more.0) <= limit.0;
        match (fits(self.spent.saturating_add(self.reserved)), fits(self.spent)) {
            (true, _) => Room::Enough,
            (false, true) => Room::Reserved,
            (false, false) => Room::Spent,
        }
    }

    /// True if it says something of this period.
    pub fn matters(&self, period: u64) -> bool {
        self.reserved != 0 || (self.period >= period && self.spent != 0)
    }

    pub fn reserve(&mut self, spend: PicoUsd) {
        self.reserved = self.reserved.saturating_add(spend.0);
    }

    pub fn release(&mut self, spend: PicoUsd) {
        self.reserved = self.reserved.saturating_sub(spend.0).max(0);
    }

    /// Counts what was spent in a period, unless that is over.
    pub fn add(&mut self, period: u64, spend: PicoUsd) {
        self.turn(period);
        if period == self.period {
            self.spent = self.spent.saturating_add(spend.0);
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
