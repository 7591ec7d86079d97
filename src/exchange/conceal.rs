//! Hides the usage chunk that the gateway caused: the caller gets its stream as if nobody had asked for usage. Bytes
//! are held back only while they could still be that chunk.

use crate::meter::{Boundary, Meter};
use bytes::{Bytes, BytesMut};

/// An event that grows past this is no usage chunk and flows on.
pub const HELD_BYTES_MAX: usize = 64 * 1024;

/// Drops usage-only events from a stream.
#[derive(Debug, Default)]
pub struct Conceal {
    /// The start of an event that may turn out to be one.
    held: BytesMut,
    /// The last event was dropped, and the LF of its CRLF may still come.
    dropped: bool,
    /// The event that is being read is past the bound.
    passing: bool,
}

impl Conceal {
    /// Meters a chunk and returns what goes on; the same memory where nothing is hidden.
    pub fn push(&mut self, meter: &mut Meter, chunk: Bytes) -> Bytes {
        let mut cuts: Vec<(usize, usize)> = vec![];
        let (mut start, mut first) = (0, true);
        let (mut dropped, mut drop_held, passing) = (self.dropped, false, self.passing);
        let between = self.held.is_empty();
        meter.push(&chunk, |boundary| match boundary {
            Boundary::LateLineFeed => {
                if dropped {
                    cuts.push((0, 1));
                }
                // Within an event it is part of it.
                start = usize::from(between);
            }
            Boundary::Event { end, usage_only } => {
                dropped = usage_only && !(first && passing);
                if dropped {
                    cuts.push((start, end));
                    drop_held |= first;
                }
                (start, first) = (end, false);
            }
        });
        self.dropped = dropped && start == chunk.len();
        self.passing &= first;
        let undecided = meter.may_be_usage_only() && !self.passing;
        let held_len = self.held.len();
        let tail = if undecided { start } else { chunk.len() };
        if undecided && chunk.len() - start + if first { held_len } else { 0 } > HELD_BYTES_MAX {
            self.passing = true;
            return self.assemble(&chunk, &cuts, chunk.len(), drop_held);
        }
        if undecided && first {
            // Still the same event: nothing of it can go on yet.
            let before = self.assemble(&chunk.slice(..start), &cuts, start, true);
            self.held.extend_from_slice(chunk.get(start..).unwrap_or_default());
            return before;
        }
        if cuts.is_empty() && held_len == 0 && tail == chunk.len() {
            return chunk;
        }
        let out = self.assemble(&chunk, &cuts, tail, drop_held);
        self.held.clear();
        self.held.extend_from_slice(chunk.get(tail..).unwrap_or_default());
        out
    }

    /// What is left at the end of the stream, unless it is a usage chunk without its blank line.
    pub fn finish(&mut self, usage_only: bool) -> Bytes {
        let held = self.held.split().freeze();
        if usage_only { Bytes::new() } else { held }
    }

    /// Held bytes and the chunk up to `end`, without the cuts.
    fn assemble(&mut self, chunk: &Bytes, cuts: &[(usize, usize)], end: usize, keep_held: bool) -> Bytes {
        let mut out = BytesMut::with_capacity(self.held.len() + end);
        if !keep_held {
            out.extend_from_slice(&self.held);
            self.held.clear();
        }
        let mut kept = 0;
        for &(from, to) in cuts {
            out.extend_from_slice(chunk.get(kept..from).unwrap_or_default());
            kept = to;
        }
        out.extend_from_slice(chunk.get(kept..end).unwrap_or_default());
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::meter::Framing;
    use crate::stream::sse::Sse;

    fn through(parts: &[&[u8]]) -> String {
        let mut meter = Meter::new(Dialect::Chat.grammar(), Framing::Sse(Sse::default()));
        let (mut conceal, mut out) = (Conceal::default(), vec![]);
        for part in parts {
            out.extend_from_slice(&conceal.push(&mut meter, Bytes::copy_from_slice(part)));
        }
        let usage_only = meter.is_at_usage_only();
        meter.finish(true);
        out.extend_from_slice(&conceal.finish(usage_only));
        String::from_utf8(out).unwrap()
    }

    const CHUNK: &str = r#"data: {"id":"c","model":"m","choices":[{"delta":{"content":"x"},"finish_reason":null}],"usage":null}"#;
    const LAST: &str = r#"data: {"id":"c","choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const USAGE: &str = r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
    const NAMED: &str = "event: usage@id: 7@data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}";
    const ERROR: &str = r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":3},"error":{"code":400}}"#;

    #[test]
    fn hides_the_usage_chunk_and_nothing_else_wherever_the_stream_is_cut() {
        for end in ["\n", "\r\n", "\r"] {
            let line = |text: &str| format!("{}{end}{end}", text.replace('@', end));
            let rows = [
                (vec![CHUNK, LAST, USAGE, "data: [DONE]"], vec![CHUNK, LAST, "data: [DONE]"]),
                (vec![CHUNK, ": comment", ERROR, LAST], vec![CHUNK, ": comment", ERROR, LAST]),
                (vec![USAGE, CHUNK, "event: x", USAGE], vec![CHUNK, "event: x"]),
                (vec![CHUNK, NAMED, CHUNK], vec![CHUNK, CHUNK]),
            ];
            for (events, want) in rows {
                let whole: String = events.iter().map(|event| line(event)).collect();
                let want: String = want.iter().map(|event| line(event)).collect();
                assert_eq!(through(&[whole.as_bytes()]), want);
                for at in 0..=whole.len() {
                    let (head, tail) = whole.as_bytes().split_at(at);
                    assert_eq!(through(&[head, tail]), want, "cut at {at} with {end:?}");
                }
                assert_eq!(through(&whole.as_bytes().chunks(1).collect::<Vec<_>>()), want);
                assert_eq!(through(&whole.as_bytes().chunks(7).collect::<Vec<_>>()), want);
            }
        }
        // Without its blank line at the end of the stream.
        assert_eq!(through(&[CHUNK.as_bytes(), b"\n\n", USAGE.as_bytes()]), format!("{CHUNK}\n\n"));
    }

    #[test]
    fn chunks_that_hide_nothing_are_not_copied() {
        let chunk = Bytes::from(format!("{CHUNK}\n\n{LAST}\n\n"));
        let mut meter = Meter::new(Dialect::Chat.grammar(), Framing::Sse(Sse::default()));
        assert_eq!(Conceal::default().push(&mut meter, chunk.clone()).as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn an_event_is_held_no_further_than_the_bound() {
        let mut meter = Meter::new(Dialect::Chat.grammar(), Framing::Sse(Sse::default()));
        let mut conceal = Conceal::default();
        let start = b"data: {\"choices\":[],\"pad\":\"";
        assert!(conceal.push(&mut meter, Bytes::from_static(start)).is_empty());
        let fits = Bytes::from(vec![b'x'; HELD_BYTES_MAX - start.len()]);
        assert!(conceal.push(&mut meter, fits).is_empty());
        assert_eq!(conceal.push(&mut meter, Bytes::from_static(b"x")).len(), HELD_BYTES_MAX + 1);
        let rest = Bytes::from_static(b"\",\"usage\":{\"prompt_tokens\":1}}\n\n");
        assert_eq!(conceal.push(&mut meter, rest.clone()), rest);
    }
}
