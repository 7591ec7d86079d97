//! Hand-written responses, one folder a dialect: each meters to what its head says, whole and cut at every byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine;
use serde_json::{Value, json};
use std::path::Path;
use tollgate::config::Upstream;
use tollgate::dialect::Dialect;
use tollgate::exchange::settle::{Markups, Terms, settle};
use tollgate::meter::{Framing, Meter};
use tollgate::price::{Catalog, Moment, embedded};
use tollgate::provider::{self, Provider};
use tollgate::stream::event_stream::EventStream;
use tollgate::stream::sse::Sniffer;
use tollgate::usage::Usage;

struct Fixture {
    name: String,
    dialect: Dialect,
    provider: &'static Provider,
    want: Value,
    /// That was asked for.
    model: String,
    framing: Framing,
    body: Vec<u8>,
}

/// Event-stream messages out of lines of kind, type and payload, as AWS's own crate writes them. A `chunk` wraps its
/// payload in base64. With `damaged` a bit of the last payload is wrong.
fn messages(text: &str, damaged: bool) -> Vec<u8> {
    let mut out = vec![];
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (name, payload) = if kind == "chunk" {
            let bytes = base64::engine::general_purpose::STANDARD.encode(rest);
            ("chunk", json!({"bytes": bytes, "p": "abcd"}).to_string())
        } else {
            let (name, payload) = rest.split_once(' ').unwrap();
            (name, payload.to_owned())
        };
        let (message_type, header) = match kind {
            "exception" => ("exception", ":exception-type"),
            "error" => ("error", ":error-code"),
            _ => ("event", ":event-type"),
        };
        let text = |text: &str| HeaderValue::String(text.to_owned().into());
        let message = Message::new(payload.into_bytes())
            .add_header(Header::new(header.to_owned(), text(name)))
            .add_header(Header::new(":content-type", text("application/json")))
            .add_header(Header::new(":message-type", text(message_type)));
        write_message_to(&message, &mut out).unwrap();
    }
    if damaged {
        let at = out.len() - 6;
        out[at] ^= 1;
    }
    out
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut out = vec![];
    for dialect in Dialect::ALL {
        for entry in std::fs::read_dir(root.join(dialect.name())).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let (head, body) = text.split_once("---\n").unwrap();
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let framing = match field("framing") {
                Some("messages") => Framing::EventStream(EventStream::default()),
                _ => Framing::Undecided(Sniffer::default()),
            };
            let body = match field("newline") {
                Some("crlf") => body.replace('\n', "\r\n"),
                Some("cr") => body.replace('\n', "\r"),
                _ => body.to_owned(),
            };
            out.push(Fixture {
                name: path.display().to_string(),
                dialect: *dialect,
                provider: provider::find(field("provider").unwrap()).unwrap(),
                model: field("model").unwrap_or_default().to_owned(),
                want: serde_json::from_str(field("want").unwrap()).unwrap(),
                body: match framing {
                    Framing::EventStream(_) => messages(&body, field("damaged").is_some()),
                    _ => body.into_bytes(),
                },
                framing,
            });
        }
    }
    out
}

/// What was metered, limited to the keys the fixture asks about.
fn metered(fixture: &Fixture, meter: &Meter, catalog: &Catalog) -> Value {
    let upstream = Upstream::of(fixture.provider, fixture.provider.id);
    let convention = fixture.provider.convention(fixture.dialect);
    // 2026-11-25
    let at = Moment { unix_s: 1_795_564_800 };
    let (used, mut faults) = settle(
        meter.found(),
        &Terms {
            upstream: &upstream,
            catalog,
            convention,
            model: &fixture.model,
            estimate: None,
            opening_only: false,
            asked_first: false,
            at,
            markups: Markups::default(),
            tolerance: tollgate::price::Tolerance::default(),
        },
    );
    meter.found().faults.iter().for_each(|fault| faults.add(fault));
    let empty = Usage::default();
    let main = used.lines.first().map_or(&empty, |line| &line.usage);
    let others: serde_json::Map<_, _> = used.lines.iter().skip(1).map(|line| (line.model.clone(), json!(line.usage))).collect();
    let found = meter.found();
    let all = json!({
        "model": found.model, "id": found.id, "tier": found.tier, "usage": main, "others": others, "cost": used.provider_cost,
        "error": found.error, "done": found.ended, "total": used.total.to_string(), "unknown": used.unknown, "source": used.source.name(),
        "unpriced": used.lines.first().map(|line| line.unpriced.clone()).unwrap_or_default(),
        "faults": faults.iter().map(|fault| fault.name()).filter(|name| *name != "cut_off").collect::<Vec<_>>(),
    });
    let mut asked = serde_json::Map::new();
    for key in fixture.want.as_object().unwrap().keys() {
        asked.insert(key.clone(), all[key].clone());
    }
    Value::Object(asked)
}

#[test]
fn every_fixture_meters_to_what_it_says_wherever_it_is_cut() {
    let catalog = embedded().unwrap();
    let fixtures = fixtures();
    assert!(fixtures.len() >= 170, "{} fixtures", fixtures.len());
    for fixture in &fixtures {
        let run = |parts: &[&[u8]]| {
            let mut meter = Meter::new(fixture.dialect.grammar(), fixture.framing.clone());
            parts.iter().for_each(|part| meter.push(part, |_| {}));
            meter.finish(true);
            metered(fixture, &meter, &catalog)
        };
        assert_eq!(run(&[&fixture.body]), fixture.want, "{}", fixture.name);
        for at in 1..fixture.body.len() {
            let (head, tail) = fixture.body.split_at(at);
            assert_eq!(run(&[head, tail]), fixture.want, "{} cut at {at}", fixture.name);
        }
        assert_eq!(run(&fixture.body.chunks(1).collect::<Vec<_>>()), fixture.want, "{} by the byte", fixture.name);
    }
}

#[test]
fn fixtures_have_no_faults_but_those_they_show() {
    let catalog = embedded().unwrap();
    for fixture in fixtures().iter().filter(|fixture| fixture.want.get("faults").is_none()) {
        let mut meter = Meter::new(fixture.dialect.grammar(), fixture.framing.clone());
        meter.push(&fixture.body, |_| {});
        meter.finish(true);
        let with_faults = Fixture {
            want: json!({"faults": []}),
            name: fixture.name.clone(),
            model: fixture.model.clone(),
            body: vec![],
            framing: fixture.framing.clone(),
            ..*fixture
        };
        assert_eq!(metered(&with_faults, &meter, &catalog), json!({"faults": []}), "{}", fixture.name);
    }
}
