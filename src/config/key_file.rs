//! The file that holds the gateway's keys: JSON, written whole and swapped in, so that a reader never sees half of it.

use crate::keys::Record;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    keys: Vec<Record>,
}

/// Reads the keys; a file that is not there holds none.
///
/// # Errors
/// Why it cannot be used.
pub fn read(path: &Path) -> Result<Vec<Record>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed(&error)),
    };
    let content: Content = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    let twice = content.keys.iter().enumerate().find(|(at, key)| content.keys.iter().take(*at).any(|other| other.id == key.id));
    match twice {
        Some((_, key)) => Err(failed(&format!("the key `{}` stands there twice", key.id))),
        None => Ok(content.keys),
    }
}

/// Changes the keys, one writer at a time.
///
/// # Errors
/// What `change` says, or why the file cannot be read or written; it is then as it was.
pub fn update<T>(path: &Path, change: impl FnOnce(&mut Vec<Record>) -> Result<T, String>) -> Result<T, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let lock = File::create(path.with_extension("lock")).map_err(failed)?;
    give(&lock, path);
    lock.lock().map_err(failed)?;
    let mut keys = read(path)?;
    let result = change(&mut keys)?;
    let text = serde_json::to_string_pretty(&Content { keys }).map_err(|error| error.to_string())?;
    let fresh = path.with_extension("new");
    // Hashes are no secrets, but who may do what is nobody else's business.
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all()).map_err(failed)?;
    // Whoever changes it (root, say), it stays readable for whom it belongs to.
    if let Ok(old) = std::fs::metadata(path) {
        fchown(&file, Some(old.uid()), Some(old.gid())).map_err(failed)?;
        file.set_permissions(old.permissions()).map_err(failed)?;
    } else {
        give(&file, path);
    }
    std::fs::rename(&fresh, path).map_err(failed)?;
    if let Some(folder) = path.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(result)
}

/// What root makes in somebody's folder (a service's, say) is theirs; who is not root makes it their own anyway.
fn give(file: &File, path: &Path) {
    if let Some(Ok(folder)) = path.parent().map(std::fs::metadata) {
        let _ = fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::make;
    use jiff::Timestamp;

    #[test]
    fn keeps_what_was_changed_and_nothing_of_a_failed_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        assert_eq!(read(&path), Ok(vec![]));
        let made = make("ci", Timestamp::UNIX_EPOCH).unwrap();
        let push = |keys: &mut Vec<Record>| {
            keys.push(made.record.clone());
            Ok(())
        };
        update(&path, push).unwrap();
        let refused: Result<(), String> = update(&path, |keys| {
            keys.clear();
            Err("no".to_owned())
        });
        assert_eq!(refused, Err("no".to_owned()));
        assert_eq!(read(&path), Ok(vec![made.record.clone()]));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(made.text.splitn(3, '_').nth(2).unwrap()));
        update(&path, push).unwrap();
        assert!(read(&path).unwrap_err().contains("twice"));
        std::fs::write(&path, "{\"keys\": [{}]}").unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn what_root_makes_belongs_to_whom_the_folder_belongs_to() {
        const SERVICE: u32 = 61_184;
        let folder = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(folder.path(), Some(SERVICE), Some(SERVICE)).is_err() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let path = folder.path().join("keys.json");
        update(&path, |_| Ok(())).unwrap();
        for name in ["keys.json", "keys.lock"] {
            assert_eq!(std::fs::metadata(folder.path().join(name)).unwrap().uid(), SERVICE, "{name}");
        }
    }
}
