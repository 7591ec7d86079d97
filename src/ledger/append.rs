//! Appending: lines that are in the kernel's hands whole before anybody acts on them, so that a killed process loses
//! nothing it has appended. What the disk did not take is kept and written when it does again.

use super::render::Rendered;
use super::segment::{EXTENSION, Segment};
use super::writer::{Writer, Writers};
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Records put off that are written without waiting further.
const LATER_BYTES_MAX: usize = 64 * 1024;
/// What a disk that takes nothing leaves in memory, per segment; more is lost, and counted.
pub const KEPT_BYTES_MAX: usize = 16 << 20;

/// Appends records. There are as many segments as threads, and all records of an entry go to one lane of them, in their
/// order: threads seldom wait for one another, and readers need not look for what came first elsewhere.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    writer: Writer,
    segments: Vec<Mutex<Segment>>,
    bytes_max: u64,
    failures: AtomicU64,
    /// The last write failed.
    failing: AtomicBool,
    /// The last sync failed.
    unsynced: AtomicBool,
    lost: AtomicU64,
    /// One sync at a time: who waits for one waits for what another has begun.
    syncing: Mutex<()>,
}

/// A record that was put in and may not be written yet: whoever asks first writes all that was put in meanwhile, so that
/// requests of one turn of a thread share a write.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    lane: usize,
    flushes: u64,
}

impl Ledger {
    /// Opens `writers` fresh segments in a folder, which is created if need be; each is followed by another when it
    /// exceeds `bytes_max`. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// If the folder or a segment cannot be created.
    pub fn open(folder: &Path, writers: usize, bytes_max: u64, now: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let writer = Writer::open(folder)?;
        let segments =
            (0..writers.max(1)).map(|lane| Segment::open(folder, &writer, lane, now).map(Mutex::new)).collect::<io::Result<_>>()?;
        let (failures, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self {
            folder: folder.to_owned(),
            writer,
            segments,
            bytes_max,
            failures,
            failing: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            lost,
            syncing: Mutex::new(()),
        })
    }

    /// By what name its segments are known as this process's.
    pub fn writer(&self) -> &str {
        self.writer.name()
    }

    /// Appends a record of work that was not begun: it is in the kernel's hands when this returns, and so is all that was
    /// put off before it.
    ///
    /// # Errors
    /// If it could not be written; it then never will be. The failure is also counted.
    pub fn append(&self, id: &str, record: &Rendered) -> io::Result<()> {
        let due = self.put_open(id, record);
        self.opened(due, id, record)
    }

    /// Puts in a record of work that is not to begin before [`Ledger::opened`] has said that it is written.
    pub fn put_open(&self, id: &str, record: &Rendered) -> Due {
        self.put(id, |segment| record.write_record(id, &mut segment.lines))
    }

    /// Makes sure that a record is in the kernel's hands, of work that was not begun.
    ///
    /// # Errors
    /// If it could not be written; it then never will be. The failure is also counted.
    pub fn opened(&self, due: Due, id: &str, record: &Rendered) -> io::Result<()> {
        self.written_or(due, |segment, error| {
            let mut line = vec![];
            record.write_record(id, &mut line);
            match memchr::memmem::rfind(&segment.lines, &line) {
                Some(at) => drop(segment.lines.drain(at..at + line.len())),
                // It was written before the disk took no more.
                None => return Ok(()),
            }
            Err(error)
        })
    }

    /// Puts in a record of what has happened, to be written by [`Ledger::written`]. If it cannot be it is kept, and written
    /// when the disk takes it.
    pub fn put_used(&self, id: &str, record: &Rendered) -> Due {
        self.put(id, |segment| self.keep(segment, id, record))
    }

    /// Makes sure that a record of what has happened is in the kernel's hands.
    ///
    /// # Errors
    /// If it is not yet. The failure is also counted.
    pub fn written(&self, due: Due) -> io::Result<()> {
        self.written_or(due, |_, error| Err(error))
    }

    fn put(&self, id: &str, line: impl FnOnce(&mut Segment)) -> Due {
        let lane = self.lane(id);
        let Some(segment) = self.segments.get(lane) else { return Due { lane, flushes: 0 } };
        let mut segment = locked(segment);
        line(&mut segment);
        Due { lane, flushes: segment.flushes }
    }

    fn written_or(&self, due: Due, failed: impl FnOnce(&mut Segment, io::Error) -> io::Result<()>) -> io::Result<()> {
        let Some(segment) = self.segments.get(due.lane) else { return Err(io::ErrorKind::NotFound.into()) };
        let mut segment = locked(segment);
        if segment.flushes > due.flushes || segment.lines.is_empty() {
            return Ok(());
        }
        let written = segment.flush();
        match self.noted(written) {
            Err(error) => failed(&mut segment, error),
            Ok(()) => Ok(()),
        }
    }

    /// Appends a record of what has happened. If it cannot be written it is kept, and written when the disk takes it.
    ///
    /// # Errors
    /// If it is not in the kernel's hands yet. The failure is also counted.
    pub fn append_or_keep(&self, id: &str, record: &Rendered) -> io::Result<()> {
        let due = self.put_used(id, record);
        self.written(due)
    }

    /// The same for several records of one entry, of which others see all or none.
    ///
    /// # Errors
    /// As [`Ledger::append_or_keep`].
    pub fn append_all<'r>(&self, id: &str, records: impl IntoIterator<Item = &'r Rendered>) -> io::Result<()> {
        let due = self.put(id, |segment| records.into_iter().for_each(|record| self.keep(segment, id, record)));
        self.written(due)
    }

    /// Puts a record off until the next one is appended or [`Ledger::flush`] is called: for records that tell no more
    /// than that nothing was left open, and whose loss costs no money.
    pub fn append_later(&self, id: &str, record: &Rendered) {
        let mut many = false;
        let due = self.put(id, |segment| {
            self.keep(segment, id, record);
            many = segment.lines.len() > LATER_BYTES_MAX;
        });
        if many {
            // A failure is counted; the next append meets the same fault and is heard.
            drop(self.written(due));
        }
    }

    fn keep(&self, segment: &mut Segment, id: &str, record: &Rendered) {
        if segment.lines.len() < KEPT_BYTES_MAX {
            record.write_record(id, &mut segment.lines);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what was put off or kept. After a failure it writes at least an empty line, to find out whether it is over.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn flush(&self) -> io::Result<()> {
        self.each(|mut segment| {
            if self.failing.load(Ordering::Relaxed) && segment.lines.is_empty() {
                segment.lines.push(b'\n');
            }
            let any = !segment.lines.is_empty();
            let written = segment.flush();
            if any { self.noted(written) } else { Ok(()) }
        })
    }

    /// Hands what was written to the disk itself, so that it survives a loss of power. May take long; nobody waits.
    ///
    /// # Errors
    /// If the disk refused. The failure is also counted.
    pub fn sync(&self) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let results: Vec<_> = self.segments.iter().map(|segment| self.sync_one(segment)).collect();
        let synced: io::Result<()> = results.into_iter().collect();
        self.unsynced.store(synced.is_err(), Ordering::Relaxed);
        synced
    }

    /// Without holding it meanwhile. What the disk refused is tried again the next time.
    fn sync_one(&self, segment: &Mutex<Segment>) -> io::Result<()> {
        let dirty = {
            let mut segment = locked(segment);
            let mut dirty = std::mem::take(&mut segment.before);
            dirty.extend(std::mem::take(&mut segment.dirty).then(|| segment.file.clone()));
            dirty
        };
        let mut synced = Ok(());
        for file in dirty {
            if let Err(error) = self.counted(file.sync_data()) {
                locked(segment).before.push(file);
                synced = Err(error);
            }
        }
        synced
    }

    /// Starts new segments in place of those opened before `before`, if there is anything in them.
    ///
    /// # Errors
    /// If one cannot be created; the old one goes on.
    pub fn rotate(&self, before: u64, now: u64) -> io::Result<()> {
        let renewed = Cell::new(false);
        let done = self.each(|mut segment| {
            let due = segment.bytes > self.bytes_max || (segment.bytes > 0 && segment.opened < before);
            if !due {
                return Ok(());
            }
            renewed.set(true);
            self.counted(segment.renew(&self.folder, &self.writer, now))
        });
        // Nobody else may sync what was left behind.
        let synced = if renewed.get() { self.sync() } else { Ok(()) };
        done.and(synced)
    }

    /// Removes segments nobody has written to since `before`, but for those of processes that live, and those of which
    /// `may_go` says no by name and size. Returns how many.
    ///
    /// # Errors
    /// If the folder cannot be read or a segment not removed.
    pub fn forget(&self, before: std::time::SystemTime, may_go: impl Fn(&str, u64) -> bool) -> io::Result<usize> {
        let (mut removed, writers) = (0, Writers::of(&self.folder)?);
        for entry in std::fs::read_dir(&self.folder)? {
            let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // A segment of ours that was left behind for another is used no more.
            let own = self.writer.wrote(&name);
            let used = || if own { self.segments.iter().any(|segment| locked(segment).path == path) } else { writers.is_alive(&name) };
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && metadata.modified()? < before
                && !used()
                && may_go(&name, metadata.len())
            {
                std::fs::remove_file(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// All of them, whatever comes of the first; then the first error.
    fn each(&self, act: impl Fn(MutexGuard<'_, Segment>) -> io::Result<()>) -> io::Result<()> {
        let results: Vec<_> = self.segments.iter().map(|segment| act(locked(segment))).collect();
        results.into_iter().collect()
    }

    fn lane(&self, id: &str) -> usize {
        // Ids end in what is random.
        id.bytes().rev().take(4).fold(0, |at, byte| at * 31 + usize::from(byte)) % self.segments.len()
    }

    /// Remembers whether the disk takes what is written.
    fn noted(&self, written: io::Result<()>) -> io::Result<()> {
        if written.is_err() != self.failing.load(Ordering::Relaxed) {
            self.failing.store(written.is_err(), Ordering::Relaxed);
        }
        self.counted(written)
    }

    fn counted(&self, written: io::Result<()>) -> io::Result<()> {
        if written.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    /// Writes that failed since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// True if the last record could not be written, or not be synced.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) || self.is_unsynced()
    }

    /// True if the last sync failed: what was written before may not outlast a loss of power.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Relaxed)
    }

    /// Records that found no place in memory while the disk took nothing.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Records that wait for the disk.
    pub fn waiting_records(&self) -> usize {
        let lines = |segment: &Mutex<Segment>| memchr::memchr_iter(b'\n', &locked(segment).lines).count();
        self.segments.iter().map(lines).sum()
    }

    /// Writes what waits for the disk into files of another folder, by the names of their segments: put into the ledger's
    /// folder, they are segments of it. Returns the number of records.
    ///
    /// # Errors
    /// If the folder does not take them; what was not written waits on.
    pub fn save_elsewhere(&self, folder: &Path, now: u64) -> io::Result<usize> {
        std::fs::create_dir_all(folder)?;
        let mut saved = 0;
        for segment in &self.segments {
            let mut segment = locked(segment);
            if segment.lines.is_empty() {
                continue;
            }
            let mut other = Segment::open(folder, &self.writer, segment.lane, now)?;
            other.lines.clone_from(&segment.lines);
            other.flush()?;
            other.file.sync_all()?;
            saved += memchr::memchr_iter(b'\n', &segment.lines).count();
            segment.lines.clear();
        }
        Ok(saved)
    }

    /// Bytes that wait for the disk.
    pub fn waiting_bytes(&self) -> usize {
        self.segments.iter().map(|segment| locked(segment).lines.len()).sum()
    }
}

/// A thread that panicked left nothing half done: lines are whole before they are there.
fn locked(segment: &Mutex<Segment>) -> MutexGuard<'_, Segment> {
    segment.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

#[cfg(test)]
#[path = "append_tests.rs"]
mod tests;
