//! JSON strings: unescaping what was captured raw, and quoting what is spliced in.

use std::borrow::Cow;
use std::io::Write;

/// The text of a raw JSON string, quotes included in the input; `None` if it is not a valid string.
pub fn decode(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

/// `text` as a JSON string with its quotes.
pub fn encode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_str(&mut out, text);
    out
}

/// Appends `text` as a JSON string.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // All bytes are looked at, so that many are at once.
    if text.bytes().fold(false, |any, byte| any | needs_escape(byte)) {
        escape(out, text);
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..0x20 => {
                // Writing into a Vec cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
            }
            _ => out.push(byte),
        }
    }
}

/// The end of a string in bytes that may be cut anywhere.
pub enum StringEnd {
    /// Just past the closing quote.
    Closed(usize),
    /// The bytes end inside the string, perhaps right after a backslash.
    Open { escape: bool },
}

/// Where the string ends whose inside starts at `at`.
pub fn find_string_end(bytes: &[u8], mut at: usize) -> StringEnd {
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let found = match near(rest) {
            Near::At(found) => Some(found),
            Near::After(start) => memchr::memchr2(b'"', b'\\', rest.get(start..).unwrap_or_default()).map(|found| start + found),
        };
        let Some(found) = found else { return StringEnd::Open { escape: false } };
        at += found + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return StringEnd::Closed(at);
        }
        if at == bytes.len() {
            return StringEnd::Open { escape: true };
        }
        at += 1;
    }
}

/// Where a quote or backslash is, or how many bytes have none.
enum Near {
    At(usize),
    After(usize),
}

/// Looks at what comes first, a word at a time: most strings end sooner than a search of many bytes at once has begun.
fn near(bytes: &[u8]) -> Near {
    const WORDS: usize = 3;
    const ONES: u64 = u64::MAX / 0xff;
    // The lowest bit that is set is that of the first zero byte; there may be false ones above it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, _) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().take(WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Near::At(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    Near::After(8 * words.len().min(WORDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_and_encodes() {
        for text in ["", "plain", "q\"b\\s\n\u{1}", "ünï\u{1F600}"] {
            let raw = encode(text);
            assert_eq!(serde_json::from_slice::<String>(&raw).unwrap(), text);
            assert_eq!(decode(&raw).unwrap(), text);
        }
        assert_eq!(decode(br#""mod\u0065l""#).unwrap(), "model");
        assert_eq!(decode(br#""\ud800""#), None);
        assert_eq!(decode(b"12"), None);
    }

    #[test]
    fn strings_end_at_their_first_quote_that_is_not_escaped() {
        // Neighbours of a quote and a backslash, and bytes whose words borrow from one another.
        let fill = [b'a', b'!', b'#', b'[', b']', 0, 0x80, 0xff];
        let mut random = 7u32;
        let mut draw = |below: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize % below
        };
        for length in 0..80 {
            for _ in 0..50 {
                let mut bytes: Vec<u8> = (0..length).map(|_| fill[draw(fill.len())]).collect();
                for _ in 0..draw(4) {
                    bytes.insert(draw(bytes.len() + 1), if draw(2) == 0 { b'"' } else { b'\\' });
                }
                let mut escape = false;
                let end = bytes.iter().position(|byte| {
                    let closes = *byte == b'"' && !escape;
                    escape = *byte == b'\\' && !escape;
                    closes
                });
                match find_string_end(&bytes, 0) {
                    StringEnd::Closed(at) => assert_eq!(Some(at - 1), end, "{bytes:?}"),
                    StringEnd::Open { escape: last } => assert_eq!((None, escape), (end, last), "{bytes:?}"),
                }
            }
        }
    }
}
