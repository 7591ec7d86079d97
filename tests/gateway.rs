//! The gateway over real sockets, HTTP/1.1 on both sides: bytes, framing, bodies, errors and entries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};
use support::{Act, Client, Gateway, Upstream, until};
use tollgate::ledger::{Entry, Outcome, Source};
use tollgate::usage::Dimension;

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = r#"{"model":"mock-x","messages":[]}"#;

fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat()
}

/// A whole answer with its length.
fn whole() -> Vec<u8> {
    answer(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", WHOLE.len()), WHOLE.as_bytes())
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = vec![];
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn event(content: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"model\":\"mock-x\",\"choices\":[{{\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}
const FINISH: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":4,\"total_tokens\":14}}\n\n";
const WHOLE: &str = r#"{"id":"c","model":"mock-x","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#;

#[test]
fn bytes_pass_as_they_are_in_every_framing() {
    let long = event(&"x".repeat(2 << 20));
    let crlf = [event("a").as_str(), FINISH, "data: [DONE]\n\n"].concat().replace('\n', "\r\n");
    let sse = [&event("a"), &event("ü\u{1F600}"), FINISH, "data: [DONE]\n\n"].concat();
    let rows: Vec<(&str, Vec<u8>, Vec<Act>)> = vec![
        ("Content-Type: application/json\r\n", WHOLE.into(), vec![Act::Write(whole())]),
        (
            "Content-Type: text/event-stream\r\n",
            sse.clone().into(),
            vec![Act::Write(answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunked(sse.as_bytes(), 31)))],
        ),
        (
            "Content-Type: text/event-stream\r\n",
            crlf.clone().into(),
            vec![Act::Write(answer("Content-Type: text/event-stream\r\nConnection: close\r\n", crlf.as_bytes())), Act::Close],
        ),
        (
            "Content-Type: text/event-stream\r\n",
            long.clone().into(),
            vec![Act::Write(answer(
                "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
                &chunked(long.as_bytes(), 100_000),
            ))],
        ),
        (
            "Content-Type: text/event-stream\r\n",
            sse.clone().into(),
            answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunked(sse.as_bytes(), 7))
                .chunks(7)
                .map(|piece| Act::Write(piece.to_vec()))
                .collect(),
        ),
    ];
    for (at, (kind, body, acts)) in rows.into_iter().enumerate() {
        let acts = std::sync::Mutex::new(Some(acts));
        let upstream = Upstream::start(move |_| acts.lock().unwrap().take().unwrap());
        let gateway = Gateway::before(&upstream, "");
        let response = gateway.post(CHAT, ASK);
        assert_eq!(response.status, 200, "{at}");
        assert!(response.whole && response.body == body, "{at}: {} of {} bytes", response.body.len(), body.len());
        assert!(kind.contains(response.header("content-type").unwrap()), "{at}");
        let entry = &gateway.closed_entries(1)[0];
        assert_eq!(entry.close.as_ref().unwrap().bytes_out, body.len() as u64);
    }
}

#[test]
fn headers_pass_but_for_those_that_may_not() {
    let upstream = Upstream::fixed(answer(
        &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\nX-RateLimit-Remaining: 7\r\nopenai-processing-ms: 12\r\nSet-Cookie: a=b\r\nOpenAI-Organization: o\r\nx-request-id: theirs\r\n",
            WHOLE.len()
        ),
        WHOLE.as_bytes(),
    ));
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    let response = client.request(
        "/v1/chat/completions?beta=1",
        &[
            ("Authorization", "Bearer caller"),
            ("Connection", "keep-alive, x-hop"),
            ("X-Hop", "1"),
            ("TE", "trailers"),
            ("OpenAI-Organization", "o"),
            ("X-Gateway-Tags", "t"),
            ("X-Custom", "kept"),
            ("traceparent", "00-a-b-01"),
        ],
        ASK.as_bytes(),
    );
    let request = upstream.last();
    assert_eq!(request.line, "POST /v1/chat/completions?beta=1 HTTP/1.1");
    for (name, want) in [
        ("host", Some(upstream.address.to_string())),
        ("content-length", Some(ASK.len().to_string())),
        ("x-custom", Some("kept".to_owned())),
        ("traceparent", Some("00-a-b-01".to_owned())),
        ("content-type", Some("application/json".to_owned())),
        ("authorization", None),
        ("x-hop", None),
        ("te", None),
        ("openai-organization", None),
        ("x-gateway-tags", None),
        ("transfer-encoding", None),
        ("accept-encoding", None),
    ] {
        assert_eq!(request.header(name), want.as_deref(), "{name}");
    }
    assert!(request.header("x-request-id").is_some());
    for (name, want) in [
        ("x-ratelimit-remaining", Some("7")),
        ("openai-processing-ms", Some("12")),
        ("x-request-id", Some("theirs")),
        ("set-cookie", None),
        ("openai-organization", None),
    ] {
        assert_eq!(response.header(name), want, "{name}");
    }
    let entry = &gateway.closed_entries(1)[0];
    assert_eq!(response.header("x-gateway-request-id"), Some(entry.open.request_id.as_str()));
}

#[test]
fn the_callers_request_id_goes_up_and_comes_down() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::before(&upstream, "");
    let response = gateway.connect().request(CHAT, &[("X-Request-ID", "mine")], ASK.as_bytes());
    assert_eq!((upstream.last().header("x-request-id"), response.header("x-request-id")), (Some("mine"), Some("mine")));
}

#[test]
fn a_stream_is_billed_though_its_caller_did_not_ask_for_usage() {
    let sse = [&event("a"), FINISH, USAGE, "data: [DONE]\n\n"].concat();
    let upstream =
        Upstream::fixed(answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunked(sse.as_bytes(), 40)));
    let gateway = Gateway::before(&upstream, "");
    let body = r#"{"model":"mock-x","stream":true,"messages":[]}"#;
    let mut client = gateway.connect();
    let first = client.post(CHAT, body);
    assert_eq!(first.text(), sse.replace(USAGE, ""));
    assert!(first.whole);
    assert_eq!(
        std::str::from_utf8(&upstream.last().body).unwrap(),
        r#"{"model":"mock-x","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#
    );
    // Who asks gets the chunk; the connection is used again.
    let asked = r#"{"model":"mock-x","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    assert_eq!(client.post(CHAT, asked).text(), sse);
    for entry in gateway.closed_entries(2) {
        let used = entry.used.unwrap();
        assert_eq!(
            (used.source, used.lines[0].usage.of(Dimension::Input), used.total.to_string().as_str()),
            (Source::Reported, Some(10), "0.00003")
        );
    }
}

#[test]
fn the_usage_record_is_written_before_the_end_of_the_answer_leaves() {
    let head = answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", b"");
    let one = |text: &str| Act::Write(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes());
    let upstream = Upstream::start(move |_| {
        vec![
            Act::Write(head.clone()),
            one(&event("a")),
            one(&[FINISH, USAGE].concat()),
            Act::Wait,
            one("data: [DONE]\n\n"),
            Act::Write(b"0\r\n\r\n".to_vec()),
        ]
    });
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    let ask = r#"{"model":"mock-x","stream":true,"stream_options":{"include_usage":true}}"#;
    client.head(CHAT, &[], Some(ask.len()));
    client.write(ask.as_bytes());
    let mut seen = String::new();
    while !seen.contains("\"usage\"") {
        seen.push_str(std::str::from_utf8(&client.read(1)).unwrap());
    }
    // The client holds the usage chunk: its charge must be on record, though the answer has not ended.
    let entries = gateway.entries();
    assert!(entries[0].used.is_some() && entries[0].close.is_none());
    upstream.go();
    gateway.closed_entries(1);
}

#[test]
fn request_bodies_of_any_size_and_framing_arrive_whole() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    for size in [33, 100, 8 << 10, 60 << 10, 64 << 10, (64 << 10) + 1, (128 << 10) + 1, 5 << 20, 32 << 20] {
        let body = format!("{{\"model\":\"mock-x\",\"messages\":\"{}\"}}", "m".repeat(size - 33 + 2));
        let body = body.as_bytes();
        let response = client.request(CHAT, &[], body);
        assert_eq!(response.status, if body.len() > 32 << 20 { 413 } else { 200 }, "{size}");
        if response.status == 413 {
            break;
        }
        assert!(upstream.last().body == body, "{size} by length");
        client.head(CHAT, &[("Transfer-Encoding", "chunked")], None);
        client.write(&chunked(body, 50_000));
        assert_eq!(client.response().status, 200);
        assert!(upstream.last().body == body, "{size} chunked");
        assert_eq!(upstream.last().header("content-length"), Some(body.len().to_string().as_str()));
    }
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.head(CHAT, &[("Expect", "100-continue")], Some(ASK.len()));
        assert_eq!(client.response().status, 100);
        client.write(ASK.as_bytes());
        assert_eq!(client.response().body, WHOLE.as_bytes());
        assert_eq!(upstream.last().header("expect"), None);
    }
}

#[test]
fn refusals_speak_the_callers_dialect_and_leave_the_connection_usable() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::start(&format!(
        "providers: {{up: {{base_url: \"http://{}/v1\", models: [\"mock-*\"]}}}}\nbody: {{bytes_max: 1000}}",
        upstream.address
    ));
    let mut client = gateway.connect();
    for (path, body, status, code) in [
        (CHAT, "{", 400, "invalid_json"),
        (CHAT, r#"{"model":"a","model":"b"}"#, 400, "duplicate_field"),
        (CHAT, r#"{"model":"unheard-of"}"#, 404, "model_not_found"),
        (CHAT, r#"{"model":"groq/x"}"#, 400, "provider_not_configured"),
        ("/v1/messages", r#"{"model":"mock-x"}"#, 400, "endpoint_not_supported"),
        ("/nowhere", "{}", 404, "not_found"),
        ("/up/v1/files", "{}", 403, "path_not_allowed"),
    ] {
        let response = client.post(path, body);
        assert_eq!(response.status, status, "{path} {body}");
        let json = response.json();
        if path.ends_with("/messages") {
            assert_eq!((json["type"].as_str(), json["request_id"].as_str()), (Some("error"), response.header("x-gateway-request-id")));
        } else {
            assert_eq!(json["error"]["code"], code);
        }
        // What was refused before its body was read costs the connection.
        if response.header("connection") == Some("close") {
            client = gateway.connect();
        }
    }
    let body = format!("{{\"model\":\"mock-x\",\"p\":\"{}\"}}", "x".repeat(1000 - 25));
    assert_eq!(body.len(), 1000);
    assert_eq!(client.post(CHAT, &body).status, 200);
    let over = format!("{body} ");
    assert_eq!(client.post(CHAT, &over).status, 413);
    let mut client = gateway.connect();
    client.head(CHAT, &[("Transfer-Encoding", "chunked")], None);
    client.write(&chunked(over.as_bytes(), 100));
    assert_eq!(client.response().status, 413);
    // Only what reached the upstream has an entry.
    assert_eq!(gateway.closed_entries(1).len(), 1);
}

#[test]
fn bodies_beyond_the_budget_or_the_deadline_are_refused() {
    let upstream = Upstream::start(|_| vec![Act::Wait, Act::Write(whole())]);
    let gateway = Gateway::before(&upstream, "body: {bytes_max: 1000, budget: 1000}\ntimeouts: {body: 300ms}");
    let large = format!("{{\"model\":\"mock-x\",\"p\":\"{}\"}}", "x".repeat(700));
    let mut first = gateway.connect();
    first.head(CHAT, &[], Some(large.len()));
    first.write(large.as_bytes());
    until("the first request", || (!upstream.requests.lock().unwrap().is_empty()).then_some(()));
    let refused = gateway.post(CHAT, &large);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    upstream.go();
    assert_eq!(first.response().status, 200);
    // The budget came back with the first answer.
    upstream.go();
    assert_eq!(gateway.post(CHAT, &large).status, 200);
    let mut slow = gateway.connect();
    slow.head(CHAT, &[], Some(large.len()));
    slow.write(b"{");
    assert_eq!(slow.response().status, 408);
}

#[test]
fn a_head_has_to_be_whole_in_time() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::before(&upstream, "timeouts: {head: 500ms, idle: 500ms}");
    let head_max = Duration::from_millis(500);
    // Nothing; a head that never ends; another after an answer; nothing more.
    for (served, endless) in [(false, false), (false, true), (true, true), (true, false)] {
        let mut client = gateway.connect();
        if served {
            assert_eq!(client.post(CHAT, ASK).status, 200);
        }
        let started = Instant::now();
        client.stream.set_read_timeout(Some(head_max / 10)).unwrap();
        if endless {
            client.write(b"POST / HTTP/1.1\r\n");
        }
        let took = loop {
            match client.stream.read(&mut [0; 512]) {
                Ok(0) => break started.elapsed(),
                Err(error) if error.kind() == ErrorKind::WouldBlock && started.elapsed() < head_max * 10 => {
                    if endless {
                        client.write(b"a: b\r\n");
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break started.elapsed(),
                other => panic!("{other:?} after {:?}", started.elapsed()),
            }
        };
        assert!((head_max..head_max * 8).contains(&took), "{served} {endless} {took:?}");
    }
    // Bodies have a time of their own.
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(ASK.len()));
    for piece in ASK.as_bytes().chunks(ASK.len() / 3 + 1) {
        std::thread::sleep(head_max / 2);
        client.write(piece);
    }
    assert_eq!(client.response().status, 200);
}

#[test]
fn upstream_failures_before_the_first_byte_are_told() {
    let upstream = Upstream::start(|request| {
        match std::str::from_utf8(&request.body).unwrap() {
        body if body.contains("reset") => vec![Act::Reset],
        body if body.contains("silent") => vec![Act::Wait],
        _ => vec![Act::Write(b"HTTP/1.1 429 Too Many\r\nContent-Type: application/json\r\nRetry-After: 9\r\nContent-Length: 24\r\n\r\n{\"error\":{\"code\":\"slow\"}}"[..].to_vec()), Act::Close],
    }
    });
    let gateway = Gateway::start(&format!(
        "providers: {{up: {{base_url: \"http://{}/v1\", models: [\"mock-*\"], endpoints: [/chat/completions, /messages]}}, gone: {{base_url: \"http://127.0.0.1:{}/v1\"}}}}\ntimeouts: {{upstream_read: 300ms, connect: 1s}}",
        upstream.address,
        support::free_port()
    ));
    for (model, status, code, error_type) in [
        ("mock-reset", 502, "upstream_broken", "api_error"),
        ("mock-silent", 504, "upstream_timeout", "timeout_error"),
        ("gone/x", 502, "upstream_unreachable", ""),
    ] {
        let response = gateway.post(CHAT, &format!("{{\"model\":\"{model}\"}}"));
        assert_eq!((response.status, response.json()["error"]["code"].as_str()), (status, Some(code)), "{model}");
        if !error_type.is_empty() {
            let response = gateway.post("/v1/messages", &format!("{{\"model\":\"{model}\"}}"));
            assert_eq!((response.status, response.json()["error"]["type"].as_str()), (status, Some(error_type)), "{model}");
        }
    }
    // An upstream's own error is the caller's to read.
    let response = gateway.post(CHAT, ASK);
    assert_eq!((response.status, response.header("retry-after"), response.text()), (429, Some("9"), "{\"error\":{\"code\":\"slow\"}"));
    let entries = gateway.closed_entries(6);
    let outcomes: Vec<_> = entries.iter().map(|entry| entry.outcome()).collect();
    assert_eq!(outcomes, [Outcome::UpstreamError; 6]);
}

#[test]
fn a_cut_upstream_is_a_cut_answer() {
    let ended = event("a") + &event("b");
    for (headers, body) in [
        ("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", format!("{:x}\r\n{ended}\r\n", ended.len())),
        ("Content-Type: application/json\r\nContent-Length: 5000000\r\n", format!("{{\"a\":\"{}", "x".repeat(4 << 20))),
    ] {
        let bytes = answer(headers, body.as_bytes());
        let upstream = Upstream::start(move |_| vec![Act::Write(bytes.clone()), Act::Wait, Act::Close]);
        let gateway = Gateway::before(&upstream, "");
        let mut client = gateway.connect();
        client.head(CHAT, &[], Some(ASK.len()));
        client.write(ASK.as_bytes());
        until("the request", || (!upstream.requests.lock().unwrap().is_empty()).then_some(()));
        upstream.go();
        let response = client.response();
        assert!(!response.whole, "{headers}");
        assert!(!response.text().contains("error"), "nothing may be appended to a stream: {}", response.text());
        let entry = &gateway.closed_entries(1)[0];
        assert_eq!(entry.outcome(), Outcome::Truncated, "{headers}");
    }
}

#[test]
fn a_document_cut_while_it_is_held_is_a_clean_error() {
    let bytes = answer("Content-Type: application/json\r\nContent-Length: 5000\r\n", &WHOLE.as_bytes()[..50]);
    let upstream = Upstream::start(move |_| vec![Act::Write(bytes.clone()), Act::Close]);
    let gateway = Gateway::before(&upstream, "");
    let response = gateway.post(CHAT, ASK);
    assert_eq!((response.status, response.json()["error"]["code"].as_str()), (502, Some("upstream_broken")));
    assert_eq!(upstream.requests.lock().unwrap().len(), 1, "what was answered once is not asked again");
    assert_eq!(gateway.closed_entries(1)[0].outcome(), Outcome::Truncated);
}

#[test]
fn documents_tell_their_cost_in_the_head() {
    let json = "Content-Type: application/json\r\n";
    let large = format!("{}{}", WHOLE.replace('}', "} "), " ".repeat(1 << 20));
    let length = |body: &str| format!("{json}Content-Length: {}\r\n", body.len());
    for (head, body, settings, cost) in [
        (length(WHOLE), WHOLE.as_bytes().to_vec(), "", true),
        (format!("{json}Transfer-Encoding: chunked\r\n"), chunked(WHOLE.as_bytes(), 7), "", true),
        (length(WHOLE), WHOLE.as_bytes().to_vec(), "cost_headers: false", false),
        (length(&large), large.as_bytes().to_vec(), "", false),
        (length("{}"), b"{}".to_vec(), "", false),
    ] {
        let bytes = answer(&head, &body);
        let upstream = Upstream::fixed(bytes);
        let gateway = Gateway::before(&upstream, settings);
        let response = gateway.post(CHAT, ASK);
        assert!(response.whole && response.status == 200, "{head}");
        let told = ["x-gateway-cost", "x-gateway-prompt-tokens", "x-gateway-completion-tokens"].map(|name| response.header(name));
        // The mock's rates: a dollar per million in, five out.
        let want = if cost { [Some("0.00003"), Some("10"), Some("4")] } else { [None; 3] };
        assert_eq!(told, want, "{head} {settings}");
    }
}

#[test]
fn blanks_that_keep_a_connection_alive_are_not_held() {
    let (blank, rest) =
        (answer("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", b"1\r\n\n\r\n"), chunked(WHOLE.as_bytes(), 50));
    let upstream = Upstream::start(move |_| vec![Act::Write(blank.clone()), Act::Wait, Act::Write(rest.clone())]);
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(ASK.as_bytes());
    // The head is here before the upstream goes on.
    assert_eq!(client.read(12), b"HTTP/1.1 200");
    upstream.go();
    assert_eq!(gateway.closed_entries(1)[0].outcome(), Outcome::Ok);
}

#[test]
fn a_stream_is_not_held_whatever_it_calls_itself() {
    let first = answer("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", b"3\r\n[{}\r\n");
    let upstream = Upstream::start(move |_| vec![Act::Write(first.clone()), Act::Wait, Act::Write(b"1\r\n]\r\n0\r\n\r\n".to_vec())]);
    let gateway = Gateway::start(&format!("providers: {{g: {{kind: googleai, base_url: \"http://{}\", api_key: k}}}}", upstream.address));
    let mut client = gateway.connect();
    client.head("/g/v1beta/models/x:streamGenerateContent", &[], Some(2));
    client.write(b"{}");
    assert_eq!(client.read(12), b"HTTP/1.1 200");
    upstream.go();
    gateway.closed_entries(1);
}

#[test]
fn early_hints_do_not_take_the_cost() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let upstream = Upstream::fixed([&hints[..], &whole()].concat());
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(ASK.as_bytes());
    let (mut head, mut all) = (vec![], String::new());
    while !all.ends_with('}') {
        head.extend(client.read(1));
        all = String::from_utf8_lossy(&head).into_owned();
    }
    let (before, after) = all.split_once("HTTP/1.1 200").unwrap();
    assert!(!before.contains("x-gateway-cost") && after.to_ascii_lowercase().contains("x-gateway-cost: 0.00003"), "{all}");
}

#[test]
fn a_stream_tells_its_cost_in_a_comment_to_who_asks() {
    let stream = [event("a").as_str(), FINISH, USAGE, "data: [DONE]\n\n"].concat();
    let bytes = answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunked(stream.as_bytes(), 50));
    let cut = answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunked(&stream.as_bytes()[..40], 50));
    let body = r#"{"model":"mock-x","stream":true,"stream_options":{"include_usage":true}}"#;
    for (settings, headers, bytes, told) in [
        ("", &[("x-gateway-cost-event", "true")][..], &bytes, true),
        ("cost_event: true", &[], &bytes, true),
        ("cost_event: true", &[("x-gateway-cost-event", "false")], &bytes, false),
        ("", &[], &bytes, false),
        // Half an event is no place for a comment.
        ("cost_event: true", &[], &cut, false),
    ] {
        let upstream = Upstream::fixed(bytes.clone());
        let gateway = Gateway::before(&upstream, settings);
        let response = gateway.connect().request(CHAT, headers, body.as_bytes());
        let comment = response.text().split_once(": x-gateway ").map(|(before, json)| {
            assert_eq!(before, stream);
            serde_json::from_str::<serde_json::Value>(json.trim()).unwrap()
        });
        assert_eq!(comment.is_some(), told, "{settings} {headers:?}");
        if let Some(comment) = comment {
            assert_eq!((comment["cost"].as_str(), comment["prompt_tokens"].as_u64()), (Some("0.00003"), Some(10)));
            assert_eq!(comment["request_id"].as_str(), response.header("x-gateway-request-id"));
        }
        assert!(upstream.last().header("x-gateway-cost-event").is_none());
    }
}

#[test]
fn a_caller_that_leaves_is_noticed_and_has_an_entry() {
    let head = answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", b"");
    let upstream = Upstream::start(move |_| {
        let text = event("a");
        vec![Act::Write(head.clone()), Act::Write(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()), Act::Wait]
    });
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(ASK.as_bytes());
    client.read(20);
    drop(client);
    let entry = &gateway.closed_entries(1)[0];
    assert_eq!((entry.outcome(), entry.close.as_ref().unwrap().status), (Outcome::ClientClosed, 200));
}

/// Before an upstream that bills what nobody reads, too.
fn before_a_meter_that_runs(upstream: &Upstream, more: &str) -> Gateway {
    let address = upstream.address;
    let keys = format!("base_url: \"http://{address}/v1\", models: [\"*\"], prices: mock, stream_usage: on_request, on_disconnect: drain");
    Gateway::start(&format!("providers: {{up: {{{keys}}}}}\n{more}"))
}

/// Asks, reads so many bytes of the answer and leaves.
fn ask_and_leave(gateway: &Gateway, bytes: usize) {
    let mut client = gateway.connect();
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(ASK.as_bytes());
    client.read(bytes);
}

#[test]
fn an_answer_is_read_to_its_end_where_it_is_billed_all_the_same() {
    let head = answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", b"");
    let parts = [event("a"), event(&"b".repeat(300_000)) + FINISH + USAGE + "data: [DONE]\n\n"];
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    let stream = [[head, chunk(&parts[0])].concat(), [chunk(&parts[1]), b"0\r\n\r\n".to_vec()].concat()];
    let document = [vec![], whole()];
    for ([now, later], read) in [(stream, 20), (document, 0)] {
        let upstream = Upstream::start(move |_| vec![Act::Write(now.clone()), Act::Wait, Act::Write(later.clone())]);
        let gateway = before_a_meter_that_runs(&upstream, "");
        ask_and_leave(&gateway, read);
        until("the request", || upstream.requests.lock().unwrap().first().map(|_| ()));
        upstream.go();
        let entry = &gateway.closed_entries(1)[0];
        let (close, used) = (entry.close.as_ref().unwrap(), entry.used.as_ref().unwrap());
        assert_eq!((close.outcome, close.faults.is_empty(), used.source), (Outcome::ClientClosed, true, Source::Reported));
        assert_eq!(used.total.0, 30_000_000);
        // The connection to the upstream is whole and serves the next.
        upstream.go();
        assert_eq!(gateway.post(CHAT, ASK).status, 200);
    }
}

#[test]
fn response_is_read_on_once_its_text_is_whole_though_others_are_cancelled() {
    let head = answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", b"");
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    let half = [head.clone(), chunk(&event("a"))].concat();
    let text = [head, chunk(&(event("a") + FINISH))].concat();
    let rest = [chunk(&(USAGE.to_owned() + "data: [DONE]\n\n")), b"0\r\n\r\n".to_vec()].concat();
    let upstream = Upstream::start(move |request| {
        let whole = request.body.windows(5).any(|part| part == b"whole");
        vec![Act::Write(if whole { text.clone() } else { half.clone() }), Act::Wait, Act::Write(rest.clone())]
    });
    let gateway = Gateway::before(&upstream, "");
    let leave = |user: &str| {
        let body = format!(r#"{{"model":"mock-x","stream":true,"user":"{user}","messages":[]}}"#);
        let mut client = gateway.connect();
        client.head(CHAT, &[], Some(body.len()));
        client.write(body.as_bytes());
        client.read(20);
    };
    leave("whole");
    leave("half");
    // By now both clients are known to have left.
    let of = |entries: &[Entry], user: &str| entries.iter().find(|entry| entry.open.user.as_deref() == Some(user)).cloned().unwrap();
    let cancelled = of(&gateway.closed_entries(1), "half");
    assert_eq!((cancelled.outcome(), cancelled.used.unwrap().source), (Outcome::ClientClosed, Source::Estimated));
    upstream.go();
    upstream.go();
    let read_on = of(&gateway.closed_entries(2), "whole");
    let used = read_on.used.as_ref().unwrap();
    assert_eq!((read_on.outcome(), used.source, used.total.0), (Outcome::ClientClosed, Source::Reported, 30_000_000));
}

#[test]
fn who_is_read_for_the_bill_alone_is_not_read_for_ever() {
    let text = event("a") + &event(&"b".repeat(10_000));
    let head = answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", b"");
    let part = format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    for bounds in ["time: 50ms", "bytes: 5000", "exchanges: 0"] {
        let (head, part) = (head.clone(), part.clone());
        let upstream = Upstream::start(move |_| {
            let more = (0..1000).flat_map(|_| [Act::Wait, Act::Write(part.clone())]);
            [Act::Write([&head[..], &part].concat())].into_iter().chain(more).collect()
        });
        let gateway = before_a_meter_that_runs(&upstream, &format!("after_disconnect: {{{bounds}}}"));
        ask_and_leave(&gateway, 20);
        // What comes before the gateway has noticed is not counted.
        until("the end", || {
            bounds.starts_with("bytes").then(|| upstream.go());
            gateway.entries().iter().any(|entry| entry.close.is_some()).then_some(())
        });
        let entry = &gateway.closed_entries(1)[0];
        assert_eq!((entry.outcome(), entry.used.as_ref().unwrap().source), (Outcome::ClientClosed, Source::Estimated), "{bounds}");
    }
}

#[test]
fn a_dead_kept_alive_connection_is_replaced() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let whole = whole();
    // The first connection answers once and breaks off when it is asked again.
    let upstream = Upstream::start(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        1 => vec![Act::Reset],
        _ => vec![Act::Write(whole.clone())],
    });
    let gateway = Gateway::before(&upstream, "");
    assert_eq!(gateway.post(CHAT, ASK).status, 200);
    let large = format!("{{\"model\":\"mock-x\",\"p\":\"{}\"}}", "x".repeat(300_000));
    assert_eq!(gateway.post(CHAT, &large).status, 200);
    assert_eq!(upstream.last().body.len(), large.len());
    let entries = gateway.closed_entries(3);
    assert_eq!(
        entries.iter().map(|entry| (entry.open.attempt, entry.outcome())).collect::<Vec<_>>(),
        [(1, Outcome::Ok), (1, Outcome::UpstreamError), (2, Outcome::Ok)]
    );
    assert_eq!(entries[1].open.request_id, entries[2].open.request_id);
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// An answer in a coding that nobody asked for.
fn coded(coding: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    answer(&format!("Content-Type: {kind}\r\nContent-Encoding: {coding}\r\nETag: \"e\"\r\nContent-Length: {length}\r\n"), body)
}

#[test]
fn compressed_answers_are_decoded_and_billed() {
    for (coding, body) in [("gzip", gzip(WHOLE.as_bytes())), ("zstd", zstd::encode_all(WHOLE.as_bytes(), 3).unwrap())] {
        let upstream = Upstream::fixed(coded(coding, "application/json", &body));
        let gateway = Gateway::before(&upstream, "");
        let response = gateway.connect().request(CHAT, &[("Accept-Encoding", "gzip")], ASK.as_bytes());
        assert_eq!((response.text(), response.header("content-encoding")), (WHOLE, None));
        assert_eq!(response.header("etag"), Some("W/\"e\""));
        assert_eq!(gateway.closed_entries(1)[0].used.as_ref().unwrap().source, Source::Reported);
    }
}

#[test]
fn compressed_streams_are_decoded_however_they_are_cut() {
    let events = "data: {\"id\":\"c\",\"model\":\"mock-x\",\"choices\":[{\"delta\":{\"content\":\"é\"}}]}\n\n".repeat(300);
    let last = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#;
    let stream = format!("{events}data: {last}\n\ndata: [DONE]\n\n");
    let mut brotli = vec![];
    brotli::CompressorWriter::new(&mut brotli, 4096, 5, 22).write_all(stream.as_bytes()).unwrap();
    for (coding, body) in [("gzip", gzip(stream.as_bytes())), ("br", brotli), ("zstd", zstd::encode_all(stream.as_bytes(), 3).unwrap())] {
        for size in [7, 1000] {
            let chunks = body.chunks(size).map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let written: Vec<Vec<u8>> = [head.into_bytes()].into_iter().chain(chunks).chain([b"0\r\n\r\n".to_vec()]).collect();
            let upstream = Upstream::start(move |_| written.iter().cloned().map(Act::Write).collect());
            let gateway = Gateway::before(&upstream, "");
            let ask = ASK.replace("{\"model\"", "{\"stream\":true,\"stream_options\":{\"include_usage\":true},\"model\"");
            let response = gateway.post(CHAT, &ask);
            assert_eq!((response.text() == stream, response.whole), (true, true), "{coding} by {size}");
            let used = gateway.closed_entries(1).remove(0).used.unwrap();
            assert_eq!((used.source, used.lines[0].usage.of(Dimension::Output)), (Source::Reported, Some(4)));
        }
    }
}

#[test]
fn what_cannot_be_decoded_is_an_answer_that_broke() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let cut = gzip(WHOLE.as_bytes());
    for body in [&bomb[..], &cut[..cut.len() - 1], WHOLE.as_bytes()] {
        let upstream = Upstream::fixed(coded("gzip", "application/json", body));
        let gateway = Gateway::before(&upstream, "");
        let response = gateway.post(CHAT, ASK);
        assert_eq!((response.status, response.json()["error"]["code"].as_str()), (502, Some("upstream_broken")));
        let entry = gateway.closed_entries(1).remove(0);
        // Truncated, where something of it was decoded.
        assert!(matches!(entry.outcome(), Outcome::UpstreamError | Outcome::Truncated), "{:?}", entry.used);
    }
    // A coding that nobody here knows: it passes, and its entry says that it could not be read.
    let upstream = Upstream::fixed(coded("deflate", "application/json", b"\x78\x9c"));
    let gateway = Gateway::before(&upstream, "");
    let response = gateway.post(CHAT, ASK);
    assert_eq!((&response.body[..], response.header("content-encoding")), (&b"\x78\x9c"[..], Some("deflate")));
    assert!(gateway.closed_entries(1)[0].close.as_ref().unwrap().faults.contains(&"encoded".to_owned()));
}

#[test]
fn without_keys_other_sites_and_names_are_refused() {
    let upstream = Upstream::fixed(answer("Content-Length: 0\r\n", b""));
    let gateway = Gateway::before(&upstream, "");
    for (headers, status) in [(&[("Origin", "https://evil.example")][..], 403), (&[("Sec-Fetch-Site", "cross-site")], 403), (&[], 200)] {
        assert_eq!(gateway.connect().request(CHAT, headers, ASK.as_bytes()).status, status, "{headers:?}");
    }
    let mut client = gateway.connect();
    client.write(format!("POST {CHAT} HTTP/1.1\r\nHost: rebound.example\r\nContent-Length: {}\r\n\r\n{ASK}", ASK.len()).as_bytes());
    assert_eq!(client.response().status, 403);
}

#[test]
fn models_lists_what_is_configured() {
    let upstream = Upstream::fixed(answer("Content-Length: 0\r\n", b""));
    let gateway = Gateway::start(&format!(
        "providers: {{up: {{base_url: \"http://{}/v1\", models: [llama-3, \"x-*\"]}}}}\naliases: {{fast: up/llama-3}}",
        upstream.address
    ));
    let mut client = gateway.connect();
    client.write(format!("GET /v1/models HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.address).as_bytes());
    let json = client.response().json();
    let ids: Vec<_> = json["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["fast", "up/llama-3"]);
}

#[test]
fn many_requests_on_many_connections_each_have_their_entry() {
    // Where all wait for the disk, they wait together.
    for settings in ["", "ledger: {sync: always}"] {
        serve_many(settings);
    }
}

fn serve_many(settings: &str) {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::before(&upstream, settings);
    let address = gateway.address;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::new(address);
                (0..25).for_each(|_| assert_eq!(client.post(CHAT, ASK).status, 200));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let entries = gateway.closed_entries(200);
    assert_eq!(entries.len(), 200);
    assert!(entries.iter().all(|entry| entry.used.as_ref().is_some_and(|used| used.total.0 == 30_000_000)));
}

#[test]
fn a_caller_of_http_1_0_gets_no_chunks() {
    let sse = event("a") + "data: [DONE]\n\n";
    let upstream =
        Upstream::fixed(answer("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", &chunked(sse.as_bytes(), 9)));
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    let head = format!("POST {CHAT} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{ASK}", gateway.address, ASK.len());
    client.write(head.as_bytes());
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, sse.as_str()));
}

#[test]
fn what_a_caller_sends_ahead_waits_for_its_turn() {
    let whole = whole();
    let upstream = Upstream::start(move |_| vec![Act::Wait, Act::Write(whole.clone())]);
    let gateway = Gateway::before(&upstream, "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.head(CHAT, &[], Some(ASK.len()));
        client.write(ASK.as_bytes());
    }
    until("the first request", || (!upstream.requests.lock().unwrap().is_empty()).then_some(()));
    upstream.go();
    upstream.go();
    for _ in 0..2 {
        assert_eq!(client.response().body, WHOLE.as_bytes());
    }
    assert_eq!(gateway.closed_entries(2).iter().filter(|entry| entry.outcome() == Outcome::Ok).count(), 2);
}

#[test]
fn what_is_sent_ahead_may_take_as_long_as_what_is_before_it() {
    let upstream = Upstream::start(|_| vec![Act::Wait, Act::Write(whole())]);
    let gateway = Gateway::before(&upstream, "timeouts: {head: 300ms, idle: 300ms}");
    let mut client = gateway.connect();
    let (first, rest) = ASK.as_bytes().split_at(10);
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(ASK.as_bytes());
    client.head(CHAT, &[], Some(ASK.len()));
    client.write(first);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(700));
        upstream.go();
        assert_eq!(client.response().body, WHOLE.as_bytes());
        client.write(rest);
    }
}

#[test]
fn a_caller_that_brings_no_key_is_not_lent_the_gateways() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::start(&format!(
        "providers: {{up: {{base_url: \"http://{}/v1\", models: [\"*\"], api_key: own, credentials: caller}}}}",
        upstream.address
    ));
    gateway.post(CHAT, ASK);
    assert_eq!(upstream.last().header("authorization"), None);
    gateway.connect().request(CHAT, &[("Authorization", "Bearer mine")], ASK.as_bytes());
    assert_eq!(upstream.last().header("authorization"), Some("Bearer mine"));
}

#[test]
fn the_prompt_of_who_leaves_early_is_owed_if_it_went_up() {
    // One that reads nothing, and one that has read all and thinks.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let thinking = Upstream::start(|_| vec![Act::Wait]);
    let large = format!("{{\"model\":\"mock-x\",\"messages\":[\"{}\"]}}", "a word ".repeat(2 << 20));
    for (address, body, owed) in [(deaf.local_addr().unwrap(), large.as_str(), false), (thinking.address, ASK, true)] {
        let gateway = Gateway::start(&format!(
            "providers: {{up: {{base_url: \"http://{address}/v1\", prices: mock, models: [\"*\"], on_disconnect: cancel}}}}"
        ));
        let mut client = gateway.connect();
        client.head(CHAT, &[], Some(body.len()));
        client.write(body.as_bytes());
        until("the attempt", || (gateway.entries().len() == 1).then_some(()));
        if owed {
            until("the request", || (thinking.requests.lock().unwrap().len() == 1).then_some(()));
        }
        drop(client);
        let entry = gateway.closed_entries(1).remove(0);
        let source = entry.used.as_ref().map(|used| used.source);
        assert_eq!((entry.outcome(), source), (Outcome::ClientClosed, owed.then_some(Source::Estimated)));
    }
}
