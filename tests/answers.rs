//! Answers that providers keep, over real sockets: whose they are, where they are, and when they are paid for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Act, Gateway, Request, Response, Upstream, until};
use tollgate::ledger::{Outcome, Source};

const RESPONSES: &str = "/v1/responses";

fn document(body: &str) -> Vec<Act> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    vec![Act::Write((head + body).into_bytes())]
}

fn response(id: &str, status: &str) -> String {
    let usage = if status == "completed" { r#"{"input_tokens":10,"output_tokens":4,"total_tokens":14}"# } else { "null" };
    format!(r#"{{"id":"{id}","object":"response","status":"{status}","model":"mock-x","error":null,"usage":{usage}}}"#)
}

/// Names its answers after itself; those in the background are done when they are asked for the third time.
fn provider(name: &'static str) -> Upstream {
    let (asked, fetched) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Upstream::start(move |request: &Request| {
        let path = request.line.split(' ').nth(1).unwrap();
        if let Some(id) = path.strip_prefix("/v1/responses/") {
            let done = !id.contains("bg") || fetched.fetch_add(1, Ordering::SeqCst) >= 2;
            return document(&response(id.split('?').next().unwrap(), if done { "completed" } else { "in_progress" }));
        }
        let at = asked.fetch_add(1, Ordering::SeqCst);
        if String::from_utf8_lossy(&request.body).contains("stream") {
            let created = response(&format!("bg_{name}{at}"), "in_progress");
            let event = format!("event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{created}}}\n\n");
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            return vec![Act::Write(format!("{head}{:x}\r\n{event}\r\n", event.len()).into_bytes()), Act::Wait];
        }
        let background = String::from_utf8_lossy(&request.body).contains("background");
        let (kind, status) = if background { ("bg", "queued") } else { ("resp", "completed") };
        document(&response(&format!("{kind}_{name}{at}"), status))
    })
}

fn before(a: &Upstream, b: &Upstream, more: &str) -> Gateway {
    let upstream = |upstream: &Upstream| {
        let allowed = "allow: [\"GET /*\", \"POST /*\"]";
        format!("{{base_url: \"http://{}/v1\", prices: mock, api_key: theirs, endpoints: [/responses], {allowed}}}", upstream.address)
    };
    Gateway::start(&format!(
        "providers: {{a: {}, b: {}}}\naliases: {{m: [{{to: a/mock-x, weight: 1}}, {{to: b/mock-x, weight: 1}}]}}\n{more}",
        upstream(a),
        upstream(b)
    ))
}

fn ask(gateway: &Gateway, key: &str, more: &str) -> Response {
    let bearer = format!("Bearer {key}");
    gateway.connect().request(RESPONSES, &[("authorization", &bearer)], format!(r#"{{"model":"m","input":"x"{more}}}"#).as_bytes())
}

fn get(gateway: &Gateway, key: &str, path: &str) -> Response {
    let mut client = gateway.connect();
    client.write(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\r\n", gateway.address).as_bytes());
    client.response()
}

fn id(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn what_follows_an_answer_goes_where_it_is_and_to_nobody_else() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = before(&a, &b, "keys: {}");
    let (one, two) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    until("the keys", || (ask(&gateway, &two, "").status == 200).then_some(()));
    let mut seen = [0, 0];
    for _ in 0..12 {
        let first = id(&ask(&gateway, &one, ""));
        let next = id(&ask(&gateway, &one, &format!(r#","previous_response_id":"{first}""#)));
        assert_eq!(first.as_bytes()[5], next.as_bytes()[5], "{first} {next}");
        seen[usize::from(first.as_bytes()[5] == b'b')] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "weights still hold for what is new: {seen:?}");
    let own = id(&ask(&gateway, &one, ""));
    let path = format!("/v1/responses/{own}");
    assert_eq!(id(&get(&gateway, &one, &path)), own);
    assert_eq!(id(&get(&gateway, &one, &format!("{path}/input_items"))), format!("{own}/input_items"));
    let asked = || a.requests.lock().unwrap().len() + b.requests.lock().unwrap().len();
    let before = asked();
    for refused in [
        get(&gateway, &two, &path),
        get(&gateway, &one, "/v1/responses/resp_unknown"),
        ask(&gateway, &two, &format!(r#","previous_response_id":"{own}""#)),
        ask(&gateway, &one, r#","conversation":"conv_unknown""#),
        ask(&gateway, &one, r#","conversation":{"id":"conv_unknown"}"#),
    ] {
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (404, Some("response_not_found")));
    }
    // Under another provider's name it is nobody's.
    let elsewhere = if own.as_bytes()[5] == b'a' { "b" } else { "a" };
    assert_eq!(get(&gateway, &one, &format!("/{elsewhere}{path}")).status, 404);
    // However it is spelled, and whatever list allows it.
    for spelled in ["/Responses/", "/responses//", "/%72esponses/", "/RESPONSES/", "/x/responses/"] {
        for provider in ["a", "b"] {
            assert_eq!(get(&gateway, &two, &format!("/{provider}/v1{spelled}{own}")).status, 403, "{spelled}");
        }
    }
    assert_eq!(asked(), before, "nobody was asked");
    assert!(a.requests.lock().unwrap().iter().all(|request| request.header("authorization") == Some("Bearer theirs")));
    // Reading is not paid for.
    let entries = gateway.closed_entries(1);
    assert!(entries.iter().filter(|entry| entry.open.endpoint.starts_with("/v1/responses/")).all(|entry| !entry.open.billed));
}

#[test]
fn where_nobody_has_a_key_unknown_answers_are_asked_for() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = before(&a, &b, "fallback: b");
    assert_eq!(id(&get(&gateway, "", "/v1/responses/resp_elsewhere")), "resp_elsewhere");
    assert_eq!(b.requests.lock().unwrap().len(), 1);
    let kept = id(&ask(&gateway, "", r#","conversation":"conv_1""#));
    let again = id(&ask(&gateway, "", r#","conversation":"conv_1""#));
    assert_eq!(kept.as_bytes()[5], again.as_bytes()[5]);
}

/// Entries of an answer that was made in the background: what was asked, and what it cost.
fn background_entries(gateway: &Gateway) -> Vec<(Option<Source>, i128, Outcome)> {
    let ended = gateway.entries().into_iter().filter(|entry| entry.close.is_some());
    let entries = ended.filter(|entry| entry.open.endpoint == "/responses");
    entries
        .map(|entry| (entry.used.as_ref().map(|used| used.source), entry.used.as_ref().map_or(0, |used| used.total.0), entry.outcome()))
        .collect()
}

#[test]
fn an_answer_made_in_the_background_is_paid_for_once_whoever_fetches_it() {
    for caller_fetches in [false, true] {
        let (a, b) = (provider("a"), provider("b"));
        let gateway = Arc::new(before(&a, &b, "keys: {}"));
        let key = gateway.add_key(|record| record.org = Some("acme".to_owned()));
        until("the key", || (get(&gateway, &key, "/v1/models").status == 200).then_some(()));
        let made = id(&ask(&gateway, &key, r#","background":true"#));
        if caller_fetches {
            let fetch = || id(&get(&gateway, &key, &format!("/v1/responses/{made}")));
            (0..4).for_each(|_| assert_eq!(fetch(), made));
        }
        let entries = until("the bill", || Some(background_entries(&gateway)).filter(|entries| entries.len() == 2));
        let unpaid = (Some(Source::Reported), 0, Outcome::Ok);
        assert_eq!(entries, [unpaid, (Some(Source::Reported), 30_000_000, Outcome::Ok)]);
        assert!(gateway.entries().iter().all(|entry| entry.open.org.as_deref() == Some("acme")));
        // It is not fetched for ever, and asked for again it costs nothing more.
        assert_eq!(id(&get(&gateway, &key, &format!("/v1/responses/{made}"))), made);
        let asked = a.requests.lock().unwrap().len() + b.requests.lock().unwrap().len();
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(a.requests.lock().unwrap().len() + b.requests.lock().unwrap().len(), asked);
        assert_eq!(background_entries(&gateway).len(), 2);
    }
}

#[test]
fn what_follows_an_answer_does_not_pay_for_it() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = before(&a, &b, "keys: {}");
    let key = gateway.add_key(|_| {});
    until("the key", || (get(&gateway, &key, "/v1/models").status == 200).then_some(()));
    let made = id(&ask(&gateway, &key, r#","background":true"#));
    let next = ask(&gateway, &key, &format!(r#","previous_response_id":"{made}""#));
    assert_eq!(next.status, 200);
    // It cannot be made away with before it is billed.
    let mut client = gateway.connect();
    let head = format!("DELETE /v1/responses/{made} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\r\n", gateway.address);
    client.write(head.as_bytes());
    let refused = client.response();
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (409, Some("response_not_billed")));
    let entries = until("both bills", || {
        let paid: Vec<_> = gateway.entries().into_iter().filter(|entry| entry.used.as_ref().is_some_and(|used| used.total.0 > 0)).collect();
        (paid.len() == 2).then_some(paid)
    });
    let ids: std::collections::HashSet<_> = entries.iter().map(|entry| entry.used.as_ref().unwrap().response_id.clone()).collect();
    assert!(ids.contains(&made) && ids.len() == 2, "{ids:?}");
}

#[test]
fn an_answer_made_in_the_background_is_remembered_before_its_caller_hears_of_it_and_limited() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = before(&a, &b, "keys: {}\nlimits: [{concurrent: 2}]");
    let key = gateway.add_key(|_| {});
    until("the key", || (get(&gateway, &key, "/v1/models").status == 200).then_some(()));
    let mut client = gateway.connect();
    let body = r#"{"model":"m","input":"x","background":1,"stream":true}"#;
    client.head(RESPONSES, &[("authorization", &format!("Bearer {key}"))], Some(body.len()));
    client.write(body.as_bytes());
    client.read(20);
    let requests = |upstream: &Upstream| upstream.requests.lock().unwrap().len();
    let made = if requests(&a) == 1 { "bg_a0" } else { "bg_b0" };
    // While the stream goes on, and after its caller has left.
    assert_eq!(id(&get(&gateway, &key, &format!("/v1/responses/{made}"))), made);
    drop(client);
    let other = ask(&gateway, &key, r#","background":true"#);
    assert_eq!(other.status, 200);
    // Two are being made: a third must wait until one is done and billed.
    assert_eq!(ask(&gateway, &key, "").status, 429);
    until("a place", || (ask(&gateway, &key, "").status == 200).then_some(()));
    let bill = until("the bill", || {
        gateway.entries().into_iter().find(|entry| entry.used.as_ref().is_some_and(|used| used.response_id == made && used.total.0 > 0))
    });
    assert_eq!(bill.used.unwrap().total.0, 30_000_000);
}

/// Streams an answer that is made in the background: its beginning, and its end, which may be waited for.
fn streaming(waits: bool) -> Upstream {
    let event = |kind: &str, status: &str| {
        let event = format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{}}}\n\n", response("bg_s", status));
        format!("{:x}\r\n{event}\r\n", event.len())
    };
    Upstream::start(move |request: &Request| {
        if request.line.starts_with("GET") {
            return document(&response("bg_s", "completed"));
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (first, last) = (event("response.created", "in_progress"), event("response.completed", "completed"));
        let wait = waits.then_some(Act::Wait);
        let first = std::iter::once(Act::Write((head.to_owned() + &first).into_bytes()));
        first.chain(wait).chain([Act::Write((last + "0\r\n\r\n").into_bytes())]).collect()
    })
}

#[test]
fn an_answer_made_in_the_background_and_streamed_is_paid_for_once_whoever_sees_its_end_first() {
    // The stream ends before anybody asks, and after the gateway has asked and billed.
    for waits in [false, true] {
        let (a, b) = (streaming(waits), streaming(waits));
        let gateway = before(&a, &b, "");
        let mut client = gateway.connect();
        let body = r#"{"model":"m","input":"x","background":true,"stream":true}"#;
        client.head(RESPONSES, &[], Some(body.len()));
        client.write(body.as_bytes());
        if waits {
            until("the bill", || background_entries(&gateway).into_iter().find(|(_, charge, _)| *charge > 0));
            a.go();
            b.go();
        }
        let answer = client.response();
        assert!(answer.text().contains("response.completed"), "{}", answer.text());
        let entries = until("both entries", || Some(background_entries(&gateway)).filter(|entries| entries.len() == 2));
        let mut charges: Vec<_> = entries.iter().map(|(_, charge, _)| *charge).collect();
        charges.sort_unstable();
        assert_eq!(charges, [0, 30_000_000], "{entries:?}");
    }
}

#[test]
fn an_answer_made_in_the_background_is_billed_though_its_caller_never_learns_its_name() {
    let slow = || {
        Upstream::start(|request: &Request| {
            if request.line.starts_with("GET") {
                return document(&response("bg_l", "completed"));
            }
            std::iter::once(Act::Wait).chain(document(&response("bg_l", "queued"))).collect()
        })
    };
    let (a, b) = (slow(), slow());
    let gateway = before(&a, &b, "");
    let mut client = gateway.connect();
    let body = r#"{"model":"m","input":"x","background":true}"#;
    client.head(RESPONSES, &[], Some(body.len()));
    client.write(body.as_bytes());
    until("the request", || (a.requests.lock().unwrap().len() + b.requests.lock().unwrap().len() == 1).then_some(()));
    drop(client);
    // Time to notice.
    std::thread::sleep(Duration::from_millis(300));
    a.go();
    b.go();
    let bill = until("the bill", || background_entries(&gateway).into_iter().find(|(_, charge, _)| *charge > 0));
    assert_eq!(bill, (Some(Source::Reported), 30_000_000, Outcome::Ok));
}
