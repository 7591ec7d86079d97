//! Who may ask: gateway keys where there are any, else whoever is on this machine.

use super::gateway::Gateway;
use super::head;
use super::state::{State, now_s};
use crate::config::Config;
use crate::error::Error;
use crate::keys::Caller;
use crate::keys::signature::Request;
use http::header;
use pingora::http::RequestHeader;

impl Gateway {
    /// Finds out who asks; `None` where nobody needs a key.
    pub(super) fn admit(&self, request: &RequestHeader, config: &Config) -> Result<Option<Caller>, Error> {
        match &config.keys {
            Some(keys) => keys.authenticate(&request.headers, now_s()).map(Some),
            None if config.anonymous => Ok(None),
            None => head::check_origin(request, config, &config.origins).map(|()| None),
        }
    }
}

impl State {
    /// True if the key that opened a connection may still be used.
    pub(super) fn still_admits(&self, key: Option<&str>) -> bool {
        let Some(id) = key else { return true };
        self.config().keys.as_ref().is_some_and(|keys| keys.holds(id, now_s()))
    }
}

/// Checks a signature, now that the body is here.
pub fn verify(caller: Option<&Caller>, request: &RequestHeader, body: &[u8], config: &Config) -> Result<(), Error> {
    let (Some(caller), Some(keys)) = (caller, &config.keys) else { return Ok(()) };
    let signed = Request {
        method: request.method.as_str(),
        host: host(request),
        path_and_query: request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        headers: &request.headers,
        body,
    };
    keys.verify(caller, signed)
}

/// The name by which the caller reaches the gateway.
pub fn host(request: &RequestHeader) -> &str {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers.get(header::HOST).and_then(|host| host.to_str().ok())).unwrap_or_default()
}
