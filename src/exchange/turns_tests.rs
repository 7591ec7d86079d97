use super::*;
use crate::config::{Source, load};
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
    let (mut exchange, mut turns) = (exchange(), Turns::default());
    let (mut up, mut ended, mut opened) = (vec![], vec![], 0);
    for (from_caller, bytes) in script {
        for part in bytes.chunks(size) {
            let news = if *from_caller {
                let (out, asked) = turns.up(part, MAX, |model, _| exchange.rename(model));
                up.extend_from_slice(&out);
                exchange.ask(&mut turns, asked, 1)
            } else {
                exchange.hear(&mut turns, part, 2)
            };
            for news in news {
                match news {
                    News::Open(..) => opened += 1,
                    News::Kept(_) => {}
                    News::Closed(closed) => {
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
        assert_eq!((ended, opened), (want.to_vec(), 3), "{size}");
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
    let binary = frame(2, MASK, &[0, 1, 2]);
    let ping = frame(9, MASK, b"hi");
    let script = [(true, [first.clone(), ping.clone(), second.clone(), binary.clone()].concat())];
    for size in [1, 3, 7, 1000] {
        let (up, _, opened) = play(&script, size);
        // Only the ping may overtake what waits for its end.
        assert_eq!((up, opened), ([ping.clone(), first.clone(), second.clone(), binary.clone()].concat(), 1), "{size}");
    }
}

#[test]
fn a_turn_asked_for_too_early_waits_or_is_refused() {
    let ask = |model: &str| (true, frame(TEXT, MASK, &create(model)));
    let (_, ended, opened) =
        play(&[ask("gpt-5"), ask("gpt-5-mini"), (false, completed("completed", 1)), (false, completed("completed", 2))], 9);
    assert_eq!((ended, opened), (vec![(Outcome::Ok, "gpt-5".to_owned(), 1), (Outcome::Ok, "gpt-5-mini".to_owned(), 2)], 2));
    let refusal = said(r#"{"type":"error","status":400,"error":{"code":"busy"}}"#);
    let (_, ended, opened) = play(&[ask("gpt-5"), ask("gpt-5-mini"), (false, refusal.clone()), (false, completed("completed", 2))], 9);
    assert_eq!((ended, opened), (vec![(Outcome::Ok, "gpt-5".to_owned(), 2)], 1));
    let (_, ended, _) = play(&[ask("gpt-5"), (false, refusal)], 9);
    assert_eq!(ended, vec![(Outcome::UpstreamError, "gpt-5".to_owned(), 0)]);
}

#[test]
fn bounds_close_the_connection_with_their_code() {
    for (length, closes) in [(MAX as usize - 8, false), (MAX as usize - 7, true)] {
        let (up, ..) = play(&[(true, frame(2, MASK, &vec![0; length]))], 100);
        let last = texts(&up).pop().unwrap();
        assert_eq!(last == (CLOSE, TOO_BIG.to_be_bytes().to_vec()), closes, "{length}");
    }
    for broken in [vec![0xf1, 0x80], server_frame(TEXT, &create("gpt-5"))] {
        let (up, _, opened) = play(&[(true, broken)], 100);
        assert_eq!((texts(&up), opened), (vec![(CLOSE, PROTOCOL_ERROR.to_be_bytes().to_vec())], 0));
    }
    let two_ways = br#"{"type":"response.create","model":"gpt-5","type":"response.cancel"}"#;
    let (up, _, opened) = play(&[(true, frame(TEXT, MASK, two_ways))], 100);
    assert_eq!((texts(&up), opened), (vec![(CLOSE, POLICY.to_be_bytes().to_vec())], 0));
}

#[test]
fn who_leaves_first_decides_how_a_turn_ended() {
    for (from_caller, want) in [(true, Outcome::ClientClosed), (false, Outcome::UpstreamError)] {
        let (mut exchange, mut turns) = (exchange(), Turns::default());
        let (_, asked) = turns.up(&frame(TEXT, MASK, &create("gpt-5")), MAX, |model, _| Some(model.to_owned()));
        exchange.ask(&mut turns, asked, 1);
        if from_caller {
            turns.up(&frame(CLOSE, MASK, &[]), MAX, |model, _| Some(model.to_owned()));
        }
        exchange.hear(&mut turns, &[0x88, 0], 2);
        let ending = turns.ending("openai".to_owned());
        assert_eq!(exchange.close(&ending, 3).unwrap().entry.outcome(), want);
    }
}

#[test]
fn a_turn_names_what_it_follows_and_says_it_once() {
    let ask = |body: &str| {
        let (mut turns, mut seen) = (Turns::default(), vec![]);
        let named = std::cell::RefCell::new(&mut seen);
        let (_, asked) = turns.up(&frame(TEXT, MASK, body.as_bytes()), MAX, |model, kept| {
            named.borrow_mut().extend(kept.iter().map(|id| (*id).to_owned()));
            Some(model.to_owned())
        });
        (seen, asked.len(), turns.closed)
    };
    let body = r#"{"type":"response.create","model":"m","previous_response_id":"a","conversation":{"id":"b"},"max_output_tokens":7}"#;
    assert_eq!(ask(body), (vec!["a".to_owned(), "b".to_owned()], 1, false));
    let twice = r#"{"type":"response.create","model":"m","conversation":"a","conversation":"b"}"#;
    assert_eq!(ask(twice), (vec![], 0, true));
}

#[test]
fn a_gateway_that_leaves_says_so_between_frames_and_once() {
    let (mut exchange, mut turns) = (exchange(), Turns::default());
    let answer = completed("completed", 1);
    let (head, rest) = answer.split_at(3);
    exchange.hear(&mut turns, head, 1);
    assert!(turns.part().is_none() && !turns.has_parted());
    exchange.hear(&mut turns, rest, 1);
    assert_eq!(turns.part().unwrap(), [0x88, 2, 0x03, 0xf4]);
    assert!(turns.part().is_none() && turns.has_parted());
    // Nothing more of the caller goes up.
    assert!(turns.up(&frame(1, MASK, &create("gpt-5")), MAX, |model, _| exchange.rename(model)).0.is_empty());
}

#[test]
fn a_binary_message_is_read_as_text_is() {
    let (mut exchange, mut turns) = (exchange(), Turns::default());
    let (up, asked) = turns.up(&frame(2, MASK, &create("openai/gpt-5")), MAX, |model, _| exchange.rename(model));
    let length = create("openai/gpt-5").len() as u64;
    assert_eq!(asked.iter().map(|asked| (asked.model.as_str(), asked.bytes)).collect::<Vec<_>>(), [("gpt-5", length)]);
    assert_eq!(up[0], 0x82);
    exchange.ask(&mut turns, asked, 1);
    let mut answer = completed("completed", 3);
    answer[0] = 0x82;
    let news = exchange.hear(&mut turns, &answer, 2);
    assert!(news.iter().any(|news| matches!(news, News::Closed(closed) if closed.entry.outcome() == Outcome::Ok)));
    // Whom nothing allows is refused in either.
    assert_eq!(turns.up(&frame(2, MASK, &create("other")), MAX, |_, _| None).1.len(), 0);
}

#[test]
fn what_nobody_asked_for_and_states_usage_is_a_turn() {
    for size in [1, 7, 1000] {
        let (mut exchange, mut turns) = (exchange(), Turns::default());
        let said = [said(r#"{"type":"response.created","response":{"id":"resp"}}"#), completed("completed", 5), said("{}")].concat();
        let news: Vec<_> = said.chunks(size).flat_map(|part| exchange.hear(&mut turns, part, 2)).collect();
        let [News::Open(..), News::Closed(closed)] = &news[..] else { panic!("{news:?}") };
        assert_eq!((closed.entry.outcome(), closed.entry.open.model.as_str()), (Outcome::Ok, "gpt-5"));
        assert!(closed.entry.used.as_ref().unwrap().total.0 > 0 && !exchange.is_open());
    }
}

#[test]
fn one_more_turn_than_may_wait_ends_the_connection() {
    let (mut exchange, mut turns) = (exchange(), Turns::default());
    for at in 0..=WAITING_MAX + 1 {
        let (up, asked) = turns.up(&frame(1, MASK, &create("gpt-5")), MAX, |model, _| exchange.rename(model));
        let refused = at > WAITING_MAX;
        assert_eq!((asked.len(), up.first().map(|byte| byte & 0x0f)), if refused { (0, Some(CLOSE)) } else { (1, Some(1)) }, "{at}");
        exchange.ask(&mut turns, asked, 1);
    }
}

#[test]
fn who_is_refused_is_told_why() {
    let told = Turns::default().refuse(&"ü".repeat(100));
    assert_eq!((&told[..4], told.len()), (&[0x88, 124, 0x03, 0xf0][..], 126));
}
