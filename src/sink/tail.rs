//! Reads the ledger as it grows and puts entries together. What it hands out may come again after a restart, under the
//! same id, but nothing is passed over: the cursor never moves past the first record of an entry that was not handed out.

use crate::ledger::{Entry, Parts, Record, RecordReader, Writers, read_at_once, segment_names, writer_of};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How far each segment has been read, by its name. Segments that are gone are left out.
pub type Cursor = BTreeMap<String, u64>;

/// Read at once, over all segments: a backlog is worked off in pieces, so that memory stays small.
const PIECE_BYTES: u64 = 4 << 20;
/// From here on several threads read what somebody waits for.
const AT_ONCE_BYTES: u64 = 1 << 20;
/// Times that all there was has been read, after which records without a beginning are given up: theirs lies before
/// the cursor, so it was handed out.
const ORPHAN_SWEEPS: u32 = 2;

/// The reader.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    /// Who writes what is passed over.
    own: Option<String>,
    /// So many read at once what is large.
    threads: usize,
    read: Cursor,
    pending: HashMap<String, Pending>,
    sweeps: u32,
    /// Segments of processes that are gone, read to their end: they will not grow.
    over: HashSet<String>,
    /// Bytes that were there and have not been read.
    pub lag_bytes: u64,
    /// Bytes that the last poll read.
    pub read_bytes: u64,
    /// Lines that are no records.
    pub damaged: u64,
}

/// Records of an entry that is not complete.
#[derive(Debug)]
struct Pending {
    parts: Parts,
    /// Where the first of them stands: the others follow it in its lane.
    first: (String, u64),
    since: u32,
}

impl Tail {
    /// Goes on from a cursor.
    pub fn new(folder: &Path, cursor: Cursor) -> Self {
        Self {
            folder: folder.to_owned(),
            own: None,
            threads: 1,
            read: cursor,
            pending: HashMap::new(),
            sweeps: 0,
            over: HashSet::new(),
            lag_bytes: 0,
            read_bytes: 0,
            damaged: 0,
        }
    }

    /// The same, but for what this process writes.
    pub fn of_others(folder: &Path, cursor: Cursor, own: &str) -> Self {
        Self { own: Some(own.to_owned()), ..Self::new(folder, cursor) }
    }

    /// By all processors: somebody waits for it.
    pub fn hurried(self) -> Self {
        Self { threads: std::thread::available_parallelism().map_or(1, usize::from), ..self }
    }

    /// Of the ledger.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Entries that have become complete, and those whose process is gone. Nothing if there is nothing new.
    ///
    /// # Errors
    /// If the folder or a segment cannot be read; what was read before stays.
    pub fn poll(&mut self) -> io::Result<Vec<Entry>> {
        // In this order: who began to write later is not taken for gone, and what a process wrote before it died is found.
        let mut names = segment_names(&self.folder)?;
        names.retain(|name| self.own.is_none() || writer_of(name) != self.own.as_deref());
        let writers = Writers::of(&self.folder)?;
        self.read.retain(|name, _| names.binary_search(name).is_ok());
        self.over.retain(|name| names.binary_search(name).is_ok());
        let (mut out, mut all) = (vec![], true);
        (self.lag_bytes, self.read_bytes) = (0, 0);
        for name in names.iter().filter(|name| !self.over.contains(*name)).cloned().collect::<Vec<_>>() {
            let alive = writers.is_alive(&name);
            // One may be forgotten meanwhile.
            let Ok(bytes) = self.folder.join(&name).metadata().map(|metadata| metadata.len()) else { continue };
            let left = self.piece(&name, bytes, alive, &mut out)?;
            self.lag_bytes += left;
            all &= left == 0;
            if left == 0 && !alive {
                self.over.insert(name);
            }
        }
        if all {
            self.sweeps = self.sweeps.wrapping_add(1);
            self.give_up(&writers, &mut out);
        }
        Ok(out)
    }

    /// Reads a piece of a segment; how many bytes of it are left.
    fn piece(&mut self, name: &str, bytes: u64, alive: bool, out: &mut Vec<Entry>) -> io::Result<u64> {
        let start = self.read.get(name).copied().unwrap_or(0);
        let room = PIECE_BYTES.saturating_sub(self.read_bytes);
        if start >= bytes || room == 0 {
            self.read.entry(name.to_owned()).or_insert(start);
            return Ok(bytes.saturating_sub(start));
        }
        let mut file = File::open(self.folder.join(name))?;
        file.seek(SeekFrom::Start(start))?;
        if let Some(done) = self.piece_at_once(&mut file, name, start, room.min(bytes - start), out)? {
            self.read.insert(name.to_owned(), done);
            self.read_bytes += done - start;
            return Ok(bytes - done);
        }
        let mut reader = RecordReader::new(BufReader::with_capacity(256 * 1024, file.take(bytes - start)));
        let mut done = start;
        while let Some(record) = reader.next() {
            // A line that is being written has no end yet; one whose writer is gone never gets one.
            if !reader.ended && alive {
                break;
            }
            let at = done;
            done = start + reader.bytes;
            self.take(record?, name, at, out);
            if done - start >= room {
                break;
            }
        }
        if reader.ended || !alive {
            self.damaged += reader.damaged as u64;
            if done - start < room {
                done = start + reader.bytes;
            }
        }
        self.read.insert(name.to_owned(), done);
        self.read_bytes += done - start;
        Ok(if done - start >= room { bytes.saturating_sub(done) } else { 0 })
    }

    /// The same by several threads, where it is worth it; up to where it came.
    fn piece_at_once(&mut self, file: &mut File, name: &str, start: u64, bytes: u64, out: &mut Vec<Entry>) -> io::Result<Option<u64>> {
        if self.threads == 1 || bytes < AT_ONCE_BYTES {
            return Ok(None);
        }
        let mut lines = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
        file.take(bytes).read_to_end(&mut lines)?;
        let Some(end) = memchr::memrchr(b'\n', &lines) else {
            file.seek(SeekFrom::Start(start))?;
            return Ok(None);
        };
        lines.truncate(end + 1);
        let damaged = read_at_once(&lines, self.threads, |record, at| self.take(record, name, start + at, out))?;
        self.damaged += damaged as u64;
        Ok(Some(start + lines.len() as u64))
    }

    fn take(&mut self, record: Record, segment: &str, at: u64, out: &mut Vec<Entry>) {
        let Record { id, event } = record;
        let sweeps = self.sweeps;
        let first = || Pending { parts: Parts::default(), first: (segment.to_owned(), at), since: sweeps };
        let pending = self.pending.entry(id.clone()).or_insert_with(first);
        pending.parts.add(event);
        if pending.parts.is_complete() {
            out.extend(self.remove(id));
        }
    }

    fn remove(&mut self, id: String) -> Option<Entry> {
        self.pending.remove(&id)?.parts.into_entry(id)
    }

    /// Hands out what processes left that are gone, and drops what has no beginning.
    fn give_up(&mut self, writers: &Writers, out: &mut Vec<Entry>) {
        let sweeps = self.sweeps;
        let over = |pending: &Pending| match &pending.parts.open {
            Some(_) => !writers.is_alive(&pending.first.0),
            None => sweeps.wrapping_sub(pending.since) >= ORPHAN_SWEEPS,
        };
        let ids: Vec<String> = self.pending.iter().filter(|(_, pending)| over(pending)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            out.extend(self.remove(id));
        }
    }

    /// From where to go on once all that was handed out is safe: before the first record of each entry that was not, and
    /// with it all that follows in its lane. So an entry is read again whole, or not at all.
    pub fn cursor(&self) -> Cursor {
        let mut cursor = self.read.clone();
        let mut firsts: HashMap<&str, (&str, u64)> = HashMap::new();
        for pending in self.pending.values() {
            let (segment, at) = (pending.first.0.as_str(), pending.first.1);
            let first = firsts.entry(lane(segment)).or_insert((segment, at));
            *first = (*first).min((segment, at));
        }
        for (segment, safe) in &mut cursor {
            match firsts.get(lane(segment)) {
                Some((first, at)) if segment.as_str() == *first => *safe = (*safe).min(*at),
                Some((first, _)) if segment.as_str() > *first => *safe = 0,
                _ => {}
            }
        }
        cursor
    }

    /// Entries that have no end, or whose end has not been read; and whether the end may come.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn pending(&self) -> io::Result<impl Iterator<Item = (Entry, bool)>> {
        let writers = Writers::of(&self.folder)?;
        let entry = move |(id, pending): (&String, &Pending)| {
            Some((pending.parts.clone().into_entry(id.clone())?, writers.is_alive(&pending.first.0)))
        };
        Ok(self.pending.iter().filter_map(entry))
    }

    /// True once all has been read and who wrote it is gone.
    pub fn is_over(&self) -> bool {
        self.lag_bytes == 0 && self.pending.is_empty() && self.read.keys().all(|name| self.over.contains(name))
    }
}

/// What the segments of one lane share in their names, which are in the order of time.
fn lane(segment: &str) -> &str {
    segment.split_once('.').map_or("", |(_, lane)| lane)
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
