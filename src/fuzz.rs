//! Entries for fuzzers: plain functions that take any bytes and panic where an invariant breaks. Tests call them too.

mod scope;

use crate::config::{self, Config, Source};
use crate::dialect::Dialect;
use crate::exchange::websocket::{SessionEvent, WebSocketSession};
use crate::exchange::{Asked, Ending, Exchange};
use crate::json::{Scanner, Splices, Visit, Want};
use crate::meter::{Framing, Meter};
use crate::route::{self, Head, RequestFields};
use crate::stream::array::Array;
use crate::stream::event_stream::EventStream;
use crate::stream::sse::{Piece, Sniffer, Sse};
use crate::stream::websocket::{frame, server_frame};
use bytes::Bytes;
use http::HeaderMap;
use once_cell::sync::Lazy;
use std::collections::HashSet;
use std::sync::Arc;

pub use scope::scope;

/// Splits off the first byte as a number that says where to cut the rest.
fn cut(data: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let Some((&at, rest)) = data.split_first() else { return (data, data, data) };
    let (head, tail) = rest.split_at(usize::from(at).min(rest.len()));
    (rest, head, tail)
}

/// Server-sent events: the same lines and events however the input is cut.
pub fn sse(data: &[u8]) {
    let (whole, head, tail) = cut(data);
    assert_eq!(events(&[whole]), events(&[head, tail]));
    assert_eq!(events(&[whole]), events(&whole.chunks(1).collect::<Vec<_>>()));
}

fn events(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut sse, mut out, mut line) = (Sse::default(), vec![], vec![]);
    for part in parts {
        sse.push(part, |piece| match piece {
            Piece::Line { value, .. } => out.push(value.to_vec()),
            Piece::Part(part) => line.extend_from_slice(part),
            Piece::LineEnd => out.push(std::mem::take(&mut line)),
            Piece::Event { .. } => out.push(b"\n".to_vec()),
            Piece::LateLineFeed => {}
        });
    }
    out.push(line);
    out
}

/// The JSON scanner: the same values at the same places however the input is cut.
pub fn json(data: &[u8]) {
    let (whole, head, tail) = cut(data);
    assert_eq!(values(&[whole]), values(&[head, tail]));
    assert_eq!(values(&[whole]), values(&whole.chunks(1).collect::<Vec<_>>()));
    let _ = RequestFields::read(whole, None);
}

static ROOT: Want<u8> = Want::Fields(&[
    ("a", Want::Take(1)),
    ("b", Want::Fields(&[("c", Want::Take(2))])),
    ("d", Want::Items(3, &Want::Fields(&[("e", Want::Take(4))]))),
]);

#[derive(Default, PartialEq, Debug)]
struct Seen(Vec<(u8, u64, Vec<u8>)>);

impl Visit<u8> for Seen {
    fn begin(&mut self, slot: u8, at: u64, first: u8) {
        self.0.push((slot, at, vec![first]));
    }
    fn bytes(&mut self, slot: u8, piece: &[u8]) {
        match self.0.last_mut() {
            Some(last) if last.0 == slot + 100 => last.2.extend_from_slice(piece),
            _ => self.0.push((slot + 100, 0, piece.to_vec())),
        }
    }
    fn end(&mut self, slot: u8, at: u64) {
        self.0.retain(|seen| !(seen.0 > 100 && seen.2.is_empty()));
        self.0.push((slot, at, vec![]));
    }
}

/// What was found, and whether the document was whole.
fn values(parts: &[&[u8]]) -> (Seen, bool) {
    let (mut scanner, mut seen) = (Scanner::new(&ROOT), Seen::default());
    let sound = parts.iter().all(|part| scanner.push(part, &mut seen).is_ok());
    if !sound {
        // How much of a value came before its defect depends on the cut.
        seen.0.clear();
    }
    seen.0.retain(|seen| !(seen.0 > 100 && seen.2.is_empty()));
    (seen, sound && scanner.is_done())
}

/// Splices: what they leave alone stays, whatever is asked of them.
pub fn splices(data: &[u8]) {
    let Some((edits, body)) = data.split_at_checked(data.len().min(12)) else { return };
    let mut splices = Splices::default();
    let mut kept = body.to_vec();
    let mut taken: Vec<(usize, usize)> = vec![];
    for edit in edits.chunks_exact(3) {
        let [start, len, with] = edit else { return };
        let start = usize::from(*start).min(body.len());
        let end = (start + usize::from(*len)).min(body.len());
        if splices.replace(start..end, vec![*with]) {
            taken.push((start, end));
        }
    }
    let out = splices.apply(&Bytes::copy_from_slice(body));
    let removed: usize = taken.iter().map(|(start, end)| end - start).sum();
    assert_eq!(out.len(), body.len() - removed + taken.len());
    taken.sort_unstable();
    for (start, end) in taken.into_iter().rev() {
        kept.drain(start..end);
    }
    let mut rest = out.iter();
    assert!(kept.iter().all(|byte| rest.any(|other| other == byte)), "untouched bytes keep their order");
}

/// The whole meter, in every dialect: no input makes it panic, and no cut changes what it finds.
pub fn meter(data: &[u8]) {
    let (whole, head, tail) = cut(data);
    for dialect in Dialect::ALL {
        let found = |framing: Framing, parts: &[&[u8]]| {
            let mut meter = Meter::new(dialect.grammar(), framing);
            parts.iter().for_each(|part| meter.push(part, |_| {}));
            meter.finish(true);
            let found = meter.found();
            (found.reported.clone(), found.rounds.clone(), found.model.clone(), found.id.clone(), found.finished, found.error.clone())
        };
        let array = Framing::Array(Array::default());
        for framing in [Framing::Sse(Sse::default()), array, Framing::EventStream(EventStream::default())] {
            assert_eq!(found(framing.clone(), &[whole]), found(framing, &[head, tail]), "{dialect:?}");
        }
        let mut document = Meter::new(dialect.grammar(), Framing::Undecided(Sniffer::default()));
        document.push(whole, |_| {});
        document.finish(true);
        let _ = document.found().reported.settle(crate::usage::Convention::OPENAI);
    }
}

/// The whole way of a request through the core, by what a caller and a provider send: nothing panics, every byte of an answer
/// goes on (but for a chunk that was asked for in the caller's place), and what was begun is closed.
///
/// The input: a number that says where to cut, then method and target, headers, an empty line, the body, a line of dashes, and
/// the answer's status, headers, an empty line and its body.
pub fn request(data: &[u8]) {
    let _ = served(data);
}

/// Every provider that is built in.
static CONFIG: Lazy<Option<Arc<Config>>> = Lazy::new(|| embedded().map(Arc::new));

fn embedded() -> Option<Config> {
    let variable = |name: &str| match name {
        "AWS_REGION" | "GOOGLE_CLOUD_PROJECT" | "GOOGLE_CLOUD_LOCATION" | "AZURE_OPENAI_RESOURCE" => Some("r".to_owned()),
        name => name.ends_with("_API_KEY").then(|| "key".to_owned()),
    };
    config::load(&Source::Embedded, &variable).ok()
}

/// The same; true if the request got as far as an answer.
pub fn served(data: &[u8]) -> bool {
    let (Some(config), Some((&at, rest))) = (CONFIG.as_ref(), data.split_first()) else { return false };
    let (asked, answer) = split(rest, b"\n---\n");
    let (first, headers, body) = message(asked);
    let (method, target) = first.split_once(' ').unwrap_or((&first, "/"));
    let (Ok(method), Ok(target)) = (method.parse(), target.parse::<http::Uri>()) else { return false };
    let head = Head { method: &method, path: target.path(), query: target.query(), headers: &headers };
    let Ok(destination) = route::destination(&head, config) else { return false };
    let planned = Exchange::plan(&head, destination, &Bytes::copy_from_slice(body), config.clone(), Asked::default());
    let Ok(mut exchange) = planned else { return false };
    assert!(exchange.path_and_query().parse::<http::Uri>().is_ok(), "{}", exchange.path_and_query());
    exchange.attempt(1);
    let (status, headers, body) = message(answer);
    exchange.respond(status.parse().ok().filter(|status| (200..600).contains(status)).unwrap_or(200), &headers);
    let (head, tail) = body.split_at(usize::from(at).min(body.len()));
    let mut out = vec![];
    for (part, end) in [(head, false), (tail, false), (&b""[..], true)] {
        out.extend_from_slice(&exchange.push(Bytes::copy_from_slice(part), end, 2));
        let _ = exchange.news(2);
        let _ = (exchange.beginning(), exchange.cost());
    }
    assert!(if exchange.changes_length() { out.len() <= body.len() } else { out == body }, "bytes pass as they came");
    let closed = exchange.close(&Ending::Complete, 3);
    assert!(closed.is_some_and(|closed| closed.entry.close.is_some()) && !exchange.is_open());
    true
}

/// The turns of a WebSocket, by what a caller (`>`) and a provider (`<`) say, or send without being frames of messages: what goes
/// up and what is billed do not depend on where it is cut, and each turn that begins ends once.
///
/// The input: a number that says where to cut, then messages between lines of dashes.
pub fn turns(data: &[u8]) {
    let Some((&at, script)) = data.split_first() else { return };
    let whole = play(script, usize::MAX);
    assert_eq!(whole, play(script, usize::from(at).max(1)));
    assert_eq!(whole, play(script, 1));
}

/// What went up, and models and totals of the turns in the order in which they ended.
fn play(script: &[u8], bytes: usize) -> (Vec<u8>, Vec<(String, i128)>) {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    const MESSAGE_BYTES_MAX: u64 = 4096;
    let headers = HeaderMap::new();
    let head = Head { method: &http::Method::GET, path: "/v1/responses", query: None, headers: &headers };
    let Some(mut exchange) = CONFIG.as_ref().and_then(|config| Exchange::plan_socket(&head, config.clone(), Asked::default()).ok()) else {
        return Default::default();
    };
    let (mut turns, mut up, mut begun, mut ended) = (WebSocketSession::default(), vec![], HashSet::new(), vec![]);
    let mut rest = script;
    while !rest.is_empty() {
        let (message, after) = split(rest, b"\n---\n");
        rest = after;
        let (from_caller, sent) = match message.split_first() {
            Some((b'>', text)) => (true, frame(1, MASK, text).to_vec()),
            Some((b'<', text)) => (false, server_frame(1, text)),
            Some((kind, raw)) => (kind % 2 == 0, raw.to_vec()),
            None => continue,
        };
        for chunk in sent.chunks(bytes) {
            let news = if from_caller {
                let data = turns.on_client_data(chunk, MESSAGE_BYTES_MAX, |fields, _| exchange.admit_turn(fields));
                up.extend_from_slice(&data.forward);
                exchange.start_turns(&mut turns, data.turns, 1)
            } else {
                exchange.on_upstream_data(&mut turns, chunk, 2)
            };
            for news in news {
                match news {
                    SessionEvent::Start(id, _) => assert!(begun.insert(id), "a turn begins once"),
                    SessionEvent::End(closed) => {
                        assert!(begun.remove(&closed.entry.id), "a turn that ends has begun");
                        ended.push((closed.entry.open.model, closed.entry.used.map_or(0, |used| used.total.0)));
                    }
                    SessionEvent::Stored(_) => {}
                }
            }
        }
    }
    let ending = turns.ending("up".to_owned());
    for event in exchange.end_session(&mut turns, &ending, 3) {
        let SessionEvent::End(closed) = event else { continue };
        assert!(begun.remove(&closed.entry.id), "a turn that ends has begun");
    }
    assert!(begun.is_empty() && !exchange.is_open(), "turns in progress end with the connection");
    (up, ended)
}

/// Splits at a mark; without one there is nothing behind it.
fn split<'a>(data: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = memchr::memmem::find(data, mark);
    let (head, tail) = data.split_at(at.unwrap_or(data.len()));
    (head, tail.get(mark.len()..).unwrap_or_default())
}

/// First line, headers and body.
fn message(data: &[u8]) -> (String, HeaderMap, &[u8]) {
    let (head, body) = split(data, b"\n\n");
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.parse::<http::HeaderName>().ok()?, value.parse::<http::HeaderValue>().ok()?))
    };
    (first, lines.filter_map(header).collect(), body)
}
