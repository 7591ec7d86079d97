//! An upstream: a provider's endpoint with its address and credential, as configuration made it.

use super::{Identity, Secret, Timeouts};
use crate::dialect::{Dialect, Endpoint};
use crate::keys::signature::SCHEME;
use crate::keys::{PREFIX, strip_bearer};
use crate::provider::auth::AwsKeys;
use crate::provider::{Auth, OnDisconnect, Provider, StreamUsage, fits};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// All but unreserved characters: <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How prompts are marked for the provider's cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptCache {
    /// Keep for an hour instead of five minutes (Anthropic, Bedrock).
    pub ttl_1h: bool,
    /// The key of all prompts, unless a request names one; left out, each is derived from its prompt.
    pub key: Option<String>,
    /// Whom the prompts belong to.
    pub org: Option<String>,
    /// `prompt_cache_retention` (OpenAI).
    pub retention: Option<String>,
}

/// How a caller's path says what it wants, where there is more than one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathStyle {
    #[default]
    Usual,
    /// With a version of the API (Google).
    Version(String),
    /// With a deployment (Azure).
    Deployment,
}

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
    /// What stands between version and model in paths of generateContent.
    pub resource: String,
    /// Places of the address, by name.
    pub places: Vec<(&'static str, String)>,
    /// Azure: the deployment that is always asked, and the version of the API that has deployments in its paths.
    pub deployment: Option<String>,
    pub api_version: Option<String>,
    /// Azure: which model a deployment is, for prices.
    pub deployments: HashMap<String, String>,
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    pub key: Option<Secret>,
    /// The key is a bearer token, whatever the provider's keys are.
    pub bearer: bool,
    pub aws: Option<AwsKeys>,
    /// Who the gateway is, where there is no key.
    pub identity: Option<Identity>,
    pub credentials: Credentials,
    pub endpoints: Vec<Endpoint>,
    /// Names and patterns of models beyond the provider's own.
    pub models: Vec<String>,
    pub stream_usage: StreamUsage,
    pub on_disconnect: OnDisconnect,
    /// Whose rates apply.
    pub catalog: String,
    pub pass: Vec<Pass>,
    /// The list lets clients create objects, which then belong to them.
    pub keeps_objects: bool,
    /// Objects that all keys may read and name, by id or pattern.
    pub shared_objects: Vec<String>,
    /// Help the provider to find prompts again; `None`: leave them alone.
    pub prompt_cache: Option<PromptCache>,
    /// Takes Responses over a WebSocket.
    pub socket: bool,
    /// In place of those that hold for all.
    pub timeouts: Option<Timeouts>,
    /// Made of the address when it is asked for first.
    pub host_header: OnceLock<HeaderValue>,
}

impl Upstream {
    /// The model whose prices hold for one that is asked for here: what the deployment that serves it is of.
    pub fn priced_as<'a>(&'a self, model: &'a str) -> &'a str {
        let deployment = self.deployment.as_deref().unwrap_or(model);
        self.deployments.get(deployment).or_else(|| self.deployments.get(model)).map_or(model, String::as_str)
    }

    /// The upstream of a provider as the provider describes itself.
    pub fn of(provider: &'static Provider, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider,
            tls: true,
            host: provider.host.to_owned(),
            port: 443,
            base_path: provider.base_path.to_owned(),
            resource: provider.resource.to_owned(),
            places: vec![],
            deployment: None,
            api_version: None,
            deployments: HashMap::new(),
            ca: None,
            key: None,
            bearer: false,
            aws: None,
            identity: None,
            credentials: Credentials::Gateway,
            endpoints: provider.endpoints.to_vec(),
            models: vec![],
            stream_usage: provider.stream_usage,
            on_disconnect: provider.on_disconnect,
            catalog: if provider.catalog.is_empty() { provider.id } else { provider.catalog }.to_owned(),
            prompt_cache: None,
            socket: provider.socket,
            timeouts: None,
            host_header: OnceLock::new(),
            keeps_objects: false,
            shared_objects: vec![],
            pass: vec![
                Pass { method: http::Method::GET, path: "/models".to_owned() },
                Pass { method: http::Method::GET, path: "/models/*".to_owned() },
            ],
        }
    }

    /// True if the gateway has nothing of its own to prove who pays.
    pub fn is_anonymous(&self) -> bool {
        self.key.is_none() && self.aws.is_none() && self.identity.is_none()
    }

    /// The `Host` a request carries: with the port only if it is not the usual one.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }

    /// The same, ready to be sent; empty for a name that no header can carry, which no address is.
    pub fn host_header(&self) -> HeaderValue {
        let make = || HeaderValue::from_str(&self.authority()).unwrap_or_else(|_| HeaderValue::from_static(""));
        self.host_header.get_or_init(make).clone()
    }

    /// Fills a place into the address.
    pub fn set_place(&mut self, name: &'static str, value: String) {
        let braced = format!("{{{name}}}");
        // Locations that are no region have a host without one.
        let global = name == "location" && value == "global";
        self.host = if global { self.host.replace("{location}-", "") } else { self.host.replace(&braced, &value) };
        self.resource = self.resource.replace(&braced, &value);
        self.places.push((name, value));
    }

    /// The value of a place of the address.
    pub fn place(&self, name: &str) -> Option<&str> {
        self.places.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    /// The endpoint's path here, `None` if there is no such endpoint. A model in the path becomes one segment,
    /// percent-encoded as AWS signs it.
    pub fn path(&self, endpoint: Endpoint, model: &str, style: &PathStyle) -> Option<String> {
        if !self.endpoints.contains(&endpoint) {
            return None;
        }
        let root = self.base_path.strip_suffix(self.provider.base_path).unwrap_or(&self.base_path);
        let (model, name) = (utf8_percent_encode(model, SEGMENT), endpoint.name());
        match endpoint.dialect() {
            Dialect::Generate | Dialect::Messages if endpoint.is_at_publisher() => {
                let known = |version: &&&str| matches!(style, PathStyle::Version(asked) if asked == **version);
                let versions = self.provider.versions;
                let version = versions.iter().find(known).or(versions.first())?;
                let resource = &self.resource;
                if endpoint.dialect() == Dialect::Generate {
                    return Some(format!("{root}/{version}{resource}/models/{model}{name}"));
                }
                // The same place, of another publisher.
                let place = resource.rsplit_once("/publishers/").map_or(resource.as_str(), |(place, _)| place);
                let models = format!("{root}/{version}{place}/publishers/anthropic/models");
                // Versions stand behind an `@`, as Google documents them.
                let model = model.to_string().replace("%40", "@");
                let counts = endpoint == Endpoint::RawCountTokens;
                return Some(if counts { format!("{models}{name}") } else { format!("{models}/{model}{name}") });
            }
            Dialect::Converse | Dialect::Invoke => return Some(format!("{root}/model/{model}{name}")),
            _ if matches!(endpoint, Endpoint::CohereChat | Endpoint::CohereEmbed | Endpoint::CohereRerank) => {
                return Some(format!("{root}{name}"));
            }
            Dialect::Responses if *style == PathStyle::Deployment => return Some(format!("{root}/openai{name}")),
            _ if *style == PathStyle::Deployment => {
                let deployment = self.deployment.as_deref().map(|name| utf8_percent_encode(name, SEGMENT)).unwrap_or(model);
                return Some(format!("{root}/openai/deployments/{deployment}{name}"));
            }
            _ => {}
        }
        let own = self.provider.paths.iter().find(|(other, _)| *other == endpoint && self.base_path == self.provider.base_path);
        Some(own.map_or_else(|| format!("{}{}", self.base_path, endpoint.name()), |(_, path)| (*path).to_owned()))
    }

    /// The path of a request that a list lets through, from `below` the base path. Google's own API lies beside the endpoint that is
    /// compatible with OpenAI, and its paths begin with a version: <https://ai.google.dev/api>.
    pub fn passed(&self, below: &str) -> String {
        let native = self.endpoints.iter().any(|endpoint| endpoint.dialect() == Dialect::Generate);
        let first = below.split('/').nth(1).unwrap_or_default();
        if native && self.provider.versions.contains(&first) {
            let root = self.base_path.strip_suffix(self.provider.base_path).unwrap_or(&self.base_path);
            return format!("{root}{below}");
        }
        format!("{}{below}", self.base_path)
    }

    /// How requests of a dialect prove who pays.
    pub fn auth(&self, dialect: Dialect) -> Auth {
        match self.provider.native_auth {
            _ if self.bearer => Auth::Bearer,
            Some((native, auth)) if native == dialect => auth,
            _ => self.provider.auth,
        }
    }

    /// The credential that goes on in the caller's name, and the header it came in; `None` unless callers bring theirs.
    pub fn callers_credential<'h>(&self, dialect: Dialect, headers: &'h HeaderMap) -> Option<(HeaderName, &'h HeaderValue)> {
        let own = match self.auth(dialect) {
            Auth::Header(name) => HeaderName::from_static(name),
            Auth::Bearer | Auth::Aws | Auth::None => AUTHORIZATION,
        };
        let names = [own, AUTHORIZATION].into_iter().filter(|_| self.credentials == Credentials::Caller);
        // A signature holds for the request it was made for, and that is not the one that goes up; gateway keys stay here.
        let starts =
            |text: &[u8], prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()));
        let fit = |value: &HeaderValue| {
            let (text, bare) = (value.as_bytes(), strip_bearer(value.as_bytes()));
            let stays_here = [PREFIX, SCHEME].iter().any(|prefix| starts(bare, prefix));
            !stays_here && (self.auth(dialect) != Auth::Aws || starts(text, "Bearer "))
        };
        names.into_iter().find_map(|name| headers.get(&name).filter(|value| fit(value)).map(|value| (name, value)))
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

    /// True if a path is one by which batch jobs are managed.
    pub fn manages_batches(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.base_path.as_str());
        below.zip(self.provider.batch).is_some_and(|(path, batch)| batch.manages(path))
    }

    /// True if every key may read and name this object.
    pub fn shares(&self, id: &str) -> bool {
        self.shared_objects.iter().any(|pattern| fits(id, pattern))
    }

    /// True if a path below the base path is let through.
    pub fn passes(&self, method: &http::Method, path: &str) -> bool {
        self.pass.iter().any(|pass| pass.method == *method && fits(path, &pass.path))
    }
}
