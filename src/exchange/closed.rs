//! What is left of an attempt: its entry, and the records it was written down in.

use super::UnixMs;
use super::limits::is_cost_unknown;
use super::settle::{Terms, settle};
use crate::ledger::{Close, Entry, Open, Outcome, Rendered, Used, write_entry};
use crate::meter::{Fault, Faults, Found};

/// An attempt that has ended.
#[derive(Debug)]
pub struct Closed {
    pub entry: Entry,
    pub records: Records,
    pub(super) usage_news: bool,
    /// Of a stream, the longest wait between two chunks.
    pub gap_ms: Option<u64>,
    /// Limits have no reservation for it: its cost is yet to be counted.
    pub unreserved: bool,
    /// The response was served and its cost is unknown: its reservation stands.
    pub cost_unknown: bool,
}

/// An entry's records as text.
#[derive(Debug)]
pub struct Records {
    pub open: Rendered,
    pub used: Option<Rendered>,
    pub close: Rendered,
}

impl Closed {
    /// An entry that is written whole, of what is billed apart from the exchange it is read in.
    pub(super) fn billed(id: String, open: Open, found: &Found, terms: &Terms<'_>, now: UnixMs) -> Self {
        let (used, mut faults) = settle(found, terms);
        found.faults.iter().for_each(|fault| faults.add(fault));
        if used.lines.is_empty() && found.error.is_none() {
            // A response that was cancelled, say: the provider may charge for a part of it.
            faults.add(Fault::Unmetered);
        }
        let outcome = if found.error.is_some() { Outcome::UpstreamError } else { Outcome::Ok };
        Self::whole(id, open, Some(used), (outcome, found.error.clone()), &faults, now)
    }

    /// The same where nothing more can be learned, and why.
    pub(super) fn lost(id: String, open: Open, why: &str, now: UnixMs) -> Self {
        let mut faults = Faults::default();
        faults.add(Fault::CutOff);
        Self::whole(id, open, None, (Outcome::Truncated, Some(why.to_owned())), &faults, now)
    }

    fn whole(
        id: String,
        open: Open,
        used: Option<Used>,
        (outcome, error): (Outcome, Option<String>),
        faults: &Faults,
        now: UnixMs,
    ) -> Self {
        let open = Open { bytes_in: 0, ..open };
        let mut close = Close {
            end_ms: now,
            first_byte_ms: None,
            status: 200,
            outcome,
            error,
            cause: None,
            faults: faults.iter().map(|fault| fault.name().to_owned()).collect(),
            bytes_out: 0,
            metered: used.is_some(),
            last_reading: used.as_ref().map(|used| used.reading),
            complete: false,
        };
        close.complete = close.is_exact(open.billed, used.as_ref());
        let records = Records { open: Rendered::open(&open), used: used.as_ref().map(Rendered::used), close: Rendered::close(&close) };
        let entry = Entry { id, open, used, close: Some(close) };
        let cost_unknown = is_cost_unknown(&entry);
        Self { entry, records, usage_news: true, gap_ms: None, unreserved: false, cost_unknown }
    }

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
