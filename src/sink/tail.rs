//! Reads the ledger as it grows and puts entries together. What it hands out may come again after a restart, under the
//! same id, but nothing is passed over: the cursor never moves past the first record of an entry that was not handed out.

use crate::ledger::{Close, Entry, Event, Open, Record, RecordReader, Used, Writers};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How far each segment has been read, by its name. Segments that are gone are left out.
pub type Cursor = BTreeMap<String, u64>;

/// Read from a segment at once: a backlog is worked off in pieces, so that memory stays small.
const PIECE_BYTES: u64 = 4 << 20;
/// Times that all there was has been read, after which records without a beginning are given up: theirs lies before
/// the cursor, so it was handed out.
const ORPHAN_SWEEPS: u32 = 2;

/// The reader.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    read: Cursor,
    pending: HashMap<String, Pending>,
    sweeps: u32,
    /// Bytes that were there and have not been read.
    pub lag_bytes: u64,
    /// Lines that are no records.
    pub damaged: u64,
}

/// Records of an entry that is not complete.
#[derive(Debug, Default)]
struct Pending {
    open: Option<Open>,
    used: Option<Used>,
    close: Option<Close>,
    /// Where they stand.
    places: Vec<(String, u64)>,
    /// The segment of the beginning.
    begun: String,
    since: u32,
}

impl Pending {
    /// True if nothing more of it can come.
    fn is_complete(&self) -> bool {
        let Some(close) = &self.close else { return false };
        let reading = self.used.as_ref().map(|used| used.reading);
        let settled = match close.last_reading {
            Some(last) => reading.is_some_and(|reading| reading >= last),
            None => !close.metered || reading.is_some(),
        };
        self.open.is_some() && settled
    }
}

impl Tail {
    /// Goes on from a cursor.
    pub fn new(folder: &Path, cursor: Cursor) -> Self {
        Self { folder: folder.to_owned(), read: cursor, pending: HashMap::new(), sweeps: 0, lag_bytes: 0, damaged: 0 }
    }

    /// Entries that have become complete, and those whose process is gone. Nothing if there is nothing new.
    ///
    /// # Errors
    /// If the folder or a segment cannot be read; what was read before stays.
    pub fn poll(&mut self) -> io::Result<Vec<Entry>> {
        // Before anything is read: what a process wrote before it died is then found.
        let writers = Writers::of(&self.folder)?;
        let segments = crate::ledger::segments(&self.folder)?;
        self.read.retain(|name, _| segments.iter().any(|(known, _)| known == name));
        let (mut out, mut all) = (vec![], true);
        self.lag_bytes = 0;
        for (name, bytes) in segments {
            let left = self.piece(&name, bytes, writers.is_alive(&name), &mut out)?;
            self.lag_bytes += left;
            all &= left == 0;
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
        if start >= bytes {
            self.read.insert(name.to_owned(), start);
            return Ok(0);
        }
        let mut file = File::open(self.folder.join(name))?;
        file.seek(SeekFrom::Start(start))?;
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
            if done - start >= PIECE_BYTES {
                break;
            }
        }
        if reader.ended || !alive {
            self.damaged += reader.damaged as u64;
            if done - start < PIECE_BYTES {
                done = start + reader.bytes;
            }
        }
        self.read.insert(name.to_owned(), done);
        Ok(if done - start >= PIECE_BYTES { bytes.saturating_sub(done) } else { 0 })
    }

    fn take(&mut self, record: Record, segment: &str, at: u64, out: &mut Vec<Entry>) {
        let Record { id, event } = record;
        let sweeps = self.sweeps;
        let pending = self.pending.entry(id.clone()).or_insert_with(|| Pending { since: sweeps, ..Pending::default() });
        pending.places.push((segment.to_owned(), at));
        match event {
            Event::Open(open) => {
                segment.clone_into(&mut pending.begun);
                pending.open.get_or_insert(*open);
            }
            Event::Usage(used) if pending.used.as_ref().is_some_and(|known| known.reading >= used.reading) => {}
            Event::Usage(used) => pending.used = Some(used),
            Event::Close(close) => drop(pending.close.get_or_insert(close)),
        }
        if pending.is_complete()
            && let Some(entry) = self.pending.remove(&id).and_then(|pending| entry(id, pending))
        {
            out.push(entry);
        }
    }

    /// Hands out what processes left that are gone, and drops what has no beginning.
    fn give_up(&mut self, writers: &Writers, out: &mut Vec<Entry>) {
        let sweeps = self.sweeps;
        let over = |pending: &Pending| match &pending.open {
            Some(_) => !writers.is_alive(&pending.begun),
            None => sweeps.wrapping_sub(pending.since) >= ORPHAN_SWEEPS,
        };
        let ids: Vec<String> = self.pending.iter().filter(|(_, pending)| over(pending)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            out.extend(self.pending.remove(&id).and_then(|pending| entry(id, pending)));
        }
    }

    /// From where to go on once all that was handed out is safe.
    pub fn cursor(&self) -> Cursor {
        let mut cursor = self.read.clone();
        for (segment, at) in self.pending.values().flat_map(|pending| &pending.places) {
            if let Some(safe) = cursor.get_mut(segment) {
                *safe = (*safe).min(*at);
            }
        }
        cursor
    }

    /// Entries that are under way, or whose end has not been read.
    pub fn pending(self) -> impl Iterator<Item = Entry> {
        self.pending.into_iter().filter_map(|(id, pending)| entry(id, pending))
    }
}

fn entry(id: String, pending: Pending) -> Option<Entry> {
    Some(Entry { id, open: pending.open?, used: pending.used, close: pending.close })
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
