//! Estimates, for when a provider's numbers never come: its text is counted as it passes, and the prompt from the
//! request. A token is taken for four ASCII characters, or one other character
//! (<https://help.openai.com/en/articles/4936856>); what a model thinks without showing it is not seen. A tokenizer would
//! need the whole text of every open stream in memory, and still not know what was hidden.

use memchr::memmem::Finder;
use memchr::{memchr, memchr2};
use once_cell::sync::Lazy;

/// Keys under which text stands, in quotes; the first that has any in an event is the one that counts there, since some
/// providers write the same text under two.
pub type Keys = &'static [&'static Lazy<Finder<'static>>];

/// Of an event that is cut by the end of a chunk so much is kept; a longer one is counted in pieces.
const PIECE_BYTES_MAX: usize = 4096;
/// A longer string of a request that is all Base64, and stands in a field for data, is data (a picture, sound), not text.
const WORD_BYTES_MAX: usize = 512;
/// Fields for data in Base64 at the providers, and for what they encrypt: OpenAI, Anthropic, Google, Bedrock, Mistral.
/// <https://platform.openai.com/docs/api-reference/chat/create>, <https://platform.claude.com/docs/en/api/messages>,
/// <https://ai.google.dev/api/caching#Blob>, <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ImageSource.html>.
const DATA_FIELDS: &[&[u8]] = &[
    b"data",
    b"bytes",
    b"b64_json",
    b"file_data",
    b"image_base64",
    b"input_audio",
    b"encrypted_content",
    b"signature",
    b"thoughtSignature",
    b"thought_signature",
];
/// Fields for addresses, which may be URLs of data.
const ADDRESS_FIELDS: &[&[u8]] = &[b"url", b"image_url", b"video_url", b"audio_url", b"file_url", b"document_url", b"uri", b"file_data"];
/// Broken lines of Base64 have at least so many characters: <https://www.rfc-editor.org/rfc/rfc2045#section-6.8> has 76.
const BASE64_LINE_BYTES_MIN: usize = 60;
/// Before a comma, what data is, in a URL: <https://www.rfc-editor.org/rfc/rfc2397>.
const DATA_PREFIX_BYTES_MAX: usize = 128;
const ASCII_PER_TOKEN: u64 = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    InString,
    Escaped,
    /// In `\uXXXX`; so many digits are left.
    Digits(u8),
}

/// Characters of the text that has passed.
#[derive(Clone, Debug, Default)]
pub struct Text {
    count: Count,
    /// Bytes of a document that is not whole yet.
    document: u64,
    place: Place,
    /// The key that counts in this event, by its number.
    key: Option<usize>,
    piece: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    ascii: u64,
    other: u64,
}

impl Count {
    fn add(&mut self, text: &[u8]) {
        let ascii = text.iter().filter(|byte| byte.is_ascii()).count();
        let begun = if ascii == text.len() { 0 } else { text.iter().filter(|byte| **byte >= 0xc0).count() };
        self.ascii += ascii as u64;
        self.other += begun as u64;
    }

    fn tokens(self) -> u64 {
        self.ascii.div_ceil(ASCII_PER_TOKEN) + self.other
    }
}

impl Text {
    /// The tokens of what has passed.
    pub fn tokens(&self) -> u64 {
        if self.document > 0 { self.document.div_ceil(ASCII_PER_TOKEN) } else { self.count.tokens() }
    }

    /// A whole line of an event.
    pub fn line(&mut self, keys: Keys, line: &[u8]) {
        self.scan(keys, line);
        self.place = Place::Outside;
    }

    /// A part of an event that may be cut anywhere.
    pub fn part(&mut self, keys: Keys, mut part: &[u8]) {
        while !part.is_empty() {
            let room = PIECE_BYTES_MAX - self.piece.len();
            let (now, later) = part.split_at_checked(room).unwrap_or((part, &[]));
            self.piece.extend_from_slice(now);
            if self.piece.len() == PIECE_BYTES_MAX {
                self.flush(keys);
            }
            part = later;
        }
    }

    /// A part of a document. If the document is cut off, all of its bytes count as text.
    pub fn document(&mut self, keys: Keys, part: &[u8]) {
        self.document += part.len() as u64;
        self.part(keys, part);
    }

    /// The document is whole: only the text under its keys counts.
    pub fn end_document(&mut self, keys: Keys) {
        self.document = 0;
        self.end(keys);
    }

    /// The event ended.
    pub fn end(&mut self, keys: Keys) {
        if !self.piece.is_empty() {
            self.flush(keys);
        }
        (self.place, self.key) = (Place::Outside, None);
    }

    fn flush(&mut self, keys: Keys) {
        let mut piece = std::mem::take(&mut self.piece);
        self.scan(keys, &piece);
        piece.clear();
        self.piece = piece;
    }

    fn scan(&mut self, keys: Keys, bytes: &[u8]) {
        let rest = if self.place == Place::Outside { bytes } else { self.string(bytes) };
        for (at, key) in keys.iter().enumerate() {
            if self.key.is_none_or(|chosen| chosen == at) {
                self.values(at, key, rest);
            }
        }
    }

    /// Counts the strings that stand under a key.
    fn values(&mut self, at: usize, key: &Finder<'_>, mut rest: &[u8]) {
        while let Some(found) = key.find(rest) {
            rest = rest.get(found + key.needle().len()..).unwrap_or_default();
            let value = rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
            let Some(text) = value.and_then(|value| value.strip_prefix(b"\"")) else { continue };
            if text.first() != Some(&b'"') {
                self.key = Some(at);
            }
            self.place = Place::InString;
            rest = self.string(text);
        }
    }

    /// Counts to the end of a string; what comes after it.
    fn string<'b>(&mut self, mut rest: &'b [u8]) -> &'b [u8] {
        while let Some((&byte, tail)) = rest.split_first() {
            match self.place {
                Place::Outside => return rest,
                Place::Escaped => {
                    self.place = if byte == b'u' { Place::Digits(4) } else { Place::InString };
                    if byte == b'u' {
                        self.count.other += 1
                    } else {
                        self.count.ascii += 1
                    }
                    rest = tail;
                }
                Place::Digits(left) => {
                    self.place = if left > 1 { Place::Digits(left - 1) } else { Place::InString };
                    rest = tail;
                }
                Place::InString => {
                    let at = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    let (text, tail) = rest.split_at(at);
                    self.count.add(text);
                    self.place = match tail.first() {
                        Some(b'"') => Place::Outside,
                        Some(_) => Place::Escaped,
                        None => Place::InString,
                    };
                    rest = tail.get(1..).unwrap_or_default();
                }
            }
        }
        rest
    }
}

/// The tokens of a prompt: all of a request's JSON but what is data. Roles, keys and tools are read by models, too.
pub fn prompt_tokens(body: &[u8]) -> u64 {
    let (mut count, mut rest, mut last) = (Count::default(), body, &b""[..]);
    while let Some(open) = memchr(b'"', rest) {
        let (before, string) = rest.split_at(open + 1);
        count.add(before);
        let end = string_end(string);
        let (text, tail) = string.split_at(end);
        let colon = before.strip_suffix(b"\"").is_some_and(|before| before.trim_ascii() == b":");
        let field = if colon { last } else { b"" };
        if text.len() <= WORD_BYTES_MAX || !is_data(field, text) {
            count.add(text);
        }
        last = text;
        count.add(tail.get(..1).unwrap_or_default());
        rest = tail.get(1..).unwrap_or_default();
    }
    count.add(rest);
    count.tokens()
}

/// True for Base64 in any of its alphabets, in a field for data or in a URL of data. Text may look like Base64 too: words that an
/// underscore joins, or that are written in escapes.
fn is_data(field: &[u8], text: &[u8]) -> bool {
    let start = text.get(..DATA_PREFIX_BYTES_MAX).filter(|text| text.starts_with(b"data:") && ADDRESS_FIELDS.contains(&field));
    let prefix = start.and_then(|text| memchr(b',', text).filter(|at| text.get(..*at).is_some_and(|kind| kind.ends_with(b";base64"))));
    if prefix.is_none() && !DATA_FIELDS.contains(&field) {
        return false;
    }
    let data = text.get(prefix.map_or(0, |at| at + 1)..).unwrap_or_default();
    let (mut rest, mut line, mut lower) = (data, 0, 0);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail.first()) {
            (b'\\', Some(b'/')) => tail.get(1..).unwrap_or_default(),
            // The last line may be short; it is followed by nothing.
            (b'\\', Some(b'n' | b'r')) if line == 0 || line >= BASE64_LINE_BYTES_MIN || tail.len() <= 4 => {
                line = 0;
                tail.get(1..).unwrap_or_default()
            }
            (b'+' | b'/' | b'-' | b'_' | b'=', _) | (b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z', _) => {
                lower += usize::from(byte.is_ascii_lowercase());
                line += 1;
                tail
            }
            _ => return false,
        };
    }
    // Of Base64 that encodes data two in five are lower case; of English text more than four in five.
    lower * 10 <= data.len() * 7
}

/// Where the string ends that begins here.
fn string_end(string: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', string.get(at..).unwrap_or_default()) {
        at += found;
        if string.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    string.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONTENT: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"content\""));
    static TEXT: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"text\""));
    const KEYS: Keys = &[&CONTENT, &TEXT];

    fn counted(event: &str, size: usize) -> (u64, u64) {
        let mut text = Text::default();
        event.as_bytes().chunks(size).for_each(|part| text.part(KEYS, part));
        text.end(KEYS);
        (text.count.ascii, text.count.other)
    }

    #[test]
    fn counts_what_stands_under_its_keys_however_it_is_cut() {
        for (event, want) in [
            (r#"{"content":"abcd"}"#.to_owned(), (4, 0)),
            (r#"{"content" : "aüé","x":"content"}"#.to_owned(), (1, 2)),
            (r#"{"content":"","text":"abc"}"#.to_owned(), (3, 0)),
            (r#"{"content":"a","text":"abc"}"#.to_owned(), (1, 0)),
            (r#"{"content":null,"text":[{"text":"a\"b"},{"text":"\u4f60\n"}]}"#.to_owned(), (4, 1)),
            (r#"{"delta":"abc"}"#.to_owned(), (0, 0)),
            (format!(r#"{{"content":"{}"}}"#, "é\\u00fc".repeat(2000)), (0, 4000)),
            (format!(r#"{{"pad":"{}","content":"ab"}}"#, "x".repeat(9000)), (2, 0)),
        ] {
            for size in [1, 7, 1000, event.len()] {
                assert_eq!(counted(&event, size), want, "{size} {}", &event[..event.len().min(80)]);
            }
            let mut text = Text::default();
            text.line(KEYS, event.as_bytes());
            assert_eq!((text.count.ascii, text.count.other), want);
        }
    }

    #[test]
    fn cut_document_counts_by_its_bytes_and_whole_document_by_its_text() {
        let body = br#"{"id":"some id","content":"12345678"}"#;
        for size in [1, 10, body.len()] {
            let mut text = Text::default();
            body.chunks(size).for_each(|part| text.document(KEYS, part));
            assert_eq!(text.tokens(), (body.len() as u64).div_ceil(4));
            text.end_document(KEYS);
            assert_eq!(text.tokens(), 2);
        }
    }

    #[test]
    fn prompts_are_all_but_their_data() {
        let picture = format!(r#"{{"data" : "{}"}}"#, "A".repeat(WORD_BYTES_MAX + 1));
        assert_eq!(prompt_tokens(picture.as_bytes()), 4);
        let line = "Ab0".repeat(BASE64_LINE_BYTES_MIN / 3);
        let broken = format!(r#"{{"bytes":"{}"}}"#, format!(r"{line}\/A\r\n").repeat(WORD_BYTES_MAX));
        assert_eq!(prompt_tokens(broken.as_bytes()), 3);
        let unbroken = format!("[\"{}\"]", "日".repeat(WORD_BYTES_MAX));
        assert_eq!(prompt_tokens(unbroken.as_bytes()), 1 + WORD_BYTES_MAX as u64);
        let words = format!(r#"{{"t":"{}"}}"#, "ab ".repeat(WORD_BYTES_MAX));
        assert_eq!(prompt_tokens(words.as_bytes()), (words.len() as u64).div_ceil(4));
        let url = format!(r#"{{"url":"data:image/png;base64,{}=="}}"#, "A_b-".repeat(WORD_BYTES_MAX));
        assert_eq!(prompt_tokens(url.as_bytes()), 3);
        // Text that looks like data.
        for (field, text) in [
            ("text", "A".repeat(WORD_BYTES_MAX + 1)),
            ("data", r"\u0041".repeat(WORD_BYTES_MAX)),
            ("data", r"Words\n".repeat(WORD_BYTES_MAX)),
            ("data", "hello_my_name_is_".repeat(WORD_BYTES_MAX)),
            ("url", "A".repeat(WORD_BYTES_MAX + 1)),
            ("url", format!("data:,{}", "LOREM_".repeat(WORD_BYTES_MAX))),
            ("content", format!("data:text/plain;base64,{}", "LOREM_".repeat(WORD_BYTES_MAX))),
        ] {
            let body = format!(r#"{{"{field}":"{text}"}}"#);
            assert_eq!(prompt_tokens(body.as_bytes()), (body.len() as u64).div_ceil(4), "{field}");
        }
        // No blank in it, and text all the same.
        for text in ["a,1;".repeat(WORD_BYTES_MAX), "f(){x=1}".repeat(WORD_BYTES_MAX), format!("{}.", "a".repeat(WORD_BYTES_MAX))] {
            let body = format!(r#"{{"t":"{text}"}}"#);
            assert_eq!(prompt_tokens(body.as_bytes()), (body.len() as u64).div_ceil(4));
        }
        assert_eq!(prompt_tokens("[\"日本\"]".as_bytes()), 1 + 2);
        assert_eq!(prompt_tokens(b"\"a\\"), 1);
    }
}
