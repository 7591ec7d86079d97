//! Prompt caching: markers and keys by which providers find a prompt they have seen before. Off unless configured, and
//! left alone where the caller placed any of its own. Only inserts; no byte of the caller's changes.

use super::spans::{count, last_item, members};
use crate::config::PromptCache;
use crate::dialect::Dialect;
use crate::json::Want::{self, Fields, Items, Take};
use crate::json::{Splices, text};
use crate::provider::CacheBy;
use http::HeaderMap;
use percent_encoding::AsciiSet;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Longest key that OpenAI takes: <https://platform.openai.com/docs/api-reference/chat/create> (`prompt_cache_key`).
pub const KEY_BYTES_MAX: usize = 64;

/// What a request says about caching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `cache-control: no-cache`.
    pub off: bool,
    /// `x-cache-key`.
    pub key: Option<String>,
    /// `x-org-id`: divides what belongs to one caller further.
    pub org: Option<String>,
}

impl Asked {
    pub fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
        Self {
            off: text("cache-control").is_some_and(|control| control.split(',').any(|part| part.trim().eq_ignore_ascii_case("no-cache"))),
            key: text("x-cache-key").map(str::to_owned),
            org: text("x-org-id").map(str::to_owned),
        }
    }
}

/// A header that goes up with the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: &'static str,
    pub value: String,
    /// Also in place of the caller's own: whom a prompt belongs to is not the caller's to say.
    pub always: bool,
}

pub type Headers = Vec<Header>;

/// Adds what the provider needs to find the prompt again.
pub fn mark(body: &[u8], dialect: Dialect, by: CacheBy, cache: &PromptCache, asked: &Asked, splices: &mut Splices) -> Headers {
    if asked.off {
        return vec![];
    }
    let asked = &match asked.org {
        Some(_) => asked.clone(),
        None => Asked { org: org_id(body), ..asked.clone() },
    };
    match (by, dialect) {
        (CacheBy::Control, Dialect::Messages) => control(body, cache, splices),
        (CacheBy::Point, Dialect::Converse) => point(body, cache, splices),
        (CacheBy::Key, Dialect::Chat | Dialect::Responses) => insert_key(body, dialect, cache, asked, splices),
        (CacheBy::Headers { key, org }, Dialect::Chat | Dialect::Responses) => {
            let key = cache_key(body, dialect, cache, asked).map(|value| Header { name: key, value, always: false });
            let org = org.zip(org_of(cache, asked)).map(|(name, value)| Header { name, value, always: cache.org.is_some() });
            return key.into_iter().chain(org).collect();
        }
        _ => {}
    }
    vec![]
}

/// Anthropic: `cache_control` on the last system block and on the last block of the last message.
/// <https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching>
fn control(body: &[u8], cache: &PromptCache, splices: &mut Splices) {
    static ROOT: Want<usize> = Fields(&[("system", Take(0)), ("messages", Take(1))]);
    static CONTENT: Want<usize> = Fields(&[("content", Take(0))]);
    static BLOCK: Want<usize> = Fields(&[("cache_control", Take(0)), ("content", Items(1, &Fields(&[("cache_control", Take(0))])))]);
    // On the request itself: <https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#automatic-caching>.
    static OWN: Want<usize> = Fields(&[
        ("cache_control", Take(0)),
        ("system", Items(1, &BLOCK)),
        ("tools", Items(1, &BLOCK)),
        ("messages", Items(1, &Fields(&[("content", Items(1, &BLOCK))]))),
    ]);
    if count(body, &OWN) > 0 {
        return;
    }
    let ttl = if cache.ttl_1h { ",\"ttl\":\"1h\"" } else { "" };
    let control = format!(",\"cache_control\":{{\"type\":\"ephemeral\"{ttl}}}");
    let [system, messages] = members(body, 0..body.len(), &ROOT);
    let content = messages.and_then(|messages| last_item(body, messages)).and_then(|last| members::<1>(body, last, &CONTENT)[0].clone());
    for place in [system, content].into_iter().flatten() {
        control_blocks(body, place, &control, splices);
    }
}

/// Marks the last block of a list, or makes a list of a text.
fn control_blocks(body: &[u8], place: Range<usize>, control: &str, splices: &mut Splices) {
    static KIND: Want<usize> = Fields(&[("type", Take(0)), ("text", Take(1))]);
    let raw = body.get(place.clone()).unwrap_or_default();
    if raw.first() == Some(&b'"') && raw != b"\"\"" {
        splices.replace(place.start..place.start, "[{\"type\":\"text\",\"text\":");
        splices.replace(place.end..place.end, format!("{control}}}]"));
    } else if let Some(block) = last_item(body, place).filter(|block| body.get(block.start) == Some(&b'{')) {
        let [kind, words] = members(body, block.clone(), &KIND);
        let value = |span: Option<Range<usize>>| span.and_then(|span| body.get(span)).unwrap_or_default();
        // Neither thoughts nor empty texts may be marked.
        let fit = !matches!(value(kind), b"\"thinking\"" | b"\"redacted_thinking\"" | b"") && value(words) != b"\"\"";
        if fit {
            splices.replace(block.end - 1..block.end - 1, control);
        }
    }
}

/// Bedrock: a `cachePoint` after the system blocks, the last message's content and the tools.
/// <https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html>
fn point(body: &[u8], cache: &PromptCache, splices: &mut Splices) {
    static ROOT: Want<usize> = Fields(&[("system", Take(0)), ("messages", Take(1)), ("toolConfig", Fields(&[("tools", Take(2))]))]);
    static CONTENT: Want<usize> = Fields(&[("content", Take(0))]);
    static BLOCK: Want<usize> = Fields(&[("cachePoint", Take(0))]);
    static OWN: Want<usize> = Fields(&[
        ("system", Items(1, &BLOCK)),
        ("messages", Items(1, &Fields(&[("content", Items(1, &BLOCK))]))),
        ("toolConfig", Fields(&[("tools", Items(1, &BLOCK))])),
    ]);
    if count(body, &OWN) > 0 {
        return;
    }
    let ttl = if cache.ttl_1h { ",\"ttl\":\"1h\"" } else { "" };
    let point = format!(",{{\"cachePoint\":{{\"type\":\"default\"{ttl}}}}}");
    let [system, messages, tools] = members(body, 0..body.len(), &ROOT);
    let content = messages.and_then(|messages| last_item(body, messages)).and_then(|last| members::<1>(body, last, &CONTENT)[0].clone());
    for list in [system, content, tools].into_iter().flatten() {
        if let Some(last) = last_item(body, list) {
            splices.replace(last.end..last.end, point.as_str());
        }
    }
}

/// OpenAI: `prompt_cache_key` and `prompt_cache_retention`.
/// <https://platform.openai.com/docs/guides/prompt-caching>
fn insert_key(body: &[u8], dialect: Dialect, cache: &PromptCache, asked: &Asked, splices: &mut Splices) {
    static ROOT: Want<usize> = Fields(&[("prompt_cache_key", Take(0)), ("prompt_cache_retention", Take(1))]);
    let [own, retention] = members(body, 0..body.len(), &ROOT);
    let Some(start) = memchr::memchr(b'{', body).map(|at| at + 1) else { return };
    if own.is_some() || body.get(start..).unwrap_or_default().trim_ascii_start().starts_with(b"}") {
        return;
    }
    let Some(key) = cache_key(body, dialect, cache, asked) else { return };
    let mut fields = [&b"\"prompt_cache_key\":"[..], &text::encode(&key), b","].concat();
    if let Some(kept) = cache.retention.as_ref().filter(|_| retention.is_none()) {
        fields.extend([&b"\"prompt_cache_retention\":"[..], &text::encode(kept), b","].concat());
    }
    splices.replace(start..start, fields);
}

/// The body's own `org_id`, which divides as `x-org-id` does.
fn org_id(body: &[u8]) -> Option<String> {
    static ROOT: Want<usize> = Fields(&[("org_id", Take(0))]);
    let [org] = members(body, 0..body.len(), &ROOT);
    org.and_then(|org| body.get(org)).and_then(text::decode).filter(|org| !org.is_empty()).map(|org| org.into_owned())
}

fn org_of(cache: &PromptCache, asked: &Asked) -> Option<String> {
    let part = |org: &Option<String>| org.as_deref().map(isolated);
    match (part(&cache.org), part(&asked.org)) {
        (Some(own), Some(asked)) => Some(format!("{own}/{asked}")),
        (own, asked) => own.or(asked),
    }
}

/// An organisation's name as part of a key or header: no two are written alike, whatever stands beside them.
pub fn isolated(org: &str) -> String {
    const PART: &AsciiSet = &percent_encoding::CONTROLS.add(b'%').add(b'/').add(b':').add(b' ');
    percent_encoding::utf8_percent_encode(org, PART).to_string()
}

/// The key of a prompt: asked for, configured, or derived from what does not change from turn to turn; within the
/// caller's organisation, so that no two share one by accident.
fn cache_key(body: &[u8], dialect: Dialect, cache: &PromptCache, asked: &Asked) -> Option<String> {
    let key = asked.key.clone().or_else(|| cache.key.clone()).or_else(|| static_prefix(body, dialect))?;
    let whole = org_of(cache, asked).map_or_else(|| key.clone(), |org| format!("{org}:{key}"));
    Some(if whole.len() <= KEY_BYTES_MAX { whole } else { hash(&[whole.as_bytes()]) })
}

/// A hash of instructions, tools and all messages but the last; `None` if there is nothing but one message.
fn static_prefix(body: &[u8], dialect: Dialect) -> Option<String> {
    static CHAT: Want<usize> = Fields(&[("tools", Take(0)), ("messages", Take(1))]);
    static RESPONSES: Want<usize> = Fields(&[("tools", Take(0)), ("input", Take(1)), ("instructions", Take(2))]);
    let [tools, turns, instructions] = members(body, 0..body.len(), if dialect == Dialect::Chat { &CHAT } else { &RESPONSES });
    let before_last = turns.and_then(|turns| last_item(body, turns.clone()).map(|last| turns.start + 1..last.start));
    let parts: Vec<&[u8]> = [instructions, tools, before_last]
        .into_iter()
        .map(|span| span.and_then(|span| body.get(span)).unwrap_or_default().trim_ascii())
        .filter(|part| !matches!(*part, b"" | b"null" | b"[]"))
        .collect();
    (!parts.is_empty()).then(|| hash(&parts))
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize().get(..16).unwrap_or_default())
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
