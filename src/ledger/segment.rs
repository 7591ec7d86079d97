//! Segment files: append-only JSON lines, each written to the kernel whole before the call returns, so that a killed
//! process loses nothing it has appended.

use super::record::Record;
use super::render::Rendered;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Longest record that is read back; a longer line is damage.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// Records put off that are written without waiting further.
const LATER_BYTES_MAX: usize = 64 * 1024;

/// Appends records. Each thread has a segment of its own, so that none waits for another.
#[derive(Debug)]
pub struct Ledger {
    segments: Vec<Mutex<Segment>>,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Segment {
    file: File,
    /// Lines that have not been written.
    lines: Vec<u8>,
}

static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

impl Ledger {
    /// Opens `writers` fresh segments in a folder, which is created if need be.
    ///
    /// # Errors
    /// If the folder or a segment cannot be created.
    pub fn open(folder: &Path, writers: usize) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let segment = |_| {
            let name = format!("{}.jsonl", uuid::Uuid::now_v7());
            let file = OpenOptions::new().create_new(true).append(true).open(folder.join(name))?;
            Ok(Mutex::new(Segment { file, lines: vec![] }))
        };
        let segments = (0..writers.max(1)).map(segment).collect::<io::Result<_>>()?;
        Ok(Self { segments, failures: AtomicU64::new(0) })
    }

    /// Appends a record: it is in the kernel's hands when this returns, and so is all that was put off before it.
    ///
    /// # Errors
    /// If it could not be written. The failure is also counted.
    pub fn append(&self, id: &str, record: &Rendered) -> io::Result<()> {
        self.with_segment(|segment| {
            record.write_record(id, &mut segment.lines);
            segment.flush()
        })
    }

    /// Puts a record off until the next one is appended or [`Ledger::flush`] is called: for records that tell no more
    /// than that nothing was left open, and whose loss costs no money.
    pub fn append_later(&self, id: &str, record: &Rendered) {
        let kept = self.with_segment(|segment| {
            record.write_record(id, &mut segment.lines);
            if segment.lines.len() > LATER_BYTES_MAX { segment.flush() } else { Ok(()) }
        });
        // Counted; the next append meets the same fault and is heard.
        drop(kept);
    }

    /// Writes what was put off.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn flush(&self) -> io::Result<()> {
        let mut result = Ok(());
        for segment in &self.segments {
            let mut segment = segment.lock().unwrap_or_else(PoisonError::into_inner);
            result = self.counted(segment.flush()).and(result);
        }
        result
    }

    fn with_segment(&self, act: impl FnOnce(&mut Segment) -> io::Result<()>) -> io::Result<()> {
        let at = THREAD.with(|thread| *thread) % self.segments.len();
        let Some(segment) = self.segments.get(at) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut segment = segment.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted(act(&mut segment))
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
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

impl Segment {
    fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.lines);
        self.lines.clear();
        if written.is_err() {
            // After a torn write the next record starts on a line of its own.
            let _ = self.file.write_all(b"\n");
        }
        written
    }
}

/// Reads the records of a segment; a line that is no record (a torn tail) is counted and passed over.
pub struct RecordReader<R> {
    from: R,
    line: Vec<u8>,
    pub damaged: usize,
    pub bytes: u64,
}

impl<R: BufRead> RecordReader<R> {
    pub fn new(from: R) -> Self {
        Self { from, line: vec![], damaged: 0, bytes: 0 }
    }

    /// Reads one line into `self.line`; false at the end. One that exceeds the bound is damage and left empty.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let (mut any, mut overlong) = (false, false);
        loop {
            let buffer = self.from.fill_buf()?;
            if buffer.is_empty() {
                return Ok(any);
            }
            any = true;
            let newline = memchr::memchr(b'\n', buffer);
            let (part, used) = newline.map_or((buffer, buffer.len()), |at| (buffer.get(..at).unwrap_or_default(), at + 1));
            if overlong || self.line.len() + part.len() > RECORD_BYTES_MAX {
                self.damaged += usize::from(!overlong);
                overlong = true;
                self.line.clear();
            } else {
                self.line.extend_from_slice(part);
            }
            self.from.consume(used);
            self.bytes += used as u64;
            if newline.is_some() {
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Iterator for RecordReader<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read_line() {
                Ok(true) if self.line.is_empty() => {}
                Ok(true) => match serde_json::from_slice(&self.line) {
                    Ok(record) => return Some(Ok(record)),
                    Err(_) => self.damaged += 1,
                },
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Reads every segment of a folder, oldest first; `progress` hears how many bytes were read. Returns the number of
/// damaged lines.
///
/// # Errors
/// If the folder or a segment cannot be read.
pub fn read_folder(folder: &Path, mut on: impl FnMut(Record), mut progress: impl FnMut(u64)) -> io::Result<usize> {
    let mut paths: Vec<PathBuf> = vec![];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut damaged = 0;
    for path in paths {
        let mut reader = RecordReader::new(BufReader::with_capacity(256 * 1024, File::open(path)?));
        let mut told = 0;
        while let Some(record) = reader.next() {
            on(record?);
            progress(reader.bytes - told);
            told = reader.bytes;
        }
        damaged += reader.damaged;
    }
    Ok(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Close, Outcome};

    fn close() -> Rendered {
        Rendered::close(&Close {
            end_ms: 3,
            first_byte_ms: None,
            status: 200,
            outcome: Outcome::Ok,
            error: None,
            faults: vec![],
            bytes_out: 1,
            metered: true,
        })
    }

    #[test]
    fn reads_back_what_was_appended_and_passes_over_damage() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), 1).unwrap();
        ledger.append_later("a", &close());
        ledger.append("b", &close()).unwrap();
        drop(ledger);
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut ids = vec![];
            let damaged = read_folder(folder.path(), |record| ids.push(record.id), |_| {}).unwrap();
            let line = whole.len() / 2;
            // The newline is not needed to read a record.
            let complete = usize::from(cut + 1 >= line) + usize::from(cut + 1 >= 2 * line);
            assert_eq!(ids.len(), complete, "cut at {cut}");
            assert!(damaged <= 1);
        }
    }

    #[test]
    fn overlong_lines_are_damage() {
        let mut text = vec![b'x'; RECORD_BYTES_MAX + 1];
        text.push(b'\n');
        close().write_record("a", &mut text);
        let mut reader = RecordReader::new(&text[..]);
        assert_eq!(reader.next().unwrap().unwrap().id, "a");
        assert_eq!(reader.damaged, 1);
    }

    #[test]
    fn counts_what_could_not_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger {
            segments: vec![Mutex::new(Segment { file: File::open(folder.path()).unwrap(), lines: vec![] })],
            failures: AtomicU64::new(0),
        };
        assert!(ledger.append("a", &close()).is_err());
        assert_eq!(ledger.failures(), 1);
    }
}
