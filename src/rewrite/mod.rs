//! Rewriting: a route and the fields of a body become splices. Only the bytes of `model` and `stream_options` change;
//! everything else keeps its order, spelling and blanks, since providers cache prompts by their bytes.

pub mod cache;
pub mod spans;

use crate::config::{PromptCache, Upstream};
use crate::json::Want::{self, Fields, Take};
use crate::json::{Scanner, Splices, Visit, text};
use crate::keys::Key;
use crate::provider::{CacheBy, StreamUsage};
use crate::route::{ModelPlace, RequestFields, Route, Target};
use bytes::Bytes;
use http::HeaderMap;
use std::borrow::Cow;
use std::ops::Range;

/// A body as the upstream gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    pub body: Bytes,
    /// Usage was asked for on the caller's behalf: the chunk this adds to the stream is not for the caller.
    pub usage_asked: bool,
    /// Headers that go up beside it.
    pub headers: cache::Headers,
}

/// Applies what the route demands.
pub fn rewrite(
    body: &Bytes,
    fields: &RequestFields,
    route: &Route,
    upstream: &Upstream,
    key: Option<&Key>,
    headers: &HeaderMap,
) -> Rewritten {
    let mut splices = Splices::default();
    if route.model_place == ModelPlace::PathOnly {
        let members = [fields.model.as_ref().map(|model| model.span.clone()), fields.stream.as_ref().map(|stream| stream.span.clone())];
        remove_members(body, members.into_iter().flatten(), &mut splices);
    } else if let Some(model) = &fields.model
        && route.model_place == ModelPlace::Body
        && model.value != route.model
    {
        let renamed = if fields.form { route.model.clone().into_bytes() } else { text::encode(&route.model) };
        splices.replace(model.span.clone(), renamed);
    }
    let asks = matches!(route.target, Target::Endpoint(_))
        && route.dialect.has_stream_options()
        && upstream.stream_usage == StreamUsage::OnRequest;
    let streams = fields.stream.as_ref().filter(|stream| stream.value && asks);
    let usage_asked = streams.is_some_and(|stream| ask_for_usage(body, fields, stream.span.end, &mut splices));
    let mut headers = match (prompt_cache(upstream, key), upstream.provider.cache_by) {
        (Some(cache), Some(by)) if matches!(route.target, Target::Endpoint(endpoint) if endpoint.is_billed()) => {
            cache::mark(body, route.dialect, by, &cache, &cache::Asked::read(headers), &mut splices)
        }
        _ => vec![],
    };
    // Prompts of two organisations never meet in a provider's cache, whatever their callers say.
    if let (Some(CacheBy::Headers { org: Some(name), .. }), Some(org)) =
        (upstream.provider.cache_by, key.and_then(|key| key.org.as_deref()))
        && headers.iter().all(|header| header.name != name)
    {
        headers.push(cache::Header { name, value: cache::isolated(org), always: true });
    }
    Rewritten { body: splices.apply(body), usage_asked, headers }
}

/// How prompts are marked for this caller: its key may turn it on or off, and what it caches is its organisation's.
fn prompt_cache<'a>(upstream: &'a Upstream, key: Option<&Key>) -> Option<Cow<'a, PromptCache>> {
    let Some(key) = key else { return upstream.prompt_cache.as_ref().map(Cow::Borrowed) };
    let on = key.prompt_cache.unwrap_or(upstream.prompt_cache.is_some());
    let cache = upstream.prompt_cache.clone().filter(|_| on).or_else(|| on.then(PromptCache::default))?;
    let org = key.org.clone().or(cache.org).or_else(|| Some(key.id.clone()));
    Some(Cow::Owned(PromptCache { org, ..cache }))
}

/// Takes members out of an object, by the spans of their values: key, colon and one comma go with each.
fn remove_members(body: &[u8], values: impl Iterator<Item = Range<usize>>, splices: &mut Splices) {
    let mut values: Vec<_> = values.collect();
    values.sort_by_key(|value| value.start);
    let mut removed = 0;
    for value in values {
        let Some(start) = key_start(body, value.start) else { continue };
        let before = body.get(removed..start).unwrap_or_default().trim_ascii_end();
        let after = body.get(value.end..).unwrap_or_default();
        let blanks = after.len() - after.trim_ascii_start().len();
        let (start, end) = match (before.strip_suffix(b","), after.trim_ascii_start().first()) {
            (Some(before), _) => (removed + before.len(), value.end),
            (None, Some(b',')) => (start, value.end + blanks + 1),
            (None, _) => (start, value.end),
        };
        splices.replace(start..end, "");
        removed = end;
    }
}

/// Where the key of the value at `value` starts.
fn key_start(body: &[u8], value: usize) -> Option<usize> {
    let before = body.get(..value)?.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"")?;
    memchr::memrchr(b'"', before)
}

const ASK: &[u8] = br#""include_usage":true"#;

/// Sets `stream_options.include_usage`, keeping the caller's other keys; true if that was needed.
fn ask_for_usage(body: &[u8], fields: &RequestFields, stream_end: usize, splices: &mut Splices) -> bool {
    let Some(options) = fields.stream_options.clone() else {
        return splices.replace(stream_end..stream_end, [&b",\"stream_options\":{"[..], ASK, b"}"].concat());
    };
    let raw = body.get(options.clone()).unwrap_or_default();
    if raw == b"null" {
        return splices.replace(options, [&b"{"[..], ASK, b"}"].concat());
    }
    if !raw.starts_with(b"{") {
        return false;
    }
    match include_usage(raw) {
        Some(span) if raw.get(span.clone()) == Some(b"true") => false,
        Some(span) => splices.replace(options.start + span.start..options.start + span.end, "true"),
        None => {
            let empty = raw.get(1..).unwrap_or_default().trim_ascii_start().starts_with(b"}");
            let inside = options.start + 1;
            splices.replace(inside..inside, if empty { ASK.to_vec() } else { [ASK, b","].concat() })
        }
    }
}

/// Where the value of `include_usage` stands in an object. Of several the last counts, as parsers have it.
fn include_usage(options: &[u8]) -> Option<Range<usize>> {
    static ROOT: Want<()> = Fields(&[("include_usage", Take(()))]);
    #[derive(Default)]
    struct Span(usize, Option<Range<usize>>);
    impl Visit<()> for Span {
        fn begin(&mut self, (): (), at: u64, _: u8) {
            self.0 = usize::try_from(at).unwrap_or(usize::MAX);
        }
        fn bytes(&mut self, (): (), _: &[u8]) {}
        fn end(&mut self, (): (), at: u64) {
            self.1 = Some(self.0..usize::try_from(at).unwrap_or(usize::MAX));
        }
    }
    let mut span = Span::default();
    Scanner::new(&ROOT).push(options, &mut span).ok()?;
    span.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, Endpoint};
    use crate::provider;

    fn rewritten(body: &str, model: &str, stream_usage: StreamUsage, dialect: Dialect) -> (String, bool) {
        let provider = provider::find("openai").unwrap();
        let upstream = Upstream { stream_usage, ..Upstream::of(provider, "openai") };
        let fields = RequestFields::read(body.as_bytes(), None).unwrap();
        let route = Route {
            upstream: 0,
            target: Target::Endpoint(Endpoint::ChatCompletions),
            dialect,
            path: String::new(),
            query: None,
            model_place: ModelPlace::Body,
            model_requested: String::new(),
            model: model.to_owned(),
            patience: crate::config::Patience::default(),
        };
        let out = rewrite(&Bytes::from(body.to_owned()), &fields, &route, &upstream, None, &HeaderMap::new());
        (String::from_utf8(out.body.to_vec()).unwrap(), out.usage_asked)
    }

    #[test]
    fn a_key_turns_caching_on_and_off_and_keeps_prompts_to_its_org() {
        let record = |prompt_cache, org: Option<&str>| {
            let mut record = crate::keys::make("ci", jiff::Timestamp::UNIX_EPOCH).unwrap().record;
            (record.id, record.prompt_cache, record.org) = ("id".to_owned(), prompt_cache, org.map(str::to_owned));
            Key::of(record)
        };
        let configured =
            |org: Option<&str>| PromptCache { key: Some("k".to_owned()), org: org.map(str::to_owned), ..PromptCache::default() };
        for (own, prompt_cache, org, want) in [
            (None, None, Some("acme"), None),
            (None, Some(true), Some("acme"), Some("acme")),
            (Some(configured(None)), None, None, Some("id")),
            (Some(configured(Some("all"))), None, None, Some("all")),
            (Some(configured(Some("all"))), None, Some("acme"), Some("acme")),
            (Some(configured(None)), Some(false), Some("acme"), None),
        ] {
            let upstream = Upstream { prompt_cache: own, ..Upstream::of(provider::find("openai").unwrap(), "openai") };
            let key = record(prompt_cache, org);
            let cache = super::prompt_cache(&upstream, Some(&key));
            assert_eq!(cache.and_then(|cache| cache.org.clone()).as_deref(), want);
        }
    }

    #[test]
    fn changes_nothing_but_what_it_must() {
        let same = r#"{ "b":1.0e5, "model" :"m","stream" : true, "stream_options": {"include_usage": true , "x":1}}"#;
        for (body, want, asked) in [
            (same, same, false),
            (r#"{"n":1.0,"model":"o/m","z":[1,2]}"#, r#"{"n":1.0,"model":"m","z":[1,2]}"#, false),
            (
                r#"{"model":"m","stream":true ,"a":1}"#,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true} ,"a":1}"#,
                true,
            ),
            (
                r#"{"stream":true,"model":"m","stream_options":{}}"#,
                r#"{"stream":true,"model":"m","stream_options":{"include_usage":true}}"#,
                true,
            ),
            (
                r#"{"stream_options":{"k":1},"stream":true,"model":"m"}"#,
                r#"{"stream_options":{"include_usage":true,"k":1},"stream":true,"model":"m"}"#,
                true,
            ),
            (
                r#"{"model":"m","stream":true,"stream_options":{"include_usage": false}}"#,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage": true}}"#,
                true,
            ),
            (
                r#"{"model":"m","stream":true,"stream_options":null}"#,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
                true,
            ),
            (r#"{"model":"m","stream":true,"stream_options":3}"#, r#"{"model":"m","stream":true,"stream_options":3}"#, false),
            (r#"{"model":"m","stream":false}"#, r#"{"model":"m","stream":false}"#, false),
        ] {
            assert_eq!(rewritten(body, "m", StreamUsage::OnRequest, Dialect::Chat), (want.to_owned(), asked), "{body}");
        }
    }

    #[test]
    fn takes_members_out_and_leaves_an_object() {
        for (body, want) in [
            (r#"{"model":"m","a":1}"#, r#"{"a":1}"#),
            (r#"{"model":"m","stream":true,"a":1}"#, r#"{"a":1}"#),
            (r#"{ "stream" : true , "a":1 , "model" : "m" }"#, r#"{  "a":1  }"#),
            (r#"{"a":1,"model":"m","stream":true}"#, r#"{"a":1}"#),
            (r#"{"model":"m"}"#, "{}"),
            (r#"{"model":"m","stream":false}"#, "{}"),
            (r#"{"a":1,"mod\u0065l":"m","b":2}"#, r#"{"a":1,"b":2}"#),
        ] {
            let fields = RequestFields::read(body.as_bytes(), None).unwrap();
            let values = [fields.model.map(|model| model.span), fields.stream.map(|stream| stream.span)];
            let mut splices = Splices::default();
            remove_members(body.as_bytes(), values.into_iter().flatten(), &mut splices);
            let out = splices.apply(&Bytes::from(body.to_owned()));
            assert_eq!(String::from_utf8_lossy(&out), want, "{body}");
            assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{body}");
        }
    }

    #[test]
    fn asks_only_where_asking_is_understood() {
        let body = r#"{"model":"m","stream":true}"#;
        for (stream_usage, dialect) in [
            (StreamUsage::Always, Dialect::Chat),
            (StreamUsage::Unknown, Dialect::Chat),
            (StreamUsage::OnRequest, Dialect::Responses),
            (StreamUsage::OnRequest, Dialect::Messages),
        ] {
            assert_eq!(rewritten(body, "m", stream_usage, dialect), (body.to_owned(), false));
        }
        assert!(rewritten(body, "m", StreamUsage::OnRequest, Dialect::Completions).1);
    }
}
