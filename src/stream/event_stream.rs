//! AWS event streams: binary messages of a prelude, headers, a payload and two checksums; resumable at any byte.
//! It owns the position in the message and must never hold a payload.
//!
//! Format: <https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html>; limits as AWS states them there:
//! 128 KiB of headers and 16 MiB of payload.

use crc32fast::Hasher;

/// Total length, length of the headers, and their checksum.
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: u32 = 4;
/// Headers of one message. One byte more and the stream is not read on.
pub const HEADERS_BYTES_MAX: u32 = 128 * 1024;
/// Payload of one message. One byte more and the stream is not read on.
pub const PAYLOAD_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// What a chunk contained, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The headers of a message are complete.
    Headers(&'a Headers),
    /// A piece of its payload.
    Part(&'a [u8]),
    /// The message ended; `intact` says that its checksum is right.
    End { intact: bool },
    /// The framing is broken: lengths that cannot be, or a wrong checksum of the prelude. Nothing more will be read.
    Broken,
}

/// The headers by which a message says what it is, each empty if it is missing or no string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `:message-type`: `event`, `exception` or `error`.
    pub message: String,
    /// `:event-type`, `:exception-type` or `:error-code`.
    pub kind: String,
}

/// True if a body begins with the prelude of a message: its own checksum says so.
pub fn is_message(body: &[u8]) -> bool {
    let Some((lengths, rest)) = body.split_first_chunk::<8>() else { return false };
    rest.first_chunk::<4>().is_some_and(|checksum| u32::from_be_bytes(*checksum) == crc32fast::hash(lengths))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Prelude,
    Headers,
    Payload,
    Checksum,
    Broken,
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct EventStream {
    state: State,
    /// The prelude, then the headers, then the checksum, as far as they have come.
    held: Vec<u8>,
    headers_len: u32,
    payload_len: u32,
    /// Bytes of the current part that are yet to come.
    left: u32,
    checksum: Hasher,
    headers: Headers,
}

impl EventStream {
    /// True where no message has begun.
    pub fn between_messages(&self) -> bool {
        self.state == State::Prelude && self.held.is_empty()
    }

    /// Cuts the next chunk into pieces.
    pub fn push(&mut self, chunk: &[u8], mut on: impl FnMut(Piece<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() && self.state != State::Broken {
            rest = match self.state {
                State::Payload => self.payload(rest, &mut on),
                _ => self.hold(rest, &mut on),
            };
        }
    }

    /// Gathers a part that is looked at whole.
    fn hold<'a>(&mut self, rest: &'a [u8], on: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let whole = match self.state {
            State::Prelude => PRELUDE_BYTES,
            State::Headers => self.headers_len as usize,
            _ => CHECKSUM_BYTES as usize,
        };
        let (part, rest) = rest.split_at(rest.len().min(whole - self.held.len()));
        self.held.extend_from_slice(part);
        if self.held.len() == whole {
            match self.state {
                State::Prelude => self.prelude(on),
                State::Headers => self.headers(on),
                _ => self.checksum(on),
            }
            self.held.clear();
        }
        rest
    }

    fn prelude(&mut self, on: &mut impl FnMut(Piece<'_>)) {
        let (total, headers, checksum) = (number(&self.held, 0), number(&self.held, 4), number(&self.held, 8));
        self.checksum = Hasher::new();
        self.checksum.update(self.held.get(..8).unwrap_or_default());
        let intact = self.checksum.clone().finalize() == checksum;
        let payload = total.checked_sub(PRELUDE_BYTES as u32 + CHECKSUM_BYTES).and_then(|rest| rest.checked_sub(headers));
        match payload.filter(|payload| intact && headers <= HEADERS_BYTES_MAX && *payload <= PAYLOAD_BYTES_MAX) {
            Some(payload) => {
                self.checksum.update(self.held.get(8..).unwrap_or_default());
                (self.headers_len, self.payload_len, self.state) = (headers, payload, State::Headers);
                if headers == 0 {
                    self.held.clear();
                    self.headers(on);
                }
            }
            None => {
                self.state = State::Broken;
                on(Piece::Broken);
            }
        }
    }

    fn headers(&mut self, on: &mut impl FnMut(Piece<'_>)) {
        self.checksum.update(&self.held);
        self.headers = Headers::read(&self.held);
        on(Piece::Headers(&self.headers));
        self.left = self.payload_len;
        self.state = if self.left == 0 { State::Checksum } else { State::Payload };
    }

    fn payload<'a>(&mut self, rest: &'a [u8], on: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let (part, rest) = rest.split_at(rest.len().min(self.left as usize));
        self.checksum.update(part);
        on(Piece::Part(part));
        self.left -= part.len() as u32;
        if self.left == 0 {
            self.state = State::Checksum;
        }
        rest
    }

    fn checksum(&mut self, on: &mut impl FnMut(Piece<'_>)) {
        let intact = std::mem::take(&mut self.checksum).finalize() == number(&self.held, 0);
        self.state = State::Prelude;
        on(Piece::End { intact });
    }
}

impl Headers {
    /// Reads a block of headers. One that does not add up yields what stands before the defect: the checksum of the
    /// message decides whether any of it counts.
    fn read(block: &[u8]) -> Self {
        let (mut headers, mut rest) = (Self::default(), block);
        while let Some((name, value, tail)) = header(rest) {
            rest = tail;
            match (name, value) {
                (b":message-type", Some(value)) => headers.message = value.to_owned(),
                (b":event-type" | b":exception-type" | b":error-code", Some(value)) => headers.kind = value.to_owned(),
                _ => {}
            }
        }
        headers
    }
}

/// The first header of a block: its name, its value if that is a string, and what follows.
fn header(block: &[u8]) -> Option<(&[u8], Option<&str>, &[u8])> {
    let (&name_len, rest) = block.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
    let (&kind, rest) = rest.split_first()?;
    // True, false, byte, short, integer, long, byte array, string, timestamp, UUID.
    let (text, len, rest) = match kind {
        0 | 1 => (false, 0, rest),
        2 => (false, 1, rest),
        3 => (false, 2, rest),
        4 => (false, 4, rest),
        5 | 8 => (false, 8, rest),
        6 | 7 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (kind == 7, usize::from(u16::from_be_bytes(*len)), rest)
        }
        9 => (false, 16, rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((name, std::str::from_utf8(value).ok().filter(|_| text), rest))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "event_stream_tests.rs"]
mod tests;
