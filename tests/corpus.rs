//! Recorded exchanges with real providers must meter to exactly the usage they state, whole and cut at every byte.
//! The recordings are not part of the repository: `TOLLGATE_CORPUS` names their folder, and without it these tests
//! say that they were skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use base64::Engine;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufRead;
use tollgate::config::Upstream;
use tollgate::dialect::{Dialect, INVOKE_HEADERS};
use tollgate::exchange::settle::{Markups, Terms, settle};
use tollgate::meter::{Framing, Meter, RoundKind};
use tollgate::price::{Catalog, Moment, Tolerance};
use tollgate::provider::{self, CHAT_COMPATIBLE, Provider};
use tollgate::stream::event_stream::EventStream;
use tollgate::stream::sse::{Sniffer, Sse};
use tollgate::usage::{Convention, Dimension, Reported, Usage};

struct Record {
    id: String,
    dialect: Dialect,
    provider: &'static Provider,
    /// That the request names, in its body or path.
    model: String,
    convention: Convention,
    framing: Framing,
    embeds: bool,
    /// Usage in the headers.
    stated: Reported,
    billed: bool,
    body: Vec<u8>,
    want: Value,
}

impl Record {
    fn meter(&self) -> Meter {
        let mut meter = Meter::new(self.dialect.grammar(), self.framing.clone());
        meter.stated(&self.stated);
        meter
    }
}

fn lines(name: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("TOLLGATE_CORPUS")?;
    let file = std::fs::File::open(std::path::Path::new(&folder).join(name)).expect("the corpus");
    Some(std::io::BufReader::new(file).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect())
}

/// The model that a request names.
fn requested(request: &Value) -> String {
    let path = request["path"].as_str().unwrap_or_default();
    let in_path = ["/models/", "/model/"].iter().find_map(|before| path.split_once(before)).map(|(_, rest)| rest);
    let model = in_path.and_then(|rest| rest.split([':', '/', '?']).next());
    let body = request["body"]["model"].as_str().or_else(|| request["body"].as_str().and(None));
    percent_encoding::percent_decode_str(body.or(model).unwrap_or_default()).decode_utf8_lossy().into_owned()
}

/// Every record.
fn records() -> Option<Vec<Record>> {
    let wants = lines("expected.jsonl")?;
    let records = lines("exchanges.jsonl")?.into_iter().zip(wants).map(|(record, want)| {
        let api = record["api"].as_str().unwrap();
        let provider = record["provider"].as_str().unwrap();
        let dialect = match (api, provider) {
            ("embeddings" | "count_tokens", "googleai" | "vertex") | ("generate_content", _) => Dialect::Generate,
            ("embeddings", "bedrock") | ("invoke_model", _) => Dialect::Invoke,
            ("count_tokens", "bedrock") | ("converse", _) => Dialect::Converse,
            ("cohere_chat", _) => Dialect::Cohere,
            ("count_tokens", "anthropic") => Dialect::Messages,
            ("count_tokens", "openai") => Dialect::Responses,
            ("chat_completions", _) => Dialect::Chat,
            ("responses" | "responses_retrieve", _) => Dialect::Responses,
            ("embeddings", _) => Dialect::Embeddings,
            ("messages", _) => Dialect::Messages,
            _ => panic!("{} is an API nobody knows", record["id"]),
        };
        let provider: &'static Provider = provider::find(provider).unwrap_or(&CHAT_COMPATIBLE);
        let mut stated = Reported::default();
        for (name, field) in &INVOKE_HEADERS {
            if let Some(count) = record["response"]["headers"][name.as_str()].as_str().filter(|_| dialect == Dialect::Invoke) {
                stated.set(*field, count.parse().unwrap());
            }
        }
        Record {
            stated,
            id: record["id"].as_str().unwrap().to_owned(),
            dialect,
            provider,
            model: requested(&record["request"]),
            convention: provider.convention(dialect),
            framing: match record["response"]["framing"].as_str() {
                Some("sse") => Framing::Sse(Sse::default()),
                Some("aws_eventstream") => Framing::EventStream(EventStream::default()),
                _ => Framing::Undecided(Sniffer::default()),
            },
            embeds: api == "embeddings",
            billed: api != "count_tokens" && record["response"]["status"].as_u64() < Some(400),
            body: base64::engine::general_purpose::STANDARD.decode(record["response"]["body_b64"].as_str().unwrap_or("")).unwrap(),
            want,
        }
    });
    Some(records.collect())
}

fn skipped() {
    println!("skipped: TOLLGATE_CORPUS is not set");
}

fn main_usage(meter: &Meter, convention: Convention) -> Usage {
    meter.found().reported.settle(convention).0
}

fn totals(usage: &Usage) -> [(&'static str, Option<u64>); 7] {
    use Dimension::{AudioIn, AudioOut, CacheRead, CacheReadAudio, CacheWrite1h, CacheWrite5m, Input, Reasoning};
    let input = usage.sum(Dimension::is_input);
    [
        ("input_tokens_total", input),
        ("input_tokens_uncached", usage.sum(|d| d.is_input() && !matches!(d, CacheRead | CacheReadAudio | CacheWrite5m | CacheWrite1h))),
        ("cache_read_tokens", usage.sum(|d| matches!(d, CacheRead | CacheReadAudio))),
        ("cache_write_tokens", usage.sum(|d| matches!(d, CacheWrite5m | CacheWrite1h))),
        ("output_tokens_total", usage.sum(Dimension::is_output)),
        ("reasoning_tokens", usage.of(Reasoning)),
        // As the recordings count them, cached ones are among them.
        ("audio_input_tokens", usage.sum(|d| matches!(d, AudioIn | CacheReadAudio)).filter(|_| usage.of(Input).is_some())),
    ]
    .map(|pair| if pair.0 == "audio_output_tokens" { (pair.0, usage.of(AudioOut)) } else { pair })
}

/// The differences between what was metered and what is expected; ambiguous fields do not count.
fn differences(record: &Record, meter: &Meter) -> Vec<String> {
    let want = &record.want;
    // One recording counts the same tokens as read and as written, and expects a negative remainder.
    let overlap = want["input_tokens_uncached"].as_i64() < Some(0);
    let ambiguous = |name: &str| {
        want["ambiguous"].as_array().unwrap().iter().any(|field| field == name) || (overlap && name.starts_with("input_tokens"))
    };
    let mut out = vec![];
    let mut compare = |scope: &str, name: &str, got: Option<u64>, expected: Option<u64>| {
        if got != expected && !ambiguous(name) && !ambiguous(scope) {
            out.push(format!("{}: {scope} {name}: metered {got:?}, expected {expected:?}", record.id));
        }
    };
    if !record.billed {
        // A count of tokens, or a refusal: whatever numbers stand there, nothing is to be charged.
        return out;
    }
    for (name, got) in totals(&main_usage(meter, record.convention)) {
        // An embedding has no output; the recordings say 0 where the response says nothing.
        let got = if record.embeds && name == "output_tokens_total" { got.or(want[name].as_u64()) } else { got };
        compare("usage", name, got, want[name].as_u64());
    }
    let usage = main_usage(meter, record.convention);
    for (name, dimension) in [("cache_write_5m_tokens", Dimension::CacheWrite5m), ("cache_write_1h_tokens", Dimension::CacheWrite1h)] {
        if want[name].is_u64() {
            compare("usage", name, usage.of(dimension), want[name].as_u64());
        }
    }
    let (all, ..) = meter.found().served();
    for (name, got) in totals(&all.settle(record.convention).0) {
        if want["billed"].get(name).is_some() && !record.embeds {
            compare("billed", name, got, want["billed"][name].as_u64());
        }
    }
    let others = want["billed_other_models"].as_array().unwrap();
    let rounds: Vec<_> = meter.found().rounds.iter().filter(|round| matches!(round.kind, RoundKind::Other | RoundKind::Declined)).collect();
    assert_eq!(rounds.len(), others.len(), "{}", record.id);
    for (round, other) in rounds.into_iter().zip(others) {
        assert_eq!(Some(round.model.as_str()), other["model"].as_str(), "{}", record.id);
        for (name, got) in totals(&round.reported.settle(record.convention).0) {
            if let Some(expected) = other.get(name) {
                compare("other model", name, got, expected.as_u64());
            }
        }
    }
    for (name, got) in [("model_reported", &meter.found().model), ("response_id", &meter.found().id)] {
        if !ambiguous(name) && want[name].as_str().is_some_and(|want| want != got) {
            out.push(format!("{}: {name}: {got}, expected {}", record.id, want[name]));
        }
    }
    out
}

fn meter_of(record: &Record, parts: &mut dyn Iterator<Item = &[u8]>) -> Meter {
    let mut meter = record.meter();
    parts.for_each(|part| meter.push(part, |_| {}));
    meter.finish(true);
    meter
}

#[test]
fn meters_every_record_whole_and_by_the_byte() {
    let Some(records) = records() else { return skipped() };
    let mut wrong = vec![];
    for record in &records {
        wrong.extend(differences(record, &meter_of(record, &mut std::iter::once(&record.body[..]))));
        wrong.extend(differences(record, &meter_of(record, &mut record.body.chunks(1))));
        wrong.extend(differences(record, &meter_of(record, &mut record.body.chunks(7))));
    }
    assert!(wrong.is_empty(), "{} of {} records:\n{}", wrong.len(), records.len(), wrong.join("\n"));
    println!("{} records", records.len());
}

/// Cuts past this are sampled, and so are those of bodies that are one document.
const EVERY_CUT_BYTES_MAX: usize = 64 * 1024;

#[test]
fn meters_every_record_cut_anywhere() {
    let Some(records) = records() else { return skipped() };
    let (mut cuts, mut wrong) = (0, vec![]);
    for record in &records {
        let whole = record.body.len() > EVERY_CUT_BYTES_MAX || matches!(record.framing, Framing::Undecided(_));
        let step = if whole { 1 + record.body.len() / 97 } else { 1 };
        let mut head = record.meter();
        for at in (0..record.body.len()).step_by(step) {
            let mut tail = head.clone();
            tail.push(&record.body[at..], |_| {});
            tail.finish(true);
            wrong.extend(differences(record, &tail).into_iter().map(|line| format!("{line} (cut at {at})")));
            head.push(&record.body[at..(at + step).min(record.body.len())], |_| {});
            cuts += 1;
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    println!("{cuts} cuts");
}

/// The marks of a record's entry.
fn marks(record: &Record, catalog: &Catalog) -> Vec<String> {
    let upstream = Upstream::of(record.provider, record.provider.id);
    let meter = meter_of(record, &mut std::iter::once(&record.body[..]));
    let terms = Terms {
        upstream: &upstream,
        catalog,
        convention: record.convention,
        model: &record.model,
        estimate: None,
        opening_only: false,
        asked_first: record.dialect == Dialect::Invoke,
        // 2026-11-25
        at: Moment { unix_s: 1_795_564_800 },
        markups: Markups::default(),
        tolerance: Tolerance::default(),
    };
    let (used, mut faults) = settle(meter.found(), &terms);
    meter.found().faults.iter().for_each(|fault| faults.add(fault));
    let mut marks: Vec<String> = faults.iter().map(|fault| fault.name().to_owned()).collect();
    marks.extend(used.unknown.iter().cloned());
    marks
}

/// Every mark that the recordings raise, of how many records, and why it is right.
const MARKS: &[(&str, usize, &str)] = &[
    (
        "cost_mismatch",
        5,
        "two prices changed after the recording, one model at two prices, and two responses with fees of plugins that no field states",
    ),
    ("cut_off", 2, "the stream ends with an error"),
    (
        "inconsistent",
        3,
        "more reasoning than output, a prompt that is read from and written to a cache at once, and a stream that opens with another input",
    ),
    ("tool.code_interpreter_call", 2, "its container has a fee by the session"),
    ("tool.image_generation_call", 3, "recorded before `tool_usage` stated the tokens of pictures"),
    ("tool.search", 2, "tools of Groq's compound models have fees"),
    ("tool.server_tool_use", 1, "the usage does not count the search"),
    ("tool.server_tool_use.bash_code_execution", 14, "charged by the hour beyond an allowance"),
    ("tool.server_tool_use.code_execution", 1, "charged by the hour beyond an allowance"),
    ("tool.server_tool_use.nova_code_interpreter", 1, "Nova's tools have fees"),
    ("tool.server_tool_use.text_editor_code_execution", 2, "charged by the hour beyond an allowance"),
    ("tool.visit", 1, "tools of Groq's compound models have fees"),
    ("unknown_tier", 3, "OpenRouter's provisioned capacity"),
    ("unknown_tool", 26, "one of the tools above"),
];

#[test]
fn recordings_raise_these_marks_alone() {
    let Some(records) = records() else { return skipped() };
    let catalog = tollgate::price::embedded().unwrap();
    let mut raised: BTreeMap<String, usize> = BTreeMap::new();
    for record in records.iter().filter(|record| record.billed) {
        for mark in marks(record, &catalog) {
            println!("{}: {mark}", record.id);
            *raised.entry(mark).or_default() += 1;
        }
    }
    let known: BTreeMap<String, usize> = MARKS.iter().map(|(mark, records, _)| ((*mark).to_owned(), *records)).collect();
    assert_eq!(raised, known);
}
