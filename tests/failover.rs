//! Attempts after the first: who is asked next, what each sends and bills, and when nobody is asked again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Act, Gateway, Upstream, free_port, until};
use tollgate::ledger::Outcome;

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = r#"{"model":"best", "messages":[]}"#;
const WHOLE: &str = r#"{"id":"c","model":"mock-x","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#;

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

fn good() -> Upstream {
    Upstream::fixed(answer("200 OK", "", WHOLE))
}

/// A gateway where `best` means `a/one`, then `b/two`.
fn gateway(a: std::net::SocketAddr, b: std::net::SocketAddr, more: &str) -> Gateway {
    let upstream = |name: &str, at| format!("  {name}: {{base_url: \"http://{at}/v1\", prices: mock}}\n");
    Gateway::start(&format!("providers:\n{}{}aliases: {{best: [a/one, b/two]}}\n{more}", upstream("a", a), upstream("b", b)))
}

fn count(upstream: &Upstream) -> usize {
    upstream.requests.lock().unwrap().len()
}

fn nowhere() -> std::net::SocketAddr {
    format!("127.0.0.1:{}", free_port()).parse().unwrap()
}

#[test]
fn who_cannot_be_reached_is_replaced_and_each_attempt_has_its_entry() {
    let b = good();
    let gateway = gateway(nowhere(), b.address, "");
    let response = gateway.connect().request(CHAT, &[("x-gateway-debug", "true")], ASK.as_bytes());
    assert_eq!((response.status, response.text()), (200, WHOLE));
    assert_eq!((response.header("x-gateway-upstream"), response.header("x-gateway-attempts")), (Some("b"), Some("2")));
    assert_eq!(std::str::from_utf8(&b.last().body).unwrap(), r#"{"model":"two", "messages":[]}"#);
    let entries = gateway.closed_entries(2);
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.open.upstream.as_str(), entry.open.attempt, entry.open.model.as_str(), entry.outcome()))
        .collect();
    assert_eq!(seen, [("a", 1, "one", Outcome::UpstreamError), ("b", 2, "two", Outcome::Ok)]);
    assert_eq!(entries[0].close.as_ref().unwrap().error.as_deref(), Some("upstream_unreachable"));
    assert_eq!(entries[0].open.request_id, entries[1].open.request_id);
    assert!(entries[0].used.is_none() && entries[1].used.is_some());
}

#[test]
fn every_failure_before_the_first_byte_leads_on_whatever_the_size_of_the_body() {
    let acts: Vec<fn() -> Vec<Act>> = vec![
        || vec![Act::Write(answer("429 Too Many Requests", "", "{}"))],
        || vec![Act::Write(answer("500 Internal Server Error", "", "{}"))],
        || vec![Act::Write(answer("529 Overloaded", "", "{}"))],
        || vec![Act::Reset],
        || vec![Act::Close],
        || vec![Act::Write(b"HTTP/1.1 2".to_vec()), Act::Close],
        || vec![Act::Write(b"not http at all\r\n\r\n".to_vec()), Act::Close],
    ];
    for (at, act) in acts.into_iter().enumerate() {
        let (a, b) = (Upstream::start(move |_| act()), good());
        let gateway = gateway(a.address, b.address, "");
        for size in [0, 70 << 10, 5 << 20] {
            let body = format!(r#"{{"model":"best","messages":[],"pad":"{}"}}"#, "x".repeat(size));
            let response = gateway.post(CHAT, &body);
            assert_eq!((response.status, response.text()), (200, WHOLE), "{at}: {size}");
            assert_eq!(b.last().body.len(), body.len() - 1, "{at}: {size}");
        }
        let entries = gateway.closed_entries(6);
        assert_eq!(entries.iter().filter(|entry| entry.outcome() == Outcome::Ok).count(), 3, "{at}");
        assert!(entries.iter().filter(|entry| entry.open.upstream == "a").all(|entry| entry.outcome() == Outcome::UpstreamError), "{at}");
    }
}

#[test]
fn an_interim_answer_is_none() {
    let interim: [&[u8]; 4] = [
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        // Nobody asked for that.
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
    ];
    for interim in interim {
        for expect in [true, false] {
            let (a, b) = (Upstream::start(move |_| vec![Act::Write(interim.to_vec()), Act::Close]), good());
            let gateway = gateway(a.address, b.address, "");
            let mut client = gateway.connect();
            let headers: &[_] = if expect { &[("Expect", "100-continue"), ("Connection", "Upgrade"), ("Upgrade", "other")] } else { &[] };
            client.head(CHAT, headers, Some(ASK.len()));
            if expect {
                assert_eq!(client.response().status, 100);
            }
            client.write(ASK.as_bytes());
            let last = std::iter::repeat_with(|| client.response()).find(|response| response.status >= 200).unwrap();
            assert_eq!((last.status, last.text()), (200, WHOLE), "{} {expect}", String::from_utf8_lossy(interim));
            assert_eq!(gateway.closed_entries(2)[0].outcome(), Outcome::UpstreamError);
        }
    }
}

#[test]
fn the_last_answer_passes_as_it_is() {
    let (a, b) = (nowhere(), Upstream::fixed(answer("503 Service Unavailable", "Retry-After: 7\r\n", r#"{"error":"b"}"#)));
    let gateway = gateway(a, b.address, "");
    let response = gateway.post(CHAT, ASK);
    assert_eq!((response.status, response.text(), response.header("retry-after")), (503, r#"{"error":"b"}"#, Some("7")));
    // What only the caller can mend is not asked elsewhere.
    let (a, b) = (Upstream::fixed(answer("400 Bad Request", "", r#"{"error":"a"}"#)), good());
    let gateway = self::gateway(a.address, b.address, "");
    assert_eq!(gateway.post(CHAT, ASK).text(), r#"{"error":"a"}"#);
    assert_eq!(count(&b), 0);
}

#[test]
fn who_asks_to_be_left_alone_is() {
    let (a, b) = (Upstream::fixed(answer("429 Too Many Requests", "Retry-After: 3600\r\n", "{}")), good());
    let gateway = gateway(a.address, b.address, "");
    for _ in 0..5 {
        assert_eq!(gateway.post(CHAT, ASK).status, 200);
    }
    assert_eq!((count(&a), count(&b)), (1, 5));
    // Without anybody else there is still who was told to wait.
    let a = Upstream::fixed(answer("429 Too Many Requests", "Retry-After: 3600\r\n", "{}"));
    let gateway = Gateway::start(&format!(
        "providers: {{a: {{base_url: \"http://{}/v1\"}}}}\naliases: {{best: a/one}}\nretry: {{again: 3}}",
        a.address
    ));
    for asked in 1..4 {
        assert_eq!((gateway.post(CHAT, ASK).status, count(&a)), (429, asked));
    }
}

#[test]
fn the_same_provider_is_asked_again_where_that_is_configured() {
    let calls = AtomicUsize::new(0);
    let a = Upstream::start(move |_| {
        let failed = calls.fetch_add(1, Ordering::Relaxed) < 2;
        vec![Act::Write(if failed {
            answer("503 Service Unavailable", "retry-after-ms: 10\r\n", "{}")
        } else {
            answer("200 OK", "", WHOLE)
        })]
    });
    let settings =
        format!("providers: {{a: {{base_url: \"http://{}/v1\", models: [\"*\"]}}}}\nretry: {{again: 2, delay: 20ms}}", a.address);
    let gateway = Gateway::start(&settings);
    let start = Instant::now();
    assert_eq!(gateway.post(CHAT, ASK).text(), WHOLE);
    assert!(start.elapsed() >= Duration::from_millis(60), "20 ms, then 40 ms");
    assert_eq!((count(&a), gateway.closed_entries(3).len()), (3, 3));
}

#[test]
fn nothing_is_asked_again_once_the_caller_has_seen_a_byte() {
    let start = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n";
    let (a, b) = (Upstream::start(move |_| vec![Act::Write(start.into()), Act::Wait, Act::Reset]), good());
    let gateway = gateway(a.address, b.address, "retry: {again: 3}");
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(ASK.as_bytes());
    until("the upstream", || (count(&a) == 1).then_some(()));
    a.go();
    assert!(!client.response().whole);
    assert_eq!((count(&b), gateway.closed_entries(1)[0].outcome()), (0, Outcome::Truncated));
}

#[test]
fn a_caller_that_leaves_ends_the_wait() {
    let a = Upstream::fixed(answer("503 Service Unavailable", "", "{}"));
    let settings = format!("providers: {{a: {{base_url: \"http://{}/v1\", models: [\"*\"]}}}}\nretry: {{again: 1, delay: 1s}}", a.address);
    let gateway = Gateway::start(&settings);
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(ASK.as_bytes());
    gateway.closed_entries(1);
    drop(client);
    // Nothing that could be seen happens when a caller is gone; what must not happen would after the delay.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(count(&a), 1);
}

#[test]
fn attempts_after_the_first_stay_within_their_budget() {
    let (a, b) =
        (Upstream::fixed(answer("500 Internal Server Error", "", "{}")), Upstream::fixed(answer("500 Internal Server Error", "", "{}")));
    let gateway = gateway(a.address, b.address, "retry: {budget: 0%, eject_after: 1000}");
    for _ in 0..120 {
        assert_eq!(gateway.post(CHAT, ASK).status, 500);
    }
    // A hundred may follow each other, then no more.
    assert_eq!((count(&a), count(&b)), (120, 100));
}

#[test]
fn candidates_a_key_may_not_use_are_not_asked() {
    let (a, b) = (good(), good());
    let gateway = gateway(a.address, b.address, "keys: {}");
    let text = gateway.add_key(|record| record.providers = vec!["b".to_owned()]);
    until("the key", || (gateway.connect().request(CHAT, &[("api-key", &text)], ASK.as_bytes()).status == 200).then_some(()));
    assert_eq!((count(&a), count(&b)), (0, 1));
}

/// One that is silent before its answer is given up like one that fails; one that goes on for too long is cut off, visibly.
#[test]
fn who_takes_longer_than_it_may_is_given_up() {
    let silent = Upstream::start(|_| vec![Act::Wait, Act::Wait]);
    let other = good();
    let own =
        |upstream: &Upstream, more: &str| format!("{{base_url: \"http://{}/v1\", prices: mock, models: [\"*\"]{more}}}", upstream.address);
    let quick = ", timeouts: {first_byte: 100ms}";
    let gateway =
        Gateway::start(&format!("providers: {{a: {}, b: {}}}\naliases: {{best: [a/one, b/two]}}", own(&silent, quick), own(&other, "")));
    assert_eq!(gateway.post("/v1/chat/completions", r#"{"model":"best","messages":[]}"#).status, 200);
    let entries = gateway.closed_entries(2);
    let told: Vec<_> = entries.iter().map(|entry| (entry.outcome(), entry.close.as_ref().unwrap().error.as_deref())).collect();
    assert_eq!(told, [(Outcome::UpstreamError, Some("upstream_timeout")), (Outcome::Ok, None)]);
    // The same where it is said of one candidate of an alias, and of nobody else.
    let told = "{base_url: \"http://UP/v1\", prices: mock}";
    let told = |upstream: &Upstream| told.replace("UP", &upstream.address.to_string());
    for wait in ["first_byte", "upstream_read"] {
        let hasty = Gateway::start(&format!(
            "providers: {{a: {}, b: {}}}\naliases: {{best: [{{to: a/one, {wait}: 100ms}}, b/two]}}",
            told(&silent),
            told(&other)
        ));
        assert_eq!(hasty.post("/v1/chat/completions", r#"{"model":"best","messages":[]}"#).status, 200);
        assert_eq!(hasty.closed_entries(2)[0].close.as_ref().unwrap().error.as_deref(), Some("upstream_timeout"), "{wait}");
    }
    // Nobody else is there: the caller is told.
    let alone = Gateway::start(&format!("providers: {{a: {}}}", own(&silent, quick)));
    let answer = alone.post("/v1/chat/completions", r#"{"model":"one","messages":[]}"#);
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (504, Some("upstream_timeout")));
    // It began in time, and never ends.
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n10\r\ndata: {\"a\":1}\n\n\n\r\n";
    let endless = Upstream::start(move |_| vec![Act::Write(head.into()), Act::Wait]);
    let bounded = Gateway::start(&format!("providers: {{a: {}}}\ntimeouts: {{first_byte: 10s, total: 200ms}}", own(&endless, "")));
    let answer = bounded.post("/v1/chat/completions", r#"{"model":"one","stream":true,"messages":[]}"#);
    assert_eq!((answer.status, answer.whole), (200, false));
    let entry = &bounded.closed_entries(1)[0];
    assert_eq!((entry.outcome(), entry.close.as_ref().unwrap().error.as_deref()), (Outcome::Truncated, Some("upstream_timeout")));
}

const STREAM: &str = r#"{"model":"best","stream":true,"messages":[]}"#;

type Script = fn() -> Vec<Act>;

/// The head of a stream, and chunks of it.
fn events(chunks: &[&str]) -> Vec<Act> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    std::iter::once(Act::Write(head.into())).chain(chunks.iter().map(|text| chunk(text))).collect()
}

fn chunk(text: &str) -> Act {
    Act::Write(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

/// Asks for a stream of which `first` sends a part, and lets the rest come long after it.
fn with_a_pause(gateway: &Gateway, first: &Upstream) -> support::Response {
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(STREAM.len()));
    client.write(STREAM.as_bytes());
    until("the upstream", || (count(first) == 1).then_some(()));
    // That it was held can be seen by nobody; it was read when there is nothing else to do.
    std::thread::sleep(Duration::from_millis(200));
    first.go();
    client.response()
}

fn ended(chunks: &[&str]) -> Vec<Act> {
    let mut acts = events(chunks);
    acts.push(Act::Write(b"0\r\n\r\n".to_vec()));
    acts
}

const FIRST: &str = "data: {\"id\":\"c\",\"model\":\"mock-x\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const LAST: &str = "data: {\"id\":\"c\",\"model\":\"mock-x\",\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":4,\"total_tokens\":14}}\n\ndata: [DONE]\n\n";

#[test]
fn a_stream_that_begins_with_trouble_is_asked_of_somebody_else() {
    const OVERLOADED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";
    let (first, second) = OVERLOADED.split_at(20);
    let acts: [(&str, Script); 6] = [
        ("whole", || ended(&[OVERLOADED])),
        ("open", || events(&[OVERLOADED])),
        ("named", || ended(&["data: {\"error\":{\"code\":\"server_error\"}}\n\n"])),
        ("numbered", || ended(&[": a comment\n\n", "data: {\"error\":{\"code\":503}}\n\n"])),
        ("broken", || events(&["data: {\"id\""]).into_iter().chain([Act::Reset]).collect()),
        ("silent", || events(&[]).into_iter().chain([Act::Close]).collect()),
    ];
    for (name, act) in acts {
        let (a, b) = (Upstream::start(move |_| act()), Upstream::start(|_| ended(&[FIRST, LAST])));
        let gateway = gateway(a.address, b.address, "");
        let response = gateway.post(CHAT, STREAM);
        assert_eq!((response.status, response.text(), response.whole), (200, format!("{FIRST}{LAST}").as_str(), true), "{name}");
        let entries = gateway.closed_entries(2);
        let told: Vec<_> = entries
            .iter()
            .map(|entry| (entry.open.upstream.as_str(), entry.outcome(), entry.used.as_ref().map_or(0, |used| used.lines.len())))
            .collect();
        let first = if name == "broken" { Outcome::Truncated } else { Outcome::UpstreamError };
        assert_eq!(told, [("a", first, 0), ("b", Outcome::Ok, 1)], "{name}");
    }
    // Also if a part of it came long before.
    let (a, b) = (
        Upstream::start(move |_| {
            let mut acts = events(&[first]);
            acts.extend([Act::Wait, chunk(second)]);
            acts
        }),
        Upstream::start(|_| ended(&[FIRST, LAST])),
    );
    let gateway = gateway(a.address, b.address, "");
    assert_eq!(with_a_pause(&gateway, &a).text(), format!("{FIRST}{LAST}"));
}

#[test]
fn what_nobody_else_would_do_better_passes() {
    const BAD: &str = "data: {\"error\":{\"type\":\"invalid_request_error\"}}\n\n";
    const LATER: &str = "data: {\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let cases: [(Script, String); 2] = [
        (|| ended(&[BAD]), BAD.to_owned()),
        // The caller has seen an event.
        (|| ended(&[FIRST, LATER]), format!("{FIRST}{LATER}")),
    ];
    for (act, want) in cases {
        let (a, b) = (Upstream::start(move |_| act()), good());
        let gateway = gateway(a.address, b.address, "");
        let response = gateway.post(CHAT, STREAM);
        assert_eq!((response.text(), response.whole, count(&b)), (want.as_str(), true, 0));
        assert_eq!(gateway.closed_entries(1)[0].outcome(), Outcome::UpstreamError);
    }
    // The last who is asked is heard, whatever it says.
    let (a, b) = (nowhere(), Upstream::start(|_| ended(&[LATER])));
    let gateway = gateway(a, b.address, "");
    let response = gateway.post(CHAT, STREAM);
    assert_eq!((response.status, response.text(), response.whole), (200, LATER, true));
}

/// What begins with trouble inside a 200 is as much a failure as a status: five of them, and it is left alone.
#[test]
fn who_always_begins_with_trouble_is_ejected_and_nobody_is_told_a_wrong_name() {
    let trouble = "data: {\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let (a, b) = (Upstream::start(move |_| ended(&[trouble])), Upstream::start(|_| ended(&[FIRST, LAST])));
    let gateway = gateway(a.address, b.address, "");
    for _ in 0..8 {
        let response = gateway.connect().request(CHAT, &[("x-request-id", "mine")], STREAM.as_bytes());
        assert_eq!((response.text(), response.header("x-request-id")), (format!("{FIRST}{LAST}").as_str(), Some("mine")));
    }
    assert_eq!((count(&a), count(&b)), (5, 8));
}

#[test]
fn an_answer_is_not_held_for_ever() {
    let trouble = "data: {\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let bound = usize::try_from(tollgate::exchange::BEGINNING_BYTES_MAX).unwrap();
    for (size, flows) in [(bound, false), (bound + 1, true)] {
        // Comments are no events; the last line of the bound is theirs, too.
        let comments = format!(":{}\n\n", "x".repeat(size - 3));
        let sent = comments.clone();
        let a = Upstream::start(move |_| {
            let mut acts = events(&[&sent]);
            acts.extend([Act::Wait, chunk(trouble), Act::Write(b"0\r\n\r\n".to_vec())]);
            acts
        });
        let b = Upstream::start(|_| ended(&[FIRST, LAST]));
        let gateway = gateway(a.address, b.address, "");
        let want = if flows { format!("{comments}{trouble}") } else { format!("{FIRST}{LAST}") };
        assert!(with_a_pause(&gateway, &a).text() == want, "{size}");
    }
}

/// Comments come between events while a stream is silent, and no byte of its own changes.
#[test]
fn silent_streams_are_kept_alive_between_events() {
    let (head, tail) = FIRST.split_at(30);
    let a = Upstream::start(move |_| {
        let mut acts = events(&[FIRST]);
        // Silent after an event, then within one.
        acts.extend([Act::Wait, chunk(head), Act::Wait, chunk(tail), Act::Write(b"0\r\n\r\n".to_vec())]);
        acts
    });
    let settings = format!("providers: {{a: {{base_url: \"http://{}/v1\", models: [\"*\"]}}}}\ntimeouts: {{keep_alive: 50ms}}", a.address);
    let gateway = Gateway::start(&settings);
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(STREAM.len()));
    client.write(STREAM.as_bytes());
    let mut seen = vec![];
    while seen.windows(14).filter(|part| part == b": keep-alive\n\n").count() < 3 {
        seen.extend(client.read(1));
    }
    a.go();
    // Within an event there is nothing to wait for but that nothing comes.
    std::thread::sleep(Duration::from_millis(300));
    a.go();
    while !seen.ends_with(b"0\r\n\r\n") {
        seen.extend(client.read(1));
    }
    let text = String::from_utf8(seen).unwrap();
    let body: String = text.split_once("\r\n\r\n").unwrap().1.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(body.replace(": keep-alive\n\n", ""), format!("{FIRST}{FIRST}"));
    assert!(!body.contains("\"id\": keep") && body.matches(": keep-alive").count() < 40);
}

#[test]
fn a_stream_that_cannot_be_decoded_from_its_beginning_is_asked_of_somebody_else() {
    let garbage = answer("200 OK", "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n", "data: {}\n\n");
    let (a, b) = (Upstream::fixed(garbage), good());
    let gateway = gateway(a.address, b.address, "");
    assert_eq!(gateway.post("/v1/chat/completions", STREAM).text(), WHOLE);
    let told: Vec<_> = gateway.closed_entries(2).iter().map(|entry| (entry.open.upstream.clone(), entry.outcome())).collect();
    assert_eq!(told, [("a".to_owned(), Outcome::UpstreamError), ("b".to_owned(), Outcome::Ok)]);
}
