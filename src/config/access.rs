//! Reads who may use the gateway: its keys.

use super::file::Reader;
use super::{Secret, Stamp, Upstream, key_file};
use crate::keys::Keys;
use crate::provider::Auth;
use crate::yaml::{Map, Node};
use std::path::{Path, PathBuf};

/// A signing secret has at least so many bytes: the secrets of all AWS clients hang on it.
pub const SIGNING_SECRET_BYTES_MIN: usize = 32;

impl Reader<'_> {
    /// `None` if callers need no key.
    pub(super) fn keys(&mut self, node: Option<Node<'_>>, data: &Path, upstreams: &[Upstream]) -> Option<(PathBuf, Keys)> {
        let mut map = Map::new(node?, &mut self.problems);
        let line = map.line();
        let path = self.path(&mut map, "file").unwrap_or_else(|| data.join("keys.json"));
        let signing = self.text(&mut map, "signing_secret");
        if let Some((line, _)) = signing.as_ref().filter(|(_, secret)| secret.len() < SIGNING_SECRET_BYTES_MIN) {
            self.problems
                .add(*line, format!("`signing_secret` needs at least {SIGNING_SECRET_BYTES_MIN} characters (openssl rand -hex 32)"));
        }
        let unsigned_payload = map.take_bool("unsigned_payload", &mut self.problems).unwrap_or(false);
        map.finish(&mut self.problems);
        self.files.push(Stamp::of(&path));
        let records = key_file::read(&path).map_err(|why| self.problems.add(line, why)).ok()?;
        let aws = upstreams.iter().filter(|upstream| upstream.provider.auth == Auth::Aws);
        let regions = aws.filter_map(|upstream| upstream.place("region").map(str::to_owned)).collect();
        let signing = signing.map(|(_, secret)| Secret::new(secret));
        let mut keys = Keys::new(records);
        (keys.signing, keys.unsigned_payload, keys.regions) = (signing, unsigned_payload, regions);
        Some((path, keys))
    }
}
