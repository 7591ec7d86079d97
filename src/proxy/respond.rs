//! Answers of the gateway's own: errors in the caller's dialect, and the list of models.

use super::body;
use super::cors::Readers;
use super::head::{CALLER_REQUEST_ID, REQUEST_ID, caller_id};
use super::limits::tell_exceeded;
use crate::config::{Config, Target};
use crate::dialect::Dialect;
use crate::error::Error;
use crate::keys::Key;
use bytes::Bytes;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

/// Who is answered.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    pub request_id: &'a str,
    pub readers: &'a Readers,
}

/// Tells the caller why there is no answer. What it still sends is read away within bounds, so that it sees this and
/// the connection stays usable where possible.
pub async fn error(session: &mut ServerSession, error: &Error, dialect: Dialect, asker: Asker<'_>) {
    let reading = !session.is_body_done();
    // After broken framing nobody knows where the next request starts.
    if reading || *error == Error::BodyBroken {
        session.set_keepalive(None);
    }
    let text = error.body(dialect, asker.request_id);
    let mut headers = vec![];
    if let Some(seconds) = error.retry_after_s() {
        headers.push(("retry-after", seconds.to_string()));
    }
    if let Error::Limited(exceeded) = error {
        headers.extend(tell_exceeded(exceeded));
    }
    if *error == Error::MethodNotAllowed {
        headers.push(("allow", "POST".to_owned()));
    }
    if let Some((name, value)) = dialect.error_header(error.status()) {
        headers.push((name, value.to_owned()));
    }
    if let Some(id) = caller_id(&session.req_header().headers).and_then(|id| id.to_str().ok()) {
        headers.push((CALLER_REQUEST_ID, id.to_owned()));
    }
    if write(session, error.status(), &headers, text.into(), asker).await.is_ok() && reading {
        body::discard(session).await;
    }
}

/// Writes a JSON answer.
pub async fn write(
    session: &mut ServerSession,
    status: u16,
    headers: &[(&'static str, String)],
    body: Bytes,
    asker: Asker<'_>,
) -> Result<()> {
    let mut head = ResponseHeader::build(status, Some(4 + headers.len()))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    for (name, value) in headers {
        head.insert_header(*name, value.as_str())?;
    }
    let body = if session.req_header().method == http::Method::HEAD { Bytes::new() } else { body };
    write_head(session, head, asker).await?;
    session.write_response_body(body, true).await
}

/// Writes the head of an answer.
pub async fn write_head(session: &mut ServerSession, mut head: ResponseHeader, asker: Asker<'_>) -> Result<()> {
    head.insert_header(REQUEST_ID, asker.request_id)?;
    asker.readers.tell(&mut head)?;
    session.write_response_header(Box::new(head)).await
}

/// `GET /v1/models`: what is configured and the caller's key may use, in a shape that clients of OpenAI and of Anthropic both read.
/// <https://platform.openai.com/docs/api-reference/models/list>, <https://docs.anthropic.com/en/api/models-list>
pub fn models(config: &Config, key: Option<&Key>) -> Bytes {
    let mut data = vec![];
    let mut add = |id: String, owner: &str| {
        data.push(serde_json::json!({
            "id": id, "object": "model", "created": 0, "owned_by": owner,
            "type": "model", "display_name": id, "created_at": "1970-01-01T00:00:00Z",
        }));
    };
    let allowed = |upstream: &str, requested: &str, model: &str| key.is_none_or(|key| key.allows(upstream, requested, model).is_ok());
    for (name, alias) in &config.aliases {
        let upstream = |target: &Target| config.upstreams.get(target.upstream).map_or("", |upstream| &upstream.name);
        if let Some(target) = alias.targets().find(|target| allowed(upstream(target), name, &target.model)) {
            add(name.clone(), upstream(target));
        }
    }
    for upstream in &config.upstreams {
        let listed = upstream.models.iter().filter(|model| !model.contains('*')).map(String::as_str);
        // Another's price list says nothing about which of its models a compatible server has.
        let priced = config.prices.sold(&upstream.catalog).map(|model| model.id.as_str()).filter(|_| upstream.provider.id != "compatible");
        for model in listed.chain(priced).filter(|model| allowed(&upstream.name, model, model)) {
            add(format!("{}/{model}", upstream.name), &upstream.name);
        }
    }
    data.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    let ends = [data.first(), data.last()].map(|model| model.map(|model| model["id"].clone()));
    let [first, last] = ends;
    serde_json::json!({"object": "list", "data": data, "has_more": false, "first_id": first, "last_id": last}).to_string().into()
}
