//! ClickHouse: a row for each line of an entry, over HTTP. A batch that comes again is known by its token, or replaced
//! when the server merges: `SELECT … FROM tollgate_lines FINAL`.

use super::post::Poster;
use super::{Cursor, CursorFile, Sink};
use crate::config::ClickHouseRules;
use crate::ledger::{Entry, Line};
use crate::price::PicoUsd;
use serde_json::{Value, json};
use std::path::Path;

/// An entry without lines has one row, of no model that served.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS tollgate_lines (
  id UUID, line UInt32, request_id String, attempt UInt32,
  started DateTime64(3, 'UTC'), first_byte Nullable(DateTime64(3, 'UTC')), ended Nullable(DateTime64(3, 'UTC')),
  provider LowCardinality(String), upstream LowCardinality(String), dialect LowCardinality(String), endpoint String,
  model_requested String, model String, stream Bool, billed Bool,
  status UInt16, outcome LowCardinality(String), error String, faults Array(String), source LowCardinality(String),
  key String, key_name String, org String, project String, end_user String, tags Array(String), credential String,
  bytes_in UInt64, bytes_out UInt64, catalog LowCardinality(String), provider_cost String, response_id String,
  model_served String, service_tier LowCardinality(String), region LowCardinality(String), usage Map(String, UInt64),
  markup String, usd Decimal(38, 12), unpriced Array(String), cause String,
  unknown Array(String), complete Bool, free String
) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(started) ORDER BY (started, id, line)
SETTINGS non_replicated_deduplication_window = 1000";

const INSERT: &str = "INSERT INTO tollgate_lines SETTINGS async_insert = 0 FORMAT JSONEachRow";

/// Columns that tables of earlier versions do not have.
pub const COLUMNS: &str = "ALTER TABLE tollgate_lines ADD COLUMN IF NOT EXISTS cause String,
  ADD COLUMN IF NOT EXISTS unknown Array(String), ADD COLUMN IF NOT EXISTS complete Bool, ADD COLUMN IF NOT EXISTS free String";

/// The server.
pub struct ClickHouse {
    rules: ClickHouseRules,
    poster: Poster,
    cursor: CursorFile,
    /// The table is there.
    ready: bool,
}

impl ClickHouse {
    /// # Errors
    /// Says why nothing can be posted from here.
    pub fn open(rules: &ClickHouseRules, folder: &Path) -> Result<Self, String> {
        Ok(Self { rules: rules.clone(), poster: Poster::new()?, cursor: CursorFile::new(folder.join("clickhouse.json")), ready: false })
    }

    fn run(&self, query: &str, token: Option<&str>, body: String) -> Result<(), String> {
        let token = token.map(|token| ("insert_deduplication_token", token));
        let mut request = self.poster.client.post(&self.rules.url).body(body);
        request = request.query(&[("database", self.rules.database.as_str()), ("query", query)]).query(token.as_slice());
        if let Some(user) = &self.rules.user {
            request = request.header("x-clickhouse-user", user);
        }
        if let Some(password) = &self.rules.password {
            request = request.header("x-clickhouse-key", password.expose());
        }
        self.poster.send(request)
    }
}

impl Sink for ClickHouse {
    fn cursor(&mut self) -> Result<Cursor, String> {
        self.cursor.read()
    }

    fn put(&mut self, entries: &[Entry], cursor: Option<&Cursor>) -> Result<(), String> {
        if !self.ready {
            self.run(TABLE, None, String::new())?;
            self.run(COLUMNS, None, String::new())?;
            self.ready = true;
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            let rows: Vec<String> = entries.iter().flat_map(rows).map(|row| row.to_string()).collect();
            // The same batch has the same token.
            let token = format!("{}-{}-{}", first.id, last.id, entries.len());
            self.run(INSERT, Some(&token), rows.join("\n"))?;
        }
        cursor.map_or(Ok(()), |cursor| self.cursor.write(cursor))
    }
}

/// The rows of an entry.
fn rows(entry: &Entry) -> Vec<Value> {
    let none = [Line::default()];
    let lines = entry.used.as_ref().map(|used| used.lines.as_slice()).filter(|lines| !lines.is_empty()).unwrap_or(&none);
    lines.iter().enumerate().map(|(at, line)| row(entry, at, line)).collect()
}

fn row(entry: &Entry, at: usize, line: &Line) -> Value {
    let Entry { id, open, used, close } = entry;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let used = used.as_ref();
    json!({
        "id": id, "line": at, "request_id": open.request_id, "attempt": open.attempt,
        "started": time(open.start_ms),
        "first_byte": close.as_ref().and_then(|close| close.first_byte_ms).map(time),
        "ended": close.as_ref().map(|close| time(close.end_ms)),
        "provider": open.provider, "upstream": open.upstream, "dialect": open.dialect, "endpoint": open.endpoint,
        "model_requested": open.model_requested, "model": open.model, "stream": open.stream, "billed": open.billed,
        "status": close.as_ref().map_or(0, |close| close.status), "outcome": entry.outcome().name(),
        "error": close.as_ref().and_then(|close| close.error.clone()).unwrap_or_default(),
        "faults": close.as_ref().map(|close| close.faults.clone()).unwrap_or_default(),
        "source": used.map_or("", |used| used.source.name()),
        "key": text(&open.key), "key_name": text(&open.key_name), "org": text(&open.org), "project": text(&open.project),
        "end_user": text(&open.user), "tags": open.tags, "credential": text(&open.credential),
        "bytes_in": open.bytes_in, "bytes_out": close.as_ref().map_or(0, |close| close.bytes_out),
        "catalog": used.map(|used| used.catalog.clone()).unwrap_or_default(),
        "provider_cost": used.and_then(|used| used.provider_cost.clone()).unwrap_or_default(),
        "response_id": used.map(|used| used.response_id.clone()).unwrap_or_default(),
        "model_served": line.model, "service_tier": line.service_tier, "region": line.region, "usage": line.usage,
        "markup": text(&line.markup), "usd": dollars(line.charge), "unpriced": line.unpriced,
        "unknown": used.map(|used| used.unknown.clone()).unwrap_or_default(),
        "complete": close.as_ref().is_some_and(|close| close.complete), "free": text(&line.free),
        "cause": close.as_ref().and_then(|close| close.cause.clone()).unwrap_or_default(),
    })
}

/// Seconds since 1970 with three digits behind the point, as every reader of `DateTime64(3)` takes them.
fn time(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn dollars(charge: PicoUsd) -> String {
    charge.to_string()
}
