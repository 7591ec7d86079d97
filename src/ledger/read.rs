//! Reads segments back. A line whose checksum does not hold is damage: it is counted, and never an entry.

use super::record::{Event, Record};
use super::render::checked;
use super::segment::{EXTENSION, TORN};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Longest record that is read back; a longer line is damage.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// Reads the records of a segment; a line that is no record (a torn tail) is counted and passed over.
pub struct RecordReader<R> {
    from: R,
    line: Vec<u8>,
    /// Lines that are no records.
    pub damaged: usize,
    /// Lines that were written in part.
    pub torn: usize,
    pub bytes: u64,
    /// The last line that was read had its end.
    pub ended: bool,
}

impl<R: BufRead> RecordReader<R> {
    pub fn new(from: R) -> Self {
        Self { from, line: vec![], damaged: 0, torn: 0, bytes: 0, ended: true }
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
            self.ended = newline.is_some();
            if self.ended {
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
                Ok(true) => match checked(&self.line).and_then(record) {
                    Some(record) => return Some(Ok(record)),
                    // What the writer left unfinished, and wrote again or was killed over, is no damage.
                    None if !self.ended || self.line.ends_with(TORN.trim_ascii_end()) => self.torn += 1,
                    None => self.damaged += 1,
                },
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The record of a line. How lines begin tells its kind, so that nothing has to be kept until it is known; a line that begins
/// otherwise is read the long way.
fn record(line: &[u8]) -> Option<Record> {
    let known = || {
        let rest = line.strip_prefix(b"{\"id\":\"")?;
        let (id, rest) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
        let id = std::str::from_utf8(id).ok().filter(|id| !id.contains('\\'))?;
        let rest = rest.strip_prefix(b"\",\"record\":\"")?;
        let event = match rest.get(..memchr::memchr(b'"', rest)?)? {
            b"open" => Event::Open(serde_json::from_slice(line).ok()?),
            b"usage" => Event::Usage(serde_json::from_slice(line).ok()?),
            b"close" => Event::Close(serde_json::from_slice(line).ok()?),
            _ => return None,
        };
        Some(Record { id: id.to_owned(), event })
    };
    known().or_else(|| serde_json::from_slice(line).ok())
}

/// Lines that a thread reads at once.
const PART_BYTES: usize = 256 * 1024;

/// The records of a part, each with where it begins, and how many lines were damaged.
type Part = (Vec<(Record, u64)>, usize);

fn read_part(lines: &[u8]) -> io::Result<Part> {
    let mut reader = RecordReader::new(lines);
    let (mut records, mut at) = (Vec::with_capacity(lines.len() / 256), 0);
    while let Some(record) = reader.next() {
        records.push((record?, at));
        at = reader.bytes;
    }
    Ok((records, reader.damaged))
}

/// Reads whole lines by so many threads. `on` hears of the records in their order, each with where it begins. Returns the
/// number of damaged lines.
///
/// # Errors
/// Never, as it is memory that is read.
pub fn read_at_once(lines: &[u8], threads: usize, mut on: impl FnMut(Record, u64)) -> io::Result<usize> {
    let parts = parts(lines);
    let next = AtomicUsize::new(0);
    let take = || parts.get(next.fetch_add(1, Ordering::Relaxed)).map(|(number, _, part)| (*number, read_part(part)));
    let mut damaged = 0;
    std::thread::scope(|scope| {
        let (done, arrivals) = mpsc::channel();
        for _ in 1..threads.min(parts.len()) {
            let done = done.clone();
            let take = &take;
            scope.spawn(move || while take().is_some_and(|part| done.send(part).is_ok()) {});
        }
        drop(done);
        let mut early = BTreeMap::new();
        for (number, start, _) in &parts {
            let part = loop {
                early.extend(arrivals.try_iter());
                if let Some(part) = early.remove(number) {
                    break part;
                }
                // Whoever waits for a part reads another.
                match take().or_else(|| arrivals.recv().ok()) {
                    Some((number, part)) => drop(early.insert(number, part)),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }?;
            part.0.into_iter().for_each(|(record, at)| on(record, start + at));
            damaged += part.1;
        }
        Ok(damaged)
    })
}

/// Cuts between lines: numbers, where each begins, and what it is.
fn parts(lines: &[u8]) -> Vec<(usize, u64, &[u8])> {
    let (mut parts, mut rest, mut start) = (vec![], lines, 0);
    while !rest.is_empty() {
        let newline = rest.get(PART_BYTES..).and_then(|after| memchr::memchr(b'\n', after));
        let (part, after) = rest.split_at(newline.map_or(rest.len(), |at| PART_BYTES + at + 1));
        parts.push((parts.len(), start, part));
        start += part.len() as u64;
        rest = after;
    }
    parts
}

/// Names and sizes of a folder's segments, oldest first; none if there is no folder.
///
/// # Errors
/// If the folder cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    // One may be forgotten meanwhile.
    let sized = |name: String| Some((folder.join(&name).metadata().ok()?.len(), name));
    Ok(segment_names(folder)?.into_iter().filter_map(sized).map(|(bytes, name)| (name, bytes)).collect())
}

/// The names alone, which is cheaper.
///
/// # Errors
/// If the folder cannot be read.
pub fn segment_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = vec![];
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name).extension().is_some_and(|extension| extension == EXTENSION) {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads every segment of a folder, oldest first; `progress` hears how many bytes were read. Returns the number of
/// damaged lines.
///
/// # Errors
/// If the folder or a segment cannot be read.
pub fn read_folder(folder: &Path, mut on: impl FnMut(Record), mut progress: impl FnMut(u64)) -> io::Result<usize> {
    let mut damaged = 0;
    for (name, _) in segments(folder)? {
        let mut reader = RecordReader::new(BufReader::with_capacity(256 * 1024, File::open(folder.join(name))?));
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
