//! `tollgate usage`: sums up the ledger.

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use tollgate::config::DATABASE;
use tollgate::dialect::Dialect;
use tollgate::ledger::{self, Entry, Outcome, Source};
use tollgate::price::PicoUsd;
use tollgate::sink::sqlite::{Row, Sqlite};
use tollgate::sink::{Cursor, Tail};
use tollgate::usage::Dimension;

#[derive(Debug, Args)]
pub struct Options {
    /// The data folder of the gateway
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// What to sum by; give several to sum by all of them together
    #[arg(long, value_enum, default_values_t = [By::Model])]
    by: Vec<By>,
    /// Only what started since then: a date or time (2026-01-31, 2026-01-31T12:00:00Z), or an age (24h, 7d)
    #[arg(long, value_parser = since)]
    since: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Model,
    Provider,
    /// The caller's key: the gateway's by name and id, else a hash of the caller's own
    Key,
    Org,
    Hour,
    Day,
    Outcome,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key",
            Self::Org => "org",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Outcome => "outcome",
        }
    }

    fn of(self, row: &Row) -> String {
        match self {
            Self::Model => row.line.as_ref().map_or(&row.model, |(_, line)| &line.model).clone(),
            Self::Provider => row.upstream.clone(),
            Self::Key => match (&row.key_name, &row.key) {
                (Some(name), Some(id)) => format!("{name} ({id})"),
                (_, id) => id.clone().or_else(|| row.credential.clone()).unwrap_or_else(|| "-".to_owned()),
            },
            Self::Org => row.org.clone().unwrap_or_else(|| "-".to_owned()),
            Self::Hour => time(row.start_ms, "%Y-%m-%d %H:00"),
            Self::Day => time(row.start_ms, "%Y-%m-%d"),
            Self::Outcome => row.outcome.clone(),
        }
    }
}

fn time(ms: u64, format: &str) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime(format).to_string())
}

fn since(text: &str) -> Result<u64, String> {
    let at = if let Ok(age) = humantime::parse_duration(text) {
        std::time::SystemTime::now()
            .checked_sub(age)
            .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
            .map(|since| since.as_millis())
    } else {
        let date = || text.parse::<jiff::civil::Date>().ok().and_then(|date| jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok());
        let at = text.parse::<jiff::Timestamp>().ok().or_else(date);
        at.and_then(|at| u128::try_from(at.as_millisecond()).ok())
    };
    at.and_then(|ms| u64::try_from(ms).ok()).ok_or_else(|| "expected a date, a time or an age".to_owned())
}

#[derive(Clone, Debug, Default)]
struct Sum {
    requests: u64,
    input: u64,
    cached: u64,
    output: u64,
    total: PicoUsd,
    /// Entries whose charge is not complete, or that have no usage though some was due.
    unpriced: u64,
    unmetered: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.input = self.input.saturating_add(other.input);
        self.cached = self.cached.saturating_add(other.cached);
        self.output = self.output.saturating_add(other.output);
        self.total = [self.total, other.total].into_iter().sum();
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.unmetered = self.unmetered.saturating_add(other.unmetered);
    }
}

/// Sums by group.
struct Sums<'o> {
    options: &'o Options,
    by_group: BTreeMap<Vec<String>, Sum>,
}

impl Sums<'_> {
    fn add(&mut self, row: &Row) {
        if self.options.since.is_none_or(|since| row.start_ms >= since) {
            let group = self.options.by.iter().map(|by| by.of(row)).collect();
            self.by_group.entry(group).or_default().add(&sum(row));
        }
    }
}

pub fn run(options: &Options) -> Result<(), String> {
    let mut sums = Sums { options, by_group: BTreeMap::new() };
    let database = options.data.join(DATABASE);
    let mut sqlite = Sqlite::open_read_only(&database)?;
    let cursor = match &mut sqlite {
        Some(sqlite) => sqlite.read(options.since, |row| sums.add(&row)).map_err(|why| format!("{}: {why}", database.display()))?,
        None => Cursor::new(),
    };
    let damaged = add_ledger(&options.data.join("ledger"), cursor, sqlite.as_ref(), &mut sums)?;
    if options.json {
        print_json(options, &sums.by_group)
    } else {
        print_table(options, &sums.by_group)
    }
    if damaged > 0 {
        eprintln!("note: {damaged} damaged lines were passed over");
    }
    Ok(())
}

/// Adds what the database has not got yet: all of it, where there is none. Returns the number of damaged lines.
fn add_ledger(folder: &Path, cursor: Cursor, sqlite: Option<&Sqlite>, sums: &mut Sums<'_>) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if sqlite.is_none() && !folder.is_dir() {
        return Err(format!("{}: there is no ledger", folder.display()));
    }
    let read: u64 = cursor.values().sum();
    let bytes: u64 = ledger::segments(folder).map_err(failed)?.iter().map(|(_, bytes)| bytes).sum();
    // Draws only on a terminal.
    let bar = ProgressBar::new(bytes.saturating_sub(read));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let mut tail = Tail::new(folder, cursor);
    // Items of batches may have been written down more than once.
    let mut again: HashSet<String> = HashSet::new();
    let mut add = |entry: &Entry| -> Result<(), String> {
        let known = sqlite.map_or(Ok(false), |sqlite| sqlite.has(&entry.id))?;
        let is_item = entry.open.dialect == Dialect::Batch.name() || entry.open.dialect == Dialect::MessageBatch.name();
        if !known && (!is_item || again.insert(entry.id.clone())) {
            Row::of_entry(entry).iter().for_each(|row| sums.add(row));
        }
        Ok(())
    };
    loop {
        tail.poll().map_err(failed)?.iter().try_for_each(&mut add)?;
        bar.set_position(bytes.saturating_sub(read).saturating_sub(tail.lag_bytes));
        if tail.lag_bytes == 0 {
            break;
        }
    }
    bar.finish_and_clear();
    let damaged = tail.damaged;
    tail.pending().try_for_each(|entry| add(&entry))?;
    Ok(damaged)
}

/// What a row adds; the request counts with its first line.
fn sum(row: &Row) -> Sum {
    let Some((at, line)) = &row.line else {
        let due =
            row.billed && row.source.as_deref().is_none_or(|source| source == Source::None.name()) && row.outcome == Outcome::Ok.name();
        return Sum { requests: 1, unmetered: u64::from(due), ..Sum::default() };
    };
    Sum {
        requests: u64::from(*at == 0),
        input: line.usage.sum(Dimension::is_input).unwrap_or(0),
        cached: line.usage.of(Dimension::CacheRead).unwrap_or(0),
        output: line.usage.sum(Dimension::is_output).unwrap_or(0),
        total: line.charge,
        unpriced: u64::from(!line.unpriced.is_empty()),
        unmetered: 0,
    }
}

fn print_json(options: &Options, sums: &BTreeMap<Vec<String>, Sum>) {
    let rows: Vec<_> = sums
        .iter()
        .map(|(group, sum)| {
            let mut row = serde_json::Map::new();
            for (by, value) in options.by.iter().zip(group) {
                row.insert(by.name().to_owned(), value.as_str().into());
            }
            for (name, count) in [
                ("requests", sum.requests),
                ("input", sum.input),
                ("cached", sum.cached),
                ("output", sum.output),
                ("unpriced", sum.unpriced),
                ("unmetered", sum.unmetered),
            ] {
                row.insert(name.to_owned(), count.into());
            }
            row.insert("usd".to_owned(), sum.total.to_string().into());
            row.insert("pico_usd".to_owned(), sum.total.0.to_string().into());
            serde_json::Value::Object(row)
        })
        .collect();
    println!("{}", serde_json::Value::Array(rows));
}

fn print_table(options: &Options, sums: &BTreeMap<Vec<String>, Sum>) {
    let mut header: Vec<String> = options.by.iter().map(|by| by.name().to_owned()).collect();
    header.extend(["requests", "input", "cached", "output", "cost ($)", ""].map(str::to_owned));
    let groups = options.by.len();
    let row = |group: &[String], sum: &Sum| {
        let mut row = group.to_vec();
        row.extend([sum.requests, sum.input, sum.cached, sum.output].map(|count| count.to_string()));
        row.push(sum.total.to_string());
        let notes = [(sum.unpriced, "unpriced"), (sum.unmetered, "without usage")];
        row.push(
            notes.iter().filter(|(count, _)| *count > 0).map(|(count, note)| format!("{count} {note}")).collect::<Vec<_>>().join(", "),
        );
        row
    };
    let mut rows: Vec<Vec<String>> = sums.iter().map(|(group, sum)| row(group, sum)).collect();
    let mut all = Sum::default();
    sums.values().for_each(|sum| all.add(sum));
    let mut name = vec![String::new(); groups];
    if let Some(first) = name.first_mut() {
        "total".clone_into(first);
    }
    rows.push(row(&name, &all));
    rows.insert(0, header);
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            if at < groups || at == columns - 1 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
