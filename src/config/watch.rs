//! Notices that files changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How a file stood when it was read, by what its folder says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    path: PathBuf,
    /// Modification, length and inode.
    state: Option<(SystemTime, u64, u64)>,
}

impl Stamp {
    /// To be taken before the file is read: what is written in between is then noticed.
    pub(super) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok();
        let state = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len(), metadata.ino())));
        Self { path: path.to_owned(), state }
    }
}

/// Notices that files changed since they were read.
#[derive(Debug, Default)]
pub struct Watch {
    /// What was told last.
    told: Vec<Stamp>,
    seen: Vec<Stamp>,
}

impl Watch {
    /// True once for a state other than what was read, when two looks in a row saw it.
    pub fn changed(&mut self, read: &[Stamp]) -> bool {
        let now: Vec<Stamp> = read.iter().map(|stamp| Stamp::of(&stamp.path)).collect();
        let changed = now == self.seen && now != read && now != self.told;
        if changed {
            self.told.clone_from(&now);
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
        let read = files.each_ref().map(|path| Stamp::of(path));
        let mut watch = Watch::default();
        assert!(!watch.changed(&read) && !watch.changed(&read));
        std::fs::write(&files[0], "12").unwrap();
        assert!(!watch.changed(&read));
        std::fs::write(&files[1], "new").unwrap();
        assert!(!watch.changed(&read));
        assert!(watch.changed(&read));
        // It was refused.
        assert!(!watch.changed(&read));
        let read = files.each_ref().map(|path| Stamp::of(path));
        assert!(!watch.changed(&read));
        std::fs::remove_file(&files[1]).unwrap();
        assert!(!watch.changed(&read) && watch.changed(&read) && !watch.changed(&read));
    }

    #[test]
    fn what_changed_before_the_first_look_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let read = [Stamp::of(&folder.path().join("a"))];
        std::fs::write(&read[0].path, "1").unwrap();
        let mut watch = Watch::default();
        assert!(!watch.changed(&read) && watch.changed(&read));
    }
}
