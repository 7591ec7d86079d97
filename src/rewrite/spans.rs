//! Where values stand in a document that was read before.

use crate::json::Want::{self, Items, Skip};
use crate::json::{Malformed, Scanner, Visit};
use std::ops::Range;

/// The spans of members, by the numbers their wants bear. Of several of one name the last counts, as parsers have it.
pub fn members<const N: usize>(body: &[u8], object: Range<usize>, want: &'static Want<usize>) -> [Option<Range<usize>>; N] {
    let mut spans = Spans { offset: object.start, starts: [0; N], found: [const { None }; N], repeated: false };
    // What is no object has no members.
    let _ = Scanner::new(want).push(body.get(object).unwrap_or_default(), &mut spans);
    spans.found
}

/// Why members of an object could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// One of them is there twice.
    Duplicate,
    /// A key resembles the name of this one.
    LookAlike(&'static str),
    /// It is not an object in valid JSON.
    Malformed,
}

/// The spans of members of an object of a request, each of which may be there once.
///
/// # Errors
/// [`Ambiguous`], if servers may read the object in different ways.
pub fn unique_members<const N: usize>(object: &[u8], want: &'static Want<usize>) -> Result<[Option<Range<usize>>; N], Ambiguous> {
    let mut spans = Spans { offset: 0, starts: [0; N], found: [const { None }; N], repeated: false };
    let mut scanner = Scanner::strict(want);
    match scanner.push(object, &mut spans) {
        Ok(()) if spans.repeated => Err(Ambiguous::Duplicate),
        Ok(()) if scanner.is_done() && object.trim_ascii_start().first() == Some(&b'{') => Ok(spans.found),
        Err(Malformed::LookAlike(name)) => Err(Ambiguous::LookAlike(name)),
        _ => Err(Ambiguous::Malformed),
    }
}

/// The number of elements of an array that begin with one of these bytes; 0 for anything but an array.
pub fn items(array: &[u8], firsts: &'static [u8]) -> u64 {
    struct Seen(u64, &'static [u8]);
    impl Visit<usize> for Seen {
        fn begin(&mut self, _: usize, at: u64, first: u8) {
            self.0 += u64::from(at > 0 && self.1.contains(&first));
        }
        fn bytes(&mut self, _: usize, _: &[u8]) {}
        fn end(&mut self, _: usize, _: u64) {}
    }
    let mut seen = Seen(0, firsts);
    // The body was validated before.
    let _ = Scanner::new(&ITEMS).push(array, &mut seen);
    seen.0
}

static ITEMS: Want<usize> = Items(0, &Skip);

/// The span of an array's last element.
pub fn last_item(body: &[u8], array: Range<usize>) -> Option<Range<usize>> {
    let raw = body.get(array.clone()).filter(|raw| raw.first() == Some(&b'['))?;
    let mut spans = Spans { offset: array.start, starts: [0; 1], found: [None], repeated: false };
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
    repeated: bool,
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
            self.repeated |= found.is_some();
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

    #[test]
    fn ambiguous_members_are_refused() {
        static ROOT: Want<usize> = Fields(&[("a", Take(0)), ("b", Take(1))]);
        assert_eq!(unique_members(br#" {"b":[2],"c":1}"#, &ROOT), Ok([None, Some(6..9)]));
        for (object, why) in [
            (&br#"{"a":1,"\u0061":2}"#[..], Ambiguous::Duplicate),
            (br#"{"A":1}"#, Ambiguous::LookAlike("a")),
            (br#"[{"a":1}]"#, Ambiguous::Malformed),
            (br#"{"a":1"#, Ambiguous::Malformed),
            (br#"{"a" 1}"#, Ambiguous::Malformed),
        ] {
            assert_eq!(unique_members::<2>(object, &ROOT), Err(why), "{}", String::from_utf8_lossy(object));
        }
    }

    #[test]
    fn items_are_counted_by_their_first_byte() {
        for (array, want) in [("[]", 0), ("[\"[\", \"b\"]", 2), ("[[1],[2,3]]", 2), ("[1,2,3]", 0), ("\"x\"", 0), ("{\"a\":[\"b\"]}", 0)] {
            assert_eq!(items(array.as_bytes(), b"\"["), want, "{array}");
        }
    }
}
