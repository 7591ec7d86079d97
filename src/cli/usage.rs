//! `tollgate usage`: sums up the ledger.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use tollgate::printable::printable;
use tollgate::sink::report::{By, Question, Report, Sum, bill, request};
use tollgate::sink::time::parse_time;

#[derive(Debug, Args)]
pub struct Options {
    /// The data folder of the gateway
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// What to sum by: model, provider, key, org, project, user, tag, hour, day, outcome, source or fault; give several to sum by all of
    /// them together
    #[arg(long, value_parser = by, default_value = "model")]
    by: Vec<By>,
    /// Only of this group (`--only key=ci`); give several for what is of all of them
    #[arg(long, value_parser = only, value_name = "BY=GROUP")]
    only: Vec<(By, String)>,
    /// Only what started since then: a date or time (2026-01-31, 2026-01-31T12:00:00Z), or an age (24h, 7d)
    #[arg(long, value_parser = at)]
    since: Option<u64>,
    /// Only what started before then
    #[arg(long, value_parser = at)]
    until: Option<u64>,
    /// Only so many groups, those that cost most; the total is of all
    #[arg(long)]
    limit: Option<usize>,
    /// The attempts of one request instead, by the id that its answer names (x-gateway-request-id)
    #[arg(long, value_name = "ID", conflicts_with_all = ["by", "only", "since", "until", "limit", "csv"])]
    request: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
}

fn by(text: &str) -> Result<By, String> {
    By::from_name(text).ok_or_else(|| format!("expected one of {}", By::names()))
}

fn only(text: &str) -> Result<(By, String), String> {
    let (name, group) = text.split_once('=').ok_or("expected what and which, like `model=gpt-5`")?;
    Ok((by(name)?, group.to_owned()))
}

fn at(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    parse_time(text, u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).ok_or_else(|| "expected a date, a time or an age".to_owned())
}

pub fn run(options: &Options) -> Result<(), String> {
    if let Some(id) = &options.request {
        return one(options, id);
    }
    let (by, only, limit) = (options.by.clone(), options.only.clone(), options.limit);
    let question = Question { by, since: options.since, until: options.until, only, limit, groups_max: None };
    // Draws only on a terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let report = Report::of(&options.data, &question, |read, all| {
        bar.set_length(all);
        bar.set_position(read);
    })?;
    bar.finish_and_clear();
    if options.json {
        say!("{}", report.to_json());
    } else if options.csv {
        say!("{}", report.to_csv().trim_end_matches('\n'));
    } else {
        print_table(&report);
    }
    if report.damaged > 0 {
        eprintln!("note: {} damaged lines were passed over", report.damaged);
    }
    Ok(())
}

/// The attempts of one request.
fn one(options: &Options, id: &str) -> Result<(), String> {
    let entries = request(&options.data, id)?;
    if entries.is_empty() {
        return Err(format!("no request `{id}` is known"));
    }
    if options.json {
        say!("{}", bill(id, &entries));
        return Ok(());
    }
    for entry in &entries {
        let (open, close) = (&entry.open, entry.close.as_ref());
        say!("attempt   {} at {} ({})", open.attempt, open.upstream, entry.outcome().name());
        say!("model     {} as {}", printable(&open.model_requested), printable(&open.model));
        let took = close.map(|close| format!("{} ms, status {}", close.end_ms.saturating_sub(open.start_ms), close.status));
        say!("took      {}", took.as_deref().unwrap_or("not over"));
        let Some(used) = &entry.used else {
            say!("usage     none");
            continue;
        };
        for (dimension, count) in used.lines.iter().flat_map(|line| line.usage.iter()) {
            say!("  {:<16} {count:>12}", dimension.name());
        }
        say!("usage     {}", used.source.name());
        say!("total     ${} by {}", used.total, used.catalog);
    }
    Ok(())
}

fn print_table(report: &Report) {
    let mut header: Vec<String> = report.by.iter().map(|by| by.name().to_owned()).collect();
    header.extend(["requests", "input", "cached", "output", "cost ($)", ""].map(str::to_owned));
    let groups = report.by.len();
    let row = |group: &[String], sum: &Sum| {
        let mut row: Vec<String> = group.iter().map(|name| printable(name).into_owned()).collect();
        row.extend([sum.requests, sum.input, sum.cached, sum.output].map(|count| count.to_string()));
        row.push(sum.total.to_string());
        let notes =
            [(sum.unpriced, "unpriced"), (sum.unmetered, "without usage"), (sum.estimated, "estimated"), (sum.incomplete, "not exact")];
        row.push(
            notes.iter().filter(|(count, _)| *count > 0).map(|(count, note)| format!("{count} {note}")).collect::<Vec<_>>().join(", "),
        );
        row
    };
    let mut rows: Vec<Vec<String>> = report.groups.iter().map(|(group, sum)| row(group, sum)).collect();
    let mut name = vec![String::new(); groups];
    if let Some(first) = name.first_mut() {
        "total".clone_into(first);
    }
    rows.push(row(&name, &report.total));
    rows.insert(0, header);
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            if at < groups || at == columns - 1 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
