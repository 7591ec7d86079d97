//! The access log: a JSON line for every attempt and every refusal, written by a thread of its own. A request never
//! waits for it; what does not fit its queue is dropped and counted.

use crate::config::AccessLog;
use crate::ledger::Entry;
use crate::metrics::Metrics;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that may wait to be written.
pub const QUEUE_LINES_MAX: usize = 16 * 1024;

/// Hands lines to the writer.
pub struct Log {
    queue: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
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
    /// Starts the writer.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(to: &AccessLog, metrics: Arc<Metrics>) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match to {
            AccessLog::Off => return Ok(Self { queue: None, writer: None, waiting: Arc::default(), metrics }),
            AccessLog::Stdout => Box::new(io::stdout()),
            AccessLog::File(path) => Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = waiting.clone();
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(out, &lines, &written))?;
        Ok(Self { queue: Some(queue), writer: Some(writer), waiting, metrics })
    }

    /// An attempt ended.
    pub fn entry(&self, entry: &Entry) {
        self.line(entry);
    }

    /// A request was refused.
    pub fn refusal(&self, refusal: &Refusal<'_>) {
        self.line(refusal);
    }

    fn line(&self, what: &impl Serialize) {
        let Some(queue) = &self.queue else { return };
        let mut line = Vec::with_capacity(1024);
        if serde_json::to_writer(&mut line, what).is_err() {
            return;
        }
        line.push(b'\n');
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if queue.try_send(line).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.access_log_dropped.inc();
        }
    }

    /// Waits until what is queued has been written, for a process that leaves without dropping this.
    pub fn settle(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        while self.waiting.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Log {
    /// Writes what is queued before the process leaves.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Writes batches: whatever waits goes out in one call.
fn write(mut out: Box<dyn Write + Send>, lines: &Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    const BATCH_BYTES_MAX: usize = 64 * 1024;
    let mut batch = Vec::with_capacity(BATCH_BYTES_MAX);
    while let Ok(line) = lines.recv() {
        batch.extend_from_slice(&line);
        let mut count = 1;
        while batch.len() < BATCH_BYTES_MAX
            && let Ok(line) = lines.try_recv()
        {
            batch.extend_from_slice(&line);
            count += 1;
        }
        // A reader that went away is no reason to stop serving.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        waiting.fetch_sub(count, Ordering::Relaxed);
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_queued_is_written_before_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = Log::open(&AccessLog::File(path.clone()), Arc::new(Metrics::new().unwrap())).unwrap();
        for _ in 0..1000 {
            log.refusal(&Refusal {
                request_id: "r",
                end_ms: 1,
                method: "POST",
                path: "/",
                status: 404,
                outcome: "refused",
                error: "not_found",
            });
        }
        drop(log);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}
