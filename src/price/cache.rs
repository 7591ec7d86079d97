//! What was fetched of a published catalog, beside the ledger: the next start need not wait for it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A larger catalog is refused; those there are have one to three MiB.
pub const CATALOG_BYTES_MAX: u64 = 64 << 20;

/// A file, and the tag it came with in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn tag_path(&self) -> PathBuf {
        self.path.with_extension("etag")
    }

    /// What was fetched; `None` if nothing was.
    ///
    /// # Errors
    /// If it is there and cannot be read, or is too large.
    pub fn read(&self) -> io::Result<Option<String>> {
        match read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// The tag to ask with whether there is anything newer.
    pub fn tag(&self) -> Option<String> {
        self.path.exists().then(|| std::fs::read_to_string(self.tag_path()).ok()).flatten()
    }

    /// When it was last known to be the newest.
    pub fn time(&self) -> Option<SystemTime> {
        let of = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        of(&self.path).map(|fetched| of(&self.tag_path()).map_or(fetched, |asked| asked.max(fetched)))
    }

    /// Puts something newer in its place, whole.
    ///
    /// # Errors
    /// If it cannot be written; what was there stays.
    pub fn put(&self, text: &str, tag: &str) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = self.path.with_extension("new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        self.asked(tag)
    }

    /// What is there is of no use: it is asked for as if there were nothing.
    pub fn forget(&self) {
        for path in [self.tag_path(), self.path.clone()] {
            // Gone is gone.
            let _ = std::fs::remove_file(path);
        }
    }

    /// There was nothing newer.
    ///
    /// # Errors
    /// If that cannot be written down.
    pub fn asked(&self, tag: &str) -> io::Result<()> {
        std::fs::write(self.tag_path(), tag)
    }
}

/// A published catalog that lies in a file.
///
/// # Errors
/// If it cannot be read, or is too large.
pub fn read(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > CATALOG_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {CATALOG_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_fetched_and_its_tag() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("prices/models.dev.json"));
        assert_eq!((cache.read().unwrap(), cache.tag(), cache.time()), (None, None, None));
        cache.put("{}", "\"a\"").unwrap();
        assert_eq!((cache.read().unwrap().as_deref(), cache.tag().as_deref()), (Some("{}"), Some("\"a\"")));
        let fetched = cache.time().unwrap();
        cache.asked("\"a\"").unwrap();
        assert!(cache.time().unwrap() >= fetched);
        let large = std::fs::File::create(cache.path()).unwrap();
        large.set_len(CATALOG_BYTES_MAX + 1).unwrap();
        assert!(cache.read().is_err());
    }
}
