//! Where values stand in a document that was read before.

use crate::json::Want::{self, Items, Skip};
use crate::json::{Scanner, Visit};
use std::ops::Range;

/// The spans of members, by the numbers their wants bear. Of several of one name the last counts, as parsers have it.
pub fn members<const N: usize>(body: &[u8], object: Range<usize>, want: &'static Want<usize>) -> [Option<Range<usize>>; N] {
    let mut spans = Spans { offset: object.start, starts: [0; N], found: [const { None }; N] };
    // What is no object has no members.
    let _ = Scanner::new(want).push(body.get(object).unwrap_or_default(), &mut spans);
    spans.found
}

/// The span of an array's last element.
pub fn last_item(body: &[u8], array: Range<usize>) -> Option<Range<usize>> {
    static ITEMS: Want<usize> = Items(0, &Skip);
    let raw = body.get(array.clone()).filter(|raw| raw.first() == Some(&b'['))?;
    let mut spans = Spans { offset: array.start, starts: [0; 1], found: [None] };
    Scanner::new(&ITEMS).push(raw, &mut spans).ok()?;
    spans.found.into_iter().next().flatten()
}

/// How many values of a document bear the number 0.
pub fn count(body: &[u8], want: &'static Want<usize>) -> usize {
    #[derive(Default)]
    struct Seen(usize);
    impl Visit<usize> for Seen {
        fn begin(&mut self, slot: usize, _: u64, _: u8) {
            self.0 += usize::from(slot == 0);
        }
        fn bytes(&mut self, _: usize, _: &[u8]) {}
        fn end(&mut self, _: usize, _: u64) {}
    }
    let mut seen = Seen::default();
    // Of what is no JSON nothing is known past its fault.
    let _ = Scanner::new(want).push(body, &mut seen);
    seen.0
}

struct Spans<const N: usize> {
    offset: usize,
    starts: [usize; N],
    found: [Option<Range<usize>>; N],
}

impl<const N: usize> Visit<usize> for Spans<N> {
    fn begin(&mut self, slot: usize, at: u64, _: u8) {
        if let Some(start) = self.starts.get_mut(slot) {
            *start = self.offset + usize::try_from(at).unwrap_or(usize::MAX);
        }
    }

    fn bytes(&mut self, _: usize, _: &[u8]) {}

    fn end(&mut self, slot: usize, at: u64) {
        if let (Some(start), Some(found)) = (self.starts.get(slot), self.found.get_mut(slot)) {
            *found = Some(*start..self.offset + usize::try_from(at).unwrap_or(usize::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Want::{Fields, Take};

    #[test]
    fn finds_members_and_last_items() {
        static ROOT: Want<usize> = Fields(&[("a", Take(0)), ("b", Fields(&[("c", Take(1))]))]);
        let body = br#"[{"x":1}, {"a" : [1,{"z":[2]} ] ,"b":{"c":"q"}} ]"#;
        let last = last_item(body, 0..body.len()).unwrap();
        let [a, c] = members(body, last, &ROOT);
        assert_eq!((&body[a.clone().unwrap()], &body[c.unwrap()]), (&br#"[1,{"z":[2]} ]"#[..], &br#""q""#[..]));
        assert_eq!(&body[last_item(body, a.unwrap()).unwrap()], br#"{"z":[2]}"#);
        for none in [&b"[]"[..], b"{}", b"3", b"\"[1]\""] {
            assert_eq!(last_item(none, 0..none.len()), None);
        }
        assert_eq!(members::<2>(b"[1]", 0..3, &ROOT), [None, None]);
    }
}
