//! Entries: the fold of an attempt's records, in whatever order they are read.

use super::record::{Close, Event, Open, Outcome, Record, Used};
use serde::Serialize;
use std::collections::HashMap;

/// One attempt: what was asked, what it used, what it costs and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub id: String,
    #[serde(flatten)]
    pub open: Open,
    #[serde(flatten)]
    pub used: Option<Used>,
    #[serde(flatten)]
    pub close: Option<Close>,
}

impl Entry {
    /// True if its id follows from what it is of, so that it may have been written down more than once: results of batches, and
    /// the bills of answers that are made in the background.
    pub fn has_derived_id(&self) -> bool {
        is_derived(&self.id)
    }

    /// How it ended; an attempt without an end was interrupted.
    pub fn outcome(&self) -> Outcome {
        self.close.as_ref().map_or(Outcome::Interrupted, |close| close.outcome)
    }
}

/// True of the id of an entry that [has a derived id](Entry::has_derived_id).
pub fn is_derived(id: &str) -> bool {
    uuid::Uuid::parse_str(id).is_ok_and(|id| id.get_version() == Some(uuid::Version::Custom))
}

/// The defect of an entry whose last usage record was damaged.
const LOST_RECORD: &str = "lost_record";

/// Collects records into entries.
#[derive(Debug, Default)]
pub struct Fold {
    entries: HashMap<String, Parts>,
}

/// The records of one entry, in whatever order they come.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    pub open: Option<Open>,
    used: Option<Used>,
    close: Option<Close>,
}

impl Parts {
    /// Takes the next record. Of several usage records the latest reading counts, and of those that say the same thing
    /// twice (results of a batch that were fetched again) the first.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Open(open) => drop(self.open.get_or_insert(*open)),
            Event::Usage(used) if self.used.as_ref().is_some_and(|known| known.reading >= used.reading) => {}
            Event::Usage(used) => self.used = Some(used),
            Event::Close(close) => drop(self.close.get_or_insert(close)),
        }
    }

    /// True if nothing more can come.
    pub fn is_complete(&self) -> bool {
        self.open.is_some() && self.close.as_ref().is_some_and(|close| self.has_usage_of(close))
    }

    /// True if the usage that its end speaks of is here.
    fn has_usage_of(&self, close: &Close) -> bool {
        let reading = self.used.as_ref().map(|used| used.reading);
        match close.last_reading {
            Some(last) => reading.is_some_and(|reading| reading >= last),
            None => !close.metered || reading.is_some(),
        }
    }

    /// The entry; `None` without its beginning. If its last usage was damaged, what was known before it stands there, marked.
    pub fn into_entry(mut self, id: String) -> Option<Entry> {
        if self.close.as_ref().is_some_and(|close| !self.has_usage_of(close)) {
            self.close.iter_mut().for_each(|close| {
                close.faults.push(LOST_RECORD.to_owned());
                close.complete = false;
            });
        }
        Some(Entry { id, open: self.open?, used: self.used, close: self.close })
    }
}

impl Fold {
    /// Takes the next record.
    pub fn add(&mut self, record: Record) {
        self.entries.entry(record.id).or_default().add(record.event);
    }

    /// The entries by start, and how many had records but no beginning.
    pub fn finish(self) -> (Vec<Entry>, usize) {
        let all = self.entries.len();
        let mut entries: Vec<Entry> = self.entries.into_iter().filter_map(|(id, parts)| parts.into_entry(id)).collect();
        entries.sort_by(|a, b| (a.open.start_ms, &a.id).cmp(&(b.open.start_ms, &b.id)));
        let orphans = all - entries.len();
        (entries, orphans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Source;
    use crate::price::PicoUsd;

    fn open(id: &str, start_ms: u64) -> Record {
        let open = Open {
            request_id: "r".to_owned(),
            attempt: 1,
            start_ms,
            provider: "mock".to_owned(),
            upstream: "mock".to_owned(),
            dialect: "chat".to_owned(),
            endpoint: "/chat/completions".to_owned(),
            model_requested: "m".to_owned(),
            model: "m".to_owned(),
            stream: false,
            bytes_in: 2,
            billed: true,
            key: None,
            key_name: None,
            org: None,
            credential: None,
            ..Open::default()
        };
        Record { id: id.to_owned(), event: Event::Open(Box::new(open)) }
    }

    fn used(id: &str, reading: u32, pico: i128) -> Record {
        let used = Used {
            reading,
            source: Source::Reported,
            lines: vec![],
            total: PicoUsd(pico),
            catalog: "c".to_owned(),
            provider_cost: None,
            response_id: String::new(),
            unknown: vec![],
        };
        Record { id: id.to_owned(), event: Event::Usage(used) }
    }

    #[test]
    fn folds_records_in_any_order() {
        let mut fold = Fold::default();
        for record in [used("a", 2, 7), open("b", 2), open("a", 1), used("a", 1, 1), used("orphan", 1, 9)] {
            fold.add(record);
        }
        let (entries, orphans) = fold.finish();
        assert_eq!(orphans, 1);
        assert_eq!(entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(entries[0].used.as_ref().map(|used| used.total.0), Some(7));
        assert_eq!(entries[1].outcome(), Outcome::Interrupted);
    }

    #[test]
    fn an_entry_whose_last_usage_is_lost_says_so() {
        for (last_reading, metered, faults) in
            [(Some(2), true, &["lost_record"][..]), (Some(1), true, &[]), (None, true, &[]), (None, false, &[])]
        {
            let mut parts = Parts::default();
            let close = Close { metered, last_reading, ..Close::of(Outcome::Ok) };
            for event in [open("a", 1).event, used("a", 1, 1).event, Event::Close(close)] {
                parts.add(event);
            }
            let entry = parts.into_entry("a".to_owned()).unwrap();
            assert_eq!(entry.close.unwrap().faults, faults, "{last_reading:?}");
        }
    }
}
