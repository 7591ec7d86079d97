//! Reads entries back, whole.

use super::{charge, not_json};
use crate::ledger::{Close, Entry, Line, Open, Outcome, Source, Used};
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;

/// An entry out of a row of `entries`, with its lines.
pub(super) fn read(row: &Row<'_>, connection: &Connection) -> rusqlite::Result<Entry> {
    let id: String = row.get("id")?;
    let lines = lines(&id, connection)?;
    let source = row.get::<_, Option<String>>("source")?.and_then(|source| Source::from_name(&source));
    let used = match source {
        None => None,
        Some(source) => Some(Used {
            reading: 0,
            source,
            total: lines.iter().map(|line| line.charge).sum(),
            lines,
            catalog: row.get("catalog")?,
            provider_cost: row.get("provider_cost")?,
            response_id: row.get("response_id")?,
            unknown: json(row, "unknown")?,
        }),
    };
    let outcome = Outcome::from_name(&row.get::<_, String>("outcome")?).unwrap_or(Outcome::Interrupted);
    let close = match row.get::<_, Option<u64>>("end_ms")? {
        None => None,
        Some(end_ms) => Some(Close {
            end_ms,
            first_byte_ms: row.get("first_byte_ms")?,
            status: row.get("status")?,
            outcome,
            error: row.get("error")?,
            cause: row.get("cause")?,
            faults: json(row, "faults")?,
            bytes_out: row.get("bytes_out")?,
            metered: used.is_some(),
            last_reading: None,
            complete: row.get("complete")?,
        }),
    };
    let open = Open {
        request_id: row.get("request_id")?,
        attempt: row.get("attempt")?,
        start_ms: row.get("start_ms")?,
        provider: row.get("provider")?,
        upstream: row.get("upstream")?,
        dialect: row.get("dialect")?,
        endpoint: row.get("endpoint")?,
        model_requested: row.get("model_requested")?,
        model: row.get("model")?,
        stream: row.get("stream")?,
        bytes_in: row.get("bytes_in")?,
        billed: row.get("billed")?,
        key: row.get("key")?,
        key_name: row.get("key_name")?,
        org: row.get("org")?,
        project: row.get("project")?,
        user: row.get("end_user")?,
        tags: json(row, "tags")?,
        credential: row.get("credential")?,
    };
    Ok(Entry { id, open, used, close })
}

fn lines(id: &str, connection: &Connection) -> rusqlite::Result<Vec<Line>> {
    let mut statement = connection.prepare("SELECT * FROM lines WHERE entry = ? ORDER BY line")?;
    let lines = statement.query_map([id], |row| {
        let (micro, pico): (i64, i64) = (row.get("micro_usd")?, row.get("pico_usd")?);
        Ok(Line {
            model: row.get("model")?,
            service_tier: row.get("service_tier")?,
            region: row.get("region")?,
            usage: json(row, "usage")?,
            markup: row.get("markup")?,
            charge: charge(micro, pico),
            unpriced: json(row, "unpriced")?,
            free: row.get("free")?,
        })
    })?;
    lines.collect()
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|error| not_json(0, error))
}
