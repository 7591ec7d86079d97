//! The access log: a line for every attempt and every refusal, of JSON or for people. A request only adds its line to a
//! buffer; who keeps house writes it out every few milliseconds. What does not fit the buffer is dropped and counted.

mod text;

use crate::config::{AccessLog, LogFormat, LogTo};
use crate::ledger::{Entry, Outcome};
use crate::metrics::Metrics;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use text::Text;

/// Lines that wait may take so many bytes.
pub const BUFFER_BYTES_MAX: usize = 8 << 20;

/// What an empty buffer keeps.
const SPARE_BYTES_MAX: usize = 256 << 10;

/// Takes lines until they are written out.
pub struct Log {
    out: Option<Mutex<Out>>,
    /// For people; `None`: JSON.
    text: Option<Text>,
    sample: f64,
    buffer: Mutex<Vec<u8>>,
    metrics: Arc<Metrics>,
}

/// Where lines go, and the buffer that takes turns with the one being filled: neither grows anew each time.
struct Out {
    to: Box<dyn Write + Send>,
    spare: Vec<u8>,
}

/// A request the gateway answered with an error of its own.
#[derive(Serialize)]
pub struct Refusal<'a> {
    pub request_id: &'a str,
    pub end_ms: u64,
    pub method: &'a str,
    /// Without the query, which may hold a key.
    pub path: &'a str,
    pub status: u16,
    pub outcome: &'static str,
    pub error: &'static str,
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// If its file cannot be opened.
    pub fn open(rules: &AccessLog, metrics: Arc<Metrics>) -> io::Result<Self> {
        let terminal = rules.to == LogTo::Stdout && io::stdout().is_terminal();
        let for_people = match rules.format {
            LogFormat::Auto => terminal,
            LogFormat::Json => false,
            LogFormat::Text => true,
        };
        // <https://no-color.org>
        let colored = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let out: Option<Box<dyn Write + Send>> = match &rules.to {
            LogTo::Off => None,
            LogTo::Stdout => Some(Box::new(io::stdout())),
            LogTo::File(path) => Some(Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?)),
        };
        Ok(Self {
            out: out.map(|to| Mutex::new(Out { to, spare: vec![] })),
            text: for_people.then_some(Text { colored }),
            sample: rules.sample,
            buffer: Mutex::default(),
            metrics,
        })
    }

    /// An attempt ended; `json` appends its line as JSON.
    pub fn entry(&self, entry: &Entry, json: impl FnOnce(&mut Vec<u8>)) {
        if self.sample < 1.0 && entry.outcome() == Outcome::Ok && !is_sampled(&entry.open.request_id, self.sample) {
            return;
        }
        self.line(|buffer| match self.text {
            Some(text) => text.entry(entry, buffer),
            None => json(buffer),
        });
    }

    /// A request was refused.
    pub fn refusal(&self, refusal: &Refusal<'_>) {
        self.line(|buffer| {
            if let Some(text) = self.text {
                return text.refusal(refusal, buffer);
            }
            // A flat structure of strings and numbers: nothing in it can fail to be written to memory.
            let _ = serde_json::to_writer(&mut *buffer, refusal);
            buffer.push(b'\n');
        });
    }

    /// Takes a line, with its end.
    fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.out.is_none() {
            return;
        }
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() >= BUFFER_BYTES_MAX {
            self.metrics.access_log_dropped.inc();
        } else {
            write(&mut buffer);
        }
    }

    /// Writes out what waits. Only this may block.
    pub fn write_out(&self) {
        let Some(out) = &self.out else { return };
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        let Out { to, spare } = &mut *out;
        std::mem::swap(spare, &mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner));
        if !spare.is_empty() {
            // A reader that went away is no reason to stop serving.
            let _ = to.write_all(spare).and_then(|()| to.flush());
            spare.clear();
            // What a rush took is given back.
            spare.shrink_to(SPARE_BYTES_MAX);
        }
    }
}

/// All attempts of a request are told, or none: its id decides, whose last digits are drawn at random.
fn is_sampled(request_id: &str, share: f64) -> bool {
    let digits = request_id.len().checked_sub(8).and_then(|start| request_id.get(start..));
    let drawn = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    drawn.is_none_or(|drawn| f64::from(drawn) / (f64::from(u32::MAX) + 1.0) < share)
}

impl Drop for Log {
    fn drop(&mut self) {
        self.write_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: Refusal<'_> =
        Refusal { request_id: "r", end_ms: 1, method: "POST", path: "/", status: 404, outcome: "refused", error: "not_found" };

    fn close(outcome: Outcome) -> crate::ledger::Close {
        let (error, faults) = (None, vec![]);
        crate::ledger::Close {
            end_ms: 1,
            first_byte_ms: None,
            status: 200,
            outcome,
            error,
            faults,
            bytes_out: 0,
            metered: false,
            last_reading: None,
        }
    }

    #[test]
    fn everything_taken_is_written_before_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rules = AccessLog { to: LogTo::File(path.clone()), format: LogFormat::Auto, sample: 1.0 };
        let log = Log::open(&rules, Arc::new(Metrics::new().unwrap())).unwrap();
        (0..1000).for_each(|_| log.refusal(&REFUSAL));
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn a_share_of_what_went_well_is_told_and_all_that_did_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rules = AccessLog { to: LogTo::File(path.clone()), format: LogFormat::Text, sample: 0.25 };
        let log = Log::open(&rules, Arc::new(Metrics::new().unwrap())).unwrap();
        let mut told = 0;
        for at in 0..1000u32 {
            for outcome in [Outcome::Ok, Outcome::Truncated] {
                let request_id = format!("0192d1c0-0000-7000-8000-0000{:08x}", at.wrapping_mul(0x9e37_79b9));
                let open = crate::ledger::Open { request_id, ..crate::ledger::Open::default() };
                let entry = Entry { id: String::new(), open, used: None, close: Some(close(outcome)) };
                told += u32::from(outcome == Outcome::Ok && is_sampled(&entry.open.request_id, 0.25));
                log.entry(&entry, |_| panic!("text was asked for"));
            }
        }
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count();
        assert_eq!((count(" truncated "), count(" ok ")), (1000, told as usize));
        assert!((200..300).contains(&told), "{told}");
    }

    #[test]
    fn a_full_buffer_drops_and_counts() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let buffer = Mutex::new(vec![b'\n'; BUFFER_BYTES_MAX - 1]);
        let out = Out { to: Box::new(io::sink()), spare: vec![] };
        let log = Log { out: Some(Mutex::new(out)), text: None, sample: 1.0, buffer, metrics: metrics.clone() };
        log.refusal(&REFUSAL);
        assert_eq!(metrics.access_log_dropped.get(), 0);
        log.refusal(&REFUSAL);
        assert_eq!(metrics.access_log_dropped.get(), 1);
    }
}
