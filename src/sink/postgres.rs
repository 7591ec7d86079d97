//! PostgreSQL: entries and their lines in two tables, which several gateways may share. A batch goes in as one document
//! and the server takes it apart; what it has already it leaves as it is.

use super::{Cursor, CursorFile, Sink};
use crate::config::PostgresRules;
use crate::ledger::Entry;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// To reach the server and begin.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a batch to be taken.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// What the tables look like; a database that has fewer steps behind it takes the missing ones.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE tollgate_entries (
  id uuid PRIMARY KEY, request_id text NOT NULL, attempt integer NOT NULL,
  started timestamptz NOT NULL, first_byte timestamptz, ended timestamptz,
  provider text NOT NULL, upstream text NOT NULL, dialect text NOT NULL, endpoint text NOT NULL,
  model_requested text NOT NULL, model text NOT NULL, stream boolean NOT NULL, billed boolean NOT NULL,
  status integer, outcome text NOT NULL, error text, faults text[] NOT NULL, source text,
  key text, key_name text, org text, project text, end_user text, tags text[] NOT NULL, credential text,
  bytes_in numeric(20) NOT NULL, bytes_out numeric(20), catalog text, provider_cost text, response_id text,
  usd numeric NOT NULL
);
CREATE INDEX tollgate_entries_started ON tollgate_entries (started);
CREATE INDEX tollgate_entries_request ON tollgate_entries (request_id);
CREATE TABLE tollgate_lines (
  entry uuid NOT NULL, line integer NOT NULL, model text NOT NULL, service_tier text NOT NULL, region text NOT NULL,
  usage jsonb NOT NULL, markup text, usd numeric NOT NULL, unpriced text[] NOT NULL, PRIMARY KEY (entry, line)
);
",
    "
ALTER TABLE tollgate_entries ADD COLUMN cause text;
",
    "
ALTER TABLE tollgate_entries ADD COLUMN unknown text[] NOT NULL DEFAULT '{}', ADD COLUMN complete boolean NOT NULL DEFAULT false;
ALTER TABLE tollgate_lines ADD COLUMN free text;
UPDATE tollgate_entries SET complete = true WHERE ended IS NOT NULL AND (
  NOT billed
  OR ((status >= 400 OR outcome = 'upstream_error') AND NOT EXISTS (SELECT 1 FROM tollgate_lines WHERE entry = tollgate_entries.id))
  OR (source = 'reported' AND faults = '{}' AND NOT EXISTS (SELECT 1 FROM tollgate_lines WHERE entry = tollgate_entries.id AND unpriced <> '{}')));
",
];

/// Whoever migrates holds this lock; the number says `tollgate`.
const LOCK: i64 = 0x746f_6c6c_6761_7465;

/// Times are milliseconds, charges pico-dollars: both stay exact.
const ENTRIES: &str = "
INSERT INTO tollgate_entries
SELECT id, request_id, attempt, 'epoch'::timestamptz + start_ms * interval '1 ms',
  'epoch'::timestamptz + first_byte_ms * interval '1 ms', 'epoch'::timestamptz + end_ms * interval '1 ms',
  provider, upstream, dialect, endpoint, model_requested, model, stream, billed,
  status, coalesce(outcome, 'interrupted'), error, coalesce(faults, '{}'), source,
  key, key_name, org, project, \"user\", coalesce(tags, '{}'), credential,
  bytes_in, bytes_out, catalog, provider_cost, response_id, coalesce(total, 0) * 0.000000000001, cause,
  coalesce(unknown, '{}'), coalesce(complete, false)
FROM jsonb_to_recordset($1::text::jsonb) AS entry (
  id uuid, request_id text, attempt integer, start_ms bigint, first_byte_ms bigint, end_ms bigint,
  provider text, upstream text, dialect text, endpoint text, model_requested text, model text, stream boolean, billed boolean,
  status integer, outcome text, error text, faults text[], source text,
  key text, key_name text, org text, project text, \"user\" text, tags text[], credential text,
  bytes_in numeric, bytes_out numeric, catalog text, provider_cost text, response_id text, total numeric, cause text,
  unknown text[], complete boolean)
ON CONFLICT DO NOTHING";

const LINES: &str = "
INSERT INTO tollgate_lines
SELECT entry.id, line.number - 1, line.of->>'model', coalesce(line.of->>'service_tier', ''), coalesce(line.of->>'region', ''),
  line.of->'usage', line.of->>'markup', (line.of->>'charge')::numeric * 0.000000000001,
  ARRAY(SELECT jsonb_array_elements_text(coalesce(line.of->'unpriced', '[]'))), line.of->>'free'
FROM jsonb_to_recordset($1::text::jsonb) AS entry (id uuid, lines jsonb),
  jsonb_array_elements(coalesce(entry.lines, '[]')) WITH ORDINALITY AS line (of, number)
ON CONFLICT DO NOTHING";

/// The database.
pub struct Postgres {
    runtime: Runtime,
    client: Client,
    cursor: CursorFile,
}

impl Postgres {
    /// Connects, and makes the tables if need be.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub fn open(rules: &PostgresRules, folder: &Path) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        // The address may hold a password: it is never shown.
        let config = config_of(rules.url.expose()).map_err(|_| "its `url` cannot be read".to_owned())?;
        let tls = MakeRustlsConnect::new(super::tls(rules.ca.as_deref())?);
        let begun = async {
            let (mut client, connection) = config.connect(tls).await.map_err(told)?;
            // Ends with the client; what goes wrong is heard there.
            tokio::spawn(connection);
            migrate(&mut client).await.map_err(told)?;
            Ok::<_, String>(client)
        };
        let client = runtime.block_on(async { tokio::time::timeout(CONNECT_TIMEOUT, begun).await });
        let client = client.map_err(|_| "it did not answer in time".to_owned())??;
        Ok(Self { runtime, client, cursor: CursorFile::new(folder.join("postgres.json")) })
    }
}

/// What an address says. Other machines are spoken to over TLS unless it says otherwise.
pub(crate) fn config_of(url: &str) -> Result<Config, tokio_postgres::Error> {
    let mut config: Config = url.parse()?;
    let near = |host: &Host| match host {
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
        Host::Unix(_) => true,
    };
    let addresses = config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    let named = !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty();
    let stays = named && addresses && config.get_hosts().iter().all(near);
    if !says_sslmode(url) && !stays {
        config.ssl_mode(SslMode::Require);
    }
    config.application_name("tollgate");
    Ok(config)
}

/// True if the address has the parameter, not if a password happens to look like it.
fn says_sslmode(url: &str) -> bool {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let parameters = if is_url { url.rsplit_once('?').map_or("", |(_, query)| query) } else { url };
    parameters.split(['&', ' ']).any(|pair| pair.trim_start().starts_with("sslmode"))
}

fn told(error: tokio_postgres::Error) -> String {
    // What the server says may quote what it was given; its code and kind do not.
    match error.as_db_error() {
        Some(refused) => format!("it refused: {} ({})", refused.code().code(), refused.severity()),
        None => error.to_string(),
    }
}

async fn migrate(client: &mut Client) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    // To make a table that is there takes a right that only who changes tables has.
    let there: bool = transaction.query_one("SELECT to_regclass('tollgate_migrations') IS NOT NULL", &[]).await?.get(0);
    if !there {
        transaction.batch_execute("CREATE TABLE tollgate_migrations (step integer PRIMARY KEY)").await?;
    }
    let done: i64 = transaction.query_one("SELECT count(*) FROM tollgate_migrations", &[]).await?.get(0);
    for (step, migration) in (0_i32..).zip(MIGRATIONS).skip(usize::try_from(done).unwrap_or(usize::MAX)) {
        transaction.batch_execute(migration).await?;
        transaction.execute("INSERT INTO tollgate_migrations VALUES ($1)", &[&step]).await?;
    }
    transaction.commit().await
}

impl Sink for Postgres {
    fn cursor(&mut self) -> Result<Cursor, String> {
        self.cursor.read()
    }

    fn put(&mut self, entries: &[Entry], cursor: Option<&Cursor>) -> Result<(), String> {
        if !entries.is_empty() {
            let document = document(entries)?;
            let client = &mut self.client;
            let put = async {
                let transaction = client.transaction().await?;
                transaction.execute(ENTRIES, &[&document]).await?;
                transaction.execute(LINES, &[&document]).await?;
                transaction.commit().await
            };
            let put = self.runtime.block_on(async { tokio::time::timeout(PUT_TIMEOUT, put).await });
            put.map_err(|_| "it took too long".to_owned())?.map_err(told)?;
        }
        cursor.map_or(Ok(()), |cursor| self.cursor.write(cursor))
    }
}

/// Entries as JSON that the server can take: its text knows no NUL.
fn document(entries: &[Entry]) -> Result<String, String> {
    let text = serde_json::to_string(entries).map_err(|error| error.to_string())?;
    if !text.contains("\\u0000") {
        return Ok(text);
    }
    let mut value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    without_nul(&mut value);
    Ok(value.to_string())
}

fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(list) => list.iter_mut().for_each(without_nul),
        Value::Object(map) => map.values_mut().for_each(without_nul),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_spoken_to_over_tls() {
        for (url, want) in [
            ("postgres://u:p@db.example/bills", SslMode::Require),
            ("postgres://u:p@localhost,db.example/bills", SslMode::Require),
            ("postgres://u@127.0.0.1:5433/bills", SslMode::Prefer),
            ("postgres://u@db.example/bills?sslmode=disable", SslMode::Disable),
            ("postgres://u:sslmode@db.example/bills", SslMode::Require),
            ("hostaddr=10.0.0.5 dbname=bills", SslMode::Require),
            ("host=db.example sslmode=disable", SslMode::Disable),
            ("host=/run/postgresql dbname=bills", SslMode::Prefer),
        ] {
            assert_eq!(config_of(url).unwrap().get_ssl_mode(), want, "{url}");
        }
        assert!(config_of("postgres://u:p@h:notaport/x").is_err());
    }

    #[test]
    fn what_the_server_cannot_take_is_replaced() {
        let mut value = serde_json::json!({"a": ["x\u{0}y", 1], "b": {"c": "\\u0000"}});
        without_nul(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["x\u{fffd}y", 1], "b": {"c": "\\u0000"}}));
    }
}
