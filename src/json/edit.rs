//! Ordered splices: replace, insert or remove spans of a document and leave every other byte as it was.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Edits of one document, kept in order of position.
#[derive(Clone, Debug, Default)]
pub struct Splices(Vec<(Range<usize>, Vec<u8>)>);

impl Splices {
    /// Replaces `span` by `with`. An empty span inserts; an edit that overlaps an earlier one is dropped and
    /// `false` returned, since the two cannot both hold.
    pub fn replace(&mut self, span: Range<usize>, with: impl Into<Vec<u8>>) -> bool {
        let place = self.0.partition_point(|(other, _)| other.start < span.start || (other.start == span.start && other.end <= span.start));
        let before = place.checked_sub(1).and_then(|place| self.0.get(place));
        let clear =
            before.is_none_or(|(other, _)| other.end <= span.start) && self.0.get(place).is_none_or(|(other, _)| span.end <= other.start);
        if clear {
            self.0.insert(place, (span, with.into()));
        }
        clear
    }

    /// True if nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The edited document. Without edits the same memory; spans past the end are cut to it.
    pub fn apply(&self, body: &Bytes) -> Bytes {
        if self.0.is_empty() {
            return body.clone();
        }
        let grown: usize = self.0.iter().map(|(_, with)| with.len()).sum();
        let mut out = BytesMut::with_capacity(body.len() + grown);
        let mut kept = 0;
        for (span, with) in &self.0 {
            out.extend_from_slice(body.get(kept..span.start).unwrap_or_default());
            out.extend_from_slice(with);
            kept = span.end.min(body.len());
        }
        out.extend_from_slice(body.get(kept..).unwrap_or_default());
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applies_in_order_and_keeps_the_rest() {
        let body = Bytes::from_static(b"0123456789");
        let mut splices = Splices::default();
        assert!(splices.replace(8..9, "EIGHT"));
        assert!(splices.replace(2..4, ""));
        assert!(splices.replace(0..0, "<"));
        assert!(splices.replace(10..10, ">"));
        assert!(splices.replace(4..4, "-"));
        assert!(!splices.replace(3..5, "overlap"));
        assert_eq!(&splices.apply(&body)[..], b"<01-4567EIGHT9>");
    }

    #[test]
    fn shares_memory_when_nothing_changes() {
        let body = Bytes::from(vec![1, 2, 3]);
        assert_eq!(Splices::default().apply(&body).as_ptr(), body.as_ptr());
    }
}
