//! SQLite: entries and their lines in a file beside the ledger, which `tollgate usage` and any SQL can ask. The cursor lies
//! in the same database and moves with what it stands for, so that nothing is taken twice.

mod entry;
mod row;

pub use row::Row;

use super::{Cursor, Sink};
use crate::ledger::Entry;
use crate::price::PicoUsd;
use rusqlite::{Connection, OpenFlags, Transaction, params};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the tables look like; a database that has fewer steps behind it takes the missing ones.
const MIGRATIONS: &[&str] = &["
CREATE TABLE entries (
  id TEXT PRIMARY KEY, request_id TEXT NOT NULL, attempt INTEGER NOT NULL,
  start_ms INTEGER NOT NULL, first_byte_ms INTEGER, end_ms INTEGER,
  provider TEXT NOT NULL, upstream TEXT NOT NULL, dialect TEXT NOT NULL, endpoint TEXT NOT NULL,
  model_requested TEXT NOT NULL, model TEXT NOT NULL, stream INTEGER NOT NULL, billed INTEGER NOT NULL,
  status INTEGER, outcome TEXT NOT NULL, error TEXT, faults TEXT NOT NULL, source TEXT,
  key TEXT, key_name TEXT, org TEXT, project TEXT, end_user TEXT, tags TEXT NOT NULL, credential TEXT, bytes_in INTEGER NOT NULL, bytes_out INTEGER,
  catalog TEXT, provider_cost TEXT, response_id TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_start ON entries (start_ms);
CREATE INDEX entries_request ON entries (request_id);
CREATE TABLE lines (
  entry TEXT NOT NULL, line INTEGER NOT NULL, model TEXT NOT NULL, service_tier TEXT NOT NULL, region TEXT NOT NULL,
  usage TEXT NOT NULL, markup TEXT, micro_usd INTEGER NOT NULL, pico_usd INTEGER NOT NULL, unpriced TEXT NOT NULL,
  PRIMARY KEY (entry, line)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (segment TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
", "
ALTER TABLE entries ADD COLUMN cause TEXT;
", "
ALTER TABLE entries ADD COLUMN unknown TEXT NOT NULL DEFAULT '[]';
ALTER TABLE entries ADD COLUMN complete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lines ADD COLUMN free TEXT;
UPDATE entries SET complete = 1 WHERE end_ms IS NOT NULL AND (
  billed = 0
  OR ((status >= 400 OR outcome = 'upstream_error') AND NOT EXISTS (SELECT 1 FROM lines WHERE entry = entries.id))
  OR (source = 'reported' AND faults = '[]' AND NOT EXISTS (SELECT 1 FROM lines WHERE entry = entries.id AND unpriced <> '[]')));
"];

/// A charge is kept in two columns, whole millionths of a dollar and what is left in pico-dollars, so that sums over
/// either stay exact far beyond what one integer of 64 bits could hold.
const MICRO: i128 = 1_000_000;

/// What is lost with a damaged database.
const REBUILT: &str = "it is rebuilt from the ledger; entries whose segments `ledger.keep` has removed are in the old file alone";

/// The database, and the cursor that was last written to it.
pub struct Sqlite {
    connection: Connection,
    cursor: Cursor,
    path: PathBuf,
    /// Device and number of the file that was opened, which may be deleted or replaced meanwhile.
    file: Option<(u64, u64)>,
}

pub fn file_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

impl Sqlite {
    /// Opens it to be fed, and makes it if need be. A damaged one is set aside.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub fn open(path: &Path) -> Result<Self, String> {
        let (connection, cursor, done) = super::copies::open_or_replace(path, REBUILT, || connect(path))?;
        if done > MIGRATIONS.len() {
            return Err(format!("{}: made by a newer tollgate", path.display()));
        }
        Ok(Self { connection, cursor, path: path.to_owned(), file: file_of(path) })
    }

    /// Sets it aside if it turns out to be damaged, so that the next start of the sink makes a fresh one.
    fn failed(&self, error: &rusqlite::Error) -> String {
        if !super::copies::is_damage(error) {
            return error.to_string();
        }
        match super::copies::set_aside(&self.path) {
            Ok(aside) => format!("{error}. It was set aside as {}: {REBUILT}", aside.display()),
            Err(why) => format!("{error}, and it cannot be set aside: {why}"),
        }
    }

    /// Opens it to be asked alone, as it is at the first question; `None` if it is not there.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub fn open_read_only(path: &Path) -> Result<Option<Self>, String> {
        if !path.exists() {
            return Ok(None);
        }
        let told = |error: rusqlite::Error| format!("{}: {error}", path.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(told)?;
        let done: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(told)?;
        match done {
            0 => Ok(None),
            // Newer versions only add.
            done if done >= MIGRATIONS.len() => {
                // One view of it all: what is taken meanwhile is not there yet, and is found in the ledger.
                connection.execute_batch("BEGIN").map_err(told)?;
                Ok(Some(Self { connection, cursor: Cursor::new(), path: path.to_owned(), file: None }))
            }
            _ => Err(format!("{}: made by an older tollgate, and not brought up to date", path.display())),
        }
    }

    /// How far it has got, and each entry that began at `since` or later with its lines.
    ///
    /// # Errors
    /// Says why it cannot be read.
    pub fn read(&self, since: Option<u64>, mut on: impl FnMut(Row)) -> Result<Cursor, String> {
        let told = |error: rusqlite::Error| error.to_string();
        let cursor = cursor(&self.connection).map_err(told)?;
        let mut statement = self.connection.prepare(row::ROWS).map_err(told)?;
        let mut rows = statement.query([since.and_then(|since| i64::try_from(since).ok()).unwrap_or(0)]).map_err(told)?;
        while let Some(row) = rows.next().map_err(told)? {
            on(Row::of(row).map_err(told)?);
        }
        Ok(cursor)
    }

    /// True if all that [`Sqlite::read`] would hand out can be read.
    pub fn is_readable(&self, since: Option<u64>) -> bool {
        let read = || -> rusqlite::Result<()> {
            let mut statement = self.connection.prepare(row::ROWS)?;
            let mut rows = statement.query([since.and_then(|since| i64::try_from(since).ok()).unwrap_or(0)])?;
            while let Some(row) = rows.next()? {
                Row::of(row)?;
            }
            cursor(&self.connection).map(drop)
        };
        read().is_ok()
    }

    /// The entries of a request, and how far the database has got.
    ///
    /// # Errors
    /// Says why it cannot be read.
    pub fn request(&self, id: &str) -> Result<(Vec<Entry>, Cursor), String> {
        let told = |error: rusqlite::Error| error.to_string();
        let cursor = cursor(&self.connection).map_err(told)?;
        let mut statement = self.connection.prepare("SELECT * FROM entries WHERE request_id = ? ORDER BY attempt").map_err(told)?;
        let entries = statement.query_map([id], |row| entry::read(row, &self.connection)).map_err(told)?;
        Ok((entries.collect::<rusqlite::Result<_>>().map_err(told)?, cursor))
    }

    /// True if an entry of this id has been taken.
    ///
    /// # Errors
    /// Says why it cannot be read.
    pub fn has(&self, id: &str) -> Result<bool, String> {
        let found = self.connection.prepare_cached("SELECT 1 FROM entries WHERE id = ?").and_then(|mut found| found.exists([id]));
        found.map_err(|error| error.to_string())
    }
}

/// Opens a database and brings it up to date; how far it has got, and how many steps it has behind it.
fn connect(path: &Path) -> rusqlite::Result<(Connection, Cursor, usize)> {
    let mut connection = Connection::open(path)?;
    // Readers do not wait for the writer. What a loss of power takes comes again: the cursor is in there, too.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    let done: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (step, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", step + 1)?;
        transaction.commit()?;
    }
    let cursor = if done > MIGRATIONS.len() { Cursor::new() } else { cursor(&connection)? };
    Ok((connection, cursor, done))
}

/// A charge out of its two columns.
fn charge(micro: i64, pico: i64) -> PicoUsd {
    PicoUsd(i128::from(micro) * MICRO + i128::from(pico))
}

fn not_json(column: usize, error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn cursor(connection: &Connection) -> rusqlite::Result<Cursor> {
    let mut statement = connection.prepare("SELECT segment, bytes FROM cursor")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

impl Sink for Sqlite {
    fn cursor(&mut self) -> Result<Cursor, String> {
        Ok(self.cursor.clone())
    }

    /// An operator may delete or replace the file, to have it made anew.
    fn check(&mut self) -> Result<(), String> {
        if file_of(&self.path) == self.file {
            return Ok(());
        }
        Err(format!("{} was removed or replaced; it is opened again", self.path.display()))
    }

    fn put(&mut self, entries: &[Entry], cursor: Option<&Cursor>) -> Result<(), String> {
        let mut put = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            for entry in entries {
                insert(&transaction, entry)?;
            }
            if let Some(cursor) = cursor {
                let mut gone = transaction.prepare_cached("DELETE FROM cursor WHERE segment = ?")?;
                for segment in self.cursor.keys().filter(|segment| !cursor.contains_key(*segment)) {
                    gone.execute([segment])?;
                }
                let mut place = transaction.prepare_cached("INSERT OR REPLACE INTO cursor VALUES (?, ?)")?;
                for (segment, bytes) in cursor.iter().filter(|(segment, bytes)| self.cursor.get(*segment) != Some(bytes)) {
                    place.execute(params![segment, bytes])?;
                }
            }
            transaction.commit()
        };
        if let Err(error) = put() {
            return Err(self.failed(&error));
        }
        if let Some(cursor) = cursor {
            self.cursor.clone_from(cursor);
        }
        Ok(())
    }
}

fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let (open, close, used) = (&entry.open, entry.close.as_ref(), entry.used.as_ref());
    let json = |list: &[String]| serde_json::Value::from(list).to_string();
    // What comes again is the same.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
    )?;
    let new = statement.execute(params![
        entry.id,
        open.request_id,
        open.attempt,
        open.start_ms,
        close.and_then(|close| close.first_byte_ms),
        close.map(|close| close.end_ms),
        open.provider,
        open.upstream,
        open.dialect,
        open.endpoint,
        open.model_requested,
        open.model,
        open.stream,
        open.billed,
        close.map(|close| close.status),
        entry.outcome().name(),
        close.and_then(|close| close.error.as_deref()),
        json(close.map(|close| close.faults.as_slice()).unwrap_or_default()),
        used.map(|used| used.source.name()),
        open.key,
        open.key_name,
        open.org,
        open.project,
        open.user,
        json(&open.tags),
        open.credential,
        open.bytes_in,
        close.map(|close| close.bytes_out),
        used.map(|used| used.catalog.as_str()),
        used.and_then(|used| used.provider_cost.as_deref()),
        used.map(|used| used.response_id.as_str()),
        close.and_then(|close| close.cause.as_deref()),
        json(used.map(|used| used.unknown.as_slice()).unwrap_or_default()),
        close.is_some_and(|close| close.complete),
    ])?;
    if new == 0 {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached("INSERT INTO lines VALUES (?,?,?,?,?,?,?,?,?,?,?)")?;
    for (at, line) in used.map(|used| used.lines.as_slice()).unwrap_or_default().iter().enumerate() {
        let usage = serde_json::to_string(&line.usage).unwrap_or_default();
        // Beyond nine trillion dollars a line is no line.
        let (micro, pico) = (line.charge.0.div_euclid(MICRO), line.charge.0.rem_euclid(MICRO));
        let micro = i64::try_from(micro).unwrap_or(i64::MAX);
        let pico = i64::try_from(pico).unwrap_or(0);
        statement.execute(params![
            entry.id,
            at,
            line.model,
            line.service_tier,
            line.region,
            usage,
            line.markup,
            micro,
            pico,
            json(&line.unpriced),
            line.free
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Close, Line, Open, Outcome, Source, Used};
    use crate::usage::Dimension;

    fn entry(id: &str, charges: &[i128]) -> Entry {
        let line = |charge: &i128| Line {
            model: "m".to_owned(),
            usage: [(Dimension::Input, 7), (Dimension::Output, 2)].into_iter().collect(),
            charge: PicoUsd(*charge),
            unpriced: vec!["web_search".to_owned()],
            free: Some("refusal".to_owned()),
            ..Line::default()
        };
        let open = Open {
            request_id: "r".to_owned(),
            attempt: 1,
            start_ms: 5,
            provider: "p".to_owned(),
            upstream: "u".to_owned(),
            dialect: "chat".to_owned(),
            endpoint: "/e".to_owned(),
            model_requested: "m".to_owned(),
            model: "m".to_owned(),
            stream: false,
            bytes_in: 1,
            billed: true,
            key: None,
            key_name: None,
            org: Some("acme".to_owned()),
            project: Some("shop".to_owned()),
            user: Some("u".to_owned()),
            tags: vec!["a".to_owned(), "b\"".to_owned()],
            credential: None,
        };
        let used = Used {
            reading: 1,
            source: Source::Reported,
            lines: charges.iter().map(line).collect(),
            total: charges.iter().map(|charge| PicoUsd(*charge)).sum(),
            catalog: "c".to_owned(),
            provider_cost: None,
            response_id: String::new(),
            unknown: vec!["usage.quantum_tokens".to_owned()],
        };
        let close = Close {
            end_ms: 9,
            first_byte_ms: Some(6),
            status: 200,
            outcome: Outcome::Ok,
            error: None,
            cause: None,
            faults: vec![],
            bytes_out: 1,
            metered: true,
            last_reading: Some(1),
            complete: true,
        };
        Entry { id: id.to_owned(), open, used: Some(used), close: Some(close) }
    }

    fn rows(path: &Path) -> (Vec<Row>, Cursor) {
        let mut rows = vec![];
        let cursor = Sqlite::open_read_only(path).unwrap().unwrap().read(None, |row| rows.push(row)).unwrap();
        (rows, cursor)
    }

    #[test]
    fn takes_each_entry_once_and_every_charge_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        assert!(Sqlite::open_read_only(&path).unwrap().is_none());
        // More than an integer of 64 bits holds, less than nothing, and nothing.
        let entries = [entry("a", &[i128::from(i64::MAX) * 1000 + 7, 1]), entry("b", &[-1_000_001]), entry("c", &[])];
        let cursor = Cursor::from([("1.jsonl".to_owned(), 12)]);
        for _ in 0..2 {
            let mut sqlite = Sqlite::open(&path).unwrap();
            sqlite.put(&entries, Some(&cursor)).unwrap();
            sqlite.put(&entries[..1], None).unwrap();
            assert_eq!(sqlite.cursor().unwrap(), cursor);
            assert!(sqlite.has("a").unwrap() && !sqlite.has("z").unwrap());
        }
        let (rows, read) = rows(&path);
        let mut want: Vec<Row> = entries.iter().flat_map(Row::of_entry).collect();
        want.iter_mut().flat_map(|row| &mut row.line).for_each(|(_, line)| line.service_tier = String::new());
        assert_eq!((rows, read), (want, cursor));
        let sum: i64 = Sqlite::open(&path).unwrap().connection.query_row("SELECT sum(micro_usd) FROM lines", [], |row| row.get(0)).unwrap();
        assert_eq!(sum, i64::MAX / 1000 - 2);
    }

    #[test]
    fn gives_back_the_entries_of_a_request_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = Sqlite::open(&folder.path().join("usage.db")).unwrap();
        let mut interrupted = Entry { close: None, used: None, ..entry("b", &[]) };
        interrupted.open.attempt = 2;
        let entries = [entry("a", &[7, -1]), interrupted];
        sqlite.put(&entries, None).unwrap();
        let (mut found, _) = sqlite.request("r").unwrap();
        // What only folding needs is not kept.
        for entry in &mut found {
            entry.used.iter_mut().for_each(|used| used.reading = 1);
            entry.close.iter_mut().for_each(|close| close.last_reading = Some(1));
        }
        assert_eq!(found, entries);
        assert_eq!(sqlite.request("other").unwrap().0, []);
    }

    #[test]
    fn asks_from_a_time_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        Sqlite::open(&path).unwrap().put(&[entry("a", &[1])], None).unwrap();
        for (since, found) in [(None, 1), (Some(5), 1), (Some(6), 0)] {
            let mut count = 0;
            Sqlite::open_read_only(&path).unwrap().unwrap().read(since, |_| count += 1).unwrap();
            assert_eq!(count, found, "{since:?}");
        }
    }

    #[test]
    fn writes_to_no_newer_database_and_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        Sqlite::open(&path).unwrap().connection.pragma_update(None, "user_version", MIGRATIONS.len() + 1).unwrap();
        assert!(Sqlite::open(&path).is_err() && Sqlite::open_read_only(&path).unwrap().is_some());
    }
}
