//! An upstream: a provider's endpoint with its address and credential, as configuration made it.

use super::Secret;
use crate::dialect::Endpoint;
use crate::provider::{Auth, Provider, StreamUsage, fits};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::path::PathBuf;

/// Whose credential goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The gateway's own.
    Gateway,
    /// The caller's, and only to this upstream's configured host.
    Caller,
}

/// A path outside the dialects that is let through: `GET /models`, `POST /rerank*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub method: http::Method,
    /// Below the base path; `*` at its end stands for anything.
    pub path: String,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name in paths, model prefixes, entries and metrics.
    pub name: String,
    pub provider: &'static Provider,
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub base_path: String,
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    pub key: Option<Secret>,
    pub auth: Auth,
    pub credentials: Credentials,
    pub endpoints: Vec<Endpoint>,
    /// Names and patterns of models beyond the provider's own.
    pub models: Vec<String>,
    pub stream_usage: StreamUsage,
    /// Whose rates apply.
    pub catalog: String,
    pub pass: Vec<Pass>,
}

impl Upstream {
    /// The upstream of a provider as the provider describes itself.
    pub fn of(provider: &'static Provider, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider,
            tls: true,
            host: provider.host.to_owned(),
            port: 443,
            base_path: provider.base_path.to_owned(),
            ca: None,
            key: None,
            auth: provider.auth,
            credentials: Credentials::Gateway,
            endpoints: provider.endpoints.to_vec(),
            models: vec![],
            stream_usage: provider.stream_usage,
            catalog: if provider.catalog.is_empty() { provider.id } else { provider.catalog }.to_owned(),
            pass: vec![
                Pass { method: http::Method::GET, path: "/models".to_owned() },
                Pass { method: http::Method::GET, path: "/models/*".to_owned() },
            ],
        }
    }

    /// The `Host` a request carries: with the port only if it is not the usual one.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }

    /// The endpoint's path here, `None` if there is no such endpoint.
    pub fn path(&self, endpoint: Endpoint) -> Option<String> {
        if !self.endpoints.contains(&endpoint) {
            return None;
        }
        let own = self.provider.paths.iter().find(|(other, _)| *other == endpoint && self.base_path == self.provider.base_path);
        Some(own.map_or_else(|| format!("{}{}", self.base_path, endpoint.name()), |(_, path)| (*path).to_owned()))
    }

    /// The credential that goes on in the caller's name, and the header it came in; `None` unless callers bring theirs.
    pub fn callers_credential<'h>(&self, headers: &'h HeaderMap) -> Option<(HeaderName, &'h HeaderValue)> {
        let own = match self.auth {
            Auth::Header(name) => HeaderName::from_static(name),
            Auth::Bearer | Auth::None => AUTHORIZATION,
        };
        let names = [own, AUTHORIZATION].into_iter().filter(|_| self.credentials == Credentials::Caller);
        names.into_iter().find_map(|name| headers.get(&name).map(|value| (name, value)))
    }

    /// True if a model of this name is served here by its looks.
    pub fn serves(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| fits(model, pattern)) || self.provider.models.iter().any(|pattern| fits(model, pattern))
    }

    /// True if the provider's own models are called `prefix/…`.
    pub fn names_models_after(&self, prefix: &str) -> bool {
        let named = |pattern: &str| pattern.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        self.models.iter().any(|pattern| named(pattern)) || self.provider.models.iter().any(|pattern| named(pattern))
    }

    /// True if a path below the base path is let through.
    pub fn passes(&self, method: &http::Method, path: &str) -> bool {
        self.pass.iter().any(|pass| pass.method == *method && fits(path, &pass.path))
    }
}
