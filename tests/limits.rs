//! Limits over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use support::{Act, Gateway, Response, Upstream, until};

const CHAT: &str = "/v1/chat/completions";
/// Ten tokens at a dollar the million, four at five.
const WHOLE: &str = r#"{"id":"c","model":"mock-x","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#;

fn whole() -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-ratelimit-remaining-requests: 7\r\nContent-Length: {}\r\n\r\n{WHOLE}",
        WHOLE.len()
    )
    .into_bytes()
}

fn ask(gateway: &Gateway, more: &str) -> Response {
    gateway.connect().request(CHAT, &[], format!(r#"{{"model":"mock-small","messages":[]{more}}}"#).as_bytes())
}

#[test]
fn who_asks_for_more_is_told_when_to_come_again() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::before(&upstream, "limits: [{per: all, requests_per_minute: 3}, {per: user, tokens_per_minute: 5000}]");
    for left in ["2", "1", "0"] {
        let answer = ask(&gateway, r#","max_tokens":100,"user":"u""#);
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, Some(left)));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("5000"));
    }
    let refused = ask(&gateway, "");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (429, Some("rate_limit_exceeded")));
    assert!((1..=20).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    let told = ["limit", "remaining"].map(|what| refused.header(&format!("x-ratelimit-{what}-requests")));
    assert_eq!(told, [Some("3"), Some("0")]);
    assert!(refused.header("x-ratelimit-reset-requests").unwrap().ends_with('s'));
    assert_eq!(upstream.requests.lock().unwrap().len(), 3);
    assert_eq!(gateway.closed_entries(3).len(), 3, "who is refused has no entry");
}

#[test]
fn tokens_are_reserved_by_what_a_request_allows_and_settled_by_what_it_used() {
    let upstream = Upstream::fixed(whole());
    let gateway = Gateway::before(&upstream, "limits: [{per: all, tokens_per_minute: 2000}]");
    // Each allows for more than half, and uses fourteen.
    for _ in 0..20 {
        let answer = ask(&gateway, r#","max_tokens":1500"#);
        assert_eq!(answer.status, 200, "{}", answer.text());
        until("the bill", || (ask(&gateway, r#","max_tokens":5000"#).status == 429).then_some(()));
    }
}

#[test]
fn no_more_at_once_than_may() {
    let answer = whole();
    let upstream = Upstream::start(move |_| vec![Act::Wait, Act::Write(answer.clone())]);
    let gateway = Gateway::before(&upstream, "limits: [{per: all, concurrent: 2}]");
    let mut clients = [gateway.connect(), gateway.connect()];
    for client in &mut clients {
        let body = r#"{"model":"mock-small","messages":[]}"#;
        client.head(CHAT, &[], Some(body.len()));
        client.write(body.as_bytes());
    }
    until("both requests", || (upstream.requests.lock().unwrap().len() == 2).then_some(()));
    assert_eq!(ask(&gateway, "").status, 429);
    upstream.go();
    upstream.go();
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    upstream.go();
    until("a place", || (ask(&gateway, "").status == 200).then_some(()));
}

#[test]
fn what_is_spent_is_spent_across_restarts_and_never_more() {
    let upstream = Upstream::fixed(whole());
    // Thirty millionths of a dollar each; sixteen tokens, written to a cache, and four may come to forty.
    let settings = "limits: [{per: all, usd_per_day: 0.00015}]";
    let spend = |gateway: &Gateway, times: usize| {
        let ask = |address| support::Client::new(address).post(CHAT, r#"{"model":"mock-small","max_tokens":4,"messages":["0123456789"]}"#);
        let address = gateway.address;
        let threads: Vec<_> = (0..times).map(|_| std::thread::spawn(move || ask(address).status)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|status| *status == 200).count()
    };
    let gateway = Gateway::before(&upstream, settings);
    assert_eq!(spend(&gateway, 3), 3);
    gateway.closed_entries(3);
    // Another process knows what was spent; of many that ask at once one finds room.
    let second = gateway.successor(&upstream, settings);
    assert_eq!(spend(&second, 20), 1);
    let refused = ask(&second, r#","max_tokens":4"#);
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (429, Some("insufficient_quota")));
}

#[test]
fn what_a_predecessor_still_spends_counts_at_its_successor() {
    let upstream = Upstream::start(|_| vec![Act::Wait, Act::Write(whole())]);
    // Room for four that may come to forty millionths each.
    let settings = "limits: [{per: all, usd_per_day: 0.00016}]";
    let body = r#"{"model":"mock-small","max_tokens":4,"messages":["0123456789"]}"#;
    let old = Gateway::before(&upstream, settings);
    let mut clients: Vec<_> = (0..4).map(|_| old.connect()).collect();
    for client in &mut clients {
        client.head(CHAT, &[], Some(body.len()));
        client.write(body.as_bytes());
    }
    until("all requests", || (upstream.requests.lock().unwrap().len() == 4).then_some(()));
    // It begins while four are under way there, which will cost thirty millionths of a dollar each.
    let new = old.successor(&upstream, settings);
    // One pass each; whose it is does not matter.
    (0..4).for_each(|_| upstream.go());
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    old.closed_entries(4);
    // It looks twice a second.
    std::thread::sleep(std::time::Duration::from_secs(2));
    upstream.go();
    let dearer = body.replace("\"max_tokens\":4", "\"max_tokens\":9");
    assert_eq!(new.connect().post(CHAT, &dearer).status, 429, "there is room for forty millionths, and it may come to 65");
}

#[test]
fn model_without_a_price_is_refused_where_a_budget_holds() {
    for (policy, want) in [("", 400), ("\nunpriced_models: allow", 200)] {
        let upstream = Upstream::fixed(whole());
        let gateway = Gateway::before(&upstream, &format!("limits: [{{per: all, usd_per_day: 1}}]{policy}"));
        let answer = gateway.connect().request(CHAT, &[], br#"{"model":"unknown-model","messages":[]}"#);
        assert_eq!(answer.status, want, "{}", answer.text());
        if want == 400 {
            let error = &answer.json()["error"];
            assert_eq!(error["code"].as_str(), Some("model_not_priced"));
            assert!(error["message"].as_str().unwrap().contains("`unknown-model`"), "{error}");
            assert_eq!(upstream.requests.lock().unwrap().len(), 0);
        }
        assert_eq!(ask(&gateway, r#","max_tokens":10"#).status, 200);
    }
}

#[test]
fn reservation_stands_if_the_cost_stays_unknown() {
    // The response states no usage and has no text to estimate it from.
    let bare = r#"{"id":"c","model":"mock-small","choices":[]}"#;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{bare}", bare.len());
    for (answer, later) in [(head.into_bytes(), 429), (whole(), 200)] {
        let upstream = Upstream::fixed(answer);
        // A request reserves 1,000 tokens of output at $5 the million: half a cent.
        let gateway = Gateway::before(&upstream, "limits: [{per: all, usd_per_day: 0.006}]");
        assert_eq!(ask(&gateway, r#","max_tokens":1000"#).status, 200);
        gateway.closed_entries(1);
        assert_eq!(ask(&gateway, r#","max_tokens":1000"#).status, later);
    }
}
