//! How long a provider wants to be left alone, by the headers of its answer.

use super::health::WAIT_MAX;
use http::HeaderMap;
use jiff::Timestamp;
use std::time::Duration;

/// The first header that says so, of an answer with `status`, at `now` milliseconds since 1970. `Retry-After` is seconds or a date
/// (<https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>); OpenAI and Azure also give milliseconds, and limits
/// reset after seconds or a span (`6m0s`); the latter stand on other answers, too, where they mean nothing. More than a day is
/// not believed.
pub fn asked(status: u16, headers: &HeaderMap, now: u64) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let millis = text("retry-after-ms").and_then(seconds).map(|seconds| seconds / 1000);
    let limits = |name| text(name).filter(|_| status == 429);
    let wait = millis
        .or_else(|| text("retry-after").and_then(|text| seconds(text).or_else(|| date(text, now))))
        .or_else(|| limits("x-ratelimit-reset").and_then(|text| seconds(text).or_else(|| span(text))))
        .or_else(|| ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"].iter().filter_map(|name| span(limits(name)?)).max());
    wait.filter(|wait| *wait <= WAIT_MAX)
}

/// True if the headers of a 429 say that the account has nothing left, of requests or of tokens:
/// <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>,
/// <https://platform.claude.com/docs/en/api/rate-limits#response-headers>.
pub fn is_account_limit(headers: &HeaderMap) -> bool {
    let remaining = |name: &str| name.contains("ratelimit") && name.contains("remaining");
    let none_left = |value: &http::HeaderValue| value.to_str().is_ok_and(|text| text.trim() == "0");
    headers.iter().any(|(name, value)| remaining(name.as_str()) && none_left(value))
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn date(text: &str, now: u64) -> Option<Duration> {
    let at: Timestamp = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let at = u64::try_from(at.as_millisecond()).ok()?;
    Some(Duration::from_millis(at.saturating_sub(now)))
}

fn span(text: &str) -> Option<Duration> {
    let span: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(span).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_way_of_saying_it() {
        let now = 784_111_700_000;
        for (name, value, want) in [
            ("retry-after", "7", Some(7000)),
            ("retry-after", "0.5", Some(500)),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", Some(77_000)),
            ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("retry-after", "soon", None),
            ("retry-after", "-1", None),
            ("retry-after", "NaN", None),
            ("retry-after", "1e300", None),
            ("retry-after-ms", "1500", Some(1500)),
            ("x-ratelimit-reset", "30", Some(30_000)),
            ("x-ratelimit-reset-requests", "6m0s", Some(360_000)),
            ("x-ratelimit-reset-tokens", "17ms", Some(17)),
            ("x-ratelimit-reset-tokens", "1.25s", Some(1250)),
            ("date", "7", None),
            ("retry-after", "86400", Some(86_400_000)),
            ("retry-after", "86401", None),
            ("x-ratelimit-reset", "1741305600000", None),
        ] {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
            assert_eq!(asked(429, &headers, now).map(|wait| wait.as_millis()), want, "{name}: {value}");
            let limit = name.starts_with("x-ratelimit");
            assert_eq!(asked(500, &headers, now).map(|wait| wait.as_millis()), want.filter(|_| !limit), "{name}: {value}");
        }
    }
}
