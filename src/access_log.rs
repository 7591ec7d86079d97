//! The access log: a JSON line for every attempt and every refusal. A request only adds its line to a buffer; who
//! keeps house writes it out every few milliseconds. What does not fit the buffer is dropped and counted.

use crate::config::AccessLog;
use crate::metrics::Metrics;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines that wait may take so many bytes.
pub const BUFFER_BYTES_MAX: usize = 8 << 20;

/// What an empty buffer keeps.
const SPARE_BYTES_MAX: usize = 256 << 10;

/// Takes lines until they are written out.
pub struct Log {
    out: Option<Mutex<Out>>,
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
    pub fn open(to: &AccessLog, metrics: Arc<Metrics>) -> io::Result<Self> {
        let out: Option<Box<dyn Write + Send>> = match to {
            AccessLog::Off => None,
            AccessLog::Stdout => Some(Box::new(io::stdout())),
            AccessLog::File(path) => Some(Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?)),
        };
        Ok(Self { out: out.map(|to| Mutex::new(Out { to, spare: vec![] })), buffer: Mutex::default(), metrics })
    }

    /// A request was refused.
    pub fn refusal(&self, refusal: &Refusal<'_>) {
        self.line(|buffer| {
            // A flat structure of strings and numbers: nothing in it can fail to be written to memory.
            let _ = serde_json::to_writer(&mut *buffer, refusal);
            buffer.push(b'\n');
        });
    }

    /// Takes a line, with its end.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
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

    #[test]
    fn everything_taken_is_written_before_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = Log::open(&AccessLog::File(path.clone()), Arc::new(Metrics::new().unwrap())).unwrap();
        (0..1000).for_each(|_| log.refusal(&REFUSAL));
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn a_full_buffer_drops_and_counts() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let buffer = Mutex::new(vec![b'\n'; BUFFER_BYTES_MAX - 1]);
        let out = Out { to: Box::new(io::sink()), spare: vec![] };
        let log = Log { out: Some(Mutex::new(out)), buffer, metrics: metrics.clone() };
        log.refusal(&REFUSAL);
        assert_eq!(metrics.access_log_dropped.get(), 0);
        log.refusal(&REFUSAL);
        assert_eq!(metrics.access_log_dropped.get(), 1);
    }
}
