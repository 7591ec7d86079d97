//! Reads how the ledger is kept.

use super::file::Reader;
use super::units::{bytes, duration};
use crate::yaml::{Map, Node};
use std::path::PathBuf;
use std::time::Duration;

/// When what was written goes to the disk itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// When the kernel likes.
    Never,
    Every(Duration),
    /// Before anybody can rely on it: requests wait for one another's.
    Always,
}

/// How the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRules {
    /// A segment that is larger or older is followed by another.
    pub segment_bytes: u64,
    pub segment_age: Duration,
    /// Segments nobody wrote to for so long are removed; `None`: never.
    pub keep: Option<Duration>,
    pub sync: Sync,
    /// Serve on although the start of an attempt could not be written.
    pub serve_unwritten: bool,
    /// A folder on another disk, for records that a process cannot write before it ends.
    pub overflow: Option<PathBuf>,
}

impl Default for LedgerRules {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(3600),
            keep: None,
            sync: Sync::Every(Duration::from_secs(1)),
            serve_unwritten: false,
            overflow: None,
        }
    }
}

impl Reader<'_> {
    pub(super) fn ledger(&mut self, node: Option<Node<'_>>) -> LedgerRules {
        let rules = LedgerRules::default();
        let Some(node) = node else { return rules };
        let mut map = Map::new(node, &mut self.problems);
        let size = |text: &str| bytes(text).filter(|bytes| *bytes >= 4096);
        let segment_bytes = map.take_as("segment_bytes", &mut self.problems, "a size of at least 4KiB (64MiB)", size);
        let segment_age = map.take_as("segment_age", &mut self.problems, "a duration (1h, 1d)", duration);
        let years = |text: &str| humantime::parse_duration(text).ok().filter(|age| *age >= Duration::from_secs(3600)).map(Some);
        let keep = |text: &str| if text == "forever" { Some(None) } else { years(text) };
        let keep = map.take_as("keep", &mut self.problems, "`forever` or a duration of at least an hour (90d)", keep);
        let sync = |text: &str| match text {
            "never" => Some(Sync::Never),
            "always" => Some(Sync::Always),
            _ => duration(text).map(Sync::Every),
        };
        let sync = map.take_as("sync", &mut self.problems, "`never`, `always` or a duration (1s)", sync);
        let policy = |text: &str| matches!(text, "refuse" | "continue").then_some(text == "continue");
        let serve_unwritten = map.take_as("on_failure", &mut self.problems, "`refuse` or `continue`", policy);
        let overflow = self.path(&mut map, "overflow");
        map.finish(&mut self.problems);
        LedgerRules {
            segment_bytes: segment_bytes.unwrap_or(rules.segment_bytes),
            segment_age: segment_age.unwrap_or(rules.segment_age),
            keep: keep.unwrap_or(rules.keep),
            sync: sync.unwrap_or(rules.sync),
            serve_unwritten: serve_unwritten.unwrap_or(rules.serve_unwritten),
            overflow,
        }
    }
}
