//! Points in time as reports show them and as users write them.

/// Formats milliseconds since 1970, in UTC.
pub(super) fn format_time(ms: u64, format: &str) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime(format).to_string())
}

/// Parses a point in time: a date, an RFC 3339 time, or an age before `now_ms`. Milliseconds since 1970.
pub fn parse_time(text: &str, now_ms: u64) -> Option<u64> {
    if let Ok(age) = humantime::parse_duration(text) {
        return u64::try_from(age.as_millis()).ok().map(|age| now_ms.saturating_sub(age));
    }
    let date = || text.parse::<jiff::civil::Date>().ok().and_then(|date| jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok());
    let at = text.parse::<jiff::Timestamp>().ok().or_else(date)?;
    u64::try_from(at.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_dates_times_and_ages() {
        let now = 1_795_564_800_000;
        for (text, want) in
            [("24h", Some(now - 86_400_000)), ("2026-11-25", Some(now)), ("2026-11-25T00:00:01Z", Some(now + 1000)), ("soon", None)]
        {
            assert_eq!(parse_time(text, now), want, "{text}");
        }
    }
}
