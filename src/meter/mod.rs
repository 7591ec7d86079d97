//! The meter: chunks of a response in, usage out. It observes and never fails: what it cannot understand becomes a
//! [`Fault`], and memory stays bounded whatever a peer sends.

mod estimate;
mod event;
mod fault;
mod found;
mod message;
mod rounds;
mod tools;
mod usage_object;

pub use estimate::{Keys, prompt_tokens};
pub use event::{ERROR_BYTES_MAX, TEXT_BYTES_MAX, USAGE_BYTES_MAX};
pub use fault::{Fault, Faults};
pub use found::Found;
pub use rounds::{Round, RoundKind};
pub use usage_object::{PATH_BYTES_MAX, UNKNOWN_MAX};

use crate::dialect::{Grammar, Slot};
use crate::json::{Scanner, text};
use crate::stream::array::{self, Array};
use crate::stream::event_stream::EventStream;
use crate::stream::sse::{self, Kind, Piece, Sniffer, Sse};
use crate::usage::{Field, Reported};
use estimate::Text;
use event::Event;
use message::Unwrap;

/// How the body is cut into frames.
#[derive(Clone, Debug)]
pub enum Framing {
    /// Text; its first byte will say of which kind.
    Undecided(Sniffer),
    /// One JSON document.
    Whole,
    /// Nothing that could be read: sound, subtitles.
    Opaque,
    Sse(Sse),
    /// A JSON array of events.
    Array(Array),
    /// AWS's binary messages.
    EventStream(EventStream),
}

/// An event ended, or a line end that belongs to the last event came late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The event ends at `end` in the chunk; `usage_only` if it carries usage, no choices and no error.
    Event { end: usize, usage_only: bool },
    /// The chunk's first byte still belongs to the event before.
    LateLineFeed,
}

/// Accumulates one response. A snapshot is a clone.
#[derive(Clone, Debug)]
pub struct Meter {
    grammar: &'static Grammar,
    framing: Framing,
    scanner: Scanner<Slot>,
    event: Event,
    found: Found,
    /// Of the message that is being read.
    unwrap: Option<Box<Unwrap>>,
    /// Model and id are known; events that have no needle need not be read.
    identified: bool,
    text: Text,
    had_event: bool,
}

impl Meter {
    pub fn new(grammar: &'static Grammar, framing: Framing) -> Self {
        let scanner = Scanner::new(grammar.root);
        let (event, found, text) = (Event::default(), Found::default(), Text::default());
        Self { grammar, framing, scanner, event, found, unwrap: None, identified: false, text, had_event: false }
    }

    /// Of an answer of which nothing was read and nothing will be: what the request says counts.
    pub fn unread(grammar: &'static Grammar, implied: &Reported) -> Self {
        let mut meter = Self::new(grammar, Framing::Opaque);
        meter.stated(implied);
        meter.found.fall_back();
        meter
    }

    /// What is known so far.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Estimates the tokens of the output from its text, if the response states no usage.
    pub fn estimated_output(&self) -> Option<u64> {
        self.estimates().then(|| self.text.tokens())
    }

    /// True while the text is all that is known of what is used.
    fn estimates(&self) -> bool {
        let unstated = || self.found.reported.of(Field::Output).unwrap_or(0) == 0;
        !self.grammar.text.is_empty() && (self.found.usages == 0 || self.found.opening || unstated())
    }

    /// Notes text whose usage states no output.
    fn note_unstated(&mut self) {
        // A stream may state zero at first.
        let zero = self.found.reported.of(Field::Output) == Some(0) && self.found.error.is_none();
        self.found.unstated_output = zero && self.text.tokens() > 0;
    }

    /// Marks a defect found by whoever feeds the meter.
    pub fn fault(&mut self, fault: Fault) {
        self.found.faults.add(fault);
    }

    /// Usage that the response's headers state, for want of better in its body.
    pub fn stated(&mut self, usage: &Reported) {
        self.found.fallback.merge(usage);
    }

    /// The tier that the response's headers name; it holds whatever the body says.
    pub fn stated_tier(&mut self, tier: &str) {
        tier.clone_into(&mut self.found.tier);
        self.found.header_tier = true;
    }

    /// The kind of error that the response's headers name.
    pub fn stated_error(&mut self, kind: &str) {
        self.found.error = Some(kind.to_owned());
    }

    /// True if the body turned out to be a stream of events.
    pub fn is_stream(&self) -> bool {
        matches!(self.framing, Framing::Sse(_))
    }

    /// True for a body of events, and while nobody can say what it is.
    pub fn has_events(&self) -> bool {
        matches!(self.framing, Framing::Undecided(_) | Framing::Sse(_) | Framing::Array(_) | Framing::EventStream(_))
    }

    /// True once an event has ended; comments are none.
    pub fn has_had_event(&self) -> bool {
        self.had_event
    }

    /// True between two events of a stream of events.
    pub fn is_between_events(&self) -> bool {
        matches!(self.framing, Framing::Sse(sse) if sse.between_events())
    }

    /// Reads the next chunk; `on` hears of the events that end in it.
    pub fn push(&mut self, chunk: &[u8], mut on: impl FnMut(Boundary)) {
        let mut rest = chunk;
        if let Framing::Undecided(mut sniffer) = self.framing {
            let decided;
            (rest, decided) = sniffer.push(chunk);
            self.framing = match decided {
                Some(Kind::Events) => Framing::Sse(Sse::default()),
                Some(Kind::Array) => Framing::Array(Array::default()),
                Some(Kind::Document) => Framing::Whole,
                None => Framing::Undecided(sniffer),
            };
        }
        let passed = chunk.len() - rest.len();
        match &mut self.framing {
            Framing::Undecided(_) | Framing::Opaque => {}
            Framing::Whole => {
                let open = !self.found.ended;
                self.scan(rest);
                self.end_document();
                // A document that states its usage in this chunk needs no estimate.
                if open && self.estimates() {
                    let own = self.grammar.document_text;
                    let keys = if own.is_empty() { self.grammar.text } else { own };
                    self.text.document(keys, rest);
                    if self.found.ended {
                        self.text.end_document(keys);
                        self.note_unstated();
                    }
                }
            }
            &mut Framing::Sse(sse) => self.push_events(sse, rest, passed, &mut on),
            &mut Framing::Array(array) => self.push_elements(array, rest),
            Framing::EventStream(stream) => {
                let mut stream = std::mem::take(stream);
                stream.push(rest, |piece| self.message(piece));
                self.framing = Framing::EventStream(stream);
            }
        }
    }

    fn push_elements(&mut self, mut array: Array, rest: &[u8]) {
        array.push(rest, |piece| match piece {
            array::Piece::Part(part) => self.cut_part(part),
            array::Piece::End => drop(self.end_event()),
            array::Piece::Close => self.found.saw_done(true),
        });
        self.framing = Framing::Array(array);
    }

    fn push_events(&mut self, mut sse: Sse, rest: &[u8], passed: usize, on: &mut impl FnMut(Boundary)) {
        sse.push(rest, |piece| match piece {
            Piece::Line { value, last } => self.line(value, last),
            Piece::Part(part) => self.cut_part(part),
            Piece::LineEnd => self.part(b"\n"),
            Piece::Event { end } => {
                let usage_only = self.end_event();
                on(Boundary::Event { end: passed + end, usage_only });
            }
            Piece::LateLineFeed => on(Boundary::LateLineFeed),
        });
        self.framing = Framing::Sse(sse);
    }

    /// The body ended. `whole` says that its framing was intact.
    pub fn finish(&mut self, whole: bool) {
        match &self.framing {
            Framing::Sse(_) | Framing::Array(_) | Framing::EventStream(_) => {
                let halfway = matches!(&self.framing, Framing::EventStream(stream) if !stream.between_messages());
                self.end_event();
                self.found.fall_back();
                if halfway || self.found.faults.has(Fault::BadFrame) {
                    self.fault(Fault::CutOff);
                }
                if !self.found.ended && (!whole || !self.found.finished) {
                    self.fault(Fault::CutOff);
                }
            }
            Framing::Whole => {
                self.end_document();
                if !self.found.ended {
                    self.commit();
                    self.found.fall_back();
                    self.fault(Fault::CutOff);
                }
            }
            Framing::Opaque if whole => self.found.saw_done(true),
            Framing::Opaque => {
                self.found.fall_back();
                self.fault(Fault::CutOff);
            }
            Framing::Undecided(_) => {}
        }
    }

    /// Takes over the document once it is complete.
    fn end_document(&mut self) {
        if self.scanner.is_done() {
            self.commit();
            self.found.saw_done(true);
        }
    }

    /// True while the event that is being read may yet turn out to carry nothing but usage.
    pub fn may_be_usage_only(&self) -> bool {
        let at_boundary = matches!(self.framing, Framing::Sse(sse) if sse.between_events());
        self.is_stream() && !at_boundary && !self.event.ruled_out()
    }

    /// True if the event that is being read carries usage and nothing else, though its blank line has not come.
    pub fn is_at_usage_only(&self) -> bool {
        self.event.is_usage_only()
    }

    /// A whole `data` line. Most cannot matter, and a substring search is all they cost.
    fn line(&mut self, line: &[u8], last: bool) {
        if self.estimates() {
            self.text.line(self.grammar.text, line);
        }
        let begins = |starts: &[&[u8]]| starts.iter().any(|start| line.starts_with(start));
        if begins(self.grammar.closings) {
            self.found.text_ended = true;
        } else if self.found.text_ended && begins(self.grammar.reopenings) {
            self.found.text_ended = false;
        }
        // A line that others may follow is half an event, and nothing can be said of it.
        if last && self.identified && !self.event.marks.started && !self.matters(line) {
            self.event.marks.started = true;
            self.event.marks.skipped = true;
            self.found.saw_done(line == DONE);
            return;
        }
        self.part(line);
        self.part(b"\n");
    }

    fn matters(&self, line: &[u8]) -> bool {
        self.grammar.needles.is_empty()
            || self.grammar.needles.iter().any(|needle| sse::has_value(line, needle))
            || self.grammar.marks.iter().any(|mark| mark.find(line).is_some())
            || self.grammar.openings.iter().any(|opening| line.starts_with(opening))
    }

    /// A part of a line, or of an event that has no lines.
    fn cut_part(&mut self, part: &[u8]) {
        self.note(part);
        self.part(part);
    }

    fn note(&mut self, part: &[u8]) {
        if self.estimates() {
            self.text.part(self.grammar.text, part);
        }
    }

    fn part(&mut self, part: &[u8]) {
        self.event.marks.started = true;
        self.event.keep_head(part);
        self.scan(part);
        if self.scanner.is_done() {
            self.commit();
        }
    }

    fn scan(&mut self, bytes: &[u8]) {
        if self.event.marks.broken {
            return;
        }
        if self.scanner.push(bytes, &mut self.event).is_err() {
            self.event.marks.broken = true;
            // `[DONE]` is no JSON; a stretch of text without usage is none of the meter's business.
            if !matches!(self.framing, Framing::Sse(_)) || self.event.marks.wanted {
                self.fault(Fault::Malformed);
            }
        }
    }

    /// Takes over what the event contained, once.
    fn commit(&mut self) {
        if std::mem::replace(&mut self.event.marks.committed, true) {
            return;
        }
        let Self { event, found, grammar, identified, .. } = self;
        if event.marks.too_long {
            found.faults.add(Fault::TooLong);
        }
        let usage_before = found.usages;
        event.end_item();
        found.read_items(event, grammar);
        found.read_queries(event);
        found.read_refusal(event);
        found.read_usage(event, grammar);
        if !*identified || found.usages != usage_before {
            found.take_tier(event);
        }
        if !*identified {
            found::take_text(&mut found.model, &event.model);
            found::take_text(&mut found.id, &event.id);
            *identified = !found.model.is_empty();
        }
        found.read_error(event);
        found.take_containers(event);
        found.error_names_response |=
            event.marks.has_error && !event.id.is_empty() && text::decode(&event.id).is_some_and(|id| id == found.id);
        found.read_rest(event, grammar);
        found.ended |= grammar.last_types.iter().any(|last| event.kind_is(last));
        found.finished |= event.marks.finish || found.ended;
        if found.ended {
            found.fall_back();
        }
        self.note_unstated();
    }

    /// Ends the event at a blank line or at the end of the body; true if it carried usage and nothing else.
    fn end_event(&mut self) -> bool {
        self.had_event |= self.event.marks.started;
        if self.event.marks.started && self.event.head() == DONE {
            self.found.saw_done(true);
        } else if self.event.marks.started && !self.event.marks.skipped && !self.event.marks.broken && !self.event.marks.committed {
            if self.event.marks.wanted {
                self.fault(Fault::Malformed);
            }
            self.event.marks.committed = true;
        }
        let usage_only = self.event.is_usage_only();
        self.text.end(self.grammar.text);
        self.event.clear();
        self.scanner.reset();
        usage_only
    }
}

const DONE: &[u8] = b"[DONE]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::usage::Field;

    #[test]
    fn of_an_overlong_usage_nothing_is_kept_and_what_came_before_stays() {
        let pad = "x".repeat(USAGE_BYTES_MAX);
        let long = format!(r#"{{"pad":"{pad}","prompt_tokens":9}}"#);
        for (body, want) in [
            (format!(r#"{{"id":"c","model":"m","usage":{long}}}"#), None),
            (format!(r#"{{"id":"c","model":"m","usage":{{"prompt_tokens":3}},"x_groq":{{"usage":{long}}}}}"#), Some(3)),
        ] {
            for size in [body.len(), 1000] {
                let mut meter = Meter::new(Dialect::Chat.grammar(), Framing::Whole);
                body.as_bytes().chunks(size).for_each(|chunk| meter.push(chunk, |_| {}));
                meter.finish(true);
                let found = meter.found();
                assert_eq!(
                    (found.reported.of(Field::Input), found.faults.has(Fault::TooLong), found.faults.has(Fault::Malformed)),
                    (want, true, false)
                );
            }
        }
    }
}
