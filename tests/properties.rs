//! Properties of the scanners and splices, and the fuzz bodies over their seeds and mutations of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;
use tollgate::fuzz;
use tollgate::json::{Scanner, Visit, Want};

type Body = fn(&[u8]);
const BODIES: &[(&str, Body)] = &[
    ("sse", fuzz::sse),
    ("json", fuzz::json),
    ("splices", fuzz::splices),
    ("meter", fuzz::meter),
    ("request", fuzz::request),
    ("turns", fuzz::turns),
    ("scope", fuzz::scope),
];

/// Of each property; a long run sets more.
fn cases() -> u32 {
    std::env::var("TOLLGATE_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// One of the seeds with bytes changed, put in and taken out.
fn mutated(seeds: &[Vec<u8>], pick: prop::sample::Index, edits: Vec<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    let mut data = seeds[pick.index(seeds.len())].clone();
    for (place, byte, kind) in edits {
        let at = place.index(data.len());
        match kind {
            0 => data[at] = byte,
            1 => data.insert(at, byte),
            _ if data.len() > 1 => drop(data.remove(at)),
            _ => {}
        }
    }
    data
}

#[test]
fn fuzz_bodies_hold_over_their_seeds_at_every_cut() {
    for (name, body) in BODIES {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name}");
        for seed in seeds {
            for at in 0..=255 {
                body(&[&[at], &seed[1..]].concat());
            }
        }
    }
}

#[test]
fn requests_that_fuzzers_begin_with_are_served() {
    seeds("request").iter().for_each(|seed| assert!(fuzz::served(seed), "{}", String::from_utf8_lossy(seed)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fuzz_bodies_hold_over_mutated_seeds(which in 0..BODIES.len(), pick in any::<prop::sample::Index>(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..8)) {
        let (name, body) = BODIES[which];
        body(&mutated(&seeds(name), pick, edits));
    }

    #[test]
    fn fuzz_bodies_hold_over_anything(which in 0..BODIES.len(), data in prop::collection::vec(any::<u8>(), 0..300)) {
        BODIES[which].1(&data);
    }

    /// As many as the rest together: this is what callers can reach.
    #[test]
    fn requests_hold_over_mutated_seeds(pick in any::<prop::sample::Index>(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..8)) {
        fuzz::request(&mutated(&seeds("request"), pick, edits));
    }

    /// With a narrowed key, a budget and objects of others.
    #[test]
    fn no_request_reaches_further_than_its_key(pick in any::<prop::sample::Index>(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..8)) {
        fuzz::scope(&mutated(&seeds("scope"), pick, edits));
    }

    #[test]
    fn the_scanner_finds_what_a_parser_finds(document in document(), cut in any::<prop::sample::Index>(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
        let (head, tail) = text.as_bytes().split_at(cut.index(text.len() + 1));
        let (mut scanner, mut seen) = (Scanner::new(&ROOT), Seen::default());
        scanner.push(head, &mut seen).unwrap();
        scanner.push(tail, &mut seen).unwrap();
        prop_assert!(scanner.is_done());
        let parsed: Vec<Value> = seen.0.iter().map(|raw| serde_json::from_slice(raw).unwrap()).collect();
        let want: Vec<Value> = [document.get("wanted"), document.pointer("/in/wanted")].into_iter().flatten().cloned().collect();
        // In the order of the document, which the map's keys follow.
        let mut got = parsed.clone();
        let mut sorted = want.clone();
        got.sort_by_key(Value::to_string);
        sorted.sort_by_key(Value::to_string);
        prop_assert_eq!(got, sorted);
    }
}

static ROOT: Want<()> = Want::Fields(&[("wanted", Want::Take(())), ("in", Want::Fields(&[("wanted", Want::Take(()))]))]);

#[derive(Default)]
struct Seen(Vec<Vec<u8>>);

impl Visit<()> for Seen {
    fn begin(&mut self, (): (), _: u64, _: u8) {
        self.0.push(vec![]);
    }
    fn bytes(&mut self, (): (), piece: &[u8]) {
        self.0.last_mut().unwrap().extend_from_slice(piece);
    }
    fn end(&mut self, (): (), _: u64) {}
}

/// JSON documents in which `wanted` may stand at the top, below `in`, and in places that do not count.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from)
    ];
    let key = prop_oneof![Just("wanted".to_owned()), Just("in".to_owned()), ".{0,4}"];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
