//! Reads what several gateways share, and where.

use super::Secret;
use super::file::Reader;
use super::units::duration;
use crate::yaml::{Map, Node};
use std::time::Duration;

/// Which Redis or Valkey, and what holds while it does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisRules {
    /// With the password, if there is one.
    pub url: Secret,
    /// Certificates to trust instead of the system's, PEM.
    pub ca: Option<Vec<u8>>,
    /// In what names begin, in case others use it too.
    pub prefix: String,
    /// For an answer.
    pub timeout: Duration,
    /// Requests are served unlimited while there is no answer, instead of not at all.
    pub fails_open: bool,
}

impl Reader<'_> {
    pub(super) fn redis(&mut self, node: Option<Node<'_>>) -> Option<RedisRules> {
        const TIMEOUT: Duration = Duration::from_millis(200);
        let node = node.filter(|node| !matches!(node.text(), Some("off" | "false")))?;
        let mut map = Map::new(node, &mut self.problems);
        let line = map.line();
        let (line, url) = self.text(&mut map, "url").unwrap_or((line, String::new()));
        if redis::Client::open(url.as_str()).is_err() {
            // It may hold a password: it is not shown.
            self.problems.add(line, "`url` must be that of a Redis (redis://host:6379, rediss://user:password@host:6380/0)");
        }
        let ca = self.path(&mut map, "ca").and_then(|path| {
            self.check_certificates(line, &path);
            std::fs::read(path).ok()
        });
        let prefix = self.text(&mut map, "prefix").map_or_else(|| "tollgate".to_owned(), |(_, prefix)| prefix);
        let timeout = map.take_as("timeout", &mut self.problems, "a duration (200ms)", duration).unwrap_or(TIMEOUT);
        let opens = |text: &str| match text {
            "open" => Some(true),
            "closed" => Some(false),
            _ => None,
        };
        let fails_open = map.take_as("on_failure", &mut self.problems, "`open` or `closed`", opens).unwrap_or(false);
        map.finish(&mut self.problems);
        Some(RedisRules { url: Secret::new(url), ca, prefix, timeout, fails_open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::tests::load_text;

    #[test]
    fn reads_where_it_is_and_shows_no_password() {
        let read =
            load_text("redis: {url: \"rediss://:s3cret@host:6380/1\", timeout: 50ms, on_failure: open}", &[]).unwrap().redis.unwrap();
        assert_eq!((read.timeout, read.fails_open, read.prefix.as_str()), (Duration::from_millis(50), true, "tollgate"));
        assert!(!format!("{read:?}").contains("s3cret"));
        assert!(load_text("{}", &[]).unwrap().redis.is_none() && load_text("redis: off", &[]).unwrap().redis.is_none());
        for (bad, want) in [
            ("redis: {}", "`url`"),
            ("redis: {url: \"https://:s3cret@host\"}", "`url`"),
            ("redis: {url: \"redis://host\", on_failure: shut}", "`open` or `closed`"),
            ("redis: {url: \"redis://host\", ca: missing.pem}", "missing.pem"),
        ] {
            let told = load_text(bad, &[]).unwrap_err().join("\n");
            assert!(told.contains(want) && !told.contains("s3cret"), "{bad}: {told}");
        }
    }
}
