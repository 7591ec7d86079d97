//! What an entry looks like, to the byte, and its schema: others read both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use serde_json::Value;
use std::collections::BTreeSet;
use tollgate::ledger::{Close, Entry, Event, Line, Open, Outcome, Rendered, Source, Used, write_entry};
use tollgate::meter::Fault;
use tollgate::price::PicoUsd;
use tollgate::usage::Dimension;

/// An entry with everything in it.
fn full() -> Entry {
    let text = |text: &str| text.to_owned();
    let line = Line {
        model: text("gpt-5-2025-08-07"),
        service_tier: text("flex"),
        region: text("us"),
        usage: Dimension::ALL.iter().copied().zip(1..).collect(),
        markup: Some(text("1.2")),
        charge: PicoUsd(1_234_567_890_123_456_789_012),
        unpriced: vec![text("web_search")],
        free: Some(text("refusal")),
    };
    let open = Open {
        request_id: text("01a21436-ffe1-7754-90cd-405830f72834"),
        attempt: 2,
        start_ms: 1_795_564_800_000,
        provider: text("openai"),
        upstream: text("openai-eu"),
        dialect: text("chat"),
        endpoint: text("/chat/completions"),
        model_requested: text("fast"),
        model: text("gpt-5"),
        stream: true,
        bytes_in: 512,
        billed: true,
        key: Some(text("cdc1f5a0ec617a89")),
        key_name: Some(text("checkout \"é\"")),
        org: Some(text("acme")),
        project: Some(text("shop")),
        user: Some(text("u-1")),
        tags: vec![text("team-a"), text("batch")],
        credential: Some(text("0123456789abcdef")),
    };
    let used = Used {
        reading: 3,
        source: Source::Reported,
        total: line.charge,
        lines: vec![line],
        catalog: text("genai-prices-0.2.3"),
        provider_cost: Some(text("0.0042")),
        response_id: text("chatcmpl-1"),
        unknown: vec!["usage.quantum_tokens".to_owned()],
    };
    let close = Close {
        end_ms: 1_795_564_801_500,
        first_byte_ms: Some(1_795_564_800_300),
        status: 200,
        outcome: Outcome::Truncated,
        error: Some(text("upstream_broken")),
        cause: Some(text("connection refused")),
        faults: Fault::ALL.iter().map(|fault| fault.name().to_owned()).collect(),
        bytes_out: 4096,
        metered: true,
        last_reading: Some(3),
        complete: true,
    };
    Entry { id: text("01a21436-ffe1-7754-90cd-405953c1d3f9"), open, used: Some(used), close: Some(close) }
}

fn rendered(entry: &Entry) -> String {
    let records = [
        Rendered::of(&Event::Open(Box::new(entry.open.clone()))),
        Rendered::of(&Event::Usage(entry.used.clone().unwrap())),
        Rendered::of(&Event::Close(entry.close.clone().unwrap())),
    ];
    let mut out = vec![];
    write_entry(&entry.id, records.iter(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_entry_looks_as_it_did() {
    assert_eq!(rendered(&full()), include_str!("golden/entry.json"));
}

/// What is rendered by hand is what is serialized, and no key stands there twice.
#[test]
fn it_reads_as_what_it_is() {
    let (entry, text) = (full(), rendered(&full()));
    let by_hand: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(by_hand, serde_json::to_value(&entry).unwrap());
    let keys = by_hand.as_object().unwrap().keys();
    keys.for_each(|key| assert!(text.matches(&format!("\"{key}\":")).count() <= 1 + usize::from(matches!(key.as_str(), "model")), "{key}"));
}

#[test]
fn the_schema_knows_every_field() {
    let schema: Value = serde_json::from_str(include_str!("../docs/entry.schema.json")).unwrap();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let entry: Value = serde_json::from_str(&rendered(&full())).unwrap();
    assert_eq!(names(&entry), names(&schema["properties"]));
    let line = &schema["$defs"]["line"]["properties"];
    assert_eq!(names(&entry["lines"][0]), names(line));
    let dimensions: Vec<_> = Dimension::ALL.iter().map(|dimension| dimension.name()).collect();
    assert_eq!(line["usage"]["propertyNames"]["enum"], serde_json::json!(dimensions));
    let sources: Vec<_> = Source::ALL.iter().map(|source| source.name()).collect();
    assert_eq!(schema["properties"]["source"]["enum"], serde_json::json!(sources));
    let outcomes: Vec<_> = Outcome::ALL.iter().filter(|outcome| **outcome != Outcome::Interrupted).map(|outcome| outcome.name()).collect();
    assert_eq!(schema["properties"]["outcome"]["enum"], serde_json::json!(outcomes));
}
