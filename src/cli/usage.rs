//! `tollgate usage`: sums up the ledger.

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tollgate::ledger::{self, Entry, Fold, Source};
use tollgate::price::PicoUsd;
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

    fn of(self, entry: &Entry, model: &str) -> String {
        match self {
            Self::Model => model.to_owned(),
            Self::Provider => entry.open.upstream.clone(),
            Self::Key => match (&entry.open.key_name, &entry.open.key) {
                (Some(name), Some(id)) => format!("{name} ({id})"),
                (_, id) => id.clone().or_else(|| entry.open.credential.clone()).unwrap_or_else(|| "-".to_owned()),
            },
            Self::Org => entry.open.org.clone().unwrap_or_else(|| "-".to_owned()),
            Self::Hour => time(entry.open.start_ms, "%Y-%m-%d %H:00"),
            Self::Day => time(entry.open.start_ms, "%Y-%m-%d"),
            Self::Outcome => entry.outcome().name().to_owned(),
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

pub fn run(options: &Options) -> Result<(), String> {
    let (entries, orphans, damaged) = read(&options.data.join("ledger"))?;
    let mut sums: BTreeMap<Vec<String>, Sum> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| options.since.is_none_or(|since| entry.open.start_ms >= since)) {
        for (model, sum) in parts(entry) {
            let group = options.by.iter().map(|by| by.of(entry, &model)).collect();
            sums.entry(group).or_default().add(&sum);
        }
    }
    if options.json {
        print_json(options, &sums)
    } else {
        print_table(options, &sums)
    }
    if orphans + damaged > 0 {
        eprintln!("note: {damaged} damaged lines and {orphans} records without a beginning were passed over");
    }
    Ok(())
}

fn read(folder: &Path) -> Result<(Vec<Entry>, usize, usize), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let bytes: u64 = std::fs::read_dir(folder).map_err(failed)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    // Draws only on a terminal.
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let mut fold = Fold::default();
    let damaged = ledger::read_folder(folder, |record| fold.add(record), |bytes| bar.inc(bytes)).map_err(failed)?;
    bar.finish_and_clear();
    let (entries, orphans) = fold.finish();
    Ok((entries, orphans, damaged))
}

/// An entry's lines; the request counts with the first.
fn parts(entry: &Entry) -> Vec<(String, Sum)> {
    let one = Sum { requests: 1, ..Sum::default() };
    let lines = entry.used.as_ref().map(|used| used.lines.as_slice()).unwrap_or_default();
    if lines.is_empty() {
        let due = entry.open.billed
            && entry.used.as_ref().is_none_or(|used| used.source == Source::None)
            && entry.outcome() == ledger::Outcome::Ok;
        return vec![(entry.open.model.clone(), Sum { unmetered: u64::from(due), ..one })];
    }
    let sum = |(at, line): (usize, &ledger::Line)| {
        let sum = Sum {
            requests: u64::from(at == 0),
            input: line.usage.sum(Dimension::is_input).unwrap_or(0),
            cached: line.usage.of(Dimension::CacheRead).unwrap_or(0),
            output: line.usage.sum(Dimension::is_output).unwrap_or(0),
            total: line.charge,
            unpriced: u64::from(!line.unpriced.is_empty()),
            unmetered: 0,
        };
        (line.model.clone(), sum)
    };
    lines.iter().enumerate().map(sum).collect()
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
