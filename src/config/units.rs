//! Sizes, durations and `${VARIABLES}` as people write them.

use std::path::Path;
use std::time::Duration;

/// `32MiB`, `64 KB`, `1000`.
pub fn bytes(text: &str) -> Option<u64> {
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}

/// A size, or a share of the memory that the process may use (`25%`).
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

/// The memory of the machine, or of the control group that the process runs in if that has less.
fn memory_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_memory_bytes(&groups, Path::new("/sys/fs/cgroup"));
    machine_memory_bytes().into_iter().chain(group).min()
}

/// The lowest limit of the control groups in `/proc/self/cgroup` and of those above them, of version 2 or 1:
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>,
/// <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>. In a container the mounted root is the process's own group.
fn group_memory_bytes(groups: &str, mounted: &Path) -> Option<u64> {
    let limit = |path: &Path, file: &str| std::fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().ok();
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            named if named.split(',').any(|name| name == "memory") => (mounted.join("memory"), "memory.limit_in_bytes"),
            _ => return vec![],
        };
        let inner = root.join(path.trim_start_matches('/'));
        let above = inner.ancestors().take_while(|path| path.starts_with(&root));
        above.filter_map(|path| limit(path, file)).collect()
    });
    limits.min()
}

fn machine_memory_bytes() -> Option<u64> {
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
    fn memory_is_that_of_the_control_group() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("a/b/memory.max", "max\n");
        put("a/memory.max", "536870912\n");
        put("memory/c/memory.limit_in_bytes", "268435456\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        for (groups, want) in [
            ("0::/a/b\n", Some(512 << 20)),
            ("0::/\n", None),
            ("0::/elsewhere\n", None),
            ("12:cpu:/c\n4:memory,hugetlb:/c\n", Some(256 << 20)),
            ("4:memory:/other\n", Some(9_223_372_036_854_771_712)),
            ("0::/a/b\n4:memory:/c\n", Some(256 << 20)),
            ("nonsense", None),
        ] {
            assert_eq!(group_memory_bytes(groups, folder.path()), want, "{groups}");
        }
        put("memory.max", "1048576");
        assert_eq!(group_memory_bytes("0::/a/b", folder.path()), Some(1 << 20));
        assert!(memory_bytes() <= machine_memory_bytes());
    }

    #[test]
    fn fills_in_variables() {
        let variable = |name: &str| (name == "A").then(|| "x".to_owned());
        assert_eq!(interpolate("${A}-${B:-y}-$$5", variable).unwrap(), "x-y-$5");
        assert!(interpolate("${B}", variable).unwrap_err().contains('B'));
        assert!(interpolate("$A", variable).is_err());
    }
}
