//! Header hygiene: what a request carries upstream and an answer carries down.

use super::access::host;
use super::cors;
use super::identity::Proof;
use crate::config::{Config, Credentials, Upstream};
use crate::dialect::Dialect;
use crate::error::Error;
use crate::provider::Auth;
use crate::provider::auth::{AwsKeys, Unsigned, sign_v4};
use crate::rewrite::cache::Header;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use std::time::SystemTime;

/// Names the request at this gateway, in every answer.
pub const REQUEST_ID: &str = "x-gateway-request-id";
/// The caller's own name for the request; passed on, made up where missing.
pub const CALLER_REQUEST_ID: &str = "x-request-id";
/// The same, to be looked for. What is inserted is named by text, which Pingora keeps without copying it.
const CALLER_REQUEST_ID_NAME: HeaderName = HeaderName::from_static(CALLER_REQUEST_ID);
/// Asks for the cost as a comment at the end of a stream (`true`), or for none (`false`).
pub const COST_EVENT: HeaderName = HeaderName::from_static("x-gateway-cost-event");
/// Where a browser says that the page is of.
/// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A longer `x-request-id` is replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The caller's own name for a request, if it is of reasonable length.
pub fn caller_id(headers: &http::HeaderMap) -> Option<&HeaderValue> {
    headers.get(&CALLER_REQUEST_ID_NAME).filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)
}

/// Never sent upstream: credentials of callers (one may be put back), the gateway's own headers, what describes a body
/// that has been read or a connection that ends here, and what would make answers unreadable.
fn never_goes_up(name: &str) -> bool {
    match name {
        "authorization" | "x-api-key" | "api-key" | "x-goog-api-key" | "proxy-authorization" | "cookie" => true,
        "x-amz-date" | "x-amz-security-token" | "x-amz-content-sha256" => true,
        "x-provider" | "x-org-id" | "x-cache-key" | "x-goog-fieldmask" => true,
        // Part of an answer, or none since it is known, is no answer to meter.
        "range" | "if-range" | "if-none-match" | "if-modified-since" | "accept-encoding" => true,
        "te" | "trailer" | "expect" | "sec-websocket-extensions" | "transfer-encoding" => true,
        // Which pages may ask is settled here; providers refuse browsers.
        "origin" => true,
        // They turn a request into another one: <https://cloud.google.com/apis/docs/system-parameters>.
        "x-http-method-override" | "x-http-method" | "x-method-override" => true,
        "x-goog-api-client" | "x-goog-request-params" => false,
        // The account that pays, the fields and the encoding of a response.
        _ if name.starts_with("x-goog-") => true,
        _ => name.starts_with(GATEWAY_PREFIX),
    }
}

/// Concern the connection to the upstream alone.
const HOP_BY_HOP: &[&str] = &["keep-alive", "proxy-authenticate", "proxy-connection", "upgrade", "te", "trailer"];
/// May not be taken away by being named in `Connection`.
const FRAMING: &[&str] = &["close", "connection", "content-length", "transfer-encoding", "content-type"];
const GATEWAY_PREFIX: &str = "x-gateway-";

/// Refuses a head that could be read in two ways: a `Connection` header that is no list of names, or that takes away a header which
/// decides over the request (named headers are not forwarded), and a body whose length is stated twice. `raw` is the head as it came.
///
/// # Errors
/// [`Error::BadConnection`] or [`Error::BadFraming`].
pub fn check_framing(headers: &http::HeaderMap, raw: impl FnOnce() -> Option<Bytes>) -> Result<(), Error> {
    // Pingora takes away a `Content-Length` beside `Transfer-Encoding`: only the head as it came shows it.
    let length =
        |line: &[u8]| line.split(|byte| *byte == b':').next().is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"content-length"));
    let stated = || headers.contains_key(header::CONTENT_LENGTH) || raw().is_some_and(|raw| raw.split(|byte| *byte == b'\n').any(length));
    let framed_twice = headers.contains_key(header::TRANSFER_ENCODING) && stated();
    let chunked = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    let codings = headers.get_all(header::TRANSFER_ENCODING);
    if framed_twice || codings.iter().count() > 1 || !codings.iter().all(chunked) {
        return Err(Error::BadFraming);
    }
    for value in headers.get_all(header::CONNECTION) {
        let mut names = value.to_str().map_err(|_| Error::BadConnection)?.split(',').map(str::trim).filter(|name| !name.is_empty());
        let may_go = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| !STAYS.contains(&name.as_str()));
        if !names.all(may_go) {
            return Err(Error::BadConnection);
        }
    }
    Ok(())
}

/// Headers that `Connection` must not take away.
const STAYS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-gateway-key",
    "x-provider",
];

/// Headers of an upstream that only the gateway may set: a client would read them as the gateway's own.
pub fn gateway_headers(headers: &http::HeaderMap) -> Vec<HeaderName> {
    headers.keys().filter(|name| name.as_str().starts_with(GATEWAY_PREFIX)).cloned().collect()
}

/// Without keys the gateway serves this machine alone, and any web page can post to it: so the Host must be a name of
/// the gateway, and requests of other sites are refused.
///
/// # Errors
/// [`Error::ForbiddenHost`] or [`Error::CrossSite`].
pub fn check_origin(header: &RequestHeader, config: &Config, origins: &[String]) -> Result<(), Error> {
    if !config.answers_for(host(header)) {
        return Err(Error::ForbiddenHost);
    }
    check_site(header, config, origins)
}

/// Requests of other web sites are refused, but for those of listed origins.
///
/// # Errors
/// [`Error::CrossSite`].
pub fn check_site(header: &RequestHeader, config: &Config, origins: &[String]) -> Result<(), Error> {
    let headers = &header.headers;
    if cors::origin(headers, origins).is_some() {
        return Ok(());
    }
    let foreign_site = headers.get(&FETCH_SITE).is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let own = |origin: &HeaderValue| {
        origin.to_str().is_ok_and(|origin| origin.split_once("://").is_some_and(|(_, name)| config.answers_for(name)))
    };
    if foreign_site || headers.get(header::ORIGIN).is_some_and(|origin| !own(origin)) {
        return Err(Error::CrossSite);
    }
    Ok(())
}

/// What an upstream is sent, besides what the caller said.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub upstream: &'a Upstream,
    /// What a cloud handed out for it.
    pub proof: Option<&'a Proof>,
    pub dialect: Dialect,
    /// With the query.
    pub path: &'a str,
    pub body: &'a [u8],
    /// Beside the caller's.
    pub headers: &'a [Header],
    pub request_id: &'a str,
    pub config: &'a Config,
}

/// Turns the caller's head into the one the upstream gets.
pub fn upstream_request(request: &mut RequestHeader, outgoing: Outgoing<'_>) -> Result<()> {
    let Outgoing { upstream, dialect, path, body, headers, request_id, config, .. } = outgoing;
    let credential = upstream.callers_credential(dialect, &request.headers).map(|(name, value)| (name, value.clone()));
    strip(request, config);
    strip_subprotocol(request)?;
    request.set_uri(path.parse().map_err(|_| pingora::Error::new_in(pingora::ErrorType::InternalError))?);
    request.insert_header(header::HOST, upstream.host_header())?;
    if !body.is_empty() || request.method != http::Method::GET {
        request.insert_header(header::CONTENT_LENGTH, body.len())?;
    } else {
        request.remove_header(&header::CONTENT_LENGTH);
    }
    if caller_id(&request.headers).is_none() {
        request.insert_header(CALLER_REQUEST_ID, request_id)?;
    }
    for (name, value) in upstream.provider.headers {
        if !request.headers.contains_key(*name) {
            request.insert_header(*name, *value)?;
        }
    }
    for header in headers {
        if header.always || !request.headers.contains_key(header.name) {
            request.insert_header(header.name, header.value.as_str())?;
        }
    }
    for (name, value) in &config.headers.request_add {
        request.insert_header(name.clone(), value.as_str())?;
    }
    // The gateway's key is not for callers who were to bring their own.
    let own = upstream.key.as_ref().filter(|_| upstream.credentials == Credentials::Gateway);
    match (credential, own, upstream.auth(dialect)) {
        (Some((name, mut value)), ..) => {
            value.set_sensitive(true);
            request.insert_header(name, value)
        }
        (None, None, _) if upstream.credentials == Credentials::Gateway => match (outgoing.proof, &upstream.aws) {
            (Some(Proof::Bearer(value)), _) => request.insert_header(header::AUTHORIZATION, value.clone()),
            (Some(Proof::Aws(keys)), _) | (None, Some(keys)) => sign(request, outgoing, keys),
            (None, None) => Ok(()),
        },
        (None, Some(key), Auth::Bearer | Auth::Aws) => {
            request.insert_header(header::AUTHORIZATION, sensitive(&format!("Bearer {}", key.expose()))?)
        }
        (None, Some(key), Auth::Header(name)) => request.insert_header(name, sensitive(key.expose())?),
        _ => Ok(()),
    }
}

/// Signs the request with keys of an account.
fn sign(request: &mut RequestHeader, outgoing: Outgoing<'_>, keys: &AwsKeys) -> Result<()> {
    let Outgoing { upstream, path, body, .. } = outgoing;
    let uri = format!("{}://{}{path}", if upstream.tls { "https" } else { "http" }, upstream.authority());
    let kind = request.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let headers: Vec<_> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
    let unsigned = Unsigned { method: request.method.as_str(), uri: &uri, headers: &headers, body };
    let signed = sign_v4(unsigned, keys, upstream.place("region").unwrap_or("us-east-1"), "bedrock", SystemTime::now());
    for (name, value) in signed.ok_or_else(|| pingora::Error::new_in(pingora::ErrorType::InternalError))? {
        request.insert_header(name, sensitive(&value)?)?;
    }
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| pingora::Error::new_in(pingora::ErrorType::InvalidHTTPHeader))
}

/// A value that debug output hides.
fn sensitive(text: &str) -> Result<HeaderValue> {
    let mut value = value(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Browsers cannot set headers of a WebSocket, so OpenAI's client says its key as a subprotocol; the others stay.
/// <https://platform.openai.com/docs/guides/realtime-websocket#connection-details>
fn strip_subprotocol(request: &mut RequestHeader) -> Result<()> {
    const KEY: &str = "openai-insecure-api-key.";
    let Some(named) = request.headers.get(header::SEC_WEBSOCKET_PROTOCOL) else { return Ok(()) };
    let named = named.to_str().unwrap_or_default();
    let kept: Vec<&str> = named.split(',').map(str::trim).filter(|name| !name.is_empty() && !name.starts_with(KEY)).collect();
    let kept = kept.join(", ");
    if kept.is_empty() {
        request.remove_header(&header::SEC_WEBSOCKET_PROTOCOL);
        return Ok(());
    }
    request.insert_header(header::SEC_WEBSOCKET_PROTOCOL, kept)
}

fn strip(request: &mut RequestHeader, config: &Config) {
    let denied = |name: &str| never_goes_up(name) || config.headers.request_deny.iter().any(|deny| deny == name);
    let gone: Vec<HeaderName> = request.headers.keys().filter(|name| denied(name.as_str())).cloned().collect();
    gone.iter().for_each(|name| drop(request.remove_header(name)));
}

/// Turns the upstream's head into the one the caller gets. `Connection` and framing are Pingora's to write.
pub fn downstream_response(response: &mut ResponseHeader, request_id: &str, caller_id: Option<HeaderValue>, config: &Config) -> Result<()> {
    let nominated = response.headers.get(header::CONNECTION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Mostly no header is.
    let nominated = Some(nominated).filter(|nominated| !["", "keep-alive", "close"].contains(nominated)).map(str::to_ascii_lowercase);
    let named = |name: &str| {
        nominated.as_ref().is_some_and(|nominated| nominated.split(',').any(|other| other.trim() == name) && !FRAMING.contains(&name))
    };
    // Which pages may read it is settled here.
    let own = |name: &str| HOP_BY_HOP.contains(&name) || name.starts_with("access-control-");
    let denied = |name: &str| own(name) || config.headers.response_deny.iter().any(|deny| deny == name) || named(name);
    let gone: Vec<HeaderName> = response.headers.keys().filter(|name| denied(name.as_str())).cloned().collect();
    gone.iter().for_each(|name| drop(response.remove_header(name)));
    let id = value(request_id)?;
    response.insert_header(REQUEST_ID, id.clone())?;
    if !response.headers.contains_key(&CALLER_REQUEST_ID_NAME) {
        // If the caller had none, what the upstream was told.
        response.insert_header(CALLER_REQUEST_ID, caller_id.unwrap_or(id))?;
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

    fn outgoing<'a>(upstream: &'a Upstream, path: &'a str, body: &'a [u8], config: &'a Config) -> Outgoing<'a> {
        Outgoing { upstream, proof: None, dialect: Dialect::Chat, path, body, headers: &[], request_id: "id", config }
    }

    #[test]
    fn each_provider_gets_its_key_its_way() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        let aws = Some(crate::provider::auth::AwsKeys::new("AKID", "secret", None));
        for (id, dialect, key, aws, name, want) in [
            ("googleai", Dialect::Generate, Some("k"), None, "x-goog-api-key", "k"),
            ("googleai", Dialect::Chat, Some("k"), None, "authorization", "Bearer k"),
            ("azure", Dialect::Chat, Some("k"), None, "api-key", "k"),
            ("bedrock", Dialect::Converse, Some("k"), aws.clone(), "authorization", "Bearer k"),
            ("bedrock", Dialect::Converse, None, aws, "authorization", "AWS4-HMAC-SHA256 Credential=AKID/"),
        ] {
            let mut request = request(&[("x-goog-api-key", "c"), ("x-amz-date", "d"), ("authorization", "AWS4-HMAC-SHA256 x")]);
            let key = key.map(Secret::new);
            let mut upstream = Upstream { key, aws, ..Upstream::of(provider::find(id).unwrap(), id) };
            upstream.provider.places.iter().for_each(|place| upstream.set_place(place.name, "us-west-2".to_owned()));
            upstream_request(&mut request, Outgoing { dialect, ..outgoing(&upstream, "/p", b"{}", &config) }).unwrap();
            let sent = request.headers.get(name).unwrap();
            assert!(sent.to_str().unwrap().starts_with(want) && sent.is_sensitive(), "{id}");
            assert_eq!(request.headers.get("x-goog-api-key").is_some(), name == "x-goog-api-key", "{id}");
        }
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
        upstream_request(&mut request, outgoing(&upstream, "/v1/messages?beta=true", b"{\"a\":1}", &config)).unwrap();
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
    fn a_head_that_could_be_read_in_two_ways_is_refused() {
        for (headers, want) in [
            (&[("connection", "keep-alive, X-Hop, upgrade")][..], Ok(())),
            (&[("connection", ""), ("content-length", "3")], Ok(())),
            (&[("connection", "host")], Err(Error::BadConnection)),
            (&[("connection", "close"), ("connection", "x, Content-Length")], Err(Error::BadConnection)),
            (&[("connection", "a b")], Err(Error::BadConnection)),
            (&[("connection", "é")], Err(Error::BadConnection)),
            (&[("connection", "authorization")], Err(Error::BadConnection)),
            (&[("content-length", "3"), ("transfer-encoding", "chunked")], Err(Error::BadFraming)),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(Error::BadFraming)),
        ] {
            assert_eq!(check_framing(&request(headers).headers, || None), want, "{headers:?}");
        }
        let chunked = &request(&[("transfer-encoding", "chunked")]).headers;
        for (raw, want) in [
            ("POST / HTTP/1.1\r\nContent-length : 3\r\n\r\n", Err(Error::BadFraming)),
            ("POST / HTTP/1.1\r\nX: content-length: 3\r\n\r\n", Ok(())),
        ] {
            assert_eq!(check_framing(chunked, || Some(Bytes::from(raw))), want, "{raw}");
        }
    }

    #[test]
    fn headers_that_turn_a_request_into_another_stay_here() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        let mut request = request(&[
            ("x-http-method-override", "GET"),
            ("x-goog-fieldmask", "candidates"),
            ("X-Goog-User-Project", "other"),
            ("x-goog-encode-response-if-executable", "base64"),
            ("x-goog-api-client", "gl-python"),
        ]);
        let upstream = Upstream::of(provider::find("googleai").unwrap(), "googleai");
        upstream_request(&mut request, outgoing(&upstream, "/p", b"{}", &config)).unwrap();
        let left: Vec<_> = request.headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("x-")).collect();
        assert_eq!(left.iter().filter(|name| **name != "x-request-id").collect::<Vec<_>>(), [&"x-goog-api-client"]);
    }

    #[test]
    fn a_key_that_is_said_as_a_subprotocol_stays_here() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        let upstream = Upstream::of(provider::find("openai").unwrap(), "openai");
        for (said, want) in [
            ("realtime, openai-insecure-api-key.tg_secret, openai-beta.realtime-v1", Some("realtime, openai-beta.realtime-v1")),
            ("openai-insecure-api-key.tg_secret", None),
        ] {
            let mut request = request(&[("sec-websocket-protocol", said)]);
            upstream_request(&mut request, outgoing(&upstream, "/v1/responses", b"", &config)).unwrap();
            assert_eq!(request.headers.get("sec-websocket-protocol").map(|value| value.to_str().unwrap()), want);
        }
    }

    #[test]
    fn a_callers_own_key_goes_on_only_where_that_is_configured() {
        let config = load(&Source::Embedded, &|_| None).unwrap();
        for (credentials, want) in [(Credentials::Caller, Some("Bearer mine")), (Credentials::Gateway, None)] {
            let mut request = request(&[("authorization", "Bearer mine")]);
            let upstream = Upstream { credentials, ..Upstream::of(provider::find("openai").unwrap(), "openai") };
            upstream_request(&mut request, outgoing(&upstream, "/v1/responses", b"", &config)).unwrap();
            assert_eq!(request.headers.get("authorization").map(|value| value.to_str().unwrap()), want);
        }
    }

    #[test]
    fn foreign_hosts_and_sites_are_refused() {
        let mut config = load(&Source::Embedded, &|_| None).unwrap();
        config.origins = vec!["https://app.example".to_owned()];
        for (headers, want) in [
            (&[("host", "127.0.0.1:8080")][..], Ok(())),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], Ok(())),
            (&[("host", "rebound.example:8080")], Err(Error::ForbiddenHost)),
            (&[], Err(Error::ForbiddenHost)),
            (&[("host", "127.0.0.1:8080"), ("origin", "https://evil.example")], Err(Error::CrossSite)),
            (&[("host", "127.0.0.1:8080"), ("origin", "null")], Err(Error::CrossSite)),
            (&[("host", "127.0.0.1:8080"), ("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], Ok(())),
            (&[("host", "127.0.0.1:8080"), ("origin", "http://app.example")], Err(Error::CrossSite)),
            (&[("host", "app.example")], Err(Error::ForbiddenHost)),
            (&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "cross-site")], Err(Error::CrossSite)),
            (&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-site")], Err(Error::CrossSite)),
        ] {
            assert_eq!(check_origin(&request(headers), &config, &config.origins), want, "{headers:?}");
            // Where none is listed, none is let in.
            let foreign = headers.iter().any(|(name, value)| *name == "origin" && value.contains("app.example"));
            assert_eq!(check_origin(&request(headers), &config, &[]), if foreign { Err(Error::CrossSite) } else { want }, "{headers:?}");
        }
    }
}
