//! Messages: of an AWS event stream, where the headers say what a message is, its payload is the event, and nothing of
//! it counts before its checksum has been seen; of a WebSocket, where each is an event.

use super::{Fault, Framing, Meter};
use crate::dialect::{Grammar, INVOKE_WRAPPER};
use crate::json::{Scanner, Visit, text};
use crate::stream::event_stream::{Headers, Piece};
use crate::stream::sse::Sse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

impl Meter {
    /// A meter of messages that the caller cuts.
    pub fn of_messages(grammar: &'static Grammar) -> Self {
        Self::new(grammar, Framing::Sse(Sse::default()))
    }

    /// A part of a message.
    pub fn message_part(&mut self, part: &[u8]) {
        self.cut_part(part);
    }

    /// The message ended.
    pub fn message_end(&mut self) {
        self.end_event();
    }

    /// Takes out the ids of containers that were read.
    pub fn take_containers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found.containers)
    }

    /// Takes out the error that was read, since it belongs to something else.
    pub fn take_error(&mut self) -> Option<String> {
        self.found.error.take()
    }

    pub(super) fn message(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Headers(headers) => self.begin_message(headers),
            Piece::Part(part) if !self.event.marks.skipped => self.payload(part),
            // It matters to nobody but estimates.
            Piece::Part(part) if self.event.exception.is_none() => self.note(part),
            Piece::Part(_) => {}
            Piece::End { intact } => self.end_message(intact),
            Piece::Broken => {
                self.event.clear();
                self.fault(Fault::BadFrame);
            }
        }
    }

    fn begin_message(&mut self, headers: &Headers) {
        self.event.marks.started = true;
        if matches!(headers.message.as_str(), "exception" | "error") {
            self.event.exception = Some(headers.kind.clone());
        }
        self.event.kind = text::encode(&headers.kind);
        let wanted = self.grammar.messages;
        let matters = wanted.is_empty() || wanted.contains(&headers.kind.as_str());
        self.event.marks.skipped = self.event.exception.is_some() || !matters;
        self.unwrap = self.grammar.wrapped.then(Box::default);
    }

    fn payload(&mut self, part: &[u8]) {
        let Some(mut unwrap) = self.unwrap.take() else {
            self.note(part);
            return self.scan(part);
        };
        match unwrap.push(part) {
            Some(event) => {
                self.note(event);
                self.scan(event);
            }
            None => {
                self.event.marks.broken = true;
                self.fault(Fault::Malformed);
            }
        }
        self.unwrap = Some(unwrap);
    }

    fn end_message(&mut self, intact: bool) {
        if !intact {
            self.event.clear();
            self.fault(Fault::BadFrame);
        } else if let Some(exception) = self.event.exception.take() {
            self.found.error = Some(if exception.is_empty() { "error".to_owned() } else { exception });
        } else if self.scanner.is_done() {
            self.commit();
        }
        self.end_event();
    }
}

/// Takes an event out of the base64 it is wrapped in, however that is cut.
#[derive(Clone, Debug)]
pub(super) struct Unwrap {
    scanner: Scanner<()>,
    base64: Base64,
}

impl Default for Unwrap {
    fn default() -> Self {
        Self { scanner: Scanner::new(&INVOKE_WRAPPER), base64: Base64::default() }
    }
}

impl Unwrap {
    /// The part of the event that this part of the payload holds; `None` if it is no JSON, or no base64.
    fn push(&mut self, part: &[u8]) -> Option<&[u8]> {
        self.base64.out.clear();
        let read = self.scanner.push(part, &mut self.base64);
        (read.is_ok() && !self.base64.broken).then_some(self.base64.out.as_slice())
    }
}

#[derive(Clone, Debug, Default)]
struct Base64 {
    /// Up to three characters that wait for the rest of their four.
    text: Vec<u8>,
    out: Vec<u8>,
    broken: bool,
}

impl Visit<()> for Base64 {
    fn begin(&mut self, (): (), _: u64, _: u8) {
        self.text.clear();
    }

    fn bytes(&mut self, (): (), piece: &[u8]) {
        // Slashes may be escaped; nothing else in base64 needs to be.
        self.text.extend(piece.iter().filter(|byte| !matches!(byte, b'"' | b'\\')));
        let whole = self.text.len() - self.text.len() % 4;
        self.broken |= STANDARD.decode_vec(self.text.get(..whole).unwrap_or_default(), &mut self.out).is_err();
        self.text.drain(..whole);
    }

    fn end(&mut self, (): (), _: u64) {
        self.broken |= !self.text.is_empty();
    }
}
