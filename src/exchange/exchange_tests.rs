use super::heads::without_keys;
use super::*;
use crate::config::{Source, load};
use crate::ledger::{self, Outcome};
use crate::usage::Dimension;
use http::header;

fn asked(id: &str) -> Asked {
    Asked { request_id: id.to_owned(), ..Asked::default() }
}

fn exchange(path: &str, body: &str) -> Box<Exchange> {
    let config = Arc::new(load(&Source::Embedded, &|_| None).unwrap());
    let headers = HeaderMap::new();
    let head = Head { method: &Method::POST, path, query: Some("beta=true"), headers: &headers };
    let destination = route::destination(&head, &config).unwrap();
    Exchange::plan(&head, destination, &Bytes::from(body.to_owned()), config, asked("request")).unwrap()
}

fn content_type(kind: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())])
}

const STREAM: &[&str] = &[
    "data: {\"id\":\"c1\",\"model\":\"mock-small\",\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c1\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":200,\"total_tokens\":1200,\"prompt_tokens_details\":{\"cached_tokens\":500}}}\n\n",
    "data: [DONE]\n\n",
];

#[test]
fn a_stream_is_billed_before_its_end_leaves_and_the_callers_view_is_its_own() {
    let mut exchange = exchange("/v1/chat/completions", r#"{"model":"mock/mock-small","stream":true}"#);
    assert!(std::str::from_utf8(exchange.body()).unwrap().contains(r#""model":"mock-small""#));
    assert_eq!(exchange.path_and_query(), "/v1/chat/completions?beta=true");
    exchange.attempt(5);
    exchange.respond(200, &content_type("text/event-stream; charset=utf-8"));
    let (mut out, mut news) = (String::new(), vec![]);
    for chunk in STREAM {
        let forward = exchange.push(Bytes::from_static(chunk.as_bytes()), false, 9);
        if let Some(record) = exchange.news(9) {
            news.push((out.clone(), record.1.clone()));
        }
        out.push_str(std::str::from_utf8(&forward).unwrap());
    }
    assert_eq!(out, [STREAM[0], STREAM[1], STREAM[3]].concat());
    // Once, and before [DONE] was let out.
    assert_eq!(news.len(), 1);
    assert!(!news[0].0.contains("DONE"));
    let closed = exchange.close(&Ending::Complete, 20).unwrap();
    let used = closed.entry.used.as_ref().unwrap();
    // 500 at $1, 500 at $0.1, 200 at $5 per million.
    assert_eq!((used.total.to_string().as_str(), used.source), ("0.00155", ledger::Source::Reported));
    assert_eq!((closed.entry.open.model_requested.as_str(), closed.entry.open.attempt), ("mock/mock-small", 1));
    let close = closed.entry.close.as_ref().unwrap();
    assert_eq!((close.outcome, close.first_byte_ms, close.faults.len()), (Outcome::Ok, Some(9), 0));
    assert!(closed.usage_news().is_none() && !exchange.is_open());
}

#[test]
fn a_caller_that_leaves_gets_an_entry_with_what_was_known() {
    let mut exchange = exchange("/v1/messages", r#"{"model":"mock-small","stream":true,"messages":[]}"#);
    exchange.attempt(1);
    exchange.respond(200, &content_type("text/event-stream"));
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"model\":\"mock-small\",\"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n";
    exchange.push(Bytes::from_static(start.as_bytes()), false, 2);
    let delta = r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"twelve bytes"}}"#;
    exchange.push(Bytes::from(format!("{delta}\n\n")), false, 2);
    assert!(exchange.news(2).is_none());
    let closed = exchange.close(&Ending::ClientClosed, 3).unwrap();
    assert!(closed.usage_news().is_some());
    let used = closed.entry.used.as_ref().unwrap();
    assert_eq!(used.source, ledger::Source::Partial);
    let usage = &used.lines[0].usage;
    // The output count in the opening is a placeholder; the text says three tokens, at $5 per million.
    assert_eq!((usage.of(Dimension::Input), usage.of(Dimension::Output)), (Some(100), Some(3)));
    assert_eq!(used.total.to_string(), "0.000115");
    assert_eq!(closed.entry.outcome(), Outcome::ClientClosed);
}

#[test]
fn the_prompt_of_who_leaves_before_the_answer_is_owed_once_it_went_up() {
    let body = r#"{"model":"mock-small","messages":[{"role":"user","content":"Say something."}]}"#;
    for (sent, ending, source) in [
        (true, Ending::ClientClosed, Some(ledger::Source::Estimated)),
        (false, Ending::ClientClosed, None),
        (true, Ending::Failed(Error::UpstreamBroken { provider: "p".to_owned() }), None),
    ] {
        let mut exchange = exchange("/v1/chat/completions", body);
        exchange.attempt(1);
        exchange.sent(sent);
        let closed = exchange.close(&ending, 2).unwrap();
        let used = closed.entry.used.as_ref();
        assert_eq!(used.map(|used| used.source), source, "{ending:?}");
        assert_eq!(closed.entry.close.as_ref().unwrap().metered, source.is_some());
        if let Some(used) = used {
            let usage = &used.lines[0].usage;
            let prompt = crate::meter::prompt_tokens(body.as_bytes());
            assert_eq!((usage.of(Dimension::Input), usage.of(Dimension::Output)), (Some(prompt), Some(0)));
            assert!(used.total.0 > 0 && closed.usage_news().is_some());
        }
    }
}

#[test]
fn who_leaves_before_the_answer_owes_what_the_request_says_or_nothing_is_known() {
    let row = |path: &str, body: &str| {
        let mut exchange = exchange(path, body);
        exchange.attempt(1);
        exchange.sent(true);
        let closed = exchange.close(&Ending::ClientClosed, 2).unwrap();
        let characters = closed.entry.used.as_ref().and_then(|used| used.lines.first()?.usage.of(Dimension::Characters));
        let close = closed.entry.close.unwrap();
        (characters, close.metered, close.faults)
    };
    let speech = row("/v1/audio/speech", r#"{"model":"mock-tts","voice":"a","input":"seven c"}"#);
    assert_eq!(speech, (Some(7), true, vec![]));
    assert_eq!(row("/v1/embeddings", r#"{"model":"mock-small","input":"a"}"#), (None, false, vec![]));
    let google = row("/v1beta/models/mock-small:embedContent", r#"{"content":{"parts":[{"text":"a"}]}}"#);
    assert_eq!(google, (None, false, vec![]));
}

#[test]
fn outcomes_tell_how_it_ended() {
    let ok = r#"{"id":"c","model":"mock-small","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    let rows: &[(u16, &str, Ending, Outcome, ledger::Source)] = &[
        (200, ok, Ending::Complete, Outcome::Ok, ledger::Source::Reported),
        (200, &ok[..40], Ending::Complete, Outcome::Truncated, ledger::Source::Estimated),
        (200, "{}", Ending::Complete, Outcome::Ok, ledger::Source::None),
        (200, r#"{"choices":[{"message":{"content":"text"}}]}"#, Ending::Complete, Outcome::Ok, ledger::Source::Estimated),
        (
            200,
            r#"{"choices":[{"message":{"content":"text"}}],"usage":{"prompt_tokens":9}}"#,
            Ending::Complete,
            Outcome::Ok,
            ledger::Source::Partial,
        ),
        (200, r#"{"error":{"type":"overloaded_error"}}"#, Ending::ClientClosed, Outcome::UpstreamError, ledger::Source::None),
        (200, "", Ending::ClientClosed, Outcome::ClientClosed, ledger::Source::Estimated),
        (429, r#"{"error":{"code":"rate_limited"}}"#, Ending::Complete, Outcome::UpstreamError, ledger::Source::None),
        (200, r#"{"error":{"type":"overloaded_error"}}"#, Ending::Complete, Outcome::UpstreamError, ledger::Source::None),
        (200, "", Ending::Failed(Error::UpstreamTimeout { provider: "p".to_owned() }), Outcome::UpstreamError, ledger::Source::None),
        (200, &ok[..40], Ending::Failed(Error::UpstreamBroken { provider: "p".to_owned() }), Outcome::Truncated, ledger::Source::Estimated),
    ];
    for (status, body, ending, outcome, source) in rows {
        let mut exchange = exchange("/v1/chat/completions", r#"{"model":"mock-small"}"#);
        exchange.attempt(1);
        exchange.respond(*status, &content_type("application/json"));
        assert_eq!(exchange.push(Bytes::from((*body).to_owned()), true, 2), body.as_bytes());
        let closed = exchange.close(ending, 3).unwrap();
        let got = closed.entry.used.as_ref().map_or(ledger::Source::None, |used| used.source);
        assert_eq!((closed.entry.outcome(), got), (*outcome, *source), "{status} {body}");
    }
}

#[test]
fn what_was_generated_and_never_counted_is_estimated() {
    let body = r#"{"model":"mock-small","stream":true,"messages":[{"role":"user","content":"Say something."}]}"#;
    let text = "data: {\"id\":\"c\",\"model\":\"mock-small\",\"choices\":[{\"delta\":{\"content\":\"Something, then. \"}}]}\n\n";
    let error = "data: {\"error\":{\"message\":\"a long story of what went wrong\",\"type\":\"server_error\"}}\n\n";
    let broken = || Ending::Failed(Error::UpstreamBroken { provider: "p".to_owned() });
    // Seventeen characters are five tokens.
    for (events, ending, want) in [
        (vec![text, text], Ending::ClientClosed, Some(9)),
        (vec![text], broken(), Some(5)),
        (vec![text, error], Ending::Complete, Some(5)),
        (vec![error], Ending::Complete, None),
        (vec![text, "data: [DONE]\n\n"], Ending::Complete, Some(5)),
        (vec![], broken(), None),
    ] {
        let mut exchange = exchange("/v1/chat/completions", body);
        exchange.attempt(1);
        exchange.respond(200, &content_type("text/event-stream"));
        let prompt = (exchange.body().len() as u64).div_ceil(4);
        for event in &events {
            exchange.push(Bytes::from((*event).to_owned()), false, 2);
            exchange.drop_body();
        }
        let closed = exchange.close(&ending, 3).unwrap();
        let used = closed.entry.used.as_ref().unwrap();
        let usage = used.lines.first().map(|line| (line.usage.of(Dimension::Input), line.usage.of(Dimension::Output)));
        assert_eq!(usage, want.map(|want| (Some(prompt), Some(want))), "{events:?}");
        assert_eq!(used.source, if want.is_some() { ledger::Source::Estimated } else { ledger::Source::None });
        assert!(closed.usage_news().is_some());
        let close = closed.entry.close.unwrap();
        assert_eq!(close.last_reading, Some(used.reading));
    }
}

#[test]
fn counting_is_not_billed() {
    let mut exchange = exchange("/v1/messages/count_tokens", r#"{"model":"mock-small","messages":[]}"#);
    exchange.attempt(1);
    exchange.respond(200, &content_type("application/json"));
    exchange.push(Bytes::from_static(br#"{"input_tokens":5}"#), true, 2);
    let closed = exchange.close(&Ending::Complete, 3).unwrap();
    assert!(closed.entry.used.as_ref().is_none() && !closed.entry.open.billed);
}

#[test]
fn headers_name_the_tier_and_the_coding_of_a_response() {
    let nova = r#"{"usage":{"inputTokens":10,"outputTokens":5,"totalTokens":15,"service_tier":"standard"}}"#;
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[], "standard"),
        (&[("x-amzn-bedrock-service-tier", "flex")], "flex"),
        (&[("x-amzn-bedrock-performanceconfig-latency", "standard"), ("x-amzn-bedrock-service-tier", "priority")], "priority"),
        (&[("x-amzn-bedrock-performanceconfig-latency", "optimized")], "optimized"),
    ];
    for (extra, tier) in rows {
        let mut headers = content_type("application/json");
        for (name, value) in *extra {
            headers.insert(*name, value.parse().unwrap());
        }
        let mut meter = response_meter(crate::dialect::Dialect::Invoke, &headers, &Reported::default());
        meter.push(nova.as_bytes(), |_| {});
        meter.finish(true);
        assert_eq!(meter.found().tier, *tier, "{extra:?}");
    }
    for (coding, encoded) in
        [("identity", false), ("Identity", false), ("", false), ("identity, ", false), ("gzip", true), ("identity, gzip", true)]
    {
        let mut headers = content_type("application/json");
        headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
        let meter = response_meter(crate::dialect::Dialect::Chat, &headers, &Reported::default());
        assert_eq!(meter.found().faults.has(Fault::Encoded), encoded, "{coding}");
    }
}

/// Fireworks states cached tokens in a header: they are no usage by themselves.
#[test]
fn cached_tokens_of_a_header_replace_no_estimate() {
    let mut exchange = exchange("/v1/chat/completions", r#"{"model":"mock-small","stream":true,"messages":[]}"#);
    exchange.attempt(1);
    let mut headers = content_type("text/event-stream");
    headers.insert("fireworks-cached-prompt-tokens", "1".parse().unwrap());
    exchange.respond(200, &headers);
    exchange.push(
        Bytes::from_static(b"data: {\"id\":\"c\",\"model\":\"mock-small\",\"choices\":[{\"delta\":{\"content\":\"twelve chars\"}}]}\n\n"),
        false,
        2,
    );
    let closed = exchange.close(&Ending::ClientClosed, 3).unwrap();
    let used = closed.entry.used.unwrap();
    let usage = &used.lines[0].usage;
    assert_eq!((used.source, usage.of(Dimension::Output)), (ledger::Source::Estimated, Some(3)));
    assert!(usage.of(Dimension::Input).is_some_and(|input| input > 1));
}

#[test]
fn compressed_answers_pass_and_are_marked() {
    let mut exchange = exchange("/v1/chat/completions", r#"{"model":"mock-small"}"#);
    exchange.attempt(1);
    let mut headers = content_type("application/json");
    headers.insert(header::CONTENT_ENCODING, "deflate".parse().unwrap());
    exchange.respond(200, &headers);
    assert_eq!(&exchange.push(Bytes::from_static(b"\x78\x9c"), true, 2)[..], b"\x78\x9c");
    let closed = exchange.close(&Ending::Complete, 3).unwrap();
    assert!(closed.entry.close.unwrap().faults.contains(&"encoded".to_owned()));
}

#[test]
fn a_caller_that_leaves_after_the_last_event_has_not_left_early() {
    for (last, outcome) in [("data: [DONE]\n\n", Outcome::Ok), ("", Outcome::ClientClosed)] {
        let mut exchange =
            exchange("/v1/chat/completions", r#"{"model":"mock-small","stream":true,"stream_options":{"include_usage":true}}"#);
        exchange.attempt(1);
        exchange.respond(200, &content_type("text/event-stream"));
        exchange.push(Bytes::from([STREAM[0], STREAM[1], last].concat()), false, 2);
        let close = exchange.close(&Ending::ClientClosed, 3).unwrap().entry.close.unwrap();
        assert_eq!((close.outcome, close.faults.is_empty()), (outcome, outcome == Outcome::Ok));
    }
}

#[test]
fn usage_of_a_document_is_on_record_before_its_last_byte_leaves() {
    for (path, body) in [
        ("/v1/responses", r#"{"id":"r","model":"mock-small","output":[],"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}"#),
        ("/v1/embeddings", r#"{"data":[],"model":"mock-small","usage":{"prompt_tokens":1,"total_tokens":1}}"#),
    ] {
        let mut exchange = exchange(path, r#"{"model":"mock-small"}"#);
        exchange.attempt(1);
        exchange.respond(200, &content_type("application/json"));
        // Nobody has said that this is the end.
        exchange.push(Bytes::from_static(body.as_bytes()), false, 2);
        assert!(exchange.news(2).is_some(), "{path}");
    }
}

#[test]
fn usage_without_a_finish_is_on_record_when_the_body_ends() {
    let mut exchange = exchange("/v1/chat/completions", r#"{"model":"mock-small","stream":true,"stream_options":{"include_usage":true}}"#);
    exchange.attempt(1);
    exchange.respond(200, &content_type("text/event-stream"));
    exchange.push(Bytes::from_static(STREAM[2].as_bytes()), false, 2);
    assert!(exchange.news(2).is_none());
    exchange.push(Bytes::new(), true, 3);
    assert!(exchange.news(3).is_some());
}

#[test]
fn the_end_of_a_message_is_seen_however_it_is_cut() {
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for at in 0..=stop.len() {
        let mut exchange = exchange("/v1/messages", r#"{"model":"mock-small","stream":true,"messages":[]}"#);
        exchange.attempt(1);
        exchange.respond(200, &content_type("text/event-stream"));
        let start = "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"mock-small\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n";
        for part in [start, &stop[..at], &stop[at..]] {
            exchange.push(Bytes::from(part.to_owned()), false, 2);
        }
        assert_eq!(exchange.close(&Ending::ClientClosed, 3).unwrap().entry.outcome(), Outcome::Ok, "cut at {at}");
    }
}

#[test]
fn keys_in_the_query_stay_here() {
    for (query, want) in [
        ("key=k", ""),
        ("beta=true&key=k&a=b", "beta=true&a=b"),
        ("monkey=1&api-key=k", "monkey=1"),
        ("", ""),
        ("%6Bey=k&Key=k&oauth_token=t&X-Amz-Security-Token=t&alt=sse", "alt=sse"),
        ("fields=candidates&%24fields=x&alt=sse", "alt=sse"),
    ] {
        assert_eq!(without_keys(Dialect::Generate, query), want);
    }
    assert_eq!(without_keys(Dialect::Chat, "fields=a"), "fields=a");
}

#[test]
fn cache_reads_may_stand_in_a_header_alone() {
    let used = |details: &str| {
        let mut exchange = exchange("/v1/chat/completions", r#"{"model":"mock-small"}"#);
        exchange.attempt(1);
        let mut headers = content_type("application/json");
        headers.insert("fireworks-cached-prompt-tokens", "7".parse().unwrap());
        exchange.respond(200, &headers);
        let body = format!(r#"{{"id":"c","model":"mock-small","usage":{{"prompt_tokens":10,"completion_tokens":1{details}}}}}"#);
        exchange.push(body.into(), true, 2);
        let used = exchange.close(&Ending::Complete, 3).unwrap().entry.used.unwrap();
        [Dimension::Input, Dimension::CacheRead].map(|dimension| used.lines[0].usage.of(dimension))
    };
    assert_eq!(used(""), [Some(3), Some(7)]);
    // What the body says is right.
    assert_eq!(used(r#","prompt_tokens_details":{"cached_tokens":4}"#), [Some(6), Some(4)]);
}

#[test]
fn cache_reads_in_a_header_count_in_streams_before_the_end_leaves() {
    let mut exchange = exchange("/v1/chat/completions", r#"{"model":"mock-small","stream":true,"stream_options":{"include_usage":true}}"#);
    exchange.attempt(1);
    let mut headers = content_type("text/event-stream");
    headers.insert("fireworks-cached-prompt-tokens", "7".parse().unwrap());
    exchange.respond(200, &headers);
    let last = "data: {\"id\":\"c\",\"model\":\"mock-small\",\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1}}\n\n";
    for part in [last, "data: [DONE]\n\n"] {
        exchange.push(Bytes::from_static(part.as_bytes()), false, 2);
        exchange.news(2);
    }
    let used = exchange.close(&Ending::Complete, 3).unwrap().entry.used.unwrap();
    assert_eq!([Dimension::Input, Dimension::CacheRead].map(|dimension| used.lines[0].usage.of(dimension)), [Some(3), Some(7)]);
}

#[test]
fn a_placeholder_is_not_billed_whoever_wraps_it() {
    let mut exchange = exchange("/model/mock-small/invoke-with-response-stream", "{}");
    exchange.attempt(1);
    exchange.respond(200, &content_type("text/event-stream"));
    let start = "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"mock-small\",\"usage\":{\"input_tokens\":100,\"output_tokens\":7}}}\n\n";
    exchange.push(Bytes::from_static(start.as_bytes()), false, 2);
    let ending = Ending::Failed(Error::UpstreamBroken { provider: "mock".to_owned() });
    let used = exchange.close(&ending, 3).unwrap().entry.used.unwrap();
    assert_eq!([Dimension::Input, Dimension::Output].map(|dimension| used.lines[0].usage.of(dimension)), [Some(100), None]);
}

#[test]
fn a_bedrock_id_tells_the_price_and_the_answer_the_model() {
    let variables = |name: &str| match name {
        "AWS_REGION" => Some("us-east-1".to_owned()),
        "AWS_BEARER_TOKEN_BEDROCK" => Some("k".to_owned()),
        _ => None,
    };
    let config = Arc::new(load(&Source::Embedded, &variables).unwrap());
    let path = "/model/global.anthropic.claude-haiku-4-5-20251001-v1:0/invoke";
    let headers = HeaderMap::new();
    let head = Head { method: &Method::POST, path, query: None, headers: &headers };
    let destination = route::destination(&head, &config).unwrap();
    let mut exchange = Exchange::plan(&head, destination, &Bytes::from_static(b"{}"), config, asked("r")).unwrap();
    exchange.attempt(1);
    exchange.respond(200, &content_type("application/json"));
    let body = br#"{"model":"claude-haiku-4-5-20251001","type":"message","usage":{"input_tokens":100,"output_tokens":50}}"#;
    exchange.push(Bytes::from_static(body), true, 2);
    let used = exchange.close(&Ending::Complete, 3).unwrap().entry.used.unwrap();
    // A dollar per million in and five out; the same model within a region costs a tenth more.
    assert_eq!((used.lines[0].model.as_str(), used.total.0), ("claude-haiku-4-5-20251001", 350_000_000));
}

/// Whatever has become of the key that asked.
#[test]
fn an_answer_made_in_the_background_is_sold_to_whom_it_was_made_for() {
    let mut config = load(&Source::Embedded, &|_| None).unwrap();
    config.markups = vec![crate::price::Markup { provider: None, model: None, key: None, org: Some("acme".to_owned()), factor: 2.into() }];
    let mut meter = crate::meter::Meter::new(Dialect::Responses.grammar(), crate::meter::Framing::Whole);
    let body =
        r#"{"id":"resp_1","model":"mock-small","status":"completed","usage":{"input_tokens":10,"output_tokens":4,"total_tokens":14}}"#;
    meter.push(body.as_bytes(), |_| {});
    meter.finish(true);
    let charge = |org: Option<&str>| {
        let open =
            ledger::Open { upstream: "mock".to_owned(), model: "mock-small".to_owned(), org: org.map(str::to_owned), ..Default::default() };
        let kept = stored_response::StoredObject {
            id: "resp_1".to_owned(),
            upstream: "mock".to_owned(),
            owner: None,
            pending: Some(Box::new(open)),
        };
        stored_response::bill(&kept, meter.found(), &config, 1).unwrap().entry.used.unwrap().total.0
    };
    // Ten tokens at a dollar the million and four at five.
    assert_eq!((charge(None), charge(Some("acme"))), (30_000_000, 60_000_000));
}

#[test]
fn what_is_reserved_is_the_dearest_that_a_request_allows() {
    let path = std::env::temp_dir().join(format!("tollgate-reserved-{}.yaml", std::process::id()));
    std::fs::write(&path, "providers: {anthropic: {api_key: k}}\nlimits: [{per: all, usd_per_day: 1}]").unwrap();
    let config = Arc::new(load(&Source::File(path.clone()), &|_| None).unwrap());
    std::fs::remove_file(path).unwrap();
    let reserved = |body: &str| {
        let headers = HeaderMap::new();
        let head = Head { method: &Method::POST, path: "/v1/messages", query: None, headers: &headers };
        let destination = route::destination(&head, &config).unwrap();
        let exchange = Exchange::plan(&head, destination, &Bytes::from(body.to_owned()), config.clone(), asked("request")).unwrap();
        let input = crate::meter::prompt_tokens(exchange.body());
        (input, exchange.max_cost(1_795_564_800_000).spend)
    };
    // In millionths of a dollar per token: https://platform.claude.com/docs/en/about-claude/pricing, written to a cache in
    // the US, where the model may be bound to it.
    let rows = [
        (r#"{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[]}"#, 3.75, 15.0),
        (r#"{"model":"claude-opus-4-8","max_tokens":100,"messages":[]}"#, 6.25 * 1.1, 25.0 * 1.1),
        (r#"{"model":"claude-opus-4-8","max_tokens":100,"messages":[],"cache_control":{"type":"ephemeral","ttl":"1h"}}"#, 11.0, 27.5),
        (r#"{"model":"claude-opus-4-8","max_tokens":100,"messages":[],"speed":"fast"}"#, 12.5 * 1.1, 55.0),
    ];
    for (body, write, output) in rows {
        let (input, spend) = reserved(body);
        let want = (input as f64 * write + 100.0 * output) * 1e6;
        assert_eq!(spend.0, want.round() as i128, "{body}: {input} tokens");
    }
}
