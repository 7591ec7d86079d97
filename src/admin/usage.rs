//! `GET /usage`: reports over the ledger; `GET /usage/requests/{id}`: the attempts of one request.

use crate::sink::overview::overview;
use crate::sink::report::{ADMIN_GROUPS_MAX, BILL, By, Question, Report, bill, request};
use crate::sink::time::parse_time;
use percent_encoding::percent_decode_str;
use std::path::Path;

/// Status, content type, body.
pub type Answer = (u16, &'static str, String);

const JSON: &str = "application/json";
const CSV: &str = "text/csv; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What a path below `/usage` is answered with. Reads files; `now_ms` is what ages count from.
pub fn answer(data: &Path, path: &str, query: &str, now_ms: u64) -> Answer {
    match path.strip_prefix(BILL) {
        Some(id) => one(data, id),
        None if path == "/overview" => whole(data, query, now_ms),
        None => report(data, query, now_ms),
    }
}

/// A day, unless something else is asked for.
fn whole(data: &Path, query: &str, now_ms: u64) -> Answer {
    const DAY_MS: u64 = 86_400_000;
    match question(query, now_ms) {
        Ok((Question { by, since, until, only, limit: None, .. }, false)) if by.len() == 1 => {
            let (by, since) = (by.first().copied().unwrap_or(By::Model), since.unwrap_or(now_ms.saturating_sub(DAY_MS)));
            match overview(data, by, (since, until.unwrap_or(now_ms)), only) {
                Ok(overview) => (200, JSON, overview.to_string()),
                Err(why) => failed(&why),
            }
        }
        Ok(_) => (400, TEXT, "an overview takes one `by`, `since` and `until`\n".to_owned()),
        Err(why) => (400, TEXT, format!("{why}\n")),
    }
}

fn one(data: &Path, id: &str) -> Answer {
    match request(data, id) {
        Ok(entries) if entries.is_empty() => (404, TEXT, "no request of this id is known\n".to_owned()),
        Ok(entries) => (200, JSON, bill(id, &entries)),
        Err(why) => failed(&why),
    }
}

fn report(data: &Path, query: &str, now_ms: u64) -> Answer {
    let (question, csv) = match question(query, now_ms) {
        Ok(asked) => asked,
        Err(why) => return (400, TEXT, format!("{why}\n")),
    };
    match Report::of(data, &question, |_, _| {}) {
        Ok(report) if csv => (200, CSV, report.to_csv()),
        Ok(report) => (200, JSON, report.to_json().to_string()),
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> Answer {
    log::error!("usage: {why}");
    (500, TEXT, "the ledger cannot be read; the log says why\n".to_owned())
}

/// What a query asks, and whether as CSV.
fn question(query: &str, now_ms: u64) -> Result<(Question, bool), String> {
    let (mut question, mut csv) = (Question { groups_max: Some(ADMIN_GROUPS_MAX), ..Question::default() }, false);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(&value.replace('+', " ")).decode_utf8().map_err(|_| format!("`{name}` is not text"))?.into_owned();
        let time = || parse_time(&value, now_ms).ok_or_else(|| format!("`{name}={value}` is not a date, a time or an age"));
        match (name, value.as_str()) {
            ("by", list) => {
                for by in list.split(',') {
                    question.by.push(By::from_name(by).ok_or_else(|| format!("`by={by}` is not one of {}", By::names()))?);
                }
            }
            ("since", _) => question.since = Some(time()?),
            ("until", _) => question.until = Some(time()?),
            ("limit", _) => {
                let limit = value.parse().map_err(|_| format!("`limit={value}` is not a number"))?;
                question.limit = Some(limit);
            }
            ("format", "csv") => csv = true,
            ("format", "json") => csv = false,
            _ => {
                let by = By::from_name(name)
                    .ok_or_else(|| format!("`{name}` is none of by, since, until, limit, format (json, csv), {}", By::names()))?;
                question.only.push((by, value));
            }
        }
    }
    if question.by.is_empty() {
        question.by.push(By::Model);
    }
    Ok((question, csv))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_questions() {
        let now = 100_000_000;
        let (asked, csv) = question("by=model,day&by=tag&since=1h&key=a%20b&org=x+y&format=csv", now).unwrap();
        let only = vec![(By::Key, "a b".to_owned()), (By::Org, "x y".to_owned())];
        assert_eq!(
            asked,
            Question {
                by: vec![By::Model, By::Day, By::Tag],
                since: Some(now - 3_600_000),
                until: None,
                only,
                limit: None,
                groups_max: Some(ADMIN_GROUPS_MAX)
            }
        );
        assert!(csv);
        assert_eq!(question("", now).unwrap().0.by, [By::Model]);
        for (bad, want) in
            [("by=colour", "colour"), ("since=soon", "soon"), ("format=xml", "format"), ("x=1", "`x`"), ("key=%ff", "not text")]
        {
            assert!(question(bad, now).unwrap_err().contains(want), "{bad}");
        }
    }
}
