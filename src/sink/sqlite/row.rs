//! Rows of a report: a line of an entry each, or an entry without one.

use super::super::report::RUNNING;
use super::{charge, not_json};
use crate::ledger::{Entry, Line, Outcome, Source};
use crate::usage::Usage;

pub(super) const ROWS: &str = "
SELECT e.id, e.start_ms, e.upstream, e.key, e.key_name, e.org, e.project, e.end_user, e.tags, e.credential, e.outcome, e.billed,
  e.source, e.model, l.line, l.model, l.usage, l.micro_usd, l.pico_usd, l.unpriced, e.request_id, e.first_byte_ms, e.end_ms, e.model_requested,
  e.complete, e.faults, l.free
FROM entries e LEFT JOIN lines l ON l.entry = e.id WHERE e.start_ms >= ? ORDER BY e.id, l.line";

/// A line of an entry, or an entry without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub request_id: String,
    pub start_ms: u64,
    pub first_byte_ms: Option<u64>,
    pub end_ms: Option<u64>,
    pub upstream: String,
    pub key: Option<String>,
    pub key_name: Option<String>,
    pub org: Option<String>,
    pub project: Option<String>,
    pub user: Option<String>,
    pub tags: Vec<String>,
    pub credential: Option<String>,
    pub outcome: String,
    pub billed: bool,
    pub source: Option<String>,
    /// As its caller named it, and as it was asked for.
    pub model_requested: String,
    pub model: String,
    /// The charge is exact.
    pub complete: bool,
    pub faults: Vec<String>,
    pub line: Option<(u64, Line)>,
}

impl Row {
    /// True if it has no usage though some may have been due: whoever failed before it generated anything is owed nothing, and
    /// what is under way will tell.
    pub fn is_unmetered(&self) -> bool {
        let silent = self.source.as_deref().is_none_or(|source| source == Source::None.name());
        self.billed && silent && self.outcome != Outcome::UpstreamError.name() && self.outcome != RUNNING
    }

    /// True if it is over and its charge is not exact.
    pub fn is_incomplete(&self) -> bool {
        !self.complete && self.outcome != RUNNING
    }

    pub(super) fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let line = match row.get::<_, Option<u64>>(14)? {
            None => None,
            Some(at) => {
                let (usage, micro, pico): (String, i64, i64) = (row.get(16)?, row.get(17)?, row.get(18)?);
                let usage = serde_json::from_str::<Usage>(&usage).map_err(|error| not_json(16, error))?;
                let unpriced = serde_json::from_str(&row.get::<_, String>(19)?).map_err(|error| not_json(19, error))?;
                Some((
                    at,
                    Line { model: row.get(15)?, usage, charge: charge(micro, pico), unpriced, free: row.get(26)?, ..Line::default() },
                ))
            }
        };
        Ok(Self {
            id: row.get(0)?,
            request_id: row.get(20)?,
            start_ms: row.get(1)?,
            first_byte_ms: row.get(21)?,
            end_ms: row.get(22)?,
            upstream: row.get(2)?,
            key: row.get(3)?,
            key_name: row.get(4)?,
            org: row.get(5)?,
            project: row.get(6)?,
            user: row.get(7)?,
            tags: serde_json::from_str(&row.get::<_, String>(8)?).map_err(|error| not_json(8, error))?,
            credential: row.get(9)?,
            outcome: row.get(10)?,
            billed: row.get(11)?,
            source: row.get(12)?,
            model_requested: row.get(23)?,
            model: row.get(13)?,
            complete: row.get(24)?,
            faults: serde_json::from_str(&row.get::<_, String>(25)?).map_err(|error| not_json(25, error))?,
            line,
        })
    }

    /// The rows of an entry that is not in a database.
    pub fn of_entry(entry: &Entry) -> Vec<Self> {
        let row = |line| Self {
            id: entry.id.clone(),
            request_id: entry.open.request_id.clone(),
            start_ms: entry.open.start_ms,
            first_byte_ms: entry.close.as_ref().and_then(|close| close.first_byte_ms),
            end_ms: entry.close.as_ref().map(|close| close.end_ms),
            upstream: entry.open.upstream.clone(),
            key: entry.open.key.clone(),
            key_name: entry.open.key_name.clone(),
            org: entry.open.org.clone(),
            project: entry.open.project.clone(),
            user: entry.open.user.clone(),
            tags: entry.open.tags.clone(),
            credential: entry.open.credential.clone(),
            outcome: entry.outcome().name().to_owned(),
            billed: entry.open.billed,
            source: entry.used.as_ref().map(|used| used.source.name().to_owned()),
            model_requested: entry.open.model_requested.clone(),
            model: entry.open.model.clone(),
            complete: entry.close.as_ref().is_some_and(|close| close.complete),
            faults: entry.close.as_ref().map(|close| close.faults.clone()).unwrap_or_default(),
            line,
        };
        let lines = entry.used.as_ref().map(|used| used.lines.as_slice()).unwrap_or_default();
        match lines {
            [] => vec![row(None)],
            lines => lines.iter().zip(0..).map(|(line, at)| row(Some((at, line.clone())))).collect(),
        }
    }
}
