//! Whose the answers are that providers keep, and which of them are yet to be billed: a small database, beside the ledger,
//! that several processes may use. What is to be billed is on disk before its caller hears of it; the rest follows.

use super::shared::Shared;
use super::state::now_s;
use crate::error::Error;
use crate::exchange::stored_response::{ObjectStore, StoredObject};
use crate::sink::copies::{is_damage, open_or_replace, replace};
use crate::sink::sqlite::file_of;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

const DAY_S: i64 = 86_400;
/// Remembered for so long after they were last used: providers keep answers for thirty days.
/// <https://platform.openai.com/docs/guides/your-data>
const KEPT_S: i64 = 35 * DAY_S;
/// Conversations, which providers keep until they are deleted.
/// <https://platform.openai.com/docs/guides/conversation-state>
const CONVERSATION_KEPT_S: i64 = 2 * 365 * DAY_S;
/// How the names of conversations begin.
const CONVERSATION: &str = "conv_";
/// Between an upstream and an object's id: files and the like, which providers keep until they are deleted, too.
const OBJECT: char = '/';
/// Forgotten at once; others wait for the database meanwhile.
const FORGOTTEN_TOGETHER: usize = 1000;
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
    path: PathBuf,
    /// The device and the inode of the file that is open.
    file: Mutex<Option<(u64, u64)>>,
    outlasts_power: bool,
    /// Not on disk yet.
    waiting: Mutex<HashMap<String, StoredObject>>,
    /// Who knows those of other gateways, and hears of ours.
    shared: Option<Arc<Shared>>,
    /// The failure that was logged last.
    said: Mutex<String>,
    /// Why some could not be read when that was last tried; told once, since it is tried every second.
    unread: Mutex<Vec<String>>,
}

impl Answers {
    /// `outlasts_power`: what is to be billed is on the disk itself before its caller hears of it.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub fn open(path: &Path, shared: Option<Arc<Shared>>, outlasts_power: bool) -> Result<Self, String> {
        let connection = open_or_replace(path, LOST, || connect(path, outlasts_power))?;
        Ok(Self {
            connection: Mutex::new(connection),
            path: path.to_owned(),
            file: Mutex::new(file_of(path)),
            outlasts_power,
            waiting: Mutex::default(),
            shared,
            said: Mutex::default(),
            unread: Mutex::default(),
        })
    }

    /// Replaces a database that turns out to be damaged by a fresh one.
    fn heal(&self, error: &rusqlite::Error) {
        if !is_damage(error) {
            return;
        }
        let mut connection = self.connection();
        match replace(&self.path, LOST, error, || connect(&self.path, self.outlasts_power)) {
            Ok(fresh) => self.reopened(&mut connection, fresh),
            Err(why) => log::error!("{}: {error}, and it cannot be replaced: {why}", self.path.display()),
        }
    }

    fn reopened(&self, connection: &mut Connection, fresh: Connection) {
        *connection = fresh;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file_of(&self.path);
    }

    /// Restores the database if its file was removed while it was open: the open file still has all of it. A file that
    /// was put in its place is opened as it is.
    fn restore(&self) {
        let file = file_of(&self.path);
        if file == *self.file.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        let path = self.path.display();
        let mut connection = self.connection();
        let copied = match file {
            None => connection.execute("VACUUM INTO ?", [self.path.to_string_lossy()]).map(drop),
            // The log beside the file is of the old one: emptied, or it would be read into the new one.
            Some(_) => connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"),
        };
        match copied.and_then(|()| connect(&self.path, self.outlasts_power)) {
            Ok(fresh) if file.is_none() => {
                self.reopened(&mut connection, fresh);
                log::error!("{path} was removed while in use; it was restored");
            }
            Ok(fresh) => {
                self.reopened(&mut connection, fresh);
                log::error!("{path} was replaced while in use; the new file is used");
            }
            Err(error) => self.say_once(&format!("{path} was removed or replaced while in use and cannot be restored: {error}")),
        }
    }

    /// Logs a failure, once until another one occurs.
    fn say_once(&self, why: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != why {
            log::error!("{why}");
            why.clone_into(&mut said);
        }
    }

    /// Remembers answers: those that are to be billed before this returns, if the disk takes them.
    pub fn remember(&self, kept: Vec<StoredObject>, now_s: i64) {
        let kept: Vec<_> = kept.into_iter().filter(|kept| !self.is_of_another(kept)).collect();
        let now = kept.iter().any(|kept| kept.pending.is_some());
        self.shared.iter().for_each(|shared| kept.iter().for_each(|kept| shared.keep(kept, kept_for(&kept.id))));
        let mut waiting = self.waiting();
        for kept in kept {
            let known = waiting.entry(kept.id.clone()).or_insert_with(|| kept.clone());
            // Whoever owns it stays its owner.
            known.pending = known.pending.take().or(kept.pending);
        }
        let many = waiting.len() > WAITING_MAX;
        drop(waiting);
        if now || many {
            self.write_out(now_s);
        }
    }

    /// True if another client owns an object already. A provider gives each object an id of its own: this one is not new.
    fn is_of_another(&self, kept: &StoredObject) -> bool {
        const OWNER: &str = "SELECT upstream, owner FROM answers WHERE id = ?";
        let of_another = |upstream: &str, owner: Option<&str>| upstream != kept.upstream || owner != kept.owner.as_deref();
        if let Some(known) = self.waiting().get(&kept.id) {
            return of_another(&known.upstream, known.owner.as_deref());
        }
        // Ids of responses, which are stored much more often, come from the provider alone.
        if !kept.id.contains(OBJECT) {
            return false;
        }
        let connection = self.connection();
        let known = connection.prepare_cached(OWNER).and_then(|mut statement| {
            statement
                .query_row([&kept.id], |row| Ok(of_another(&row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?.as_deref())))
                .optional()
        });
        matches!(known, Ok(Some(true)))
    }

    /// Writes what waits. What the disk does not take waits on.
    pub fn write_out(&self, now_s: i64) {
        self.restore();
        if self.waiting().is_empty() {
            return;
        }
        // Whoever looks for one finds it waiting, or waits here until it is written.
        let mut connection = self.connection();
        let kept = std::mem::take(&mut *self.waiting());
        if let Err(error) = write(&mut connection, &kept, now_s) {
            self.say_once(&format!("stored responses could not be written down, and wait: {error}"));
            drop(connection);
            self.heal(&error);
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
    pub fn pending(&self) -> Vec<StoredObject> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<_>> {
            let mut statement =
                connection.prepare_cached("SELECT id, upstream, owner, pending FROM answers WHERE pending IS NOT NULL LIMIT 10000")?;
            Ok(statement.query_map([], read)?.collect())
        };
        let (mut found, mut unread) = (vec![], vec![]);
        match read() {
            Ok(rows) => rows.into_iter().for_each(|row| match row {
                Ok(kept) => found.push(kept),
                Err(error) => unread.push(format!("the bill of an answer cannot be read: {error}")),
            }),
            Err(error) => unread.push(format!("answers that are to be billed cannot be read: {error}")),
        }
        drop(connection);
        let before = std::mem::replace(&mut *self.unread.lock().unwrap_or_else(PoisonError::into_inner), unread.clone());
        unread.iter().filter(|why| !before.contains(why)).for_each(|why| log::error!("{why}"));
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

    /// Forgets what was not used for long, and was billed.
    pub fn forget(&self, now_s: i64) {
        const FORGET: &str = "DELETE FROM answers WHERE id IN (SELECT id FROM answers
            WHERE used_s < ?1 AND pending IS NULL AND (used_s < ?2 OR (substr(id, 1, length(?3)) != ?3 AND instr(id, '/') = 0)) LIMIT ?4)";
        let before = params![now_s - KEPT_S, now_s - CONVERSATION_KEPT_S, CONVERSATION, FORGOTTEN_TOGETHER];
        loop {
            match self.connection().execute(FORGET, before) {
                Ok(FORGOTTEN_TOGETHER) => {}
                Ok(_) => return,
                Err(error) => return log::error!("old answers could not be forgotten: {error}"),
            }
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, StoredObject>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// Asks once for an answer that another gateway has seen; from then on it is known here. Other requests of this thread
    /// are served meanwhile by another.
    fn ask_others(&self, id: &str) -> Result<Option<StoredObject>, Error> {
        let Some((shared, runtime)) = self.shared.as_ref().zip(Handle::try_current().ok()) else { return Ok(None) };
        let kept = tokio::task::block_in_place(|| runtime.block_on(shared.find(id)))?;
        if let Some(kept) = &kept {
            shared.keep(kept, kept_for(&kept.id));
            self.waiting().insert(kept.id.clone(), kept.clone());
        }
        Ok(kept)
    }

    /// One that was used is remembered longer; once a day is enough.
    fn renew(&self, kept: &StoredObject, used_s: i64, now_s: i64) {
        if now_s - used_s < DAY_S {
            return;
        }
        self.shared.iter().for_each(|shared| shared.keep(kept, kept_for(&kept.id)));
        if let Err(error) = self.connection().execute("UPDATE answers SET used_s = ? WHERE id = ?", params![now_s, kept.id]) {
            log::error!("that an answer was used could not be written down: {error}");
        }
    }
}

/// What is lost with a damaged database.
const LOST: &str = "the gateway no longer knows who owns the stored responses and objects in it, and answers 404 for them; \
                    background responses in it are not billed unless they are fetched";

fn connect(path: &Path, outlasts_power: bool) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if outlasts_power { "FULL" } else { "NORMAL" })?;
    connection.execute_batch(TABLE)?;
    Ok(connection)
}

fn kept_for(id: &str) -> Duration {
    let seconds = if id.starts_with(CONVERSATION) || id.contains(OBJECT) { CONVERSATION_KEPT_S } else { KEPT_S };
    Duration::from_secs(seconds.unsigned_abs())
}

fn write(connection: &mut Connection, kept: &HashMap<String, StoredObject>, now_s: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for StoredObject { id, upstream, owner, pending } in kept.values() {
        let pending = pending.as_ref().and_then(|open| serde_json::to_string(open).ok());
        // Whose it is does not change; one that was billed stays so.
        transaction
            .prepare_cached("INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET used_s = excluded.used_s")?
            .execute(params![id, upstream, owner, now_s, pending])?;
    }
    transaction.commit()
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredObject> {
    let (id, pending): (String, Option<String>) = (row.get(0)?, row.get(3)?);
    let pending = pending.map(|open| serde_json::from_str(&open)).transpose();
    let named = |error| Box::from(format!("{id}: {error}"));
    let pending = pending.map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, named(error)))?;
    Ok(StoredObject { id, upstream: row.get(1)?, owner: row.get(2)?, pending })
}

impl ObjectStore for Answers {
    fn find(&self, id: &str) -> Result<Option<StoredObject>, Error> {
        if let Some(kept) = self.waiting().get(id) {
            return Ok(Some(kept.clone()));
        }
        let found = self
            .connection()
            .prepare_cached("SELECT id, upstream, owner, pending, used_s FROM answers WHERE id = ?")
            .and_then(|mut statement| statement.query_row([id], |row| Ok((read(row)?, row.get(4)?))).optional());
        match found {
            Ok(Some((kept, used_s))) => {
                self.renew(&kept, used_s, now_s());
                Ok(Some(kept))
            }
            Ok(None) => self.ask_others(id),
            Err(error) => {
                log::error!("stored responses cannot be read: {error}");
                self.heal(&error);
                Err(Error::AnswersUnknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Open;

    fn kept(id: &str, pending: bool) -> StoredObject {
        let pending = pending.then(|| Box::new(Open { request_id: "r".to_owned(), ..Open::default() }));
        StoredObject { id: id.to_owned(), upstream: "up".to_owned(), owner: Some("key".to_owned()), pending }
    }

    #[test]
    fn remembers_across_processes_what_is_to_be_billed_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.db");
        let at = now_s();
        let answers = Answers::open(&path, None, false).unwrap();
        answers.remember(vec![kept("a", false)], at);
        let other = Answers::open(&path, None, false).unwrap();
        assert_eq!((answers.find("a").unwrap(), other.find("a").unwrap()), (Some(kept("a", false)), None));
        answers.remember(vec![kept("b", true)], at);
        assert_eq!((other.find("b").unwrap(), other.pending()), (Some(kept("b", true)), vec![kept("b", true)]));
        assert_eq!(other.find("a").unwrap(), Some(kept("a", false)));
        // Nobody takes over what is another's, before or after it is written.
        let taken = |answers: &Answers, id: &str| {
            answers.remember(vec![kept(id, false)], at);
            answers.remember(vec![StoredObject { owner: Some("thief".to_owned()), ..kept(id, false) }], at);
            answers.find(id).unwrap().unwrap().owner
        };
        assert_eq!(["up/file-1", "resp_2"].map(|id| taken(&answers, id)), [Some("key".to_owned()), Some("key".to_owned())]);
        answers.write_out(at);
        assert_eq!(taken(&other, "up/file-1").as_deref(), Some("key"));
        other.remember(vec![StoredObject { owner: None, ..kept("a", false) }], at + 100);
        other.write_out(at + 100);
        assert_eq!(answers.find("a").unwrap(), Some(kept("a", false)));
        other.forget(at + 101 + KEPT_S);
        assert_eq!((answers.find("a").unwrap(), answers.find("b").unwrap()), (None, Some(kept("b", true))));
        answers.billed("b");
        assert_eq!(other.pending(), []);
        // Told again, it is not to be billed again.
        other.remember(vec![kept("b", true)], at + 200);
        assert_eq!(answers.pending(), []);
        other.forget(at + 201 + KEPT_S);
        assert_eq!(other.find("b").unwrap(), None);
    }

    #[test]
    fn removed_database_is_restored_and_replaced_database_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.db");
        let at = now_s();
        let answers = Answers::open(&path, None, false).unwrap();
        answers.remember(vec![kept("a", false), kept("b", true)], at);
        for file in ["answers.db", "answers.db-wal", "answers.db-shm"] {
            let _ = std::fs::remove_file(folder.path().join(file));
        }
        answers.remember(vec![kept("c", true)], at);
        let other = Answers::open(&path, None, false).unwrap();
        assert_eq!(["a", "b", "c"].map(|id| other.find(id).unwrap().is_some()), [true; 3]);
        drop(other);
        let fresh = folder.path().join("fresh.db");
        Answers::open(&fresh, None, false).unwrap().remember(vec![kept("d", true)], at);
        std::fs::rename(&fresh, &path).unwrap();
        answers.write_out(at);
        assert_eq!(["b", "d"].map(|id| answers.find(id).unwrap().is_some()), [false, true]);
    }

    #[test]
    fn what_is_used_is_remembered_and_conversations_longer() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::open(&folder.path().join("answers.db"), None, true).unwrap();
        let now = now_s();
        let many: Vec<_> = (0..=FORGOTTEN_TOGETHER).map(|at| kept(&format!("resp_{at}"), false)).collect();
        answers.remember([many, vec![kept("resp_used", false), kept("conv_1", false), kept("due", true)]].concat(), now - KEPT_S);
        assert!(answers.find("resp_used").unwrap().is_some());
        answers.forget(now + DAY_S);
        let known = ["resp_0", "resp_1000", "resp_used", "conv_1", "due"].map(|id| answers.find(id).unwrap().is_some());
        assert_eq!(known, [false, false, true, true, true]);
        answers.forget(now + CONVERSATION_KEPT_S + DAY_S);
        assert_eq!(answers.find("conv_1").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_neither_unknown_nor_billed() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::open(&folder.path().join("answers.db"), None, false).unwrap();
        answers.remember(vec![kept("good", true), kept("bad", true)], 100);
        answers.connection().execute("UPDATE answers SET pending = '{' WHERE id = 'bad'", []).unwrap();
        assert_eq!(answers.find("bad"), Err(Error::AnswersUnknown));
        assert_eq!(answers.pending(), vec![kept("good", true)]);
    }

    #[test]
    fn what_the_disk_does_not_take_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.db");
        let answers = Answers::open(&path, None, false).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        answers.remember(vec![kept("a", true)], 100);
        assert_eq!((answers.find("a").unwrap(), answers.pending()), (Some(kept("a", true)), vec![kept("a", true)]));
        answers.billed("a");
        other.execute_batch("COMMIT").unwrap();
        answers.write_out(100);
        assert!(answers.waiting().is_empty());
        assert_eq!((answers.find("a").unwrap(), answers.pending()), (Some(kept("a", false)), vec![]));
    }

    #[test]
    fn what_waits_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::open(&folder.path().join("answers.db"), None, false).unwrap();
        (0..=WAITING_MAX).for_each(|at| answers.remember(vec![kept(&at.to_string(), false)], 1));
        assert!(answers.waiting().is_empty() && answers.find("7").unwrap().is_some());
    }
}
