//! What is left of an attempt: its entry, and the records it was written down in.

use crate::ledger::{Entry, Rendered, write_entry};

/// An attempt that has ended.
#[derive(Debug)]
pub struct Closed {
    pub entry: Entry,
    pub records: Records,
    pub(super) usage_news: bool,
}

/// An entry's records as text.
#[derive(Debug)]
pub struct Records {
    pub open: Rendered,
    pub used: Option<Rendered>,
    pub close: Rendered,
}

impl Closed {
    /// Usage that has not been appended yet, and must be before the close.
    pub fn usage_news(&self) -> Option<&Rendered> {
        self.records.used.as_ref().filter(|_| self.usage_news)
    }

    /// Appends the entry as a line of JSON.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let Records { open, used, close } = &self.records;
        write_entry(&self.entry.id, std::iter::once(open).chain(used).chain(std::iter::once(close)), out);
    }
}
