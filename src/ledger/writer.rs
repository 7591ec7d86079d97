//! Who writes: a lock that a process holds as long as it lives, so that others know whether its segments may grow.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// How the names of locks end.
const EXTENSION: &str = "lock";

/// This process.
#[derive(Debug)]
pub(super) struct Writer {
    name: String,
    path: PathBuf,
    _lock: File,
}

impl Writer {
    /// Also clears away what processes left that are gone.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        for (path, alive) in locks(folder)? {
            if !alive {
                // Another that starts may have done so.
                let _ = std::fs::remove_file(path);
            }
        }
        let name = uuid::Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).simple().to_string();
        let path = folder.join(format!("{name}.{EXTENSION}"));
        // Locked before it has its name: nobody takes it for one that was left.
        let fresh = folder.join(format!("{name}.new"));
        let lock = OpenOptions::new().create_new(true).write(true).open(&fresh)?;
        lock.lock()?;
        std::fs::rename(&fresh, &path)?;
        Ok(Self { name, path, _lock: lock })
    }

    /// Stands in the names of its segments.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// True if a segment of this name is its own.
    pub(super) fn wrote(&self, segment: &str) -> bool {
        writer_of(segment) == Some(&self.name)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn locks(folder: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut found = vec![];
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            // Whoever cannot be asked may live: nothing of what it has under way is given up.
            let alive = match File::open(&path) {
                Ok(file) => !matches!(file.try_lock_shared(), Ok(())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => true,
            };
            found.push((path, alive));
        }
    }
    Ok(found)
}

/// Processes that write to a ledger, as they were when this was made.
#[derive(Debug)]
pub struct Writers(HashMap<String, bool>);

impl Writers {
    /// # Errors
    /// If the folder cannot be read.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let name = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
        Ok(Self(locks(folder)?.into_iter().filter_map(|(path, alive)| Some((name(&path)?, alive))).collect()))
    }

    /// True if the process that wrote the segment of this name may write on.
    pub fn is_alive(&self, segment: &str) -> bool {
        writer_of(segment).and_then(|writer| self.0.get(writer)).copied().unwrap_or(false)
    }
}

/// Who wrote the segment of this name.
pub fn writer_of(segment: &str) -> Option<&str> {
    segment.split('.').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_as_long_as_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::open(folder.path()).unwrap();
        let segment = format!("1.{}.jsonl", writer.name());
        assert!(Writers::of(folder.path()).unwrap().is_alive(&segment));
        assert!(!Writers::of(folder.path()).unwrap().is_alive("1.other.jsonl"));
        // As a killed process leaves it.
        let left = folder.path().join("left.lock");
        std::fs::write(&left, "").unwrap();
        assert!(!Writers::of(folder.path()).unwrap().is_alive("1.left.jsonl"));
        let second = Writer::open(folder.path()).unwrap();
        assert!(!left.exists() && Writers::of(folder.path()).unwrap().is_alive(&segment));
        drop((writer, second));
        assert!(!Writers::of(folder.path()).unwrap().is_alive(&segment));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
