//! Reports: what was used and what it costs, summed by whatever is asked, over the database and what the ledger has beyond
//! it. The command line and the admin listener ask the same.

use super::sqlite::{Row, Sqlite};
use super::time::format_time;
use super::{Cursor, Tail};
use crate::config::DATABASE;
use crate::ledger::{self, Entry, Source};
use crate::price::PicoUsd;
use crate::printable::printable;
use crate::usage::{Dimension, indexed};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::mpsc;

indexed! {
    /// What to sum by.
    By {
        Model = "model",
        Provider = "provider",
        /// The caller's key: the gateway's by name and id, else a hash of the caller's own.
        Key = "key",
        Org = "org",
        Project = "project",
        User = "user",
        /// An entry counts under each of its tags.
        Tag = "tag",
        Hour = "hour",
        Day = "day",
        Outcome = "outcome",
        /// How the numbers came about.
        Source = "source",
        /// A metering defect; an entry counts under each of its own.
        Fault = "fault",
    }
}

impl By {
    /// The groups a row belongs to: one, but for tags and faults.
    pub(super) fn of(self, row: &Row) -> Vec<String> {
        let or_dash = |text: &Option<String>| vec![text.clone().unwrap_or_else(|| "-".to_owned())];
        match self {
            Self::Model => vec![row.line.as_ref().map_or(&row.model, |(_, line)| &line.model).clone()],
            Self::Provider => vec![row.upstream.clone()],
            Self::Key => match (&row.key_name, &row.key) {
                (Some(name), Some(id)) => vec![format!("{name} ({id})")],
                (_, id) => or_dash(&id.clone().or_else(|| row.credential.clone())),
            },
            Self::Org => or_dash(&row.org),
            Self::Project => or_dash(&row.project),
            Self::User => or_dash(&row.user),
            Self::Tag if row.tags.is_empty() => or_dash(&None),
            Self::Tag => row.tags.clone(),
            Self::Hour => vec![format_time(row.start_ms, "%Y-%m-%d %H:00")],
            Self::Day => vec![format_time(row.start_ms, "%Y-%m-%d")],
            Self::Outcome => vec![row.outcome.clone()],
            Self::Source => or_dash(&row.source),
            Self::Fault if row.faults.is_empty() => or_dash(&None),
            Self::Fault => row.faults.clone(),
        }
    }

    /// True if a row is of this group. A key goes by its name or id alone, too.
    pub(super) fn is(self, row: &Row, group: &str) -> bool {
        let part = |text: &Option<String>| self == Self::Key && text.as_deref() == Some(group);
        part(&row.key) || part(&row.key_name) || self.of(row).iter().any(|other| other == group)
    }
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Sums by all of them together.
    pub by: Vec<By>,
    /// Began at or after, and before; milliseconds since 1970.
    pub since: Option<u64>,
    pub until: Option<u64>,
    /// Only these groups.
    pub only: Vec<(By, String)>,
    /// Groups that are kept apart; all others are summed up as [`OTHERS`]. `None`: all are kept apart.
    pub groups_max: Option<usize>,
    /// So many groups at most: those that cost most, then those that were asked most.
    pub limit: Option<usize>,
}

/// Counts of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub requests: u64,
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub total: PicoUsd,
    /// Entries whose charge is not complete, or that have no usage though some was due.
    pub unpriced: u64,
    pub unmetered: u64,
    /// Entries whose numbers are not all the provider's.
    pub estimated: u64,
    /// Entries whose charge is not exact.
    pub incomplete: u64,
}

impl Sum {
    /// What a row adds; the request counts with its first line.
    fn of(row: &Row) -> Self {
        let Some((at, line)) = &row.line else {
            let incomplete = u64::from(row.is_incomplete());
            return Self { requests: 1, unmetered: u64::from(row.is_unmetered()), incomplete, ..Self::default() };
        };
        let guessed =
            row.source.as_deref().is_some_and(|source| [Source::Partial, Source::Estimated].iter().any(|kind| kind.name() == source));
        Self {
            requests: u64::from(*at == 0),
            input: line.usage.sum(Dimension::is_input).unwrap_or(0),
            cached: line.usage.of(Dimension::CacheRead).unwrap_or(0),
            output: line.usage.sum(Dimension::is_output).unwrap_or(0),
            total: line.charge,
            unpriced: u64::from(!line.unpriced.is_empty()),
            unmetered: 0,
            estimated: u64::from(*at == 0 && guessed),
            incomplete: u64::from(*at == 0 && row.is_incomplete()),
        }
    }

    fn add(&mut self, other: &Self) {
        for (to, count) in [
            (&mut self.requests, other.requests),
            (&mut self.input, other.input),
            (&mut self.cached, other.cached),
            (&mut self.output, other.output),
            (&mut self.unpriced, other.unpriced),
            (&mut self.unmetered, other.unmetered),
            (&mut self.estimated, other.estimated),
            (&mut self.incomplete, other.incomplete),
        ] {
            *to = to.saturating_add(count);
        }
        self.total = [self.total, other.total].into_iter().sum();
    }

    /// Counts by their names, in the order of columns.
    fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("requests", self.requests),
            ("input", self.input),
            ("cached", self.cached),
            ("output", self.output),
            ("unpriced", self.unpriced),
            ("unmetered", self.unmetered),
            ("estimated", self.estimated),
            ("incomplete", self.incomplete),
        ]
    }
}

/// Stands for all groups beyond [`Question::groups_max`].
pub const OTHERS: &str = "(others)";
/// Groups of a report at the admin listener, whose process serves requests meanwhile.
pub const ADMIN_GROUPS_MAX: usize = 10_000;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub by: Vec<By>,
    pub groups: BTreeMap<Vec<String>, Sum>,
    /// Of everything once, though an entry may stand in several groups.
    pub total: Sum,
    /// Lines of the ledger that are no records.
    pub damaged: u64,
    /// The last entry that was counted as unpriced: its other lines are not counted again.
    unpriced: String,
}

impl Report {
    /// Reads what a data folder holds. `progress` hears of bytes read and of bytes there are.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub fn of(data: &Path, question: &Question, mut progress: impl FnMut(u64, u64)) -> Result<Self, String> {
        let mut report = Self { by: question.by.clone(), ..Self::default() };
        report.damaged = rows(data, question.since, &mut progress, |row| report.add(row, question))?;
        question.limit.into_iter().for_each(|limit| report.keep(limit));
        Ok(report)
    }

    fn keep(&mut self, limit: usize) {
        if self.groups.len() > limit {
            let mut groups: Vec<_> = std::mem::take(&mut self.groups).into_iter().collect();
            groups.sort_by_key(|(_, sum)| Reverse((sum.total, sum.requests)));
            self.groups = groups.into_iter().take(limit).collect();
        }
    }

    fn add(&mut self, row: &Row, question: &Question) {
        let in_time = question.since.is_none_or(|since| row.start_ms >= since) && question.until.is_none_or(|until| row.start_ms < until);
        if !in_time || !question.only.iter().all(|(by, group)| by.is(row, group)) {
            return;
        }
        let mut sum = Sum::of(row);
        if sum.unpriced > 0 && self.unpriced == row.id {
            sum.unpriced = 0;
        } else if sum.unpriced > 0 {
            self.unpriced.clone_from(&row.id);
        }
        self.total.add(&sum);
        let mut groups: Vec<Vec<String>> = vec![vec![]];
        for by in &self.by {
            let values = by.of(row);
            groups = groups
                .iter()
                .flat_map(|group| values.iter().map(|value| [group.as_slice(), std::slice::from_ref(value)].concat()))
                .collect();
        }
        for group in groups {
            // Clients name users, models and tags as they like.
            let full = question.groups_max.is_some_and(|max| self.groups.len() >= max) && !self.groups.contains_key(&group);
            let group = if full { vec![OTHERS.to_owned(); self.by.len()] } else { group };
            self.groups.entry(group).or_default().add(&sum);
        }
    }

    /// An array of objects, one a group.
    pub fn to_json(&self) -> serde_json::Value {
        let row = |(group, sum): (&Vec<String>, &Sum)| {
            let mut row = serde_json::Map::new();
            self.by.iter().zip(group).for_each(|(by, value)| drop(row.insert(by.name().to_owned(), value.as_str().into())));
            sum.counts().into_iter().for_each(|(name, count)| drop(row.insert(name.to_owned(), count.into())));
            row.insert("usd".to_owned(), sum.total.to_string().into());
            row.insert("pico_usd".to_owned(), sum.total.0.to_string().into());
            serde_json::Value::Object(row)
        };
        self.groups.iter().map(row).collect()
    }

    /// The same as a table: <https://www.rfc-editor.org/rfc/rfc4180>.
    pub fn to_csv(&self) -> String {
        // A spreadsheet takes what begins like a formula for one.
        let cell = |text: &str| {
            let (formula, text) = (text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text != "-", printable(text));
            match formula {
                true => format!("\"'{}\"", text.replace('"', "\"\"")),
                false if text.contains([',', '"']) => format!("\"{}\"", text.replace('"', "\"\"")),
                false => text.into_owned(),
            }
        };
        let names = self.by.iter().map(|by| by.name()).chain(Sum::default().counts().map(|(name, _)| name)).chain(["usd"]);
        let mut out = names.collect::<Vec<_>>().join(",") + "\r\n";
        for (group, sum) in &self.groups {
            let counts = sum.counts().map(|(_, count)| count.to_string());
            let cells = group.iter().map(|text| cell(text)).chain(counts).chain([sum.total.to_string()]);
            out += &(cells.collect::<Vec<_>>().join(",") + "\r\n");
        }
        out
    }
}

/// The rows of all entries that began at `since` or later, and perhaps of some before. Returns how many lines of the ledger
/// are damaged.
///
/// # Errors
/// Says what cannot be read.
pub fn rows(data: &Path, since: Option<u64>, mut progress: impl FnMut(u64, u64), mut on: impl FnMut(&Row)) -> Result<u64, String> {
    let folder = data.join("ledger");
    let (mut past, cursor) = Past::read(data, &folder, since, &mut on)?;
    let mut tail = Tail::new(&folder, cursor).hurried();
    past.follow(&mut tail, &mut progress, &mut on)?;
    for (entry, runs) in tail.pending().map_err(|error| unreadable(&folder, &error))? {
        past.rows(&entry, runs)?.iter().for_each(&mut on);
    }
    Ok(tail.damaged)
}

/// The same, but for what this process (`own`) writes and what is under way; and who goes on from there.
///
/// # Errors
/// Says what cannot be read.
pub fn rows_of_others(data: &Path, since: u64, own: &str, mut on: impl FnMut(&Row)) -> Result<Tail, String> {
    let folder = data.join("ledger");
    let (mut past, cursor) = Past::read(data, &folder, Some(since), &mut on)?;
    let mut tail = Tail::of_others(&folder, cursor, own).hurried();
    past.follow(&mut tail, &mut |_, _| {}, &mut on)?;
    Ok(tail)
}

/// What a database has of the ledger.
struct Past {
    sqlite: Option<Sqlite>,
    /// What has an id that follows from it may have been written down more than once.
    again: HashSet<String>,
}

impl Past {
    /// Hands out what the database has, and says how far that goes.
    fn read(data: &Path, folder: &Path, since: Option<u64>, on: &mut impl FnMut(&Row)) -> Result<(Self, Cursor), String> {
        let database = data.join(DATABASE);
        // A copy that cannot be read to its end is left out: the ledger has all of it.
        let sqlite = Sqlite::open_read_only(&database).ok().flatten().filter(|sqlite| sqlite.is_readable(since));
        let cursor = match &sqlite {
            Some(sqlite) => sqlite.read(since, |row| on(&row)).map_err(|why| format!("{}: {why}", database.display()))?,
            None if !folder.is_dir() => return Err(format!("{}: there is no ledger", folder.display())),
            None => written_before(folder, since).map_err(|error| unreadable(folder, &error))?,
        };
        Ok((Self { sqlite, again: HashSet::new() }, cursor))
    }

    /// Hands out what has become complete since.
    fn follow(&mut self, tail: &mut Tail, progress: &mut impl FnMut(u64, u64), on: &mut impl FnMut(&Row)) -> Result<(), String> {
        beyond(tail, progress, |entry| self.rows(entry, false).map(|rows| rows.iter().for_each(&mut *on)))
    }

    /// The rows of an entry, unless they were there before; `runs` if its end may come.
    fn rows(&mut self, entry: &Entry, runs: bool) -> Result<Vec<Row>, String> {
        let known = self.sqlite.as_ref().map_or(Ok(false), |sqlite| sqlite.has(&entry.id))?;
        if known || (entry.has_derived_id() && !self.again.insert(entry.id.clone())) {
            return Ok(vec![]);
        }
        let mut rows = Row::of_entry(entry);
        if runs && entry.close.is_none() {
            rows.iter_mut().for_each(|row| row.outcome = RUNNING.to_owned());
        }
        Ok(rows)
    }
}

/// A cursor past segments that nobody has written to since: what they tell of began before.
fn written_before(folder: &Path, since: Option<u64>) -> std::io::Result<Cursor> {
    let Some(since) = since else { return Ok(Cursor::new()) };
    let since = std::time::UNIX_EPOCH + std::time::Duration::from_millis(since);
    let old = |name: &String| folder.join(name).metadata().and_then(|metadata| metadata.modified()).is_ok_and(|written| written < since);
    Ok(ledger::segments(folder)?.into_iter().filter(|(name, _)| old(name)).collect())
}

/// In place of an outcome, of what is under way.
pub const RUNNING: &str = "running";

fn unreadable(folder: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", folder.display())
}

/// Entries that become complete as the ledger is read to its end.
fn beyond(tail: &mut Tail, progress: &mut impl FnMut(u64, u64), mut on: impl FnMut(&Entry) -> Result<(), String>) -> Result<(), String> {
    let (read, folder): (u64, _) = (tail.cursor().values().sum(), tail.folder().to_owned());
    let bytes: u64 = ledger::segments(&folder).map_err(|error| unreadable(&folder, &error))?.iter().map(|(_, bytes)| bytes).sum();
    let bytes = bytes.saturating_sub(read);
    // What was read is used while more is read.
    std::thread::scope(|scope| {
        let (pieces, arrivals) = mpsc::sync_channel(1);
        scope.spawn(move || {
            loop {
                let piece = tail.poll().map(|entries| (entries, tail.lag_bytes));
                let more = piece.as_ref().is_ok_and(|(_, lag_bytes)| *lag_bytes > 0);
                if pieces.send(piece).is_err() || !more {
                    break;
                }
            }
        });
        for piece in arrivals {
            let (entries, lag_bytes) = piece.map_err(|error| unreadable(&folder, &error))?;
            entries.iter().try_for_each(&mut on)?;
            progress(bytes.saturating_sub(lag_bytes), bytes);
        }
        Ok(())
    })
}

/// What a request cost is found below this path, by the request's id.
pub const BILL: &str = "/usage/requests/";

/// It, as JSON.
pub fn bill(request_id: &str, entries: &[Entry]) -> String {
    serde_json::json!({"request_id": request_id, "entries": entries}).to_string()
}

/// The attempts and turns of one request, as far as they are known.
///
/// # Errors
/// Says what cannot be read.
pub fn request(data: &Path, id: &str) -> Result<Vec<Entry>, String> {
    let sqlite = Sqlite::open_read_only(&data.join(DATABASE))?;
    let (mut found, cursor) = match sqlite {
        Some(sqlite) => sqlite.request(id)?,
        None => (vec![], Cursor::new()),
    };
    let folder = data.join("ledger");
    let mut tail = Tail::new(&folder, cursor);
    let mut take = |entry: &Entry| {
        if entry.open.request_id == id && found.iter().all(|known| known.id != entry.id) {
            found.push(entry.clone());
        }
    };
    beyond(&mut tail, &mut |_, _| {}, |entry| {
        take(entry);
        Ok(())
    })?;
    tail.pending().map_err(|error| unreadable(&folder, &error))?.for_each(|(entry, _)| take(&entry));
    found.sort_by_key(|entry| (entry.open.attempt, entry.open.start_ms));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Line;

    fn row(id: &str, tags: &[&str], at: u64, charge: i128) -> Row {
        let usage = [(Dimension::Input, 5), (Dimension::CacheRead, 2), (Dimension::Output, 3)].into_iter().collect();
        let line = Line { model: "m,\"".to_owned(), usage, charge: PicoUsd(charge), ..Line::default() };
        Row {
            id: id.to_owned(),
            start_ms: 86_400_000 + 3_600_000,
            upstream: "=u".to_owned(),
            key: Some("1f".to_owned()),
            key_name: Some("ci".to_owned()),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            outcome: "ok".to_owned(),
            billed: true,
            complete: true,
            line: Some((at, line)),
            ..Row::default()
        }
    }

    fn report(question: &Question, rows: &[Row]) -> Report {
        let mut report = Report { by: question.by.clone(), ..Report::default() };
        rows.iter().for_each(|row| report.add(row, question));
        report
    }

    #[test]
    fn an_entry_counts_under_each_tag_and_once_in_all() {
        let rows = [row("1", &["a", "b"], 0, 10), row("1", &["a", "b"], 1, 5), row("2", &[], 0, 1)];
        let report = report(&Question { by: vec![By::Tag, By::Day], ..Question::default() }, &rows);
        let groups: Vec<_> = report.groups.iter().map(|(group, sum)| (group.join(" "), sum.requests, sum.total.0)).collect();
        assert_eq!(groups, [("- 1970-01-02".to_owned(), 1, 1), ("a 1970-01-02".to_owned(), 1, 15), ("b 1970-01-02".to_owned(), 1, 15)]);
        assert_eq!((report.total.requests, report.total.input, report.total.total.0), (2, 21, 16));
    }

    #[test]
    fn incomplete_entries_are_counted_once_and_grouped_by_their_faults() {
        let marked = |at, faults: &[&str]| Row {
            complete: false,
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
            ..row("1", &[], at, 1)
        };
        let running = Row { id: "3".to_owned(), complete: false, outcome: RUNNING.to_owned(), line: None, ..Row::default() };
        let rows =
            [marked(0, &["unknown_usage", "unknown_tier"]), marked(1, &["unknown_usage", "unknown_tier"]), row("2", &[], 0, 1), running];
        let report = report(&Question { by: vec![By::Fault], ..Question::default() }, &rows);
        let groups: Vec<_> = report.groups.iter().map(|(group, sum)| (group[0].as_str(), sum.incomplete)).collect();
        assert_eq!(groups, [("-", 0), ("unknown_tier", 1), ("unknown_usage", 1)]);
        assert_eq!(report.total.incomplete, 1);
    }

    #[test]
    fn keeps_the_groups_that_cost_most() {
        let rows = [(1, "cheap"), (3, "dear"), (2, "middling")]
            .map(|(charge, user)| Row { user: Some(user.to_owned()), ..row(user, &[], 0, charge) });
        let mut report = report(&Question { by: vec![By::User], ..Question::default() }, &rows);
        report.keep(3);
        assert_eq!(report.groups.len(), 3);
        report.keep(2);
        assert_eq!(report.groups.keys().collect::<Vec<_>>(), [&["dear"], &["middling"]]);
        assert_eq!(report.total.total.0, 6);
    }

    #[test]
    fn groups_beyond_the_bound_are_summed_up() {
        let rows: Vec<_> = (0..5).map(|at| Row { user: Some(format!("u{at}")), ..row(&at.to_string(), &[], 0, 1) }).collect();
        let report = report(&Question { by: vec![By::User], groups_max: Some(3), ..Question::default() }, &rows);
        let groups: Vec<_> = report.groups.iter().map(|(group, sum)| (group[0].as_str(), sum.requests)).collect();
        assert_eq!(groups, [(OTHERS, 2), ("u0", 1), ("u1", 1), ("u2", 1)]);
        assert_eq!(report.total.requests, 5);
    }

    #[test]
    fn filters_by_time_and_group() {
        let rows = [row("1", &["a"], 0, 1)];
        let at = rows[0].start_ms;
        let asked = |only: Vec<(By, &str)>, since, until| Question {
            by: vec![By::Model],
            since,
            until,
            only: only.into_iter().map(|(by, group)| (by, group.to_owned())).collect(),
            limit: None,
            groups_max: None,
        };
        for (question, found) in [
            (asked(vec![], Some(at), Some(at + 1)), 1),
            (asked(vec![], Some(at + 1), None), 0),
            (asked(vec![], None, Some(at)), 0),
            (asked(vec![(By::Key, "ci")], None, None), 1),
            (asked(vec![(By::Key, "1f")], None, None), 1),
            (asked(vec![(By::Key, "ci (1f)"), (By::Tag, "a")], None, None), 1),
            (asked(vec![(By::Key, "ci"), (By::Tag, "b")], None, None), 0),
        ] {
            assert_eq!(report(&question, &rows).total.requests, found, "{question:?}");
        }
    }

    #[test]
    fn writes_tables_that_no_spreadsheet_takes_for_formulas() {
        let report = report(&Question { by: vec![By::Provider, By::Model], ..Question::default() }, &[row("1", &[], 0, 1_500_000_000_000)]);
        assert_eq!(
            report.to_csv(),
            "provider,model,requests,input,cached,output,unpriced,unmetered,estimated,incomplete,usd\r\n\"'=u\",\"m,\"\"\",1,7,2,3,0,0,0,0,1.50\r\n"
        );
        assert_eq!(report.to_json()[0]["pico_usd"], "1500000000000");
    }
}
