//! Requests that could be read in two ways or reach further than a key may, over real sockets: refused before anything is forwarded,
//! with an error that says what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::Read;
use support::{Act, Gateway, Response, Upstream, until};

const CHAT: &str = "/v1/chat/completions";
const WHOLE: &str = r#"{"id":"c","model":"mock-x","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#;

fn whole(headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{WHOLE}", WHOLE.len()).into_bytes()
}

fn code(response: &Response) -> (u16, String) {
    let body = response.json();
    (response.status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    let upstream = Upstream::fixed(whole(""));
    let gateway = Gateway::before(&upstream, "");
    for (headers, want) in [
        ("Connection: host\r\n", "invalid_connection_header"),
        ("Connection: a b\r\n", "invalid_connection_header"),
        ("Connection: \u{e9}\r\n", "invalid_connection_header"),
        ("Connection: keep-alive, content-length\r\n", "invalid_connection_header"),
        ("Transfer-Encoding: chunked\r\n", "invalid_framing"),
    ] {
        let mut client = gateway.connect();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n{headers}\r\n",
            gateway.address
        );
        client.write((head + "{}").as_bytes());
        let response = client.response();
        assert_eq!(code(&response), (400, want.to_owned()), "{headers}");
        // Nothing behind it is taken for a request.
        assert_eq!(client.stream.read(&mut [0; 1]).unwrap_or(0), 0, "{headers}");
    }
    for coding in ["gzip, chunked", "identity", "chunked, chunked"] {
        let mut client = gateway.connect();
        let head = format!("POST {CHAT} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n", gateway.address);
        client.write(head.as_bytes());
        assert_eq!(client.response().status, 400, "{coding}");
    }
    assert!(upstream.requests.lock().unwrap().is_empty());
}

#[test]
fn headers_that_only_the_gateway_may_set_do_not_come_from_an_upstream() {
    let upstream = Upstream::fixed(whole("x-gateway-cost: 0.000000\r\nX-Gateway-Upstream: nobody\r\nx-other: stays\r\n"));
    let gateway = Gateway::before(&upstream, "cost_headers: false");
    let response = gateway.post(CHAT, r#"{"model":"mock-x","messages":[]}"#);
    assert_eq!((response.status, response.header("x-other")), (200, Some("stays")));
    assert_eq!((response.header("x-gateway-cost"), response.header("x-gateway-upstream")), (None, None));
}

#[test]
fn a_narrowed_key_reaches_no_other_model_by_any_field() {
    let upstream = Upstream::fixed(whole(""));
    let gateway = Gateway::before(&upstream, "keys: {}");
    let narrow = gateway.add_key(|record| record.models = vec!["small".to_owned()]);
    let ask = |body: &str| gateway.connect().request(CHAT, &[("x-api-key", &narrow)], body.as_bytes());
    until("the key", || (ask(r#"{"model":"small","messages":[]}"#).status == 200).then_some(()));
    let before = upstream.requests.lock().unwrap().len();
    for (more, want) in [
        (r#""models":["small","large"]"#, (403, "model_not_allowed")),
        (r#""m\u006fdels":["large"]"#, (403, "model_not_allowed")),
        (r#""fallbacks":[{"model":"large"}]"#, (403, "model_not_allowed")),
        (r#""tools":[{"type":"advisor","model":"large"}]"#, (403, "model_not_allowed")),
        (r#""models":"large""#, (400, "invalid_field")),
        (r#""preset":"cheap""#, (403, "field_not_allowed")),
        (r#""data_sources":[{}]"#, (403, "field_not_allowed")),
        (r#""route":"fallback""#, (403, "field_not_allowed")),
        (r#""prompt":{"id":"pmpt_1"}"#, (403, "field_not_allowed")),
        (r#""Model":"large""#, (400, "ambiguous_field")),
        (r#""model ":"large""#, (400, "ambiguous_field")),
        (r#""MODEL":"large""#, (400, "ambiguous_field")),
        (r#""tools":[{"type":"openrouter:advisor","parameters":{"model":"large"}}]"#, (403, "field_not_allowed")),
        (r#""tools":[{"t\u0079pe":"openrouter\u003afusion"}]"#, (403, "field_not_allowed")),
        (r#""plugins":[{"id":"fusion","model":"large"}]"#, (403, "field_not_allowed")),
        (r#""plugins":[{"id":"web"},{"id":"fusion"}]"#, (403, "field_not_allowed")),
        (r#""stream":1"#, (400, "invalid_field")),
        (r#""stream":"true""#, (400, "invalid_field")),
        (r#""deferred":true"#, (400, "invalid_field")),
    ] {
        let refused = ask(&format!(r#"{{"model":"small","messages":[],{more}}}"#));
        assert_eq!(code(&refused), (want.0, want.1.to_owned()), "{more}: {}", refused.text());
    }
    assert_eq!(upstream.requests.lock().unwrap().len(), before);
    for more in [
        r#""models":["small"]"#,
        r#""models":null"#,
        r#""route":null"#,
        r#""fallbacks":[]"#,
        r#""plugins":[{"id":"web"}]"#,
        r#""stream":null"#,
    ] {
        assert_eq!(ask(&format!(r#"{{"model":"small","messages":[],{more}}}"#)).status, 200, "{more}");
    }
}

#[test]
fn credentials_that_differ_are_refused_wherever_they_are() {
    let upstream = Upstream::fixed(whole(""));
    let gateway = Gateway::before(&upstream, "keys: {}");
    let (one, two) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    let ask = |headers: &[(&str, &str)]| gateway.connect().request(CHAT, headers, br#"{"model":"mock-x","messages":[]}"#).status;
    let bearer = format!("Bearer {one}");
    until("the keys", || (ask(&[("x-api-key", &two)]) == 200).then_some(()));
    assert_eq!(ask(&[("authorization", &bearer), ("x-gateway-key", &one)]), 200);
    // A provider's credential of the client's own beside the gateway's key.
    assert_eq!(ask(&[("authorization", "Bearer sk-own"), ("x-gateway-key", &one)]), 200);
    for headers in [
        [("authorization", bearer.as_str()), ("x-gateway-key", two.as_str())],
        [("x-gateway-key", one.as_str()), ("x-gateway-key", two.as_str())],
        [("x-gateway-key", one.as_str()), ("x-goog-api-key", two.as_str())],
        [("x-gateway-key", one.as_str()), ("x-api-key", "tg_unknown_key")],
    ] {
        assert_eq!(ask(&headers), 401, "{headers:?}");
    }
}

/// Opens a WebSocket as far as its handshake.
fn handshake(gateway: &Gateway, key: &str) -> (std::net::TcpStream, u16) {
    let mut client = gateway.connect();
    client.write(
        format!(
            "GET /v1/responses HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            gateway.address
        )
        .as_bytes(),
    );
    let status = client.response().status;
    (client.stream.try_clone().unwrap(), status)
}

#[test]
fn open_websockets_are_bounded_per_key() {
    let upstream = Upstream::start(|_| {
        let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        vec![Act::Write(accept.into()), Act::Wait]
    });
    let address = upstream.address;
    let gateway = Gateway::start(&format!(
        "providers: {{up: {{base_url: \"http://{address}/v1\", prices: mock, endpoints: [/responses], websocket: true}}}}\nkeys: {{}}\nwebsockets: {{per_key: 2}}"
    ));
    let (one, two) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    until("the keys", || (handshake(&gateway, &two).1 == 101).then_some(()));
    let first = handshake(&gateway, &one);
    let second = handshake(&gateway, &one);
    assert_eq!((first.1, second.1, handshake(&gateway, &one).1), (101, 101, 429));
    assert_eq!(handshake(&gateway, &two).1, 101, "another key has its own");
    drop(first);
    until("a place", || (handshake(&gateway, &one).1 == 101).then_some(()));
}

#[test]
fn an_entry_says_why_an_upstream_could_not_be_reached() {
    let nowhere = support::free_port();
    let gateway = Gateway::start(&format!(
        "providers:\n  closed: {{base_url: \"http://127.0.0.1:{nowhere}/v1\", prices: mock, models: [closed]}}\n  \
         unnamed: {{base_url: \"http://no-such-host.invalid:1/v1\", prices: mock, models: [unnamed]}}\n"
    ));
    for (model, want) in [("closed", "connection refused"), ("unnamed", "DNS: no-such-host.invalid")] {
        assert_eq!(gateway.post(CHAT, &format!(r#"{{"model":"{model}","messages":[]}}"#)).status, 502);
        let close = until("the entry", || {
            let of_model = |entry: &tollgate::ledger::Entry| entry.open.model == model;
            gateway.entries().into_iter().find(of_model).and_then(|entry| entry.close)
        });
        assert_eq!(close.error.as_deref(), Some("upstream_unreachable"));
        assert!(close.cause.as_deref().is_some_and(|cause| cause.contains(want)), "{close:?}");
    }
}

/// An upstream that answers 429 to large bodies, and well otherwise.
fn bounded() -> Upstream {
    Upstream::start(|request| {
        let refused =
            "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 3600\r\nContent-Length: 2\r\n\r\n{}";
        vec![Act::Write(if request.body.len() > 5000 { refused.into() } else { whole("") })]
    })
}

#[test]
fn the_size_of_one_clients_request_ejects_no_target_for_the_others() {
    let (a, b) = (bounded(), Upstream::fixed(whole("")));
    let upstream = |upstream: &Upstream| format!("{{base_url: \"http://{}/v1\", prices: mock}}", upstream.address);
    let gateway =
        Gateway::start(&format!("providers: {{a: {}, b: {}}}\naliases: {{two: [a/m, b/m]}}\nkeys: {{}}", upstream(&a), upstream(&b)));
    let (large, small) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    let ask = |key: &str, length: usize| {
        let body = format!(r#"{{"model":"two","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(length));
        let response = gateway.connect().request(CHAT, &[("x-api-key", key), ("x-gateway-debug", "true")], body.as_bytes());
        (response.status, response.header("x-gateway-upstream").unwrap_or_default().to_owned())
    };
    until("the keys", || (ask(&small, 1).0 == 200 && ask(&large, 1).0 == 200).then_some(()));
    for _ in 0..20 {
        assert_eq!(ask(&large, 9000), (200, "b".to_owned()), "fails over");
        assert_eq!(ask(&small, 1), (200, "a".to_owned()));
    }
    // A second client that meets the limit is evidence that it is the account's.
    assert_eq!(ask(&small, 9000), (200, "b".to_owned()));
    assert_eq!(ask(&small, 1), (200, "b".to_owned()));
}

#[test]
fn a_budget_that_a_reload_adds_counts_what_was_spent_before() {
    let upstream = Upstream::fixed(whole(""));
    let gateway = Gateway::before(&upstream, "limits: [{per: all, concurrent: 100}]");
    let ask = || gateway.post(CHAT, r#"{"model":"mock-x","messages":[],"max_tokens":1}"#);
    // 10 tokens at $1 and 4 at $5 per million.
    (0..10).for_each(|_| assert_eq!(ask().status, 200));
    gateway.closed_entries(10);
    let path = gateway.folder().join("tollgate.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("concurrent: 100", "concurrent: 100, usd_per_month: 0.0003")).unwrap();
    until("the reload", || (ask().status == 429).then_some(()));
    assert_eq!(code(&ask()), (429, "insufficient_quota".to_owned()));
}
