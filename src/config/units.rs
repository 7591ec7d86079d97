//! Sizes, durations and `${VARIABLES}` as people write them.

use std::time::Duration;

/// `32MiB`, `64 KB`, `1000`.
pub fn bytes(text: &str) -> Option<u64> {
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}

/// A size, or a share of this machine's memory (`25%`).
pub fn bytes_or_share(text: &str) -> Option<u64> {
    let Some(percent) = text.strip_suffix('%') else {
        return bytes(text);
    };
    let percent: u64 = percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent))?;
    Some(memory_bytes()? / 100 * percent)
}

/// Longer durations are mistakes, and clocks need not count so far.
pub const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// `30s`, `500ms`, `10m`.
pub fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero() && *duration <= DURATION_MAX)
}

/// What [`share`] reads, as mistakes are told.
pub const SHARE: &str = "a share from 0 to 1 (0.1)";

/// `0.25`.
pub fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
}

fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$$` stands for a dollar.
///
/// # Errors
/// The name of a variable that is not set and has no default, or what is wrong with the syntax.
pub fn interpolate(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((plain, tail)) = rest.split_once('$') {
        out.push_str(plain);
        if let Some(tail) = tail.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let inner = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        let Some((inner, tail)) = inner else {
            return Err(format!("`{text}`: write `${{NAME}}` for a variable and `$$` for a dollar"));
        };
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        match variable(name).filter(|value| !value.is_empty()).or_else(|| default.map(str::to_owned)) {
            Some(value) => out.push_str(&value),
            None => return Err(format!("the environment variable {name} is not set")),
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        assert_eq!(bytes("32MiB"), Some(32 << 20));
        assert_eq!(bytes("1000"), Some(1000));
        assert_eq!(bytes("many"), None);
        assert!(bytes_or_share("25%") > Some(1 << 20));
        assert_eq!(bytes_or_share("0%"), None);
        assert_eq!(duration("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("0s"), None);
    }

    #[test]
    fn fills_in_variables() {
        let variable = |name: &str| (name == "A").then(|| "x".to_owned());
        assert_eq!(interpolate("${A}-${B:-y}-$$5", variable).unwrap(), "x-y-$5");
        assert!(interpolate("${B}", variable).unwrap_err().contains('B'));
        assert!(interpolate("$A", variable).is_err());
    }
}
