//! A JSON array whose elements are events, as Google streams them without `alt=sse`; resumable at any byte. It owns
//! the brackets and commas of the array and must never hold an element.

use memchr::memchr2;

/// What a chunk contained, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A piece of an element.
    Part(&'a [u8]),
    /// The element ended.
    End,
    /// The array ended; what follows is none of it.
    Close,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the bracket.
    #[default]
    Start,
    /// Between elements.
    Between,
    /// Inside an element, outside its strings.
    Inside,
    InString,
    InEscape,
    Closed,
}

/// The machine. A snapshot is a plain copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Array {
    state: State,
    /// Containers open within the element.
    depth: u64,
}

impl Array {
    /// Cuts the next chunk into pieces.
    pub fn push<'a>(&mut self, chunk: &'a [u8], mut on: impl FnMut(Piece<'a>)) {
        let (mut from, mut at) = (0, 0);
        while let Some(&byte) = chunk.get(at) {
            at += 1;
            match self.state {
                State::Start => self.state = if byte == b'[' { State::Between } else { State::Start },
                State::Between if byte == b']' => {
                    self.state = State::Closed;
                    on(Piece::Close);
                }
                State::Between if byte == b',' || byte.is_ascii_whitespace() => {}
                State::Between => {
                    from = at - 1;
                    self.open(byte);
                }
                State::Inside => {
                    let ends_before = self.depth == 0 && matches!(byte, b',' | b']');
                    if !ends_before && self.inside(byte) {
                        continue;
                    }
                    on(Piece::Part(chunk.get(from..at - usize::from(ends_before)).unwrap_or_default()));
                    on(Piece::End);
                    self.state = State::Between;
                    // The comma or bracket is the array's: it is looked at again.
                    at -= usize::from(ends_before);
                    from = at;
                }
                State::InString => match memchr2(b'"', b'\\', chunk.get(at - 1..).unwrap_or_default()) {
                    Some(found) => {
                        at += found;
                        self.state = if chunk.get(at - 1) == Some(&b'"') { State::Inside } else { State::InEscape };
                    }
                    None => at = chunk.len(),
                },
                State::InEscape => self.state = State::InString,
                State::Closed => return,
            }
        }
        if matches!(self.state, State::Inside | State::InString | State::InEscape) && from < chunk.len() {
            on(Piece::Part(chunk.get(from..).unwrap_or_default()));
        }
    }

    fn open(&mut self, byte: u8) {
        self.depth = u64::from(matches!(byte, b'{' | b'['));
        self.state = if byte == b'"' { State::InString } else { State::Inside };
    }

    /// True if the element goes on after this byte.
    fn inside(&mut self, byte: u8) -> bool {
        match byte {
            b'"' => self.state = State::InString,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth > 0;
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(parts: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut array, mut out, mut now, mut closed) = (Array::default(), vec![], vec![], false);
        for part in parts {
            array.push(part, |piece| match piece {
                Piece::Part(part) => now.extend_from_slice(part),
                Piece::End => out.push(String::from_utf8(std::mem::take(&mut now)).unwrap()),
                Piece::Close => closed = true,
            });
        }
        (out, closed)
    }

    #[test]
    fn cuts_elements_wherever_the_bytes_are_cut() {
        for (text, want, closed) in [
            ("[]", &[][..], true),
            ("[{\"a\":[1,{}]}\n,\r\n{\"b\":\"]},\\\"[\"}\n]\n", &["{\"a\":[1,{}]}", "{\"b\":\"]},\\\"[\"}"], true),
            ("[1, \"a,]\" ,[2,[3]]]", &["1", "\"a,]\" ", "[2,[3]]"], true),
            ("[{\"a\":1},{\"b\"", &["{\"a\":1}"], false),
            ("[{}]trailing{}", &["{}"], true),
        ] {
            let bytes = text.as_bytes();
            let want = (want.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), closed);
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(elements(&[head, tail]), want, "{text} cut at {at}");
            }
            assert_eq!(elements(&bytes.chunks(1).collect::<Vec<_>>()), want, "{text} by the byte");
        }
    }
}
