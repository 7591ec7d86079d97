//! Whatever a provider adds to its usage, its tools or its tiers, the entry is marked and the known numbers stay. Over the fixtures here,
//! and over recorded exchanges where `TOLLGATE_CORPUS` names them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use base64::Engine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use tollgate::dialect::Dialect;
use tollgate::meter::{Fault, Framing, Meter};
use tollgate::stream::sse::Sniffer;

/// A response as its JSON documents: one, or the events of a stream.
#[derive(Clone)]
struct Sample {
    name: String,
    dialect: Dialect,
    events: Vec<Value>,
    stream: bool,
}

impl Sample {
    fn of(name: String, dialect: Dialect, body: &str) -> Option<Self> {
        if let Ok(document) = serde_json::from_str::<Value>(body) {
            return document.is_object().then(|| Self { name, dialect, events: vec![document], stream: false });
        }
        let data = body.lines().filter_map(|line| line.strip_prefix("data:"));
        let events: Vec<Value> = data.filter_map(|data| serde_json::from_str(data).ok()).collect();
        (!events.is_empty()).then_some(Self { name, dialect, events, stream: true })
    }

    fn meter(&self) -> Meter {
        let mut meter = Meter::new(self.dialect.grammar(), Framing::Undecided(Sniffer::default()));
        for event in &self.events {
            let text = if self.stream { format!("data: {event}\n\n") } else { event.to_string() };
            meter.push(text.as_bytes(), |_| {});
        }
        meter.finish(true);
        meter
    }
}

/// The fixtures, and what was recorded.
fn samples() -> Vec<Sample> {
    let mut samples = vec![];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for dialect in Dialect::ALL {
        for entry in std::fs::read_dir(root.join(dialect.name())).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            samples.extend(Sample::of(path.display().to_string(), *dialect, text.split_once("---\n").unwrap().1));
        }
    }
    let Some(corpus) = std::env::var_os("TOLLGATE_CORPUS") else { return samples };
    let file = std::fs::File::open(Path::new(&corpus).join("exchanges.jsonl")).expect("the corpus");
    for line in std::io::BufReader::new(file).lines() {
        let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let dialect = match record["api"].as_str().unwrap() {
            "messages" => Dialect::Messages,
            "chat_completions" => Dialect::Chat,
            "responses" => Dialect::Responses,
            "generate_content" => Dialect::Generate,
            "converse" => Dialect::Converse,
            "cohere_chat" => Dialect::Cohere,
            _ => continue,
        };
        let body = base64::engine::general_purpose::STANDARD.decode(record["response"]["body_b64"].as_str().unwrap_or_default()).unwrap();
        let name = record["id"].as_str().unwrap().to_owned();
        samples.extend(Sample::of(name, dialect, &String::from_utf8_lossy(&body)).filter(|_| record["response"]["status"] == 200));
    }
    samples
}

/// Events of a stream that are changed, and the longest stream: each change meters all of it again.
const CHANGED_EVENTS_MAX: usize = 4;
const EVENTS_MAX: usize = 300;

/// Numbers below these keys are stated elsewhere, or are money.
const INFORMATIONAL: &[&str] = &["cost", "cost_details", "pydantic_ai_gateway", "tokens", "image_gen", "iterations"];

/// Calls `on` with a JSON pointer for each object within the usage objects of an event.
fn usage_objects(at: &str, value: &Value, inside: bool, on: &mut impl FnMut(&str)) {
    match value {
        Value::Object(members) => {
            if inside {
                on(at);
            }
            for (key, value) in members.iter().filter(|(key, _)| !INFORMATIONAL.contains(&key.as_str())) {
                let usage = matches!(key.as_str(), "usage" | "usageMetadata" | "tool_usage");
                // Elsewhere the same names are text of models and clients.
                let leads = matches!(key.as_str(), "response" | "message" | "delta" | "x_groq" | "metadata" | "body" | "result");
                if inside || usage || leads {
                    usage_objects(&format!("{at}/{key}"), value, inside || usage, on);
                }
            }
        }
        Value::Array(items) if inside => {
            items.iter().enumerate().for_each(|(at_item, item)| usage_objects(&format!("{at}/{at_item}"), item, inside, on));
        }
        _ => {}
    }
}

#[test]
fn unknown_numbers_in_usage_are_marked_and_known_ones_stay() {
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in samples() {
        let before = sample.meter();
        if !before.found().has_usage() || sample.events.len() > EVENTS_MAX {
            continue;
        }
        let mut changed_events = 0;
        // From the last, which has the final usage.
        for event in (0..sample.events.len()).rev() {
            let mut places = vec![];
            usage_objects("", &sample.events[event], false, &mut |place| places.push(place.to_owned()));
            // Earlier events that repeat `tool_usage` are not read; the last has it, too.
            places.retain(|place| event + 1 == sample.events.len() || !place.contains("/tool_usage"));
            changed_events += usize::from(!places.is_empty());
            if changed_events > CHANGED_EVENTS_MAX {
                break;
            }
            for place in places {
                for (key, number) in [("quantum_units", json!(3)), ("quantum_seconds", json!(0.5))] {
                    let mut changed = sample.clone();
                    let object = changed.events[event].pointer_mut(&place).unwrap().as_object_mut().unwrap();
                    object.insert(key.to_owned(), number);
                    let after = changed.meter();
                    let (before, after) = (before.found(), after.found());
                    let where_to = format!("{}: {place} of event {event}", sample.name);
                    if !after.faults.has(Fault::UnknownUsage) {
                        // Only an object that nothing is read from may hold it: the usage of an event that is not looked at.
                        assert_eq!(after.usages, before.usages, "{where_to}");
                        panic!("{where_to}: not marked");
                    }
                    assert!(
                        after.unknown.iter().any(|path| path.contains("quantum")) || after.unknown.len() == 8,
                        "{where_to}: {:?}",
                        after.unknown
                    );
                    assert_eq!(
                        (&after.reported, &after.rounds, &after.model),
                        (&before.reported, &before.rounds, &before.model),
                        "{where_to}"
                    );
                    *tried.entry(sample.dialect.name()).or_default() += 1;
                }
            }
        }
    }
    println!("{tried:?}");
    for dialect in ["chat", "responses", "messages", "generate", "converse", "cohere", "embeddings", "images", "audio", "rerank", "invoke"]
    {
        assert!(tried.contains_key(dialect), "nothing was tried in {dialect}");
    }
}

#[test]
fn unknown_tools_are_marked_and_known_numbers_stay() {
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in samples() {
        let before = sample.meter();
        if !before.found().has_usage() || sample.events.len() > EVENTS_MAX {
            continue;
        }
        for event in 0..sample.events.len() {
            for (place, item) in [
                ("/output", json!({"type": "quantum_call", "id": "q"})),
                ("/response/output", json!({"type": "quantum_call", "id": "q"})),
                ("/content", json!({"type": "server_tool_use", "name": "quantum"})),
                ("/content", json!({"type": "quantum_result"})),
                ("/candidates/0/content/parts", json!({"toolCall": {"toolType": "QUANTUM"}})),
                ("/output/message/content", json!({"toolUse": {"type": "server_tool_use", "name": "quantum"}})),
            ] {
                let mut changed = sample.clone();
                let Some(Value::Array(items)) = changed.events[event].pointer_mut(place) else { continue };
                items.push(item.clone());
                let after = changed.meter();
                // The output of an event that has no usage is repeated by the last.
                if sample.dialect == Dialect::Responses && event + 1 < sample.events.len() {
                    continue;
                }
                let (before, after) = (before.found(), after.found());
                assert!(after.faults.has(Fault::UnknownTool), "{}: {place} {item}", sample.name);
                assert!(after.unknown.iter().any(|name| name.to_lowercase().contains("quantum")), "{}: {:?}", sample.name, after.unknown);
                assert_eq!((&after.reported, &after.rounds), (&before.reported, &before.rounds), "{}", sample.name);
                *tried.entry(sample.dialect.name()).or_default() += 1;
            }
            if sample.events[event]["type"] == "content_block_start" {
                let mut changed = sample.clone();
                changed.events[event]["content_block"] = json!({"type": "server_tool_use", "name": "quantum"});
                assert!(changed.meter().found().faults.has(Fault::UnknownTool), "{}", sample.name);
            }
        }
    }
    println!("{tried:?}");
    for dialect in ["responses", "messages", "generate", "converse"] {
        assert!(tried.contains_key(dialect), "nothing was tried in {dialect}");
    }
}

#[test]
fn whatever_selects_a_price_is_read() {
    for sample in samples().iter().filter(|sample| !sample.stream && sample.meter().found().has_usage()) {
        let places: &[(&str, &str)] = match sample.dialect {
            Dialect::Chat | Dialect::Responses => &[("", "service_tier")],
            Dialect::Messages => &[("/usage", "service_tier"), ("/usage", "speed")],
            Dialect::Generate => &[("/usageMetadata", "trafficType"), ("/usageMetadata", "serviceTier")],
            _ => continue,
        };
        for (place, key) in places {
            let mut changed = sample.clone();
            let Some(Value::Object(object)) = changed.events[0].pointer_mut(place) else { continue };
            object
                .retain(|key, _| !matches!(key.as_str(), "trafficType" | "serviceTier" | "speed" | "service_tier" | "search_context_size"));
            object.insert((*key).to_owned(), json!("quantum"));
            if changed.meter().found().usages > 0 && sample.events[0].pointer("/usage/search_context_size").is_none() {
                assert_eq!(changed.meter().found().tier, "quantum", "{}: {place} {key}", sample.name);
            }
        }
    }
}
