//! Paths of answers and conversations that providers keep:
//! <https://platform.openai.com/docs/api-reference/responses>, <https://platform.openai.com/docs/api-reference/conversations>.

use super::path::below_base;
use super::{Destination, Head, ModelPlace, PROVIDER_HEADER, RequestFields, Route, Target, Wanted, configured};
use crate::config::{Config, PathStyle, Upstream};
use crate::dialect::Endpoint;
use crate::error::Error;
use crate::provider::collections;
use http::Method;

/// Where a path leads, if it is one of these.
pub(super) fn find(method: &Method, rest: &str, mount: Option<usize>, config: &Config) -> Option<Destination> {
    let upstream = mount.and_then(|mount| config.upstreams.get(mount));
    let below = match upstream {
        Some(upstream) if upstream.endpoints.contains(&Endpoint::Responses) => below_openai(rest, upstream),
        Some(_) => return None,
        None => rest.strip_prefix("/v1")?,
    };
    let below = below.strip_suffix('/').unwrap_or(below);
    let mut parts = below.strip_prefix('/')?.split('/');
    let kind = parts.next()?;
    let (id, rest): (_, Vec<&str>) = (parts.next(), parts.collect());
    let (get, post, delete) = (*method == Method::GET, *method == Method::POST, *method == Method::DELETE);
    let known = match (kind, id, rest.as_slice()) {
        ("responses", Some("compact" | "input_tokens"), _) => false,
        ("responses", Some(_), []) => get || delete,
        ("responses", Some(_), ["cancel"]) => post,
        ("responses", Some(_), ["input_items"]) => get,
        ("conversations", None, []) => post,
        ("conversations", Some(_), []) => get || post || delete,
        ("conversations", Some(_), ["items"]) => get || post,
        ("conversations", Some(_), ["items", item]) => (get || delete) && is_id(item),
        _ => false,
    };
    (known && id.is_none_or(is_id)).then(|| Destination::Stored { mount, id: id.map(str::to_owned), below: below.to_owned() })
}

/// Azure's version-less API and its dated one have a prefix that its base path need not have.
fn below_openai<'a>(rest: &'a str, upstream: &Upstream) -> &'a str {
    let below = below_base(rest, upstream);
    below
        .strip_prefix("/openai")
        .filter(|_| upstream.provider.id == "azure")
        .map_or(below, |below| below.strip_prefix("/v1").unwrap_or(below))
}

/// True if a path leads to what is kept, in whatever spelling a server might take for it.
pub(super) fn is_spelled(path: &str) -> bool {
    collections::plain(path).split('/').any(|segment| matches!(segment, "responses" | "conversations"))
}

fn is_id(id: &str) -> bool {
    collections::is_id(id) && !id.contains(':')
}

/// The way there: to who knows the answer, else to who is named, else to the first that keeps any.
pub(super) fn route(head: &Head<'_>, at: Option<usize>, below: &str, config: &Config) -> Result<Route, Error> {
    let named = head.headers.get(&PROVIDER_HEADER).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase());
    let named = named.map(|name| configured(&name, config)).transpose()?;
    let keeps = |upstream: &Upstream| upstream.endpoints.contains(&Endpoint::Responses);
    let fallback = config.fallback.filter(|at| config.upstreams.get(*at).is_some_and(keeps));
    let at = at.or(named).or(fallback).or_else(|| config.upstreams.iter().position(keeps));
    let at = at.ok_or_else(|| Error::NotFound { path: head.path.to_owned() })?;
    let upstream = config.upstreams.get(at).ok_or(Error::Internal)?;
    let fields = RequestFields::default();
    let wanted = Wanted { head, fields: &fields, endpoint: Some(Endpoint::Responses), named: None, requested: "", config };
    let route = wanted.at(at, "")?;
    let path = path_at(upstream, &route.path, below);
    Ok(Route { target: Target::Stored, path, model_place: ModelPlace::Body, ..route })
}

fn path_at(upstream: &Upstream, responses: &str, below: &str) -> String {
    let base = responses.strip_suffix(Endpoint::Responses.name()).unwrap_or(&upstream.base_path);
    format!("{base}{below}")
}

/// A path of what is kept at an upstream, with its query; `None` if it keeps nothing.
pub fn stored_path(upstream: &Upstream, below: &str) -> Option<String> {
    let dated = upstream.api_version.as_ref().filter(|_| upstream.provider.id == "azure");
    let style = if dated.is_some() { PathStyle::Deployment } else { PathStyle::Usual };
    let path = path_at(upstream, &upstream.path(Endpoint::Responses, "", &style)?, below);
    Some(dated.map_or_else(|| path.clone(), |version| format!("{path}?api-version={version}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, load};

    #[test]
    fn knows_what_is_kept_and_what_may_be_done_with_it() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        for (method, path, id) in [
            ("GET", "/v1/responses/resp_1", Some(Some("resp_1"))),
            ("DELETE", "/v1/responses/resp_1/", Some(Some("resp_1"))),
            ("POST", "/v1/responses/resp_1/cancel", Some(Some("resp_1"))),
            ("GET", "/v1/responses/resp_1/input_items", Some(Some("resp_1"))),
            ("POST", "/v1/conversations", Some(None)),
            ("GET", "/v1/conversations/conv_1/items/msg-2", Some(Some("conv_1"))),
            ("POST", "/v1/responses/input_tokens", None),
            ("POST", "/v1/responses/resp_1", None),
            ("GET", "/v1/responses", None),
            ("GET", "/v1/conversations", None),
            ("GET", "/v1/responses/a%2fb", None),
            ("GET", "/v1/responses/resp_1/other", None),
        ] {
            let found = find(&method.parse().unwrap(), path, None, &config);
            let found = found.map(|found| match found {
                Destination::Stored { id, .. } => id,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, id.map(|id| id.map(str::to_owned)), "{method} {path}");
        }
        let long = format!("/v1/responses/{}", "r".repeat(collections::ID_BYTES_MAX + 1));
        assert_eq!(find(&Method::GET, &long, None, &config), None);
    }
}
