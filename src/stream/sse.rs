//! Server-sent events, resumable at any byte. It owns the position in the line grammar and must never hold a line:
//! a `data` line that lies whole in a chunk is handed out as one slice, one that is cut as pieces.
//!
//! The grammar is the HTML standard's (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): lines end
//! in LF, CRLF or CR; a BOM may come first; a colon starts a comment; one space after `data:` is not part of it.

use memchr::{memchr, memchr2};

/// What a chunk contained, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The value of a `data` line that lies whole in the chunk; `last` if the chunk shows that its event ends with it.
    Line { value: &'a [u8], last: bool },
    /// A piece of the value of a `data` line that is cut by the end of a chunk.
    Part(&'a [u8]),
    /// The end of a line given in pieces.
    LineEnd,
    /// A blank line ended an event. The chunk's bytes up to `end` belong to it, or to events before it.
    Event { end: usize },
    /// The chunk starts with the LF of a CRLF whose CR ended the chunk before.
    LateLineFeed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A number of bytes of a leading BOM have been seen.
    Bom(u8),
    LineStart,
    /// A number of bytes of `data` have matched.
    Name(u8),
    /// After `data:`; one space may follow.
    ValueStart,
    Value,
    /// A line that is no `data` line.
    Skip,
}

const BOM: &[u8] = b"\xEF\xBB\xBF";
const NAME: &[u8] = b"data";

/// The machine. A snapshot is a plain copy.
#[derive(Clone, Copy, Debug)]
pub struct Sse {
    state: State,
    after_cr: bool,
    /// The event that is being read has a line already.
    open: bool,
}

impl Default for Sse {
    fn default() -> Self {
        Self { state: State::Bom(0), after_cr: false, open: false }
    }
}

impl Sse {
    /// True where no event has begun: at the start and right after a blank line.
    pub fn between_events(&self) -> bool {
        !self.open && matches!(self.state, State::LineStart | State::Bom(0))
    }

    /// Cuts the next chunk into pieces.
    pub fn push<'a>(&mut self, chunk: &'a [u8], mut on: impl FnMut(Piece<'a>)) {
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            if let Some(tail) = rest.strip_prefix(b"\n") {
                on(Piece::LateLineFeed);
                rest = tail;
            }
        }
        while !rest.is_empty() {
            rest = match self.state {
                State::LineStart => self.line(rest, chunk.len(), &mut on),
                State::Bom(seen) => self.bom(seen, rest),
                _ => self.resume(rest, &mut on),
            };
        }
    }

    fn bom<'a>(&mut self, seen: u8, rest: &'a [u8]) -> &'a [u8] {
        match (rest.split_first(), BOM.get(usize::from(seen))) {
            (Some((byte, tail)), Some(expected)) if byte == expected => {
                self.state = if usize::from(seen) + 1 == BOM.len() { State::LineStart } else { State::Bom(seen + 1) };
                tail
            }
            // Not a BOM. A line that starts with half of one is no `data` line either.
            _ => {
                self.state = if seen == 0 { State::LineStart } else { State::Skip };
                rest
            }
        }
    }

    /// At the start of a line: the whole line if it ends in the chunk.
    fn line<'a>(&mut self, rest: &'a [u8], chunk_len: usize, on: &mut impl FnMut(Piece<'a>)) -> &'a [u8] {
        let Some(at) = memchr2(b'\n', b'\r', rest) else {
            self.state = State::Name(0);
            self.open = true;
            return rest;
        };
        let (line, end) = rest.split_at(at);
        let rest = self.terminator(end);
        self.open = !line.is_empty();
        if line.is_empty() {
            on(Piece::Event { end: chunk_len - rest.len() });
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let last = matches!(rest.first(), Some(b'\n' | b'\r'));
            on(Piece::Line { value: value.strip_prefix(b" ").unwrap_or(value), last });
        } else if line == NAME {
            on(Piece::Line { value: b"", last: false });
        }
        rest
    }

    /// Past LF, CRLF or CR at the start of `end`; a LF that is yet to come is expected.
    fn terminator<'a>(&mut self, end: &'a [u8]) -> &'a [u8] {
        match end {
            [b'\r', b'\n', rest @ ..] => rest,
            [b'\r'] => {
                self.after_cr = true;
                &[]
            }
            [_, rest @ ..] => rest,
            [] => end,
        }
    }

    /// Inside a line that is cut.
    fn resume<'a>(&mut self, rest: &'a [u8], on: &mut impl FnMut(Piece<'a>)) -> &'a [u8] {
        match self.state {
            State::Name(matched) => self.name(matched, rest, on),
            State::ValueStart => {
                self.state = State::Value;
                rest.strip_prefix(b" ").unwrap_or(rest)
            }
            _ => self.value(rest, on),
        }
    }

    fn name<'a>(&mut self, matched: u8, rest: &'a [u8], on: &mut impl FnMut(Piece<'a>)) -> &'a [u8] {
        let Some((&byte, tail)) = rest.split_first() else {
            return rest;
        };
        match (NAME.get(usize::from(matched)), byte) {
            (Some(&expected), byte) if byte == expected => self.state = State::Name(matched + 1),
            (None, b':') => self.state = State::ValueStart,
            (None, b'\n' | b'\r') => {
                on(Piece::LineEnd);
                return self.end_of_line(rest);
            }
            _ => {
                self.state = State::Skip;
                return rest;
            }
        }
        tail
    }

    fn value<'a>(&mut self, rest: &'a [u8], on: &mut impl FnMut(Piece<'a>)) -> &'a [u8] {
        let skipped = self.state == State::Skip;
        let Some(at) = memchr2(b'\n', b'\r', rest) else {
            if !skipped {
                on(Piece::Part(rest));
            }
            return &[];
        };
        let (part, end) = rest.split_at(at);
        if !skipped {
            if !part.is_empty() {
                on(Piece::Part(part));
            }
            on(Piece::LineEnd);
        }
        self.end_of_line(end)
    }

    fn end_of_line<'a>(&mut self, end: &'a [u8]) -> &'a [u8] {
        self.state = State::LineStart;
        self.terminator(end)
    }
}

/// True if `line` has `needle` (a quoted key) followed by a value other than null.
pub fn has_value(line: &[u8], needle: &memchr::memmem::Finder<'_>) -> bool {
    let mut from = 0;
    while let Some(found) = needle.find(line.get(from..).unwrap_or_default()) {
        from += found + needle.needle().len();
        let after = line.get(from..).unwrap_or_default().trim_ascii_start();
        if let Some(value) = after.strip_prefix(b":")
            && !value.trim_ascii_start().starts_with(b"null")
        {
            return true;
        }
    }
    false
}

/// What a body of text turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Events,
    /// One JSON document.
    Document,
    /// A JSON array, whose elements may be events.
    Array,
}

/// Tells events from JSON, whatever the headers say: a BOM and blanks aside, the first byte starts a field name or a
/// comment. Fed with the bytes as they come until it knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sniffer {
    bom: u8,
    /// The headers announced events; fields may have any name.
    announced: bool,
}

impl Sniffer {
    /// A sniffer that knows what the headers say.
    pub fn announced(events: bool) -> Self {
        Self { bom: 0, announced: events }
    }

    /// Passes over what decides nothing and returns the rest, with the answer if there is a rest.
    pub fn push<'a>(&mut self, chunk: &'a [u8]) -> (&'a [u8], Option<Kind>) {
        let mut rest = chunk;
        while let Some((byte, tail)) = rest.split_first()
            && BOM.get(usize::from(self.bom)) == Some(byte)
        {
            self.bom += 1;
            rest = tail;
        }
        let rest = rest.trim_ascii_start();
        let kind = |first: &u8| match first {
            b'{' => Kind::Document,
            b'[' => Kind::Array,
            _ if self.announced || memchr(*first, b"deir:").is_some() => Kind::Events,
            _ => Kind::Document,
        };
        (rest, rest.first().map(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload of each event, data lines joined by `|`, and how many events ended.
    fn events(parts: &[&[u8]]) -> Vec<String> {
        let (mut sse, mut out, mut line) = (Sse::default(), vec![String::new()], String::new());
        for part in parts {
            sse.push(part, |piece| match piece {
                Piece::Line { value, .. } => out.last_mut().unwrap().push_str(&format!("{}|", String::from_utf8_lossy(value))),
                Piece::Part(part) => line.push_str(&String::from_utf8_lossy(part)),
                Piece::LineEnd => {
                    let line = std::mem::take(&mut line);
                    out.last_mut().unwrap().push_str(&format!("{line}|"));
                }
                Piece::Event { .. } => out.push(String::new()),
                Piece::LateLineFeed => {}
            });
        }
        out.last_mut().unwrap().push_str(&line);
        out
    }

    #[test]
    fn reads_the_grammar_wherever_it_is_cut() {
        let rows: &[(&str, &[&str])] = &[
            ("data: a\n\ndata:b\n\n", &["a|", "b|", ""]),
            ("data: a\r\ndata:  b\r\n\r\nid: 3\r\n\r\n", &["a| b|", "", ""]),
            ("data: a\rdata: b\r\rdata: c\r\r", &["a|b|", "c|", ""]),
            (": comment\ndata\ndatum: x\nevent: data: y\n\n", &["|", ""]),
            ("\u{feff}data: a\n\ndata: last", &["a|", "last"]),
            ("\n\n\r\n\r", &["", "", "", "", ""]),
            ("dat: no\n data: no\ndata : no\n\n", &["", ""]),
        ];
        for (text, want) in rows {
            let bytes = text.as_bytes();
            // A last line without its end comes only in pieces, so the whole is compared in pieces too.
            assert_eq!(events(&[bytes]), *want, "{text:?}");
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(events(&[head, tail]), *want, "{text:?} cut at {at}");
            }
            assert_eq!(events(&bytes.chunks(1).collect::<Vec<_>>()), *want, "{text:?} by the byte");
        }
    }

    #[test]
    fn tells_where_events_end() {
        let chunk = b"data: a\r\n\r\ndata: b\n\nda";
        let mut ends = vec![];
        Sse::default().push(chunk, |piece| {
            if let Piece::Event { end } = piece {
                ends.push(end);
            }
        });
        assert_eq!(ends, [11, 20]);
    }

    #[test]
    fn sees_values_but_not_nulls() {
        let usage = memchr::memmem::Finder::new("\"usage\"");
        for (line, want) in [
            (r#"{"usage":{"a":1}}"#, true),
            (r#"{"usage" : null}"#, false),
            (r#"{"usage":null,"x":{"usage": {}}}"#, true),
            (r#"{"text":"\"usage\": 3"}"#, false),
            (r#"{"usage"#, false),
        ] {
            assert_eq!(has_value(line.as_bytes(), &usage), want, "{line}");
        }
    }

    #[test]
    fn tells_events_from_json() {
        for (body, want) in [
            ("", None),
            (" \n", None),
            ("data: x", Some(Kind::Events)),
            ("\u{feff}data: x", Some(Kind::Events)),
            (": hi", Some(Kind::Events)),
            ("\u{feff}{\"d\"", Some(Kind::Document)),
            ("\n[", Some(Kind::Array)),
            ("x: y", Some(Kind::Document)),
        ] {
            assert_eq!(Sniffer::default().push(body.as_bytes()).1, want, "{body:?}");
            let mut bytewise = Sniffer::default();
            let found = body.as_bytes().chunks(1).find_map(|byte| bytewise.push(byte).1);
            assert_eq!(found, want, "{body:?}");
        }
    }
}
