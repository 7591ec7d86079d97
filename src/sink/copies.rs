//! Databases that are copies of the ledger, or can be done without: one that is damaged is set aside under another name, so that a
//! fresh one takes its place and no start depends on it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Databases that this process has set aside.
static SET_ASIDE: AtomicU64 = AtomicU64::new(0);

/// How many databases this process has set aside.
pub fn set_aside_count() -> u64 {
    SET_ASIDE.load(Ordering::Relaxed)
}

/// True for errors that say the file is damaged or no database: <https://www.sqlite.org/rescode.html>.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if matches!(failure.code, DatabaseCorrupt | NotADatabase))
}

/// Renames a database and its companions, and returns its new name.
///
/// # Errors
/// If it cannot be renamed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let named = |of: &str, suffix: &str| PathBuf::from(format!("{}{of}{suffix}", path.display()));
    let aside = named("", &format!(".damaged-{now}"));
    std::fs::rename(path, &aside)?;
    for companion in ["-wal", "-shm"] {
        // What was not checkpointed belongs to the damaged one.
        match std::fs::rename(named(companion, ""), named(&format!(".damaged-{now}"), companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    SET_ASIDE.fetch_add(1, Ordering::Relaxed);
    Ok(aside)
}

/// Opens a database; one that is damaged is set aside, and a fresh one made. `lost` says what that costs.
///
/// # Errors
/// Says why it cannot be used.
pub fn open_or_replace<T>(path: &Path, lost: &str, open: impl Fn() -> Result<T, rusqlite::Error>) -> Result<T, String> {
    match open() {
        Ok(opened) => Ok(opened),
        Err(error) if is_damage(&error) || path.is_dir() => replace(path, lost, &error, open),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Sets a database aside because of `error`, and opens a fresh one. `lost` says what that costs.
///
/// # Errors
/// Says why it cannot be set aside, or the fresh one not be used.
pub fn replace<T>(
    path: &Path,
    lost: &str,
    error: &rusqlite::Error,
    open: impl FnOnce() -> Result<T, rusqlite::Error>,
) -> Result<T, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let aside = set_aside(path).map_err(|error| told(&error))?;
    log::error!("{}: {error}. It was set aside as {}: {lost}", path.display(), aside.display());
    open().map_err(|error| told(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn a_damaged_database_makes_room_for_a_fresh_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.db");
        let open = || {
            let connection = Connection::open(&path)?;
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t (x)")?;
            Ok(connection)
        };
        for garbage in ["no database at all, but longer than the header of one", &"x".repeat(8192)] {
            std::fs::write(&path, garbage).unwrap();
            std::fs::write(folder.path().join("copy.db-wal"), garbage).unwrap();
            open_or_replace(&path, "nothing", open).unwrap().execute("INSERT INTO t VALUES (1)", []).unwrap();
        }
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().filter(|name| name.contains(".damaged-")).count() >= 2, "{names:?}");
        // A folder in its place.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        open_or_replace(&path, "nothing", open).unwrap();
        assert!(set_aside_count() >= 3);
    }
}
