//! Reads where copies of the ledger go.

use super::Secret;
use super::file::Reader;
use crate::yaml::{Map, Node};
use std::path::{Path, PathBuf};

/// Where copies of the ledger go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// The database, made if it is not there.
    pub sqlite: Option<PathBuf>,
    pub webhook: Option<WebhookRules>,
}

/// Who is posted entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRules {
    pub url: String,
    /// Signs what is posted.
    pub secret: Option<Secret>,
}

/// The database beside the ledger.
pub const DATABASE: &str = "usage.db";

impl Reader<'_> {
    pub(super) fn sinks(&mut self, node: Option<Node<'_>>, data: &Path) -> Sinks {
        let mut sinks = Sinks { sqlite: Some(data.join(DATABASE)), webhook: None };
        let Some(node) = node else { return sinks };
        let mut map = Map::new(node, &mut self.problems);
        if map.take_bool("sqlite", &mut self.problems) == Some(false) {
            sinks.sqlite = None;
        }
        sinks.webhook = map.take("webhook").and_then(|node| self.webhook(node));
        map.finish(&mut self.problems);
        sinks
    }

    fn webhook(&mut self, node: Node<'_>) -> Option<WebhookRules> {
        if node.text() == Some("off") {
            return None;
        }
        let mut map = Map::new(node, &mut self.problems);
        let (url, secret) = (self.text(&mut map, "url"), self.text(&mut map, "secret"));
        let line = map.line();
        map.finish(&mut self.problems);
        let (line, url) = url.unwrap_or((line, String::new()));
        if !url.starts_with("https://") && !url.starts_with("http://") {
            self.problems.add(line, "a webhook needs its `url` (https://…)");
        }
        Some(WebhookRules { url, secret: secret.map(|(_, secret)| Secret::new(secret)) })
    }
}
