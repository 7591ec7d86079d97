//! What a client with a narrowed key and a budget can reach: no other model, no object of another key, no output that is neither
//! reserved nor charged. The oracle reads requests as the most lenient server would.

use super::{embedded, message, split};
use crate::config::{Config, Pass};
use crate::error::Error;
use crate::exchange::stored_response::{ObjectStore, StoreHandle, StoredObject};
use crate::exchange::{Asked, Ending, Exchange, amount_of};
use crate::json::resembles;
use crate::keys::{Key, Record};
use crate::limit::{Per, Rule};
use crate::price::PicoUsd;
use crate::route::{self, Destination, Head};
use bytes::Bytes;
use once_cell::sync::Lazy;
use serde_json::Value;
use std::sync::Arc;

/// Patterns of the models that the key may use.
const MODELS: &[&str] =
    &["gpt-5-mini", "claude-haiku*", "gemini-2.0-flash*", "anthropic.claude-3-haiku*", "text-embedding-3-small", "small*"];
/// Ids that belong to another key.
const FOREIGN: &[&str] = &["resp_foreign", "conv_foreign", "file-foreign", "vs_foreign", "batch_foreign"];
const NOW: u64 = 1_795_564_800_000;

/// Every provider that is built in, with lists that let clients create objects, and a budget.
static SCOPED: Lazy<Option<Arc<Config>>> = Lazy::new(|| {
    let mut config = embedded()?;
    for upstream in &mut config.upstreams {
        upstream.keeps_objects = true;
        let all = |method| Pass { method, path: "/*".to_owned() };
        upstream.pass.extend([http::Method::GET, http::Method::POST, http::Method::DELETE].map(all));
    }
    config.limits = Arc::from([Rule {
        name: "all".to_owned(),
        key: None,
        org: None,
        project: None,
        model: None,
        per: Per::All,
        requests_per_minute: None,
        tokens_per_minute: None,
        concurrent: None,
        spend_per_day: Some(PicoUsd(1)),
        spend_per_month: None,
    }]);
    Some(Arc::new(config))
});

static NARROW: Lazy<Arc<Key>> = Lazy::new(|| {
    let models = MODELS.iter().map(|model| (*model).to_owned()).collect();
    Arc::new(Key::of(Record {
        id: "mine".to_owned(),
        name: "mine".to_owned(),
        org: None,
        project: None,
        models,
        providers: vec![],
        prompt_cache: None,
        created: jiff::Timestamp::UNIX_EPOCH,
        expires: None,
        revoked: None,
        secrets: vec![],
    }))
});

/// Knows the foreign ids, at every upstream.
struct Foreign;

impl ObjectStore for Foreign {
    fn find(&self, id: &str) -> Result<Option<StoredObject>, Error> {
        let (upstream, plain) = id.split_once('/').unwrap_or(("openai", id));
        let stored = || StoredObject { id: id.to_owned(), upstream: upstream.to_owned(), owner: Some("theirs".to_owned()), pending: None };
        Ok(FOREIGN.contains(&plain).then(stored))
    }
}

/// The input is that of [`super::request`].
pub fn scope(data: &[u8]) {
    let (Some(config), Some((_, rest))) = (SCOPED.as_ref(), data.split_first()) else { return };
    let (asked, answer) = split(rest, b"\n---\n");
    let (first, headers, body) = message(asked);
    let (method, target) = first.split_once(' ').unwrap_or((&first, "/"));
    let (Ok(method), Ok(target)) = (method.parse(), target.parse::<http::Uri>()) else { return };
    let head = Head { method: &method, path: target.path(), query: target.query(), headers: &headers };
    let Ok(destination) = route::destination(&head, config) else { return };
    let generates = matches!(destination, Destination::Endpoint { .. });
    let client = Asked {
        request_id: "r".to_owned(),
        key: Some(NARROW.clone()),
        now: NOW,
        memory: StoreHandle(Some(Arc::new(Foreign))),
        ..Asked::default()
    };
    let Ok(mut exchange) = Exchange::plan(&head, destination, &Bytes::copy_from_slice(body), config.clone(), client) else { return };
    let reserved = exchange.max_cost(NOW);
    exchange.attempt(NOW);
    let sent = exchange.body().clone();
    let path = exchange.path_and_query();
    assert!(!FOREIGN.iter().any(|id| path.contains(id)), "{path} reads what belongs to another key");
    let fields: Option<Value> = serde_json::from_slice(&sent).ok();
    fields.iter().for_each(|fields| check_fields(fields, &exchange, generates));
    let (status, headers, body) = message(answer);
    exchange.respond(status.parse().ok().filter(|status| (200..600).contains(status)).unwrap_or(200), &headers);
    exchange.push(Bytes::copy_from_slice(body), true, NOW);
    let Some(closed) = exchange.close(&Ending::Complete, NOW) else { return };
    let (open, charged) = (&closed.entry.open, amount_of(&closed.entry));
    let named = !open.model.is_empty() && open.billed && open.endpoint.starts_with(['/', ':']) && open.dialect != "batch";
    if named && !open.model_requested.is_empty() {
        assert!(NARROW.allows_model(&open.model_requested, &open.model), "{} reached the provider", open.model);
    }
    if open.dialect == "chat" && open.billed {
        let bound = fields.as_ref().map_or(0, output_bound);
        assert!(reserved.tokens >= bound, "{} tokens reserved of {bound}", reserved.tokens);
        let served = serde_json::from_slice::<Value>(body).ok().filter(|_| status.starts_with('2')).map_or(0, |body| used(&body));
        // Where counts are doubtful the entry says so.
        let marked = closed.entry.close.as_ref().is_some_and(|close| !close.faults.is_empty());
        assert!(marked || charged.tokens >= served, "{} tokens charged of {served}", charged.tokens);
    }
}

/// Members whose name a server that folds case and cuts at blanks takes for `name`.
fn members<'f>(fields: &'f Value, name: &'f str) -> impl Iterator<Item = &'f Value> {
    let members = fields.as_object().into_iter().flatten();
    members.filter(move |(key, _)| *key == name || resembles(key.as_bytes(), name)).map(|(_, value)| value)
}

fn check_fields(fields: &Value, exchange: &Exchange, generates: bool) {
    let at = exchange.upstream_index();
    let allowed = |model: &str| {
        let renamed = route::model_at(model, at, exchange.config());
        NARROW.allows_model(model, renamed.strip_prefix("models/").unwrap_or(&renamed))
    };
    let in_body = !exchange.dialect().has_model_in_path();
    for model in members(fields, "model").filter_map(Value::as_str).filter(|_| in_body && generates) {
        assert!(allowed(model), "{model} reached the provider");
    }
    for list in ["models", "fallbacks"].into_iter().flat_map(|name| members(fields, name)) {
        for item in list.as_array().into_iter().flatten() {
            let model = item.as_str().or_else(|| item.get("model")?.as_str());
            assert!(model.is_none_or(allowed), "{item} reached the provider");
        }
    }
    let text = fields.to_string();
    assert!(!FOREIGN.iter().any(|id| refers(fields, id)), "{text} names what belongs to another key");
}

/// True if a field that providers take for a reference names this id.
fn refers(value: &Value, id: &str) -> bool {
    const FIELDS: &[&str] =
        &["previous_response_id", "conversation", "file_id", "file_ids", "vector_store_ids", "input_file_id", "container"];
    match value {
        Value::Array(items) => items.iter().any(|item| refers(item, id)),
        Value::Object(members) => members.iter().any(|(key, value)| {
            let named = FIELDS.contains(&key.as_str())
                && (value == id || value.as_array().is_some_and(|items| items.iter().any(|item| item == id)));
            named || refers(value, id)
        }),
        _ => false,
    }
}

/// The output that a request asks for, as the most generous server reads it.
fn output_bound(fields: &Value) -> u64 {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().filter(|number| *number > 0.0).map(|number| number as u64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let largest = |names: &[&str]| names.iter().flat_map(|name| members(fields, name).filter_map(number).collect::<Vec<_>>()).max();
    let each = largest(&["max_tokens", "max_completion_tokens"]).unwrap_or(0);
    each.saturating_mul(largest(&["n", "best_of"]).unwrap_or(1).max(1))
}

/// Tokens of a document's usage.
fn used(body: &Value) -> u64 {
    let count = |name: &str| body.get("usage").and_then(|usage| usage.get(name)?.as_u64()).unwrap_or(0);
    count("prompt_tokens").saturating_add(count("completion_tokens"))
}
