//! Reading a usage object: every number in it is mapped to a field, informational, or reported as unknown.

use crate::dialect::{Detail, Meaning, Node};
use crate::usage::{Field, Reported};
use simd_json::prelude::*;
use simd_json::tape::Value;
use std::fmt::Write;

/// Paths of unknown numbers that one response keeps; of more it is only known that there are some.
pub const UNKNOWN_MAX: usize = 8;
/// A longer path is cut.
pub const PATH_BYTES_MAX: usize = 128;
/// Objects nested deeper are not looked into; they count as unknown.
const DEPTH_MAX: u32 = 16;

/// The content of a usage object.
#[derive(Debug, Default)]
pub struct Reading {
    pub reported: Reported,
    /// A key stands there twice, with different numbers.
    pub twice: bool,
    /// A count is not a whole number from zero.
    pub bad_count: bool,
    /// A number that is not zero has no known meaning.
    pub has_unknown: bool,
    /// Paths of such numbers.
    pub unknown: Vec<String>,
    /// The rank of the path that set a field, plus one.
    ranks: [u8; Field::ALL.len()],
    parts: Reported,
    /// Sums over lists; some are subtracted.
    sums: Vec<(Field, i128)>,
}

/// A key and those above it.
#[derive(Clone, Copy)]
struct Path<'p> {
    above: Option<&'p Self>,
    key: &'p str,
}

impl Reading {
    /// Reads `value`, an object; `name` is its own key.
    pub fn of(tree: &Node, value: Value<'_, '_>, name: &str) -> Self {
        let mut reading = Self::default();
        reading.object(tree, value, &Path { above: None, key: name }, 0);
        let Self { reported, parts, sums, .. } = &mut reading;
        for (field, sum) in sums {
            reported.set(*field, u64::try_from(*sum).unwrap_or(if *sum < 0 { 0 } else { u64::MAX }));
        }
        if !parts.is_empty() {
            parts.merge(reported);
            std::mem::swap(parts, reported);
        }
        reading
    }

    fn object(&mut self, node: &Node, value: Value<'_, '_>, path: &Path<'_>, depth: u32) {
        let Some(object) = value.as_object() else { return };
        for (key, value) in &object {
            let path = Path { above: Some(path), key };
            match node.child(key) {
                Some(child) if child.informational => {}
                Some(child) => self.member(child, value, &path, depth),
                None => self.unknown(value, &path, depth),
            }
        }
    }

    fn member(&mut self, node: &Node, value: Value<'_, '_>, path: &Path<'_>, depth: u32) {
        if value.is_null() {
        } else if !node.meanings.is_empty() {
            match count(value) {
                Some(count) => node.meanings.iter().for_each(|meaning| self.set(*meaning, count)),
                None => self.bad_count = true,
            }
        } else if value.is_object() && depth < DEPTH_MAX {
            self.object(node, value, path, depth + 1);
        } else if !node.details.is_empty() && value.is_array() {
            self.details(&node.details, value, path, depth);
        } else {
            self.unknown(value, path, depth);
        }
    }

    fn set(&mut self, meaning: Meaning, count: u64) {
        match meaning {
            Meaning::Part(field) => self.parts.increase(field, count),
            Meaning::Field(field, rank) => {
                let Some(known) = self.ranks.get_mut(field as usize) else { return };
                let rank = rank.saturating_add(1);
                self.twice |= rank == *known && self.reported.of(field) != Some(count);
                if *known == 0 || rank < *known {
                    *known = rank;
                    self.reported.set(field, count);
                }
            }
        }
    }

    /// A list of objects, one a modality or lifetime. A field is set if any of its objects is there.
    fn details(&mut self, details: &[&Detail], list: Value<'_, '_>, path: &Path<'_>, depth: u32) {
        let list = list.as_array();
        for object in list.iter().flatten() {
            let of_key = |detail: &&&Detail| object.get(detail.key).and_then(|value| value.into_string()) == Some(detail.value);
            let mut known = details.iter().filter(of_key).peekable();
            if known.peek().is_none() {
                self.unknown(object, path, depth);
                continue;
            }
            if let Some(members) = object.as_object() {
                let others = members.iter().filter(|(key, _)| details.iter().all(|detail| detail.count != *key));
                others.for_each(|(key, value)| self.unknown(value, &Path { above: Some(path), key }, depth + 1));
            }
            for detail in known {
                // Google leaves zeros out.
                match (object.get(detail.count).map_or(Some(0), count), detail.field) {
                    (Some(counted), Some(field)) => self.add(field, i128::from(detail.sign) * i128::from(counted)),
                    (Some(_), None) => {}
                    (None, _) => self.bad_count = true,
                }
            }
        }
    }

    fn add(&mut self, field: Field, count: i128) {
        match self.sums.iter_mut().find(|(known, _)| *known == field) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => self.sums.push((field, count)),
        }
    }

    /// Notes every number above zero.
    fn unknown(&mut self, value: Value<'_, '_>, path: &Path<'_>, depth: u32) {
        if depth >= DEPTH_MAX {
            self.note(path);
        } else if let Some(object) = value.as_object() {
            object.iter().for_each(|(key, value)| self.unknown(value, &Path { above: Some(path), key }, depth + 1));
        } else if let Some(array) = value.as_array() {
            array.iter().for_each(|value| self.unknown(value, &Path { above: Some(path), key: "[]" }, depth + 1));
        } else if value.cast_f64().is_some_and(|number| number != 0.0) {
            self.note(path);
        }
    }

    fn note(&mut self, path: &Path<'_>) {
        self.has_unknown = true;
        if self.unknown.len() < UNKNOWN_MAX {
            let text = path.text();
            if !self.unknown.contains(&text) {
                self.unknown.push(text);
            }
        }
    }
}

impl Path<'_> {
    /// The keys from the outermost, joined by dots, within [`PATH_BYTES_MAX`].
    fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text.truncate(text.floor_char_boundary(PATH_BYTES_MAX));
        text
    }

    fn write(&self, text: &mut String) {
        if let Some(above) = self.above {
            above.write(text);
            text.push('.');
        }
        // A key is a client's or a provider's text.
        let key = self.key.get(..self.key.floor_char_boundary(PATH_BYTES_MAX)).unwrap_or_default();
        let _ = write!(text, "{}", crate::printable::printable(key));
    }
}

/// A count of tokens; a fraction of zero is tolerated (`12.0`).
pub fn count(value: Value<'_, '_>) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..EXACT_MAX).contains(number)).map(|number| number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    fn read(dialect: Dialect, usage: &str) -> Reading {
        let mut raw = usage.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut raw).unwrap();
        Reading::of(&Node::of(dialect.grammar()), tape.as_value(), "usage")
    }

    #[test]
    fn each_number_is_mapped_informational_or_unknown() {
        for (usage, unknown) in [
            (r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#, &[][..]),
            (r#"{"prompt_tokens":1,"prompt_tokens_details":{"text_tokens":1,"cached_tokens":1}}"#, &[]),
            (r#"{"prompt_tokens":1,"quantum_tokens":0,"note":"5","x":{"y":[0,false,null,""]}}"#, &[]),
            (r#"{"prompt_tokens":1,"quantum_tokens":4}"#, &["usage.quantum_tokens"]),
            (r#"{"prompt_tokens_details":{"cached_tokens":1,"quantum_tokens":4}}"#, &["usage.prompt_tokens_details.quantum_tokens"]),
            (r#"{"a":{"b":[{"c":0.5}],"d":-1}}"#, &["usage.a.b.[].c", "usage.a.d"]),
            (r#"{"prompt_tokens_details":7}"#, &["usage.prompt_tokens_details"]),
            (r#"{"prompt_tokens_details":[{"cached_tokens":7}]}"#, &["usage.prompt_tokens_details.[].cached_tokens"]),
        ] {
            let reading = read(Dialect::Chat, usage);
            assert_eq!(
                (reading.unknown.as_slice(), reading.has_unknown, reading.bad_count),
                (unknown.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice(), !unknown.is_empty(), false),
                "{usage}"
            );
        }
    }

    #[test]
    fn first_path_present_counts_and_null_is_absent() {
        for (usage, want) in [
            (r#"{"prompt_cache_hit_tokens":5,"prompt_tokens_details":{"cached_tokens":7}}"#, Some(7)),
            (r#"{"prompt_cache_hit_tokens":5,"prompt_tokens_details":{"cached_tokens":null}}"#, Some(5)),
            (r#"{"prompt_tokens_details":null}"#, None),
        ] {
            assert_eq!(read(Dialect::Chat, usage).reported.of(Field::CacheRead), want, "{usage}");
        }
        for bad in ["-1", "1.5", "\"x\"", "{}", "[]", "1e300"] {
            let reading = read(Dialect::Chat, &format!(r#"{{"prompt_tokens":{bad},"completion_tokens":2}}"#));
            assert!(reading.bad_count && reading.reported.of(Field::Input).is_none(), "{bad}");
        }
    }

    #[test]
    fn unknown_paths_are_bounded() {
        let many = (0..100).map(|at| format!(r#""n{at}":1"#)).collect::<Vec<_>>().join(",");
        assert_eq!(read(Dialect::Chat, &format!("{{{many}}}")).unknown.len(), UNKNOWN_MAX);
        let long = read(Dialect::Chat, &format!(r#"{{"{}":1}}"#, "ä".repeat(PATH_BYTES_MAX)));
        assert!(long.unknown[0].len() <= PATH_BYTES_MAX && long.unknown[0].starts_with("usage.ä"));
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        assert!(read(Dialect::Chat, &deep).has_unknown);
        let known = format!("{}1{}", r#"{"prompt_tokens_details":"#.repeat(100), "}".repeat(100));
        assert!(read(Dialect::Chat, &known).has_unknown);
    }
}
