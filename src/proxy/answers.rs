//! Whose the answers are that providers keep, and which of them are yet to be billed: a small database, beside the ledger,
//! that several processes may use. What is to be billed is on disk before its caller hears of it; the rest follows.

use super::shared::Shared;
use crate::exchange::answer::{Keeper, Kept};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// Remembered for so long after they were last used: providers keep answers for thirty days.
/// <https://platform.openai.com/docs/guides/your-data>
pub const KEPT_DAYS: i64 = 35;
/// The same, for who is told.
const KEPT: Duration = Duration::from_secs(KEPT_DAYS.unsigned_abs() * 86_400);
/// More that wait for the disk are written at once.
const WAITING_MAX: usize = 10_000;

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS answers (
  id TEXT PRIMARY KEY, upstream TEXT NOT NULL, owner TEXT, used_s INTEGER NOT NULL, pending TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_pending ON answers (id) WHERE pending IS NOT NULL;
CREATE INDEX IF NOT EXISTS answers_used ON answers (used_s);";

/// The database.
pub struct Answers {
    connection: Mutex<Connection>,
    /// Not on disk yet.
    waiting: Mutex<HashMap<String, Kept>>,
    /// Who knows those of other gateways, and hears of ours.
    shared: Option<Arc<Shared>>,
}

impl Answers {
    /// # Errors
    /// Says why it cannot be used.
    pub fn open(path: &Path, shared: Option<Arc<Shared>>) -> Result<Self, String> {
        let open = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(1))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(TABLE)?;
            Ok(connection)
        };
        let connection = open().map_err(|error: rusqlite::Error| format!("{}: {error}", path.display()))?;
        Ok(Self { connection: Mutex::new(connection), waiting: Mutex::default(), shared })
    }

    /// Remembers answers: those that are to be billed before this returns, if the disk takes them.
    pub fn remember(&self, kept: Vec<Kept>, now_s: i64) {
        let now = kept.iter().any(|kept| kept.pending.is_some());
        self.shared.iter().for_each(|shared| kept.iter().for_each(|kept| shared.keep(kept, KEPT)));
        let mut waiting = self.waiting();
        waiting.extend(kept.into_iter().map(|kept| (kept.id.clone(), kept)));
        let many = waiting.len() > WAITING_MAX;
        drop(waiting);
        if now || many {
            self.write_out(now_s);
        }
    }

    /// Writes what waits. What the disk does not take waits on.
    pub fn write_out(&self, now_s: i64) {
        if self.waiting().is_empty() {
            return;
        }
        // Whoever looks for one finds it waiting, or waits here until it is written.
        let mut connection = self.connection();
        let kept = std::mem::take(&mut *self.waiting());
        if let Err(error) = write(&mut connection, &kept, now_s) {
            log::error!("{} kept answers could not be written down, and wait: {error}", kept.len());
            let mut waiting = self.waiting();
            for (id, kept) in kept {
                // Without bound only what is to be billed is kept.
                if waiting.len() < WAITING_MAX || kept.pending.is_some() {
                    waiting.entry(id).or_insert(kept);
                }
            }
        }
    }

    /// Those that are to be billed.
    pub fn pending(&self) -> Vec<Kept> {
        let connection = self.connection();
        let read = || {
            let mut statement =
                connection.prepare_cached("SELECT id, upstream, owner, pending FROM answers WHERE pending IS NOT NULL LIMIT 10000")?;
            statement.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut found = read().unwrap_or_else(|error| {
            log::error!("answers that are to be billed cannot be read: {error}");
            vec![]
        });
        drop(connection);
        found.extend(self.waiting().values().filter(|kept| kept.pending.is_some()).cloned());
        found
    }

    /// One is billed.
    pub fn billed(&self, id: &str) {
        if let Some(kept) = self.waiting().get_mut(id) {
            kept.pending = None;
        }
        if let Err(error) = self.connection().execute("UPDATE answers SET pending = NULL WHERE id = ?", [id]) {
            log::error!("that an answer was billed could not be written down: {error}");
        }
    }

    /// Forgets what was used last before then, and was billed.
    pub fn forget(&self, before_s: i64) {
        if let Err(error) = self.connection().execute("DELETE FROM answers WHERE used_s < ? AND pending IS NULL", [before_s]) {
            log::error!("old answers could not be forgotten: {error}");
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// Asks once for an answer that another gateway has seen; from then on it is known here. Other requests of this thread
    /// are served meanwhile by another.
    fn ask_others(&self, id: &str) -> Option<Kept> {
        let (shared, runtime) = (self.shared.as_ref()?, Handle::try_current().ok()?);
        let kept = tokio::task::block_in_place(|| runtime.block_on(shared.find(id)))?;
        self.waiting().insert(kept.id.clone(), kept.clone());
        Some(kept)
    }
}

fn write(connection: &mut Connection, kept: &HashMap<String, Kept>, now_s: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for Kept { id, upstream, owner, pending } in kept.values() {
        let pending = pending.as_ref().and_then(|open| serde_json::to_string(open).ok());
        // Whose it is does not change; one that was billed stays so.
        transaction
            .prepare_cached("INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET used_s = excluded.used_s")?
            .execute(params![id, upstream, owner, now_s, pending])?;
    }
    transaction.commit()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let pending: Option<String> = row.get(3)?;
    Ok(Kept {
        id: row.get(0)?,
        upstream: row.get(1)?,
        owner: row.get(2)?,
        pending: pending.and_then(|open| serde_json::from_str(&open).ok()),
    })
}

impl Keeper for Answers {
    fn find(&self, id: &str) -> Option<Kept> {
        let waiting = self.waiting().get(id).cloned();
        let found = waiting.or_else(|| {
            let connection = self.connection();
            let found = connection
                .prepare_cached("SELECT id, upstream, owner, pending FROM answers WHERE id = ?")
                .and_then(|mut statement| statement.query_row([id], read).optional());
            found.unwrap_or_else(|error| {
                log::error!("kept answers cannot be read: {error}");
                None
            })
        });
        found.or_else(|| self.ask_others(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Open;

    fn kept(id: &str, pending: bool) -> Kept {
        let pending = pending.then(|| Box::new(Open { request_id: "r".to_owned(), ..Open::default() }));
        Kept { id: id.to_owned(), upstream: "up".to_owned(), owner: Some("key".to_owned()), pending }
    }

    #[test]
    fn remembers_across_processes_what_is_to_be_billed_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.db");
        let answers = Answers::open(&path, None).unwrap();
        answers.remember(vec![kept("a", false)], 100);
        let other = Answers::open(&path, None).unwrap();
        assert_eq!((answers.find("a"), other.find("a")), (Some(kept("a", false)), None));
        answers.remember(vec![kept("b", true)], 100);
        assert_eq!((other.find("b"), other.pending()), (Some(kept("b", true)), vec![kept("b", true)]));
        assert_eq!(other.find("a"), Some(kept("a", false)));
        // Nobody takes over what is another's.
        other.remember(vec![Kept { owner: None, ..kept("a", false) }], 200);
        other.write_out(200);
        assert_eq!(answers.find("a"), Some(kept("a", false)));
        other.forget(201);
        assert_eq!((answers.find("a"), answers.find("b")), (None, Some(kept("b", true))));
        answers.billed("b");
        assert_eq!(other.pending(), []);
        // Told again, it is not to be billed again.
        other.remember(vec![kept("b", true)], 300);
        assert_eq!(answers.pending(), []);
        other.forget(301);
        assert_eq!(other.find("b"), None);
    }

    #[test]
    fn what_the_disk_does_not_take_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.db");
        let answers = Answers::open(&path, None).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        answers.remember(vec![kept("a", true)], 100);
        assert_eq!((answers.find("a"), answers.pending()), (Some(kept("a", true)), vec![kept("a", true)]));
        answers.billed("a");
        other.execute_batch("COMMIT").unwrap();
        answers.write_out(100);
        assert!(answers.waiting().is_empty());
        assert_eq!((answers.find("a"), answers.pending()), (Some(kept("a", false)), vec![]));
    }

    #[test]
    fn what_waits_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::open(&folder.path().join("answers.db"), None).unwrap();
        (0..=WAITING_MAX).for_each(|at| answers.remember(vec![kept(&at.to_string(), false)], 1));
        assert!(answers.waiting().is_empty() && answers.find("7").is_some());
    }
}
