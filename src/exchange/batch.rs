//! Results of a batch job: a line of JSON for each of its items, and an entry for each that used something. The entry's
//! id follows from the item, so that results that are fetched again are the same entries and not further ones.
//! <https://platform.openai.com/docs/guides/batch>, <https://docs.claude.com/en/docs/build-with-claude/batch-processing>

use super::settle::{Buyer, Terms};
use super::{Closed, Exchange, UnixMs};
use crate::dialect::{Dialect, Grammar};
use crate::json::Want::{self, Fields, Take};
use crate::json::{Scanner, Visit};
use crate::ledger::Open;
use crate::meter::{Found, Framing, Meter};
use crate::price::BATCH;
use sha2::{Digest, Sha256};

/// Cuts results into items and meters each.
#[derive(Debug)]
pub(super) struct Items {
    grammar: &'static Grammar,
    meter: Meter,
    scanner: Scanner<Which>,
    names: Names,
    line: u64,
    finished: Vec<Item>,
}

/// An item that used something.
#[derive(Debug)]
pub(super) struct Item {
    /// What no other item is called.
    name: Vec<u8>,
    found: Found,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Id,
    CustomId,
}

static NAMES: Want<Which> = Fields(&[("id", Take(Which::Id)), ("custom_id", Take(Which::CustomId))]);

/// Names are of any length, so only their digest is kept.
#[derive(Clone, Debug, Default)]
struct Names {
    digest: Sha256,
    any: bool,
}

impl Visit<Which> for Names {
    fn begin(&mut self, which: Which, _: u64, first: u8) {
        self.any |= first != b'n';
        self.digest.update([which as u8]);
    }

    fn bytes(&mut self, _: Which, piece: &[u8]) {
        self.digest.update(piece);
    }

    fn end(&mut self, _: Which, _: u64) {}
}

impl Items {
    pub(super) fn new(grammar: &'static Grammar) -> Self {
        let (meter, scanner) = (Meter::new(grammar, Framing::Whole), Scanner::new(&NAMES));
        Self { grammar, meter, scanner, names: Names::default(), line: 0, finished: vec![] }
    }

    pub(super) fn push(&mut self, mut chunk: &[u8]) {
        while let Some(at) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = chunk.split_at(at);
            self.part(line);
            self.end();
            chunk = rest.get(1..).unwrap_or_default();
        }
        self.part(chunk);
    }

    fn part(&mut self, part: &[u8]) {
        self.meter.push(part, |_| {});
        // What is no JSON has no names.
        let _ = self.scanner.push(part, &mut self.names);
    }

    /// The line, and with it the item, ends.
    pub(super) fn end(&mut self) {
        let mut meter = std::mem::replace(&mut self.meter, Meter::new(self.grammar, Framing::Whole));
        meter.finish(true);
        self.scanner.reset();
        let names = std::mem::take(&mut self.names);
        let found = meter.found();
        self.line += 1;
        // Whatever else lies in files has no answers. One that cannot be read is told; one that was cut off will come again.
        let unread = found.ended && names.any && !found.faults.is_empty();
        if found.has_usage() || unread {
            let name = if names.any { names.digest.finalize().to_vec() } else { self.line.to_string().into_bytes() };
            self.finished.push(Item { name, found: found.clone() });
        }
    }
}

impl Exchange {
    /// How to read results of a batch, and whose they are; `None` where none lie.
    pub(super) fn batch_results(&self) -> Option<(Dialect, &str)> {
        let upstream = self.upstream()?;
        let batch = upstream.provider.batch?;
        Some((batch.dialect, batch.results(self.route.path.strip_prefix(upstream.base_path.as_str())?)?))
    }

    /// Items that have become known: entries of their own, whole, to be written before the chunk leaves.
    pub fn items(&mut self, now: UnixMs) -> Vec<Closed> {
        let items = self.attempt.as_mut().and_then(|attempt| attempt.items.as_mut());
        let finished = items.map(|items| std::mem::take(&mut items.finished)).unwrap_or_default();
        finished.into_iter().filter_map(|item| self.item(item, now)).collect()
    }

    fn item(&self, item: Item, now: UnixMs) -> Option<Closed> {
        let (upstream, (dialect, of)) = (self.upstream()?, self.batch_results()?);
        let mut found = item.found;
        found.tier = BATCH.to_owned();
        let terms = Terms::new(upstream, dialect, "", &self.config, Buyer::of(self.key.as_deref()), now);
        let open = Open {
            request_id: self.request_id.clone(),
            start_ms: now,
            dialect: dialect.name().to_owned(),
            model_requested: found.model.clone(),
            model: found.model.clone(),
            billed: true,
            ..self.attempt.as_ref()?.open.0.clone()
        };
        Some(Closed::billed(derived_id("batch", &upstream.name, of, &item.name), open, &found, &terms, now))
    }
}

/// The same for the same thing, whenever it is fetched: for an item of some results.
pub(super) fn derived_id(kind: &str, upstream: &str, of: &str, name: &[u8]) -> String {
    let digest = Sha256::new_with_prefix(kind).chain_update("\0").chain_update(upstream).chain_update("\0").chain_update(of);
    let digest = digest.chain_update("\0").chain_update(name).finalize();
    let bytes = digest.first_chunk().copied().unwrap_or_default();
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Field;

    const RESULTS: &str = concat!(
        r#"{"id":"batch_req_1","custom_id":"a","response":{"status_code":200,"body":{"id":"c1","model":"gpt-5","usage":{"prompt_tokens":7,"completion_tokens":2}}},"error":null}"#,
        "\n",
        r#"{"id":"batch_req_2","custom_id":"b","response":{"status_code":400,"body":{"error":{"code":"bad"}}},"error":null}"#,
        "\r\n\n",
        r#"{"messages":[],"usage":{"prompt_tokens":9}}"#,
        "\nno JSON\n",
        r#"{"id":"batch_req_3","custom_id":"c\"","response":{"body":{"id":"r1","model":"gpt-5","usage":{"input_tokens":5,"output_tokens":1}}}}"#,
    );

    fn items(parts: &[&[u8]]) -> Vec<(String, Option<u64>, String)> {
        let mut items = Items::new(Dialect::Batch.grammar());
        parts.iter().for_each(|part| items.push(part));
        items.end();
        let told = |item: Item| (derived_id("batch", "u", "file-1", &item.name), item.found.reported.of(Field::Input), item.found.id);
        items.finished.into_iter().map(told).collect()
    }

    #[test]
    fn finds_the_items_that_used_something_wherever_they_are_cut() {
        let want = items(&[RESULTS.as_bytes()]);
        let told: Vec<_> = want.iter().map(|(_, input, id)| (*input, id.as_str())).collect();
        assert_eq!(told, [(Some(7), "c1"), (Some(5), "r1")]);
        assert_ne!(want[0].0, want[1].0);
        for (head, tail) in (0..=RESULTS.len()).map(|at| RESULTS.as_bytes().split_at(at)) {
            assert_eq!(items(&[head, tail]), want, "cut at {}", head.len());
        }
    }

    /// However an item is called, it is paid for, and by its own name.
    #[test]
    fn no_name_makes_an_item_free() {
        let line = |name: &str| format!(r#"{{"custom_id":{name},"response":{{"body":{{"usage":{{"prompt_tokens":1}}}}}}}}"#);
        let long = format!("\"{}\"", "n".repeat(100_000));
        let names = ["1", "\"\"", "\"\\ud800\"", "\"a\"", "\"b\"", "null", &long];
        let all: Vec<_> = names.iter().flat_map(|name| items(&[line(name).as_bytes()])).collect();
        assert_eq!(all.iter().filter(|(_, input, _)| *input == Some(1)).count(), names.len());
        let ids: std::collections::HashSet<_> = all.iter().map(|(id, ..)| id).collect();
        assert_eq!(ids.len(), names.len());
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_told() {
        let bad = r#"{"custom_id":"a","response":{"body":{"usage":{"prompt_tokens":-1}}}}"#;
        assert_eq!(items(&[bad.as_bytes()]).len(), 1);
        // Half a line will come again, whole.
        assert_eq!(items(&[&bad.as_bytes()[..bad.len() - 2]]), []);
    }
}
