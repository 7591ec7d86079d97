//! Reads settings of the process as a whole: its log, its shutdown, and bounds that concern no single request.

use super::file::Reader;
use super::units;
use crate::yaml::{Map, Node};
use log::LevelFilter;
use std::time::Duration;

/// Settings of the process as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRules {
    /// The level of the gateway's log on stderr.
    pub log_level: LevelFilter,
    /// How long a process that was told to stop still accepts connections, while `/readyz` answers 503.
    pub shutdown_delay: Duration,
    /// Output tokens that limits reserve for a request that does not bound its output; `None`: the model's maximum.
    pub unbounded_output: Option<u64>,
    /// True if a request for a model without a price is admitted where a limit counts money.
    pub admits_unpriced: bool,
    /// Open WebSockets of one key, or of all clients where there are no keys; one more is answered 429.
    pub websockets_per_key: usize,
}

impl ProcessRules {
    /// Applies the level of the log, unless `RUST_LOG` says otherwise.
    pub fn apply_log_level(&self) {
        if std::env::var_os("RUST_LOG").is_none() {
            log::set_max_level(self.log_level);
        }
    }
}

/// Open WebSockets of one key.
const WEBSOCKETS_PER_KEY: usize = 256;

impl Reader<'_> {
    pub(super) fn process(&mut self, map: &mut Map<'_>) -> ProcessRules {
        ProcessRules {
            websockets_per_key: self.websockets(map.take("websockets")),
            log_level: self.log_level(map.take("log")),
            shutdown_delay: self.shutdown_delay(map.take("shutdown")),
            unbounded_output: self.unbounded_output(map),
            admits_unpriced: self.admits_unpriced(map),
        }
    }

    fn websockets(&mut self, node: Option<Node<'_>>) -> usize {
        let Some(node) = node else { return WEBSOCKETS_PER_KEY };
        let mut map = Map::new(node, &mut self.problems);
        let read = |text: &str| text.parse().ok().filter(|count| *count > 0);
        let count = map.take_as("per_key", &mut self.problems, "a number above zero", read);
        map.finish(&mut self.problems);
        count.unwrap_or(WEBSOCKETS_PER_KEY)
    }

    fn log_level(&mut self, node: Option<Node<'_>>) -> LevelFilter {
        let Some(node) = node else { return LevelFilter::Warn };
        let mut map = Map::new(node, &mut self.problems);
        let level = map.take_as("level", &mut self.problems, "`error`, `warn`, `info` or `off`", log_level);
        map.finish(&mut self.problems);
        level.unwrap_or(LevelFilter::Warn)
    }

    fn shutdown_delay(&mut self, node: Option<Node<'_>>) -> Duration {
        let Some(node) = node else { return Duration::ZERO };
        let mut map = Map::new(node, &mut self.problems);
        let read = |text: &str| if text == "0s" { Some(Duration::ZERO) } else { units::duration(text) };
        let delay = map.take_as("delay", &mut self.problems, "a time (0s, 5s)", read);
        map.finish(&mut self.problems);
        delay.unwrap_or_default()
    }
}

fn log_level(text: &str) -> Option<LevelFilter> {
    // More is not built in: see `release_max_level_info`.
    Some(match text {
        "off" => LevelFilter::Off,
        "error" => LevelFilter::Error,
        "warn" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::tests::load_text;

    #[test]
    fn settings_have_defaults_and_are_checked() {
        let config = load_text("{}", &[]).unwrap();
        assert_eq!((config.process.log_level, config.process.shutdown_delay), (LevelFilter::Warn, Duration::ZERO));
        assert_eq!(config.process.websockets_per_key, WEBSOCKETS_PER_KEY);
        let config = load_text("log: {level: info}\nshutdown: {delay: 5s}\nwebsockets: {per_key: 3}", &[]).unwrap();
        assert_eq!((config.process.log_level, config.process.shutdown_delay), (LevelFilter::Info, Duration::from_secs(5)));
        assert_eq!(config.process.websockets_per_key, 3);
        for (bad, want) in [
            ("log: {level: loud}", "`error`"),
            ("log: {levle: info}", "level"),
            ("shutdown: {delay: soon}", "a time"),
            ("websockets: {per_key: 0}", "above zero"),
        ] {
            assert!(load_text(bad, &[]).unwrap_err().join("\n").contains(want), "{bad}");
        }
    }
}
