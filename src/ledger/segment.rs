//! One segment file: what is to be written to it, and how far that got.

use super::writer::Writer;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the names of segments end.
pub(super) const EXTENSION: &str = "jsonl";

/// Ends a line that the disk took in part. No record ends so.
pub(super) const TORN: &[u8] = b"!\n";

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) lane: usize,
    pub(super) file: Arc<File>,
    pub(super) bytes: u64,
    /// Milliseconds since 1970.
    pub(super) opened: u64,
    /// Lines that have not been written.
    pub(super) lines: Vec<u8>,
    /// The last write ended within a line.
    pub(super) torn: bool,
    /// Written since the last sync.
    pub(super) dirty: bool,
    /// Files that went before this one and are yet to be synced.
    pub(super) before: Vec<Arc<File>>,
    /// How often all that waited was written.
    pub(super) flushes: u64,
}

impl Segment {
    pub(super) fn open(folder: &Path, writer: &Writer, lane: usize, now: u64) -> io::Result<Self> {
        let path = folder.join(format!("{}.{}.{lane}.{EXTENSION}", uuid::Uuid::now_v7(), writer.name()));
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        // A file whose name is lost with the power is lost, whatever of it was synced.
        File::open(folder)?.sync_all()?;
        let file = Arc::new(file);
        Ok(Self { path, lane, file, bytes: 0, opened: now, lines: vec![], torn: false, dirty: false, before: vec![], flushes: 0 })
    }

    /// Goes on in another file. What was put off moves there.
    pub(super) fn renew(&mut self, folder: &Path, writer: &Writer, now: u64) -> io::Result<()> {
        self.mend()?;
        let fresh = Self::open(folder, writer, self.lane, now)?;
        let old = std::mem::replace(self, fresh);
        (self.lines, self.before, self.flushes) = (old.lines, old.before, old.flushes);
        self.before.extend(old.dirty.then_some(old.file));
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.mend()?;
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut file = &*self.file;
        let mut written = 0;
        while let Some(rest) = self.lines.get(written..).filter(|rest| !rest.is_empty()) {
            match file.write(rest) {
                Ok(bytes) if bytes > 0 => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.take(written);
                    return Err(result.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
            }
        }
        self.take(written);
        self.flushes += 1;
        Ok(())
    }

    /// Ends a line that was written in part with [`TORN`]; it is written again, whole, on a line of its own.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            (&*self.file).write_all(TORN)?;
            self.torn = false;
        }
        Ok(())
    }

    /// So many bytes are written: whole lines go, one that was torn will be written again.
    pub(super) fn take(&mut self, written: usize) {
        self.bytes += written as u64;
        self.dirty |= written > 0;
        let whole = self.lines.get(..written).and_then(|done| memchr::memrchr(b'\n', done)).map_or(0, |at| at + 1);
        self.torn = whole < written;
        if whole == self.lines.len() {
            self.lines.clear();
        } else {
            self.lines.drain(..whole);
        }
    }
}
