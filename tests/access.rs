//! Who may use a running gateway: keys, what they allow, and configurations that change under way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use jiff::Timestamp;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Act, Gateway, Upstream, until};
use tollgate::config::{self, Source};
use tollgate::proxy::server::{self, Start};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = r#"{"model":"mock-x","messages":[]}"#;
const WHOLE: &str = r#"{"id":"c","model":"mock-x","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#;

fn upstream() -> Upstream {
    Upstream::fixed(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{WHOLE}", WHOLE.len()))
}

/// Asks until the gateway answers with a status; it looks at its files once a second.
fn until_status(gateway: &Gateway, headers: &[(&str, &str)], status: u16) {
    until("the reload", || (gateway.connect().request(CHAT, headers, ASK.as_bytes()).status == status).then_some(()));
}

#[test]
fn every_request_needs_a_key_and_is_billed_to_it() {
    let upstream = upstream();
    let gateway = Gateway::before(&upstream, "keys: {}");
    for (path, field) in [(CHAT, "code"), ("/v1/messages", "type"), ("/v1beta/models/m:generateContent", "status")] {
        let refused = gateway.post(path, ASK);
        assert_eq!(refused.status, 401, "{path}");
        let word = refused.json()["error"][field].as_str().unwrap().to_owned();
        assert!(["missing_api_key", "authentication_error", "UNAUTHENTICATED"].contains(&word.as_str()), "{word}");
    }
    let text = gateway.add_key(|record| record.org = Some("acme".to_owned()));
    let bearer = format!("Bearer {text}");
    until_status(&gateway, &[("authorization", &bearer)], 200);
    let sent = upstream.last();
    assert!(!sent.headers.iter().any(|(_, value)| value.contains(&text)), "{:?}", sent.headers);
    let entry = gateway.closed_entries(1).remove(0);
    let [key, name, org] = [entry.open.key, entry.open.key_name, entry.open.org].map(Option::unwrap);
    assert_eq!((text.split('_').nth(1), name.as_str(), org.as_str()), (Some(key.as_str()), "ci", "acme"));
    // Its bill is for who made it.
    let id = entry.open.request_id.clone();
    let other = format!("Bearer {}", gateway.add_key(|_| {}));
    until_status(&gateway, &[("authorization", &other)], 200);
    let bill = |bearer: &str| {
        let mut client = gateway.connect();
        let head = format!("GET /usage/requests/{id} HTTP/1.1\r\nHost: {}\r\nAuthorization: {bearer}\r\n\r\n", gateway.address);
        client.write(head.as_bytes());
        client.response()
    };
    let own = bill(&bearer);
    assert_eq!((own.status, own.json()["entries"][0]["id"].as_str()), (200, Some(entry.id.as_str())));
    assert_eq!([bill(&other).status, bill("Bearer none").status], [404, 401]);
    // Keys that differ are no proof of either.
    assert_eq!(gateway.connect().request(CHAT, &[("authorization", &bearer), ("x-api-key", "other")], ASK.as_bytes()).status, 401);
    let ledger = std::fs::read_dir(gateway.folder().join("ledger")).unwrap();
    let texts: String = ledger.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(!texts.contains(text.splitn(3, '_').nth(2).unwrap()));
}

#[test]
fn a_key_that_was_narrowed_or_revoked_goes_no_further() {
    let upstream = upstream();
    let gateway = Gateway::before(&upstream, "keys: {}\naliases: {fast: up/mock-y}");
    let text = gateway.add_key(|record| record.models = vec!["fast".to_owned(), "small-*".to_owned()]);
    let header = [("x-api-key", text.as_str())];
    until_status(&gateway, &header, 403);
    let mut client = gateway.connect();
    for (model, status) in [("fast", 200), ("small-1", 200), ("up/small-1", 200), ("mock-y", 403), ("up/mock-y", 403)] {
        let answer = client.request(CHAT, &header, format!(r#"{{"model":"{model}","messages":[]}}"#).as_bytes());
        assert_eq!(answer.status, status, "{model}");
        if status == 403 {
            assert_eq!(answer.json()["error"]["code"], "model_not_allowed");
        }
    }
    gateway.change_keys(|keys| keys[0].revoked = Some(Timestamp::now()));
    until_status(&gateway, &header, 401);
}

#[test]
fn a_gateway_key_is_not_taken_for_the_callers_own() {
    let upstream = upstream();
    let settings =
        format!("keys: {{}}\nproviders: {{up: {{base_url: \"http://{}/v1\", models: [\"*\"], credentials: caller}}}}", upstream.address);
    let gateway = Gateway::start(&settings);
    let text = gateway.add_key(|_| {});
    let bearer = format!("Bearer {text}");
    until_status(&gateway, &[("authorization", &bearer)], 200);
    assert_eq!(upstream.last().header("authorization"), None);
    for scheme in ["bearer", "BEARER"] {
        let value = format!("{scheme} {text}");
        assert_eq!(gateway.connect().request(CHAT, &[("authorization", &value)], ASK.as_bytes()).status, 200);
        assert_eq!(upstream.last().header("authorization"), None);
    }
    let both = [("x-gateway-key", text.as_str()), ("authorization", "Bearer sk-own")];
    assert_eq!(gateway.connect().request(CHAT, &both, ASK.as_bytes()).status, 200);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer sk-own"));
    assert_eq!(upstream.last().header("x-gateway-key"), None);
}

#[test]
fn a_reload_changes_what_comes_after_it_and_nothing_else() {
    let waits = AtomicBool::new(true);
    let old = Upstream::start(move |_| {
        let start = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n";
        let mut acts = vec![Act::Write(start.to_vec()), Act::Write(b"4\r\nend.\r\n0\r\n\r\n".to_vec())];
        if waits.swap(false, Ordering::Relaxed) {
            acts.insert(1, Act::Wait);
        }
        acts
    });
    let new = Upstream::fixed("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nnew");
    let gateway = Gateway::before(&old, "cost_headers: false");
    let path = gateway.folder().join("tollgate.yaml");
    let first = std::fs::read_to_string(&path).unwrap();
    let mut open = gateway.connect();
    open.head(CHAT, &[], Some(ASK.len()));
    open.write(ASK.as_bytes());
    until("the old upstream", || old.requests.lock().unwrap().first().map(|_| ()));
    std::fs::write(&path, first.replace(&old.address.to_string(), &new.address.to_string())).unwrap();
    until("the new upstream", || (gateway.post(CHAT, ASK).text() == "new").then_some(()));
    old.go();
    assert_eq!(open.response().text(), "oldend.");
}

#[test]
fn what_cannot_be_read_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.yaml");
    let text = format!("listen: 127.0.0.1:0\nadmin: off\nmock: off\nworkers: 1\naccess_log: off\ndata: {}\n", folder.path().display());
    let write = |more: &str| std::fs::write(&path, format!("{text}{more}")).unwrap();
    write("providers: {up: {base_url: \"http://127.0.0.1:1\"}}");
    let config = config::load(&Source::File(path.clone()), &|_| None).unwrap();
    let state = server::build(config, Start::default()).unwrap().state;
    let first = state.config();
    for bad in
        ["providers: {up: {base_url: nowhere}}", "provider: {}", "prices: {overlay: [missing.yaml]}", "keys: {signing_secret: short}"]
    {
        write(bad);
        assert!(!state.reload(), "{bad}");
        assert!(std::sync::Arc::ptr_eq(&state.config(), &first), "{bad}");
    }
    assert!(state.metrics.render().contains("tollgate_config_reload_successful 0"));
    write("providers: {other: {base_url: \"http://127.0.0.1:2\"}}\n");
    assert!(state.reload() && state.config().upstream("other").is_some() && state.config().upstream("up").is_none());
    // A public address that stays bound does not lose its keys, whatever address the file now names.
    let open = folder.path().join("open.yaml");
    let public = text.replace("127.0.0.1:0", "0.0.0.0:0");
    std::fs::write(&open, format!("{public}keys: {{}}\n")).unwrap();
    let config = config::load(&Source::File(open.clone()), &|_| None).unwrap();
    let guarded = server::build(config, Start::default()).unwrap().state;
    std::fs::write(&open, &text).unwrap();
    assert!(!guarded.reload() && guarded.config().keys.is_some());
    // What is bound stays bound, and is reported as it is.
    std::fs::write(&path, text.replace("127.0.0.1:0", "127.0.0.1:3").replace("workers: 1", "workers: 2")).unwrap();
    assert!(state.reload());
    assert_eq!((state.config().listen.clone(), state.config().workers), (first.listen.clone(), 1));
    let rendered = state.metrics.render();
    for line in [
        "tollgate_config_reload_total{result=\"ok\"} 2",
        "tollgate_config_reload_total{result=\"refused\"} 4",
        "tollgate_config_reload_successful 1",
    ] {
        assert!(rendered.contains(line), "{line}");
    }
}

#[test]
fn pages_of_listed_sites_may_ask_and_read() {
    // It would let everybody read.
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n";
    let upstream = Upstream::fixed(format!("{head}Content-Length: {}\r\n\r\n{WHOLE}", WHOLE.len()));
    let gateway = Gateway::before(&upstream, "keys: {}\norigins: [https://app.example]");
    let key = format!("Bearer {}", gateway.add_key(|_| {}));
    until_status(&gateway, &[("authorization", &key)], 200);
    let preflight = |origin: &str| {
        let mut client = gateway.connect();
        let (host, asks) =
            (gateway.address, "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type");
        client.write(format!("OPTIONS {CHAT} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n{asks}\r\n\r\n").as_bytes());
        let answer = client.response();
        // The connection serves on.
        assert_eq!(client.request(CHAT, &[("authorization", &key)], ASK.as_bytes()).status, 200);
        answer
    };
    let may = preflight("https://app.example");
    let [origin, headers, methods] =
        ["access-control-allow-origin", "access-control-allow-headers", "access-control-allow-methods"].map(|name| may.header(name));
    assert_eq!((may.status, origin, headers), (204, Some("https://app.example"), Some("authorization,content-type")));
    assert!(methods.unwrap().contains("POST"));
    // Neither a site that is not listed nor one that asks for nothing.
    let other = preflight("https://evil.example");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (401, None));
    // Answers and errors may be read; the provider hears of no page.
    for (key, status) in [(key.as_str(), 200), ("Bearer none", 401)] {
        let answer = gateway.connect().request(CHAT, &[("authorization", key), ("origin", "https://app.example")], ASK.as_bytes());
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, Some("https://app.example")));
        assert_eq!((answer.header("access-control-expose-headers"), answer.header("vary")), (Some("*"), Some("Origin")));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    assert!(!upstream.last().headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("origin")));
    let answer = gateway.connect().request(CHAT, &[("authorization", &key), ("origin", "https://evil.example")], ASK.as_bytes());
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    assert_eq!(answer.header("vary"), Some("Origin"), "whoever keeps it knows that others may get another");
}
