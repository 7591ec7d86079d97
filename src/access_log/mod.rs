//! The access log: a line for every attempt and every refusal, of JSON or for people. A request only adds its line to a
//! buffer; it is written out beside all else every few milliseconds, since a reader that takes nothing blocks who writes.
//! What does not fit the buffer, or cannot be written, is dropped and counted.

mod text;

use crate::config::{AccessLog, LogFormat, LogTo};
use crate::ledger::{Entry, Outcome};
use crate::metrics::Metrics;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use text::Text;

/// Lines that wait may take so many bytes.
pub const BUFFER_BYTES_MAX: usize = 8 << 20;

/// What an empty buffer keeps.
const SPARE_BYTES_MAX: usize = 256 << 10;

/// How long a process that ends waits for who reads its log.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Takes lines until they are written out.
pub struct Log {
    out: Option<Arc<Out>>,
    /// For people; `None`: JSON.
    text: Option<Text>,
    sample: f64,
}

/// Lines that wait, and where they go.
struct Out {
    buffer: Mutex<Vec<u8>>,
    to: Mutex<To>,
    failing: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Where lines go, and the buffer that takes turns with the one being filled: neither grows anew each time.
struct To {
    to: Box<dyn Write + Send>,
    spare: Vec<u8>,
    /// A line was taken in part.
    torn: bool,
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
    /// The address that the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The name of the gateway key, if one was recognized, and the model that was requested, if the body was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
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
        let mut torn = false;
        let out: Option<Box<dyn Write + Send>> = match &rules.to {
            LogTo::Off => None,
            LogTo::Stdout => {
                // It may be a file.
                torn = ends_torn(Path::new("/dev/stdout"));
                Some(Box::new(io::stdout()))
            }
            LogTo::File(path) => {
                torn = ends_torn(path);
                Some(Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?))
            }
        };
        let out = out.map(|to| Arc::new(Out::new(to, torn, metrics)));
        Ok(Self { out, text: for_people.then_some(Text { colored }), sample: rules.sample })
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
        let Some(out) = &self.out else { return };
        let mut buffer = out.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() >= BUFFER_BYTES_MAX {
            out.metrics.access_log_dropped.inc();
        } else {
            write(&mut buffer);
        }
    }

    /// True if a line waits.
    pub fn waits(&self) -> bool {
        self.out.as_ref().is_some_and(|out| !out.buffer.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    /// Writes out what waits. Only this may block.
    pub fn write_out(&self) {
        self.out.iter().for_each(|out| out.write_out());
    }

    /// The same, but not for ever. Waits also for lines that are on their way.
    pub fn finish(&self) {
        let Some(out) = self.out.clone() else { return };
        let (done, wait) = mpsc::channel();
        let write = move || {
            out.write_out();
            // Nobody waits any more: as good.
            let _ = done.send(());
        };
        if std::thread::Builder::new().name("last words".to_owned()).spawn(write).is_ok() && wait.recv_timeout(LAST_WORDS_MAX).is_err() {
            log::error!("nobody takes the last lines of the access log");
        }
    }
}

impl Out {
    fn new(to: Box<dyn Write + Send>, torn: bool, metrics: Arc<Metrics>) -> Self {
        Self { buffer: Mutex::default(), to: Mutex::new(To { to, spare: vec![], torn }), failing: AtomicBool::new(false), metrics }
    }

    fn write_out(&self) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let To { to, spare, torn } = &mut *to;
        std::mem::swap(spare, &mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner));
        if spare.is_empty() {
            return;
        }
        let (left, error) = match write_all(to, if *torn { b"\n" } else { b"" }).1 {
            Some(error) => (&spare[..], Some(error)),
            None => {
                *torn = false;
                write_all(to, spare)
            }
        };
        if let Some(last) = spare.len().checked_sub(left.len() + 1).and_then(|last| spare.get(last)) {
            *torn = *last != b'\n';
        }
        let lines = left.iter().filter(|byte| **byte == b'\n').count();
        self.metrics.access_log_dropped.inc_by(lines as u64);
        // A reader that went away is no reason to stop serving, nor to say so with every line.
        let failed = self.failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !failed => log::error!("the access log cannot be written: {error}"),
            None if failed => log::warn!("the access log can be written again"),
            _ => {}
        }
        spare.clear();
        // What a rush took is given back.
        spare.shrink_to(SPARE_BYTES_MAX);
    }
}

/// True if the last line of a file was taken in part, by a disk that filled up. What cannot be read back is not looked at.
fn ends_torn(path: &Path) -> bool {
    let Some(end) = std::fs::metadata(path).ok().filter(|about| about.is_file()).map(|about| about.len()) else { return false };
    let mut last = [b'\n'];
    let read = std::fs::File::open(path).and_then(|file| file.read_exact_at(&mut last, end.saturating_sub(1)));
    read.is_ok() && last != *b"\n"
}

/// What could not be written, and why.
fn write_all<'a>(to: &mut impl Write, mut data: &'a [u8]) -> (&'a [u8], Option<io::Error>) {
    while !data.is_empty() {
        match to.write(data) {
            Ok(0) => return (data, Some(io::ErrorKind::WriteZero.into())),
            Ok(written) => data = data.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (data, Some(error)),
        }
    }
    (data, to.flush().err())
}

/// All attempts of a request are told, or none: its id decides, whose last digits are drawn at random.
fn is_sampled(request_id: &str, share: f64) -> bool {
    let digits = request_id.len().checked_sub(8).and_then(|start| request_id.get(start..));
    let drawn = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    drawn.is_none_or(|drawn| f64::from(drawn) / (f64::from(u32::MAX) + 1.0) < share)
}

impl Drop for Log {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: Refusal<'_> = Refusal {
        request_id: "r",
        end_ms: 1,
        method: "POST",
        path: "/",
        status: 404,
        outcome: "refused",
        error: "not_found",
        client: None,
        key_name: None,
        model: None,
    };

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
                let entry = Entry { id: String::new(), open, used: None, close: Some(crate::ledger::Close::of(outcome)) };
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
        let out = Out::new(Box::new(io::sink()), false, metrics.clone());
        *out.buffer.lock().unwrap() = vec![b'\n'; BUFFER_BYTES_MAX - 1];
        let log = Log { out: Some(Arc::new(out)), text: None, sample: 1.0 };
        log.refusal(&REFUSAL);
        assert_eq!(metrics.access_log_dropped.get(), 0);
        log.refusal(&REFUSAL);
        assert_eq!(metrics.access_log_dropped.get(), 1);
    }

    /// A disk with some room, and what is on it.
    #[derive(Clone)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn with(room: usize) -> Self {
            Self(Arc::new(Mutex::new((room, vec![]))))
        }
    }

    impl Write for Disk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock().unwrap();
            let taken = data.len().min(*room);
            *room -= taken;
            written.extend_from_slice(&data[..taken]);
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_torn_spoils_no_other() {
        let disk = Disk::with(10);
        let out = Out::new(Box::new(disk.clone()), false, Arc::new(Metrics::new().unwrap()));
        let log = Log { out: Some(Arc::new(out)), text: None, sample: 1.0 };
        for room in [0, 1, 1000] {
            log.refusal(&REFUSAL);
            log.write_out();
            disk.0.lock().unwrap().0 += room;
        }
        log.refusal(&REFUSAL);
        log.write_out();
        let written = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        let lines: Vec<_> = written.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).collect();
        assert_eq!((&lines[..], written.ends_with('\n')), (&[false, true][..], true), "{written}");
    }

    #[test]
    fn a_line_that_an_earlier_process_tore_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.jsonl");
        for (before, want) in [("{\"a\":1}\n{\"b", 3), ("{\"a\":1}\n", 2), ("", 1)] {
            std::fs::write(&path, before).unwrap();
            let rules = AccessLog { to: LogTo::File(path.clone()), format: LogFormat::Json, sample: 1.0 };
            let log = Log::open(&rules, Arc::new(Metrics::new().unwrap())).unwrap();
            log.refusal(&REFUSAL);
            log.write_out();
            let written = std::fs::read_to_string(&path).unwrap();
            let last = written.lines().next_back().unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(last).is_ok(), "{written}");
            assert_eq!(written.lines().count(), want);
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let out = Out::new(Box::new(Disk::with(200)), false, metrics.clone());
        let log = Log { out: Some(Arc::new(out)), text: None, sample: 1.0 };
        (0..10).for_each(|_| log.refusal(&REFUSAL));
        let bytes = log.out.as_ref().unwrap().buffer.lock().unwrap().len();
        log.write_out();
        assert_eq!(metrics.access_log_dropped.get(), 10 - 200 / (bytes as u64 / 10));
        log.refusal(&REFUSAL);
        log.write_out();
        assert_eq!(metrics.access_log_dropped.get(), 11 - 200 / (bytes as u64 / 10));
    }
}
