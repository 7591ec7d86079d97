//! Lines for people: what happened, who answered, how long it took and what it cost.

use super::Refusal;
use crate::ledger::{Entry, Outcome};
use crate::printable::printable;
use crate::usage::Dimension;
use std::fmt::Write;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub colored: bool,
}

impl Text {
    /// The line of an attempt.
    pub fn entry(self, entry: &Entry, out: &mut Vec<u8>) {
        let Some(close) = &entry.close else { return };
        let (open, used) = (&entry.open, entry.used.as_ref());
        let color = match close.outcome {
            Outcome::Ok => GREEN,
            Outcome::ClientClosed => YELLOW,
            _ => RED,
        };
        let mut line = self.head(close.end_ms, close.status, color, close.error.as_deref().unwrap_or(close.outcome.name()));
        let model = used.and_then(|used| used.lines.first()).map_or(open.model.as_str(), |line| &line.model);
        // Writing to a string cannot fail.
        let _ = write!(line, "  {}/{}  {}", open.upstream, printable(model), milliseconds(close.end_ms.saturating_sub(open.start_ms)));
        if let Some(first) = close.first_byte_ms.filter(|_| open.stream) {
            let _ = write!(line, " (first byte {})", milliseconds(first.saturating_sub(open.start_ms)));
        }
        if let Some(used) = used {
            let sum = |of: fn(Dimension) -> bool| used.lines.iter().filter_map(|line| line.usage.sum(of)).sum::<u64>();
            let unpriced = used.lines.iter().any(|line| !line.unpriced.is_empty());
            let note = if unpriced { " and more without a price" } else { "" };
            let _ = write!(line, "  {} in, {} out  ${}{note}", sum(Dimension::is_input), sum(Dimension::is_output), used.total);
        }
        if let Some(cause) = &close.cause {
            let _ = write!(line, "  ({})", printable(cause));
        }
        for fault in &close.faults {
            let _ = write!(line, "  {fault}");
        }
        if open.attempt > 1 {
            let _ = write!(line, "  attempt {}", open.attempt);
        }
        if let Some(key) = &open.key_name {
            let _ = write!(line, "  key {}", printable(key));
        }
        let _ = writeln!(line, "  {}", open.request_id);
        out.extend_from_slice(line.as_bytes());
    }

    /// The line of a request that the gateway answered itself.
    pub fn refusal(self, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        let mut line = self.head(refusal.end_ms, refusal.status, RED, refusal.error);
        let _ = write!(line, "  {} {}", refusal.method, printable(refusal.path));
        for (name, value) in [("from", refusal.client.as_deref()), ("key", refusal.key_name), ("model", refusal.model)] {
            if let Some(value) = value {
                let _ = write!(line, "  {name} {}", printable(value));
            }
        }
        let _ = writeln!(line, "  {}", refusal.request_id);
        out.extend_from_slice(line.as_bytes());
    }

    fn head(self, end_ms: u64, status: u16, color: &str, word: &str) -> String {
        let at = i64::try_from(end_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        let (color, plain) = if self.colored { (color, PLAIN) } else { ("", "") };
        format!("{} {color}{status:3} {}{plain}", at.strftime("%H:%M:%S%.3fZ"), printable(word))
    }
}

fn milliseconds(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{:02} s", ms / 1000, ms % 1000 / 10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Close, Line, Open, Source, Used};
    use crate::price::PicoUsd;

    fn entry() -> Entry {
        let open = Open {
            request_id: "req".to_owned(),
            attempt: 1,
            start_ms: 1_000,
            upstream: "openai".to_owned(),
            model: "gpt-5".to_owned(),
            stream: true,
            ..Open::default()
        };
        let usage = [(Dimension::Input, 3), (Dimension::CacheRead, 2), (Dimension::Output, 4)].into_iter().collect();
        let line = Line { model: "gpt-5-2025".to_owned(), usage, charge: PicoUsd(1_500_000_000), ..Line::default() };
        let used = Used {
            reading: 1,
            source: Source::Reported,
            lines: vec![line],
            total: PicoUsd(1_500_000_000),
            catalog: String::new(),
            provider_cost: None,
            response_id: String::new(),
            unknown: vec!["usage.quantum_tokens".to_owned()],
        };
        let close = Close {
            end_ms: 3_340,
            first_byte_ms: Some(1_310),
            status: 200,
            outcome: Outcome::Ok,
            error: None,
            cause: None,
            faults: vec![],
            bytes_out: 9,
            metered: true,
            last_reading: Some(1),
            complete: true,
        };
        Entry { id: "e".to_owned(), open, used: Some(used), close: Some(close) }
    }

    fn line(colored: bool, entry: &Entry) -> String {
        let mut out = vec![];
        Text { colored }.entry(entry, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn says_what_happened_in_one_line() {
        let mut entry = entry();
        let want = "00:00:03.340Z 200 ok  openai/gpt-5-2025  2.34 s (first byte 310 ms)  5 in, 4 out  $0.0015  req\n";
        assert_eq!(line(false, &entry), want);
        assert_eq!(line(true, &entry), want.replace("200 ok", "\x1b[32m200 ok\x1b[0m"));
        let close = entry.close.as_mut().unwrap();
        (close.status, close.outcome, close.error, close.first_byte_ms) =
            (429, Outcome::UpstreamError, Some("slow\ndown".to_owned()), None);
        close.faults.push("bad_count".to_owned());
        (entry.used, entry.open.attempt, entry.open.key_name) = (None, 2, Some("c\x1bi".to_owned()));
        assert_eq!(
            line(false, &entry),
            "00:00:03.340Z 429 slow\u{fffd}down  openai/gpt-5  2.34 s  bad_count  attempt 2  key c\u{fffd}i  req\n"
        );
    }

    #[test]
    fn refusals_have_lines_too() {
        let mut out = vec![];
        let refusal = Refusal {
            request_id: "r",
            end_ms: 0,
            method: "POST",
            path: "/x",
            status: 404,
            outcome: "refused",
            error: "not_found",
            client: Some("127.0.0.1:9".to_owned()),
            key_name: Some("ci\x1b"),
            model: None,
        };
        Text { colored: false }.refusal(&refusal, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "00:00:00.000Z 404 not_found  POST /x  from 127.0.0.1:9  key ci\u{fffd}  r\n");
    }
}
