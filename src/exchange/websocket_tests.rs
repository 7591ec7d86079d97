use super::*;
use crate::config::{Source, load};
use crate::exchange::Exchange;
use crate::ledger::Outcome;
use crate::route::Head as RequestHead;
use std::sync::Arc;

const MASK: [u8; 4] = [9, 8, 7, 6];
const MAX: u64 = 1000;
const TEXT: u8 = 1;

fn exchange() -> Box<Exchange> {
    let variables = |name: &str| (name == "OPENAI_API_KEY").then(|| "k".to_owned());
    let config = Arc::new(load(&Source::Embedded, &variables).unwrap());
    let headers = http::HeaderMap::new();
    let head = RequestHead { method: &http::Method::GET, path: "/v1/responses", query: None, headers: &headers };
    Exchange::plan_socket(&head, config, crate::exchange::Asked::default()).unwrap()
}

fn create(model: &str) -> Vec<u8> {
    format!(r#"{{"type":"response.create", "model":"{model}","input":"ü"}}"#).into_bytes()
}

/// A server's frame.
fn said(text: &str) -> Vec<u8> {
    let mut out = vec![0x81, 126];
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.bytes());
    out
}

fn completed(kind: &str, input: u64) -> Vec<u8> {
    said(&format!(
        r#"{{"type":"response.{kind}","response":{{"id":"resp","model":"gpt-5","usage":{{"input_tokens":{input},"output_tokens":2,"total_tokens":{}}}}}}}"#,
        input + 2
    ))
}

/// Plays both directions, cut into parts of a size; what went up, and how the turns ended.
fn play(script: &[(bool, Vec<u8>)], size: usize) -> (Vec<u8>, Vec<(Outcome, String, u64)>, usize) {
    let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
    let (mut up, mut ended, mut opened) = (vec![], vec![], 0);
    for (from_caller, bytes) in script {
        for part in bytes.chunks(size) {
            let news = if *from_caller {
                let data = session.on_client_data(part, MAX, |fields, _| exchange.admit_turn(fields));
                up.extend_from_slice(&data.forward);
                exchange.start_turns(&mut session, data.turns, 1)
            } else {
                exchange.on_upstream_data(&mut session, part, 2)
            };
            for news in news {
                match news {
                    SessionEvent::Start(..) => opened += 1,
                    SessionEvent::Stored(_) => {}
                    SessionEvent::End(closed) => {
                        let entry = closed.entry;
                        let input = entry.used.as_ref().and_then(|used| used.lines.first()?.usage.of(crate::usage::Dimension::Input));
                        ended.push((entry.outcome(), entry.open.model, input.unwrap_or(0)));
                    }
                }
            }
        }
    }
    (up, ended, opened)
}

fn texts(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut frames, mut out, mut head, mut payload) = (Frames::default(), vec![], Head::default(), vec![]);
    frames.push(bytes, |piece| match piece {
        Piece::Head { head: next, .. } => head = next,
        Piece::Part { raw, at } => {
            let mut plain = raw.to_vec();
            mask(&mut plain, head.mask.unwrap(), at);
            payload.extend(plain);
        }
        Piece::End => out.push((head.opcode, std::mem::take(&mut payload))),
        Piece::Broken => panic!("no frame"),
    });
    out
}

#[test]
fn every_turn_has_its_entry_wherever_the_bytes_are_cut() {
    let delta = said(r#"{"type":"response.output_text.delta","delta":"\"usage\": {}"}"#);
    let script = [
        (true, frame(TEXT, MASK, &create("openai/gpt-5"))),
        (false, delta.clone()),
        (false, completed("completed", 10)),
        (true, frame(TEXT, MASK, &create("gpt-5"))),
        (false, completed("incomplete", 20)),
        (true, frame(TEXT, MASK, br#"{"type":"response.cancel"}"#)),
        (true, frame(TEXT, MASK, &create("gpt-5-mini"))),
        (false, said(r#"{"type":"response.failed","response":{"id":"x","error":{"code":"server_error"},"usage":null}}"#)),
        (false, delta),
    ];
    let want_up = [create("gpt-5"), create("gpt-5"), br#"{"type":"response.cancel"}"#.to_vec(), create("gpt-5-mini")];
    for size in 1..40 {
        let (up, ended, opened) = play(&script, size);
        assert_eq!(texts(&up), want_up.iter().map(|text| (TEXT, text.clone())).collect::<Vec<_>>(), "{size}");
        let want = [
            (Outcome::Ok, "gpt-5".to_owned(), 10),
            (Outcome::Ok, "gpt-5".to_owned(), 20),
            (Outcome::UpstreamError, "gpt-5-mini".to_owned(), 0),
        ];
        // The text after the failed response belongs to one that nobody requested, which is in progress.
        assert_eq!((ended, opened), (want.to_vec(), 4), "{size}");
    }
}

#[test]
fn what_needs_no_other_model_goes_up_as_it_came() {
    // Two fragments with a ping between them, then a binary message.
    let text = create("gpt-5");
    let (head, tail) = text.split_at(20);
    let mut first = frame(TEXT, MASK, head);
    first[0] = TEXT;
    let mut second = frame(0, [1, 1, 2, 2], tail);
    second[0] = 0x80;
    let binary = frame(2, MASK, br#"{"type":"x"}"#);
    let ping = frame(9, MASK, b"hi");
    let script = [(true, [first.clone(), ping.clone(), second.clone(), binary.clone()].concat())];
    for size in [1, 3, 7, 1000] {
        let (up, _, opened) = play(&script, size);
        // Only the ping may overtake what waits for its end.
        assert_eq!((up, opened), ([ping.clone(), first.clone(), second.clone(), binary.clone()].concat(), 1), "{size}");
    }
}

fn ask(model: &str) -> (bool, Vec<u8>) {
    (true, frame(TEXT, MASK, &create(model)))
}

fn error_event() -> (bool, Vec<u8>) {
    (false, said(r#"{"type":"error","status":400,"error":{"code":"busy"}}"#))
}

fn created(id: &str) -> (bool, Vec<u8>) {
    (false, said(&format!(r#"{{"type":"response.created","response":{{"id":"{id}","model":"gpt-5"}}}}"#)))
}

fn bogus() -> (bool, Vec<u8>) {
    (true, frame(TEXT, MASK, br#"{"type":"bogus"}"#))
}

#[test]
fn a_turn_requested_during_another_one_waits() {
    let script = [ask("gpt-5"), ask("gpt-5-mini"), (false, completed("completed", 1)), (false, completed("completed", 2))];
    let (_, ended, opened) = play(&script, 9);
    assert_eq!((ended, opened), (vec![(Outcome::Ok, "gpt-5".to_owned(), 1), (Outcome::Ok, "gpt-5-mini".to_owned(), 2)], 2));
}

#[test]
fn every_requested_turn_has_its_start_record_before_it_is_forwarded() {
    let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
    let two = [ask("gpt-5").1, ask("gpt-5-mini").1].concat();
    let data = session.on_client_data(&two, MAX, |fields, _| exchange.admit_turn(fields));
    let events = exchange.start_turns(&mut session, data.turns, 1);
    assert!(matches!(events[..], [SessionEvent::Start(..), SessionEvent::Start(..)]));
    let events = exchange.end_session(&mut session, &Ending::ClientClosed, 2);
    let models = events.iter().map(|event| match event {
        SessionEvent::End(closed) => (closed.entry.open.model.as_str(), closed.entry.outcome()),
        other => panic!("{other:?}"),
    });
    assert_eq!(models.collect::<Vec<_>>(), [("gpt-5", Outcome::ClientClosed), ("gpt-5-mini", Outcome::ClientClosed)]);
}

#[test]
fn an_error_ends_only_the_turn_that_it_concerns() {
    let done = |input| (false, completed("completed", input));
    let ok = |model: &str, input| (Outcome::Ok, model.to_owned(), input);
    let refused = |model: &str| (Outcome::UpstreamError, model.to_owned(), 0);
    let named = (false, said(r#"{"type":"error","response_id":"r1","error":{"code":"server_error"}}"#));
    for (name, script, want) in [
        ("the only message", vec![ask("gpt-5"), error_event()], vec![refused("gpt-5")]),
        (
            "the waiting turn",
            vec![ask("gpt-5"), created("r1"), ask("gpt-5-mini"), error_event(), done(2)],
            vec![refused("gpt-5-mini"), ok("gpt-5", 2)],
        ),
        ("another message after the start", vec![ask("gpt-5"), created("r1"), bogus(), error_event(), done(3)], vec![ok("gpt-5", 3)]),
        ("another message before the start", vec![ask("gpt-5"), bogus(), error_event(), created("r1"), done(3)], vec![ok("gpt-5", 3)]),
        ("one error for each of two messages", vec![ask("gpt-5"), bogus(), error_event(), error_event()], vec![refused("gpt-5")]),
        ("no message", vec![ask("gpt-5"), created("r1"), error_event(), done(4)], vec![ok("gpt-5", 4)]),
        ("an earlier message", vec![bogus(), error_event(), ask("gpt-5"), error_event()], vec![refused("gpt-5")]),
        (
            "messages that caused no error",
            vec![bogus(), ask("gpt-5"), created("r1"), done(1), ask("gpt-5-mini"), error_event()],
            vec![ok("gpt-5", 1), refused("gpt-5-mini")],
        ),
        ("the response by its id", vec![ask("gpt-5"), created("r1"), bogus(), named], vec![refused("gpt-5")]),
    ] {
        for size in [1, 9, 1000] {
            assert_eq!(play(&script, size).1, want, "{name}, in pieces of {size}");
        }
    }
}

#[test]
fn a_response_that_nobody_requested_is_billed_and_marked_as_unreserved() {
    for size in [1, 7, 1000] {
        let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
        let said = [created("resp").1, completed("completed", 5), said("{}")].concat();
        let events: Vec<_> = said.chunks(size).flat_map(|part| exchange.on_upstream_data(&mut session, part, 2)).collect();
        let [SessionEvent::Start(..), SessionEvent::Stored(_), SessionEvent::End(closed)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((closed.entry.outcome(), closed.entry.open.model.as_str()), (Outcome::Ok, "gpt-5"));
        assert!(closed.entry.used.as_ref().unwrap().total.0 > 0 && closed.unreserved && !exchange.is_open());
    }
}

#[test]
fn an_unfinished_response_that_nobody_requested_is_estimated() {
    let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
    let delta = said(&format!(r#"{{"type":"response.output_text.delta","delta":"{}"}}"#, "word ".repeat(100)));
    exchange.on_upstream_data(&mut session, &[created("resp").1, delta].concat(), 2);
    let events = exchange.end_session(&mut session, &Ending::ClientClosed, 3);
    let [SessionEvent::End(closed)] = &events[..] else { panic!("{events:?}") };
    assert!(closed.entry.used.as_ref().unwrap().total.0 > 0 && closed.unreserved);
}

/// What the gateway sends upstream and why it closes, for one message of the client.
fn refused(message: &[u8]) -> Option<(u16, Error)> {
    let mut session = WebSocketSession::default();
    let exchange = exchange();
    let data = session.on_client_data(message, MAX, |fields, _| exchange.admit_turn(fields));
    let error = data.refused?;
    let close = session.close_with(&error);
    let code = u16::from_be_bytes([close[2], close[3]]);
    assert_eq!((texts(&data.forward), data.turns.len()), (vec![(CLOSE, code.to_be_bytes().to_vec())], 0));
    Some((code, error))
}

#[test]
fn messages_beyond_the_bound_close_the_connection() {
    // A head of eight bytes, and the rest of the text.
    let message = |length: usize| frame(TEXT, MASK, format!(r#"{{"type":"x","a":"{}"}}"#, "x".repeat(length - 27)).as_bytes());
    let (most, more) = (message(MAX as usize), message(MAX as usize + 1));
    assert_eq!((most.len(), more.len()), (MAX as usize, MAX as usize + 1));
    assert_eq!(refused(&most), None);
    assert_eq!(refused(&more), Some((TOO_BIG, Error::BodyTooLarge { bytes_max: MAX })));
}

#[test]
fn nothing_that_cannot_be_read_is_forwarded() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let tail = r#""model":"gpt-5","type":"response.create""#;
    for (message, code) in [
        (format!(r#"{{"tools":{},{tail}}}"#, deep(127)), None),
        (format!(r#"{{"tools":{},{tail}}}"#, deep(128)), Some(POLICY)),
        (format!(r#"{{{tail},"tools":{}}}"#, deep(128)), Some(POLICY)),
        (format!("[{{{tail}}}]"), Some(POLICY)),
        (format!("{{{tail}}}{{}}"), Some(POLICY)),
        (format!("{{{tail}"), Some(POLICY)),
        (format!("\u{feff}{{{tail}}}"), Some(POLICY)),
        ("no JSON".to_owned(), Some(POLICY)),
        (String::new(), Some(POLICY)),
        ("{}".to_owned(), Some(POLICY)),
        (r#"{"type":3}"#.to_owned(), Some(POLICY)),
        (r#"{"Type":"response.create","type":"x"}"#.to_owned(), Some(POLICY)),
        (r#"{"type":"response.create","model":"gpt-5","type":"response.cancel"}"#.to_owned(), Some(POLICY)),
        (r#"{"type":"Response.Create","model":"gpt-5"}"#.to_owned(), Some(POLICY)),
        (r#"{"type":"response.create ","model":"gpt-5"}"#.to_owned(), Some(POLICY)),
        (r#"{"type":"response.create","model":"gpt-5","Model":"o1-pro"}"#.to_owned(), Some(POLICY)),
        (r#"{"type":"response.create","model":"gpt-5","background":true}"#.to_owned(), Some(POLICY)),
        (r#"{"type":"response.cancel"}"#.to_owned(), None),
    ] {
        for opcode in [TEXT, BINARY] {
            let found = refused(&frame(opcode, MASK, message.as_bytes()));
            assert_eq!(found.as_ref().map(|(code, _)| *code), code, "{message}: {found:?}");
        }
    }
}

#[test]
fn frames_in_an_invalid_order_close_the_connection() {
    let fragment = |opcode: u8, fin: bool, text: &str| {
        let mut bytes = frame(opcode, MASK, text.as_bytes());
        bytes[0] = opcode | if fin { 0x80 } else { 0 };
        bytes
    };
    let create = String::from_utf8(create("gpt-5")).unwrap();
    for (name, bytes) in [
        ("extension bits", vec![0xf1, 0x80]),
        ("no mask", server_frame(TEXT, create.as_bytes())),
        ("a continuation of nothing", fragment(CONTINUATION, true, &create)),
        ("a message within a message", [fragment(TEXT, false, "{\"a\":"), fragment(TEXT, true, &create)].concat()),
        ("an opcode that means nothing", fragment(3, true, &create)),
        ("a control opcode that means nothing", fragment(11, true, "")),
    ] {
        assert_eq!(refused(&bytes), Some((PROTOCOL_ERROR, Error::BadFrame)), "{name}");
    }
}

#[test]
fn messages_before_a_refused_one_are_forwarded() {
    let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
    let bytes = [ask("gpt-5").1, frame(TEXT, MASK, b"no JSON"), ask("gpt-5").1].concat();
    let data = session.on_client_data(&bytes, MAX, |fields, _| exchange.admit_turn(fields));
    assert_eq!(texts(&data.forward), [(TEXT, create("gpt-5")), (CLOSE, POLICY.to_be_bytes().to_vec())]);
    assert_eq!(exchange.start_turns(&mut session, data.turns, 1).len(), 1);
    assert!(data.refused.is_some() && session.ending("u".to_owned()) == Ending::ClientClosed);
}

#[test]
fn the_side_that_closes_first_decides_how_a_turn_ended() {
    for (from_client, want) in [(true, Outcome::ClientClosed), (false, Outcome::UpstreamError)] {
        let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
        let admit = |_: &RequestFields, _: &[u8]| Ok("gpt-5".to_owned());
        let data = session.on_client_data(&ask("gpt-5").1, MAX, admit);
        exchange.start_turns(&mut session, data.turns, 1);
        if from_client {
            session.on_client_data(&frame(CLOSE, MASK, &[]), MAX, admit);
        }
        exchange.on_upstream_data(&mut session, &[0x88, 0], 2);
        let ending = session.ending("openai".to_owned());
        let [SessionEvent::End(closed)] = &exchange.end_session(&mut session, &ending, 3)[..] else { panic!() };
        assert_eq!(closed.entry.outcome(), want);
    }
}

#[test]
fn a_turn_states_what_it_continues_once() {
    let request = |body: &str| {
        let mut session = WebSocketSession::default();
        let seen = std::cell::RefCell::new(vec![]);
        let data = session.on_client_data(&frame(TEXT, MASK, body.as_bytes()), MAX, |fields, _| {
            seen.borrow_mut().extend([&fields.previous, &fields.conversation].into_iter().flatten().cloned());
            Ok("m".to_owned())
        });
        (seen.into_inner(), data.turns.len(), data.refused)
    };
    let body = r#"{"type":"response.create","model":"m","previous_response_id":"a","conversation":{"id":"b"},"max_output_tokens":7}"#;
    assert_eq!(request(body), (vec!["a".to_owned(), "b".to_owned()], 1, None));
    let twice = r#"{"type":"response.create","model":"m","conversation":"a","conversation":"b"}"#;
    assert_eq!(request(twice), (vec![], 0, Some(Error::DuplicateField { name: "conversation" })));
}

#[test]
fn a_gateway_that_shuts_down_closes_between_frames_and_once() {
    let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
    let answer = completed("completed", 1);
    let (head, rest) = answer.split_at(3);
    exchange.on_upstream_data(&mut session, head, 1);
    assert!(session.close_for_shutdown().is_none() && !session.close_sent());
    exchange.on_upstream_data(&mut session, rest, 1);
    assert_eq!(session.close_for_shutdown().unwrap(), [0x88, 2, 0x03, 0xf4]);
    assert!(session.close_for_shutdown().is_none() && session.close_sent());
    // Nothing more of the client is forwarded.
    assert!(session.on_client_data(&ask("gpt-5").1, MAX, |fields, _| exchange.admit_turn(fields)).forward.is_empty());
}

#[test]
fn a_binary_message_is_read_like_text() {
    let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
    let data = session.on_client_data(&frame(BINARY, MASK, &create("openai/gpt-5")), MAX, |fields, _| exchange.admit_turn(fields));
    let length = create("openai/gpt-5").len() as u64;
    assert_eq!(data.turns.iter().map(|turn| (turn.model.as_str(), turn.bytes)).collect::<Vec<_>>(), [("gpt-5", length)]);
    assert_eq!(data.forward[0], 0x82);
    exchange.start_turns(&mut session, data.turns, 1);
    let mut answer = completed("completed", 3);
    answer[0] = 0x82;
    let events = exchange.on_upstream_data(&mut session, &answer, 2);
    assert!(events.iter().any(|event| matches!(event, SessionEvent::End(closed) if closed.entry.outcome() == Outcome::Ok)));
}

#[test]
fn one_more_turn_than_may_wait_closes_the_connection() {
    let (mut exchange, mut session) = (exchange(), WebSocketSession::default());
    for at in 0..=WAITING_MAX + 1 {
        let data = session.on_client_data(&ask("gpt-5").1, MAX, |fields, _| exchange.admit_turn(fields));
        let refused = at > WAITING_MAX;
        assert_eq!((data.turns.len(), data.refused), if refused { (0, Some(Error::TooManyTurns)) } else { (1, None) }, "{at}");
        exchange.start_turns(&mut session, data.turns, 1);
    }
}

#[test]
fn the_reason_of_a_close_frame_is_bounded() {
    let close = WebSocketSession::default().close_with(&Error::ForbiddenModel { model: "ü".repeat(100) });
    assert!(close.len() <= 127 && close[..4] == [0x88, close[1], 0x03, 0xf0] && std::str::from_utf8(&close[4..]).is_ok());
}

#[test]
fn a_buffered_message_counts_with_all_its_copies() {
    let mut session = WebSocketSession::default();
    let message = frame(TEXT, MASK, &create("gpt-5"));
    session.on_client_data(&message[..message.len() - 1], MAX, |_, _| Ok(String::new()));
    assert!(session.buffered_bytes() >= 2 * (create("gpt-5").len() - 1));
}
