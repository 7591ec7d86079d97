//! Sinks: copies of the ledger where it can be asked. Each reads it behind a cursor of its own, on a thread of its own;
//! however slow one is, no request meets it. An entry comes at least once, and is known by its id.

pub mod clickhouse;
pub mod copies;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod overview;
mod post;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod report;
pub mod sqlite;
pub mod tail;
pub mod time;
pub mod webhook;

use crate::ledger::Entry;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
pub use tail::{Cursor, Tail};

/// How often the ledger is looked at when there was nothing new.
const LOOK: Duration = Duration::from_millis(250);
/// How often someone else is asked whether it still runs the sink.
const TAKE_OVER: Duration = Duration::from_secs(1);
/// After a failure, doubled with each further one.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Given to a sink at once.
const BATCH_ENTRIES: usize = 2_000;

/// Where entries go.
pub trait Sink: Send {
    /// How far it has got.
    ///
    /// # Errors
    /// Says why that cannot be told now.
    fn cursor(&mut self) -> Result<Cursor, String>;

    /// Finds out whether what it wrote is still there.
    ///
    /// # Errors
    /// Says what is wrong; it is opened anew then.
    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Takes entries and how far they reach: both are safe when this returns, or neither.
    ///
    /// # Errors
    /// Says why they were not taken; they come again.
    fn put(&mut self, entries: &[Entry], cursor: Option<&Cursor>) -> Result<(), String>;
}

/// How a sink is doing, for metrics and for who removes old segments.
#[derive(Debug, Default)]
pub struct Progress {
    pub entries: AtomicU64,
    pub failures: AtomicU64,
    /// Lines it met that are no records.
    pub damaged: AtomicU64,
    /// Bytes of the ledger that it has not read.
    pub lag_bytes: AtomicU64,
    safe: Mutex<Cursor>,
}

impl Progress {
    /// True if all of a segment of this name and size has been taken.
    pub fn has_taken(&self, segment: &str, bytes: u64) -> bool {
        self.safe().get(segment).is_some_and(|safe| *safe >= bytes)
    }

    fn safe(&self) -> MutexGuard<'_, Cursor> {
        self.safe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is needed to run a sink.
pub struct Run {
    pub name: &'static str,
    pub ledger: PathBuf,
    /// Where its lock lies: of several processes one feeds it.
    pub folder: PathBuf,
    pub progress: Arc<Progress>,
    pub stop: Arc<AtomicBool>,
}

impl Run {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits, unless it is told to stop.
    fn pause(&self, mut pause: Duration) {
        while !pause.is_zero() && !self.stopped() {
            let step = pause.min(Duration::from_millis(50));
            std::thread::sleep(step);
            pause = pause.saturating_sub(step);
        }
    }

    /// Feeds a sink until told to stop. What it makes is made again after each failure.
    pub fn feed(&self, mut open: impl FnMut() -> Result<Box<dyn Sink>, String>) {
        let Some(_lock) = self.lock() else { return };
        let mut pause = RETRY;
        while !self.stopped() {
            // A defect in one sink must not end it in silence.
            let fed = catch_unwind(AssertUnwindSafe(|| open().and_then(|mut sink| self.feed_one(&mut *sink, &mut pause))));
            let failed = fed.unwrap_or_else(|_| Err("it panicked".to_owned()));
            if let Err(why) = failed {
                self.progress.failures.fetch_add(1, Ordering::Relaxed);
                self.progress.lag_bytes.store(self.behind(), Ordering::Relaxed);
                log::error!("sink {}: {why}; it goes on in {pause:?}", self.name);
                self.pause(pause);
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }

    /// Bytes of the ledger that are not safe in the sink, as far as is known while it takes nothing.
    fn behind(&self) -> u64 {
        let safe = self.progress.safe();
        let left = |(name, bytes): (String, u64)| bytes.saturating_sub(safe.get(&name).copied().unwrap_or(0));
        crate::ledger::segments(&self.ledger).unwrap_or_default().into_iter().map(left).sum()
    }

    fn feed_one(&self, sink: &mut dyn Sink, pause: &mut Duration) -> Result<(), String> {
        let cursor = sink.cursor()?;
        self.progress.safe().clone_from(&cursor);
        let mut tail = Tail::new(&self.ledger, cursor.clone());
        let (mut safe, mut damaged) = (cursor, 0);
        loop {
            sink.check()?;
            let entries = tail.poll().map_err(|error| format!("the ledger cannot be read: {error}"))?;
            if tail.damaged > damaged {
                let lines = tail.damaged - damaged;
                self.progress.damaged.fetch_add(lines, Ordering::Relaxed);
                log::error!("sink {}: damage in the ledger: {lines} lines are no records", self.name);
                damaged = tail.damaged;
            }
            let mut batches = entries.chunks(BATCH_ENTRIES).peekable();
            // Read and not yet taken is behind, too, as long as a sink takes nothing.
            self.progress.lag_bytes.store(tail.lag_bytes + tail.read_bytes, Ordering::Relaxed);
            let cursor = tail.cursor();
            if batches.peek().is_none() && cursor != safe {
                sink.put(&[], Some(&cursor))?;
            }
            while let Some(batch) = batches.next() {
                // Only with the last of them all is safe that was read.
                sink.put(batch, batches.peek().is_none().then_some(&cursor))?;
                self.progress.entries.fetch_add(batch.len() as u64, Ordering::Relaxed);
                *pause = RETRY;
            }
            if cursor != safe {
                safe.clone_from(&cursor);
                *self.progress.safe() = cursor;
            }
            self.progress.lag_bytes.store(tail.lag_bytes, Ordering::Relaxed);
            if self.stopped() {
                return Ok(());
            }
            if tail.lag_bytes == 0 {
                self.pause(LOOK);
            }
        }
    }

    /// Becomes the one that feeds the sink; `None` if told to stop before.
    fn lock(&self) -> Option<File> {
        loop {
            let path = self.folder.join(format!("{}.lock", self.name));
            let locked = std::fs::create_dir_all(&self.folder).and_then(|()| lock(&path));
            match locked {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => {}
                Err(error) => log::error!("sink {}: {}: {error}", self.name, path.display()),
            }
            self.pause(TAKE_OVER);
            if self.stopped() {
                return None;
            }
        }
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    Ok(file.try_lock().is_ok().then_some(file))
}

/// Whom to trust: the certificates of a file, or the system's.
#[cfg(any(feature = "kafka", feature = "postgres"))]
fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in crate::config::certificates(path)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// A cursor in a file of its own, for sinks that cannot keep one.
#[derive(Debug)]
pub struct CursorFile(PathBuf);

impl CursorFile {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// # Errors
    /// If there is one that cannot be read.
    pub fn read(&self) -> Result<Cursor, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", self.0.display());
        match std::fs::read(&self.0) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| told(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(told(&error)),
        }
    }

    /// # Errors
    /// If it cannot be written; the one before stays.
    pub fn write(&self, cursor: &Cursor) -> Result<(), String> {
        let fresh = self.0.with_extension("new");
        let text = serde_json::to_vec(cursor).map_err(|error| error.to_string())?;
        let written = File::create(&fresh).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.0)
        });
        written.map_err(|error| format!("{}: {error}", self.0.display()))
    }
}
