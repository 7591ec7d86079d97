//! JSON strings: unescaping what was captured raw, and quoting what is spliced in.

use std::borrow::Cow;
use std::io::Write;

/// Unescapes the inside of a JSON string into `out`; `None` if it does not fit or is not valid.
pub fn unescape_into<'a>(raw: &[u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut quoted = Vec::with_capacity(raw.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(raw);
    quoted.push(b'"');
    let text = decode(&quoted)?;
    let place = out.get_mut(..text.len())?;
    place.copy_from_slice(text.as_bytes());
    Some(place)
}

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
    while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return StringEnd::Closed(at);
        }
        if at == bytes.len() {
            return StringEnd::Open { escape: true };
        }
        at += 1;
    }
    StringEnd::Open { escape: false }
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
}
