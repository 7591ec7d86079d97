//! Notices that files changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Notices that files changed, by what their folder says of them.
#[derive(Debug, Default)]
pub struct Watch {
    taken: Vec<Stamp>,
    seen: Vec<Stamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    /// Modification, length and inode.
    state: Option<(SystemTime, u64, u64)>,
}

impl Stamp {
    fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok();
        let state = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len(), metadata.ino())));
        Self { path: path.to_owned(), state }
    }
}

impl Watch {
    pub fn new(files: &[PathBuf]) -> Self {
        let taken: Vec<Stamp> = files.iter().map(|path| Stamp::of(path)).collect();
        Self { seen: taken.clone(), taken }
    }

    /// True once after a change, when two looks in a row saw the same.
    pub fn changed(&mut self, files: &[PathBuf]) -> bool {
        let now: Vec<Stamp> = files.iter().map(|path| Stamp::of(path)).collect();
        let settled = now == self.seen;
        let changed = settled && now != self.taken;
        if changed {
            self.taken.clone_from(&now);
        }
        self.seen = now;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("a"), folder.path().join("b")];
        std::fs::write(&files[0], "1").unwrap();
        let mut watch = Watch::new(&files);
        assert!(!watch.changed(&files));
        std::fs::write(&files[0], "12").unwrap();
        assert!(!watch.changed(&files));
        std::fs::write(&files[1], "new").unwrap();
        assert!(!watch.changed(&files));
        assert!(watch.changed(&files));
        assert!(!watch.changed(&files));
        std::fs::remove_file(&files[1]).unwrap();
        assert!(!watch.changed(&files) && watch.changed(&files) && !watch.changed(&files));
    }
}
