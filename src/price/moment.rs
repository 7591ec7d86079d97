//! When a request was served, as the conditions of prices see it: seconds, minutes of the day, days and weekdays, in UTC.

/// The time of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970.
    pub unix_s: i64,
}

impl Moment {
    /// Returns the moment of so many milliseconds since 1970.
    pub fn of_ms(ms: u64) -> Self {
        Self { unix_s: i64::try_from(ms / 1000).unwrap_or(i64::MAX) }
    }

    /// Minutes since midnight.
    pub(super) fn minute_of_day(self) -> i64 {
        self.unix_s.rem_euclid(86_400) / 60
    }

    /// Days since 1970-01-01.
    pub fn day(self) -> i64 {
        self.unix_s.div_euclid(86_400)
    }
}

/// Names of the weekdays, as price files write them.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A set of weekdays, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weekdays([bool; 7]);

impl Weekdays {
    /// Returns the set of these names; `None` if there are none or one is unknown.
    pub fn of(names: &[&str]) -> Option<Self> {
        let mut days = [false; 7];
        for name in names {
            let at = NAMES.iter().position(|known| known == name)?;
            days.get_mut(at).into_iter().for_each(|day| *day = true);
        }
        (!names.is_empty()).then_some(Self(days))
    }

    /// True if the moment is on one of these weekdays.
    pub fn contains(self, at: Moment) -> bool {
        // 1970-01-01 was a Thursday.
        let weekday = (at.day() + 3).rem_euclid(7);
        usize::try_from(weekday).ok().and_then(|at| self.0.get(at)).is_some_and(|day| *day)
    }

    /// The names of its days.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().zip(self.0).filter(|(_, within)| *within).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekdays_are_those_of_utc() {
        let workdays = Weekdays::of(&["mon", "tue", "wed", "thu", "fri"]).unwrap();
        // Saturday 2026-11-28 00:00, Friday 23:59:59, Monday 00:00, Sunday 23:59:59, Thursday 1970-01-01, Sunday 1969-12-28.
        let want =
            [(1_795_824_000, false), (1_795_823_999, true), (1_795_996_800, true), (1_795_996_799, false), (0, true), (-345_600, false)];
        for (unix_s, within) in want {
            assert_eq!(workdays.contains(Moment { unix_s }), within, "{unix_s}");
        }
        assert_eq!(workdays.names().collect::<Vec<_>>(), ["mon", "tue", "wed", "thu", "fri"]);
        assert!(Weekdays::of(&[]).is_none() && Weekdays::of(&["monday"]).is_none());
    }
}
