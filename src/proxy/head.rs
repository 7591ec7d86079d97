//! Header hygiene: what a request carries upstream and an answer carries down.

use crate::config::{Config, Credentials, Upstream};
use crate::error::Error;
use crate::provider::Auth;
use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

/// Names the request at this gateway, in every answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-gateway-request-id");
/// The caller's own name for the request; passed on, made up where missing.
pub const CALLER_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer `x-request-id` is replaced.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Never sent upstream: credentials of callers (one may be put back), the gateway's own headers, and what describes a
/// body that has been read or a connection that ends here.
const NEVER_UP: &[&str] = &[
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "proxy-authorization",
    "cookie",
    "x-provider",
    "x-org-id",
    "x-cache-key",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
    "content-length",
    "transfer-encoding",
    "host",
];
/// Concern the connection to the upstream alone.
const HOP_BY_HOP: &[&str] = &["keep-alive", "proxy-authenticate", "proxy-connection", "upgrade", "te", "trailer"];
/// May not be taken away by being named in `Connection`.
const FRAMING: &[&str] = &["close", "connection", "content-length", "transfer-encoding", "content-type"];
const GATEWAY_PREFIX: &str = "x-gateway-";

/// Without keys the gateway serves this machine alone, and any web page can post to it: so the Host must be a name of
/// the gateway, and requests of other sites are refused.
///
/// # Errors
/// [`Error::ForbiddenHost`] or [`Error::CrossSite`].
pub fn check_origin(header: &RequestHeader, config: &Config) -> Result<(), Error> {
    let headers = &header.headers;
    let host = header.uri.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| headers.get(header::HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
    if !config.answers_for(host) {
        return Err(Error::ForbiddenHost);
    }
    let foreign_site = headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let own = |origin: &HeaderValue| {
        origin.to_str().is_ok_and(|origin| origin.split_once("://").is_some_and(|(_, name)| config.answers_for(name)))
    };
    if foreign_site || headers.get(header::ORIGIN).is_some_and(|origin| !own(origin)) {
        return Err(Error::CrossSite);
    }
    Ok(())
}

/// Turns the caller's head into the one the upstream gets.
pub fn upstream_request(
    request: &mut RequestHeader,
    upstream: &Upstream,
    path: &str,
    body_len: usize,
    request_id: &str,
    config: &Config,
) -> Result<()> {
    let credential = upstream.callers_credential(&request.headers).map(|(name, value)| (name, value.clone()));
    strip(request, config);
    request.set_uri(path.parse().map_err(|_| pingora::Error::new_in(pingora::ErrorType::InternalError))?);
    request.insert_header(header::HOST, upstream.authority())?;
    if body_len > 0 || request.method != http::Method::GET {
        request.insert_header(header::CONTENT_LENGTH, body_len)?;
    }
    let named = request.headers.get(&CALLER_REQUEST_ID).is_some_and(|id| id.len() <= REQUEST_ID_BYTES_MAX);
    if !named {
        request.insert_header(CALLER_REQUEST_ID, request_id)?;
    }
    for (name, value) in upstream.provider.headers {
        if !request.headers.contains_key(*name) {
            request.insert_header(*name, *value)?;
        }
    }
    for (name, value) in &config.headers.request_add {
        request.insert_header(name.clone(), value.as_str())?;
    }
    // The gateway's key is not for callers who were to bring their own.
    let own = upstream.key.as_ref().filter(|_| upstream.credentials == Credentials::Gateway);
    match (credential, own, upstream.auth) {
        (Some((name, value)), ..) => request.insert_header(name, value),
        (None, Some(key), Auth::Bearer) => request.insert_header(header::AUTHORIZATION, sensitive(&format!("Bearer {}", key.expose()))?),
        (None, Some(key), Auth::Header(name)) => request.insert_header(name, sensitive(key.expose())?),
        _ => Ok(()),
    }
}

/// A value that debug output hides.
fn sensitive(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| pingora::Error::new_in(pingora::ErrorType::InvalidHTTPHeader))?;
    value.set_sensitive(true);
    Ok(value)
}

fn strip(request: &mut RequestHeader, config: &Config) {
    let denied = |name: &str| {
        NEVER_UP.contains(&name) || name.starts_with(GATEWAY_PREFIX) || config.headers.request_deny.iter().any(|deny| deny == name)
    };
    while let Some(name) = request.headers.keys().find(|name| denied(name.as_str())).cloned() {
        request.remove_header(&name);
    }
}

/// Turns the upstream's head into the one the caller gets. `Connection` and framing are Pingora's to write.
pub fn downstream_response(response: &mut ResponseHeader, request_id: &str, caller_id: Option<HeaderValue>, config: &Config) -> Result<()> {
    let nominated: String =
        response.headers.get(header::CONNECTION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let named = |name: &str| nominated.split(',').any(|other| other.trim() == name) && !FRAMING.contains(&name);
    let denied = |name: &str| HOP_BY_HOP.contains(&name) || config.headers.response_deny.iter().any(|deny| deny == name) || named(name);
    while let Some(name) = response.headers.keys().find(|name| denied(name.as_str())).cloned() {
        response.remove_header(&name);
    }
    response.insert_header(REQUEST_ID, request_id)?;
    if let Some(id) = caller_id
        && !response.headers.contains_key(&CALLER_REQUEST_ID)
    {
        response.insert_header(CALLER_REQUEST_ID, id)?;
    }
    for (name, value) in &config.headers.response_add {
        response.insert_header(name.clone(), value.as_str())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, Source, load};
    use crate::provider;

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("POST", b"/v1/messages", None).unwrap();
        headers.iter().for_each(|(name, value)| drop(request.append_header(*name, *value)));
        request
    }

    #[test]
    fn callers_credentials_and_the_gateways_headers_stay_here() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        let mut request = request(&[
            ("Authorization", "Bearer caller"),
            ("X-Api-Key", "caller"),
            ("Cookie", "c"),
            ("X-Gateway-Tags", "t"),
            ("OpenAI-Organization", "o"),
            ("Accept-Encoding", "gzip"),
            ("anthropic-beta", "b"),
            ("traceparent", "00-1-2-01"),
        ]);
        let upstream = Upstream { key: Some(Secret::new("sk-own")), ..Upstream::of(provider::find("anthropic").unwrap(), "anthropic") };
        upstream_request(&mut request, &upstream, "/v1/messages?beta=true", 7, "id", &config).unwrap();
        let mut names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["anthropic-beta", "anthropic-version", "content-length", "host", "traceparent", "x-api-key", "x-request-id"]);
        assert_eq!(
            (request.headers["x-api-key"].as_bytes(), request.headers["host"].as_bytes()),
            (&b"sk-own"[..], &b"api.anthropic.com"[..])
        );
        assert!(request.headers["x-api-key"].is_sensitive() && !format!("{request:?}").contains("sk-own"));
        assert_eq!(request.uri.path_and_query().unwrap().as_str(), "/v1/messages?beta=true");
    }

    #[test]
    fn a_callers_own_key_goes_on_only_where_that_is_configured() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        for (credentials, want) in [(Credentials::Caller, Some("Bearer mine")), (Credentials::Gateway, None)] {
            let mut request = request(&[("authorization", "Bearer mine")]);
            let upstream = Upstream { credentials, ..Upstream::of(provider::find("openai").unwrap(), "openai") };
            upstream_request(&mut request, &upstream, "/v1/responses", 0, "id", &config).unwrap();
            assert_eq!(request.headers.get("authorization").map(|value| value.to_str().unwrap()), want);
        }
    }

    #[test]
    fn foreign_hosts_and_sites_are_refused() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        for (headers, want) in [
            (&[("host", "127.0.0.1:8080")][..], Ok(())),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], Ok(())),
            (&[("host", "rebound.example:8080")], Err(Error::ForbiddenHost)),
            (&[], Err(Error::ForbiddenHost)),
            (&[("host", "127.0.0.1:8080"), ("origin", "https://evil.example")], Err(Error::CrossSite)),
            (&[("host", "127.0.0.1:8080"), ("origin", "null")], Err(Error::CrossSite)),
            (&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "cross-site")], Err(Error::CrossSite)),
            (&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-site")], Err(Error::CrossSite)),
        ] {
            assert_eq!(check_origin(&request(headers), &config), want, "{headers:?}");
        }
    }
}
