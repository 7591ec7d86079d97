//! An overview: spend, tokens and requests over time, how long they took, and which stand out. One pass over the rows that
//! reports read, too.

use super::report::{By, RUNNING, rows};
use super::sqlite::Row;
use crate::ledger::{Outcome, Source};
use crate::price::PicoUsd;
use crate::usage::Dimension;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Groups shown apart; the rest is `other`.
const GROUPS_MAX: usize = 7;
/// Of the slowest and the dearest.
const TOP: usize = 10;
/// Points of a graph, at most.
const POINTS_MAX: u64 = 120;
const MINUTE_MS: u64 = 60_000;
/// How far points may lie apart.
const STEPS_MS: &[u64] =
    &[MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, 60 * MINUTE_MS, 6 * 60 * MINUTE_MS, 24 * 60 * MINUTE_MS, 7 * 24 * 60 * MINUTE_MS];

/// What a point of a graph stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    usd: i128,
    tokens: u64,
    requests: u64,
}

/// One entry, of all its lines.
#[derive(Clone, Debug, Default)]
struct Whole {
    row: Row,
    charge: PicoUsd,
    tokens: u64,
    input: u64,
    cached: u64,
    output: u64,
    unpriced: bool,
}

impl Whole {
    fn add(&mut self, row: &Row) {
        let Some((_, line)) = &row.line else { return };
        self.charge = [self.charge, line.charge].into_iter().sum();
        let count = |of: fn(Dimension) -> bool| line.usage.sum(of).unwrap_or(0);
        let (input, output) = (count(Dimension::is_input), count(Dimension::is_output));
        self.input = self.input.saturating_add(input);
        self.output = self.output.saturating_add(output);
        self.cached = self.cached.saturating_add(line.usage.of(Dimension::CacheRead).unwrap_or(0));
        self.tokens = self.input.saturating_add(self.output);
        self.unpriced |= !line.unpriced.is_empty();
    }

    fn took_ms(&self) -> Option<u64> {
        self.row.end_ms.map(|end| end.saturating_sub(self.row.start_ms))
    }

    fn told(&self) -> Value {
        let Row { request_id, upstream, model, key_name, start_ms, outcome, .. } = &self.row;
        json!({
            "request_id": request_id, "provider": upstream, "model": model, "key": key_name, "start_ms": start_ms,
            "outcome": outcome, "duration_ms": self.took_ms(), "tokens": self.tokens, "usd": self.charge.to_string(),
        })
    }

    fn is(&self, source: Source) -> bool {
        self.row.source.as_deref() == Some(source.name())
    }
}

/// Gathers rows.
#[derive(Debug)]
struct Gather {
    since: u64,
    /// What begins then is none of it.
    until: u64,
    step: u64,
    by: By,
    /// Only what is in all of these groups.
    only: Vec<(By, String)>,
    now: Whole,
    groups: HashMap<String, BTreeMap<u64, Point>>,
    outcomes: BTreeMap<String, u64>,
    /// Errors and retries, by time.
    troubles: BTreeMap<u64, [u64; 2]>,
    /// Requests of which an attempt failed: what follows is a retry.
    failed: HashSet<String>,
    first_byte: Vec<u64>,
    duration: Vec<u64>,
    slowest: Vec<Whole>,
    dearest: Vec<Whole>,
    doubtful: BTreeMap<(String, String), [u64; 4]>,
    total: Whole,
    requests: u64,
    estimated: u64,
}

impl Gather {
    fn new(since: u64, until: u64, step: u64, by: By) -> Self {
        Self {
            since,
            until,
            step,
            by,
            only: vec![],
            now: Whole::default(),
            groups: HashMap::new(),
            outcomes: BTreeMap::new(),
            troubles: BTreeMap::new(),
            failed: HashSet::new(),
            first_byte: vec![],
            duration: vec![],
            slowest: vec![],
            dearest: vec![],
            doubtful: BTreeMap::new(),
            total: Whole::default(),
            requests: 0,
            estimated: 0,
        }
    }

    fn row(&mut self, row: &Row) {
        if !self.only.iter().all(|(by, group)| by.is(row, group)) {
            return;
        }
        if row.id != self.now.row.id {
            let whole = std::mem::replace(&mut self.now, Whole { row: row.clone(), ..Whole::default() });
            self.whole(whole);
        }
        self.now.add(row);
    }

    fn whole(&mut self, whole: Whole) {
        if whole.row.id.is_empty() || whole.row.start_ms < self.since || whole.row.start_ms >= self.until {
            return;
        }
        self.requests += 1;
        self.total.charge = [self.total.charge, whole.charge].into_iter().sum();
        for (to, count) in
            [(&mut self.total.input, whole.input), (&mut self.total.cached, whole.cached), (&mut self.total.output, whole.output)]
        {
            *to = to.saturating_add(count);
        }
        *self.outcomes.entry(whole.row.outcome.clone()).or_default() += 1;
        let at = whole.row.start_ms / self.step * self.step;
        let (failed, again) = (is_error(&whole.row.outcome), self.failed.contains(&whole.row.request_id));
        if failed || again {
            let [errors, retries] = self.troubles.entry(at).or_default();
            (*errors, *retries) = (*errors + u64::from(failed), *retries + u64::from(again));
        }
        if failed {
            self.failed.insert(whole.row.request_id.clone());
        }
        for group in self.by.of(&whole.row) {
            let point = self.groups.entry(group).or_default().entry(at).or_default();
            point.usd = point.usd.saturating_add(whole.charge.0);
            point.tokens = point.tokens.saturating_add(whole.tokens);
            point.requests += 1;
        }
        let since = |at: Option<u64>| at.map(|at| at.saturating_sub(whole.row.start_ms));
        self.first_byte.extend(since(whole.row.first_byte_ms));
        self.duration.extend(since(whole.row.end_ms));
        let guessed = whole.is(Source::Estimated) || whole.is(Source::Partial);
        let silent = whole.row.is_unmetered();
        self.estimated += u64::from(guessed);
        let marked = whole.row.is_incomplete() && !whole.row.faults.is_empty();
        if whole.unpriced || guessed || silent || marked {
            let doubt = self.doubtful.entry((whole.row.upstream.clone(), whole.row.model.clone())).or_default();
            for (count, holds) in doubt.iter_mut().zip([whole.unpriced, guessed, silent, marked]) {
                *count += u64::from(holds);
            }
        }
        keep(&mut self.slowest, &whole, |whole| whole.took_ms().map(i128::from));
        keep(&mut self.dearest, &whole, |whole| Some(whole.charge.0).filter(|charge| *charge > 0));
    }

    fn told(mut self) -> Value {
        let last = std::mem::take(&mut self.now);
        self.whole(last);
        let times: Vec<u64> = (self.since / self.step..=self.until / self.step).map(|at| at * self.step).collect();
        let sum = |which: fn(&[u64; 2]) -> u64| self.troubles.values().map(which).sum::<u64>();
        let series = |which: fn(&[u64; 2]) -> u64| times.iter().map(|at| self.troubles.get(at).map_or(0, which)).collect::<Vec<_>>();
        let doubtful: Vec<Value> = self
            .doubtful
            .iter()
            .map(|((provider, model), [unpriced, estimated, unmetered, marked])| {
                json!({"provider": provider, "model": model, "unpriced": unpriced, "estimated": estimated, "unmetered": unmetered, "marked": marked})
            })
            .collect();
        let list = |top: &[Whole]| top.iter().map(Whole::told).collect::<Vec<_>>();
        json!({
            "since_ms": self.since, "until_ms": self.until, "step_ms": self.step, "by": self.by.name(),
            "total": {
                "requests": self.requests, "errors": sum(|[errors, _]| *errors), "retries": sum(|[_, retries]| *retries),
                "usd": self.total.charge.to_string(), "input": self.total.input, "cached": self.total.cached, "output": self.total.output, "estimated": self.estimated,
            },
            "outcomes": self.outcomes,
            "times_s": times.iter().map(|at| at / 1000).collect::<Vec<_>>(),
            "errors": series(|[errors, _]| *errors), "retries": series(|[_, retries]| *retries),
            "groups": groups(self.groups, &times),
            "latency": {"first_byte_ms": percentiles(self.first_byte), "duration_ms": percentiles(self.duration)},
            "slowest": list(&self.slowest), "dearest": list(&self.dearest), "doubtful": doubtful,
        })
    }
}

/// Callers that leave are no trouble of a provider's, and what runs may end well.
fn is_error(outcome: &str) -> bool {
    ![Outcome::Ok.name(), Outcome::ClientClosed.name(), RUNNING].contains(&outcome)
}

/// Keeps the largest.
fn keep(top: &mut Vec<Whole>, whole: &Whole, size: impl Fn(&Whole) -> Option<i128>) {
    let Some(own) = size(whole) else { return };
    if top.len() < TOP || top.last().and_then(&size).is_some_and(|least| own > least) {
        top.push(whole.clone());
        top.sort_by_key(|whole| Reverse(size(whole)));
        top.truncate(TOP);
    }
}

/// The groups that cost most, then those that were asked most; the others together.
fn groups(groups: HashMap<String, BTreeMap<u64, Point>>, times: &[u64]) -> Vec<Value> {
    let size = |points: &BTreeMap<u64, Point>| {
        points.values().fold((0i128, 0u64), |(usd, requests), point| (usd.saturating_add(point.usd), requests + point.requests))
    };
    let mut list: Vec<_> = groups.into_iter().collect();
    list.sort_by(|(a, first), (b, second)| size(second).cmp(&size(first)).then_with(|| a.cmp(b)));
    let rest = list.split_off(list.len().min(GROUPS_MAX));
    if !rest.is_empty() {
        let mut other: BTreeMap<u64, Point> = BTreeMap::new();
        for (at, point) in rest.into_iter().flat_map(|(_, points)| points) {
            let sum = other.entry(at).or_default();
            *sum = Point { usd: sum.usd + point.usd, tokens: sum.tokens + point.tokens, requests: sum.requests + point.requests };
        }
        list.push(("other".to_owned(), other));
    }
    let told = |(name, points): &(String, BTreeMap<u64, Point>)| {
        let at = |at: &u64| points.get(at).copied().unwrap_or_default();
        // For drawing; exact sums are in reports.
        let usd = |point: Point| point.usd as f64 / 1e12;
        json!({
            "name": name,
            "usd": times.iter().map(|time| usd(at(time))).collect::<Vec<_>>(),
            "tokens": times.iter().map(|time| at(time).tokens).collect::<Vec<_>>(),
            "requests": times.iter().map(|time| at(time).requests).collect::<Vec<_>>(),
        })
    };
    list.iter().map(told).collect()
}

/// Nearest rank.
fn percentiles(mut values: Vec<u64>) -> Value {
    values.sort_unstable();
    let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).saturating_sub(1));
    json!({"count": values.len(), "p50": rank(50), "p90": rank(90), "p99": rank(99)})
}

/// All that a dashboard shows of what happened from `since` to `until`, in milliseconds since 1970, in all groups of `only`.
///
/// # Errors
/// Says what cannot be read.
pub fn overview(data: &Path, by: By, (since, until): (u64, u64), only: Vec<(By, String)>) -> Result<Value, String> {
    let fits = |step: &&u64| until.saturating_sub(since) / **step < POINTS_MAX;
    let step = STEPS_MS.iter().find(fits).or(STEPS_MS.last()).copied().unwrap_or(MINUTE_MS);
    // Not further back than there are points for.
    let since = since.max(until.saturating_sub(step * POINTS_MAX));
    let mut gather = Gather { only, ..Gather::new(since, until, step, by) };
    rows(data, Some(since), |_, _| {}, |row| gather.row(row))?;
    Ok(gather.told())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Line;

    fn row(id: u64, line: u64, model: &str, took_ms: u64, charge: i128) -> Row {
        let usage = [(Dimension::Input, 5), (Dimension::Output, 3)].into_iter().collect();
        Row {
            id: id.to_string(),
            request_id: format!("r{id}"),
            start_ms: 10 * MINUTE_MS + id,
            first_byte_ms: Some(10 * MINUTE_MS + id + 1),
            end_ms: Some(10 * MINUTE_MS + id + took_ms),
            model: model.to_owned(),
            outcome: "ok".to_owned(),
            source: Some("reported".to_owned()),
            billed: true,
            line: Some((line, Line { model: model.to_owned(), usage, charge: PicoUsd(charge), ..Line::default() })),
            ..Row::default()
        }
    }

    #[test]
    fn gathers_entries_whole_and_shows_what_stands_out() {
        let mut one = Gather::new(0, 12 * MINUTE_MS, 5 * MINUTE_MS, By::Model);
        // Two lines of one entry, a hundred of others.
        one.row(&row(1000, 0, "dear", 7, 2_000_000_000_000));
        one.row(&row(1000, 1, "dear", 7, 1_500_000_000_000));
        (1..=100).for_each(|id| one.row(&row(id, 0, &format!("m{}", id % 20), id, 0)));
        let told = one.told();
        assert_eq!((told["total"]["requests"].as_u64(), told["total"]["usd"].as_str()), (Some(101), Some("3.50")));
        assert_eq!(told["times_s"], json!([0, 300, 600]));
        assert_eq!((&told["groups"][0]["name"], &told["groups"][0]["usd"]), (&json!("dear"), &json!([0.0, 0.0, 3.5])));
        let names: Vec<_> = told["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
        assert_eq!((names.len(), names[GROUPS_MAX]), (GROUPS_MAX + 1, "other"));
        assert_eq!(told["latency"]["duration_ms"], json!({"count": 101, "p50": 50, "p90": 90, "p99": 99}));
        assert_eq!((&told["slowest"][0]["duration_ms"], told["slowest"].as_array().unwrap().len()), (&json!(100), TOP));
        assert_eq!(told["dearest"], json!([told["dearest"][0]]));
        assert_eq!(told["dearest"][0]["request_id"], "r1000");
        assert_eq!(percentiles(vec![]), json!({"count": 0, "p50": null, "p90": null, "p99": null}));
    }

    #[test]
    fn counts_what_failed_and_what_followed_and_nothing_after_its_end() {
        let mut one = Gather::new(0, 12 * MINUTE_MS, 5 * MINUTE_MS, By::Model);
        let attempt = |id: u64, request: &str, outcome: &str| Row {
            request_id: request.to_owned(),
            outcome: outcome.to_owned(),
            ..row(id, 0, "m", 1, 0)
        };
        one.row(&attempt(1, "a", "upstream_error"));
        one.row(&attempt(2, "a", "ok"));
        one.row(&attempt(3, "b", "running"));
        one.row(&attempt(4, "c", "client_closed"));
        one.row(&Row { start_ms: 12 * MINUTE_MS, ..attempt(5, "d", "truncated") });
        let told = one.told();
        let total = &told["total"];
        assert_eq!((&total["requests"], &total["errors"], &total["retries"]), (&json!(4), &json!(1), &json!(1)));
        assert_eq!((&told["errors"], &told["retries"]), (&json!([0, 0, 1]), &json!([0, 0, 1])));
        assert_eq!(told["outcomes"], json!({"client_closed": 1, "ok": 1, "running": 1, "upstream_error": 1}));
    }
}
