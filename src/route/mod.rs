//! Routing: from a request to an upstream, an endpoint there and a model. First match wins:
//!
//! `x-provider` → path mount → alias → model prefix → native path → model pattern → credential shape → catalog → fallback → a clear
//! error. The path fixes the dialect where it can, else the body does.

mod facts;
mod format;
mod path;

pub use facts::{Facts, Spanned};

use crate::config::{Config, Credentials, PathStyle, Upstream};
use crate::dialect::{Dialect, Endpoint};
use crate::error::Error;
use crate::provider;
use format::{guess, native};
use http::{HeaderMap, Method};

/// Chooses the provider by name.
pub const PROVIDER_HEADER: &str = "x-provider";

/// The part of a request that routing looks at.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a Method,
    /// Without the query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

/// What an upstream is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Endpoint(Endpoint),
    /// A path of the allow-list, forwarded as it is.
    Pass,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index into the configuration's upstreams.
    pub upstream: usize,
    pub target: Target,
    pub dialect: Dialect,
    /// The path at the upstream.
    pub path: String,
    /// What the query must say there: name and value.
    pub query: Option<(&'static str, String)>,
    pub model_place: ModelPlace,
    /// As the caller named it; empty if it did not.
    pub model_requested: String,
    /// As the upstream is asked for it.
    pub model: String,
}

/// Where the upstream looks for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPlace {
    Body,
    /// In the path; the body was written for that.
    Path,
    /// In the path, and the body must not have it, nor `stream`.
    PathOnly,
}

/// What a path says beyond its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The model, or the deployment.
    pub model: String,
    pub style: PathStyle,
    /// The provider whose own path it is, where others have the same endpoint.
    pub provider: Option<&'static str>,
}

/// A request as far as its path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The gateway's own list of models.
    Models,
    /// An endpoint, or one the body must tell (`POST /`), perhaps below a mount.
    Endpoint { mount: Option<usize>, endpoint: Option<Endpoint>, named: Option<Named> },
    /// Another path below a mount.
    Pass { mount: usize, path: String },
}

/// What the path and headers alone say; the body need not have been read.
///
/// # Errors
/// Whatever makes the body not worth reading.
pub fn destination(head: &Head<'_>, config: &Config) -> Result<Destination, Error> {
    path::check(head.path)?;
    let (mount, rest) = path::mount(head.path, head.query, config)?;
    // What the operator let through is not taken for an endpoint whose name it happens to end in.
    let passed = mount.map(|mount| pass(head, config, mount, rest));
    if let Some(Ok(passed)) = &passed
        && !mount.is_some_and(|mount| is_endpoint(rest, mount, config))
    {
        return Ok(passed.clone());
    }
    let endpoint = Endpoint::from_path(rest);
    if endpoint.is_some() || (rest == "/" || rest.is_empty()) && head.method == Method::POST {
        let named = endpoint.and_then(|endpoint| path::named(endpoint, rest));
        // Tuned models and those of others have paths of their own, which nobody here serves.
        if named.is_none() && endpoint.is_some_and(|endpoint| endpoint.dialect().has_model_in_path()) {
            return Err(Error::NotFound { path: head.path.to_owned() });
        }
        return if head.method == Method::POST {
            Ok(Destination::Endpoint { mount, endpoint, named })
        } else {
            Err(Error::MethodNotAllowed)
        };
    }
    match passed {
        None if matches!(rest, "/v1/models" | "/models") && head.method == Method::GET => Ok(Destination::Models),
        None => Err(Error::NotFound { path: head.path.to_owned() }),
        Some(passed) => passed,
    }
}

/// True if the path below a mount is an endpoint of the upstream by its whole name.
fn is_endpoint(rest: &str, mount: usize, config: &Config) -> bool {
    config.upstreams.get(mount).is_some_and(|upstream| Endpoint::from_name(path::below_base(rest, upstream)).is_some())
}

fn pass(head: &Head<'_>, config: &Config, mount: usize, rest: &str) -> Result<Destination, Error> {
    let upstream = config.upstreams.get(mount).ok_or(Error::Internal)?;
    let below = path::below_base(rest, upstream);
    if !upstream.passes(head.method, below) {
        return Err(Error::NotAllowed { path: head.path.to_owned() });
    }
    Ok(Destination::Pass { mount, path: format!("{}{below}", upstream.base_path) })
}

/// The dialect in which a caller expects errors, as far as path and headers tell.
pub fn caller_dialect(path: &str, headers: &HeaderMap) -> Dialect {
    match Endpoint::from_path(path) {
        Some(endpoint) => endpoint.dialect(),
        None if headers.contains_key("anthropic-version") => Dialect::Messages,
        None => Dialect::Chat,
    }
}

/// The whole route, once the body has been read.
///
/// # Errors
/// That no upstream fits, and why.
pub fn route(head: &Head<'_>, destination: Destination, facts: &Facts, config: &Config) -> Result<Route, Error> {
    let (mount, endpoint, named) = match destination {
        Destination::Endpoint { mount, endpoint, named } => (mount, endpoint, named),
        Destination::Pass { mount, path } => {
            let dialect = caller_dialect(&path, head.headers);
            return Ok(Route {
                upstream: mount,
                target: Target::Pass,
                dialect,
                path,
                query: None,
                model_place: ModelPlace::Body,
                model_requested: String::new(),
                model: String::new(),
            });
        }
        Destination::Models => return Err(Error::Internal),
    };
    let in_body = facts.model.as_ref().map_or("", |model| model.value.as_str());
    let requested = named.as_ref().map_or(in_body, |named| named.model.as_str());
    let native = endpoint.and_then(|endpoint| native(endpoint, named.as_ref(), config));
    let (at, model) = choose(head, mount, native, requested, config)?;
    let upstream = config.upstreams.get(at).ok_or(Error::Internal)?;
    let guessed = endpoint.is_none();
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => guess(facts, upstream)?,
    };
    let dialect = endpoint.dialect();
    let in_path = dialect.has_model_in_path();
    if in_path && model.is_empty() {
        return Err(Error::MissingModel);
    }
    if matches!(model, "." | "..") {
        return Err(Error::BadPath);
    }
    let style = &style(named.as_ref(), head, upstream);
    let path = upstream.path(endpoint, model, style).ok_or_else(|| Error::NoEndpoint {
        provider: upstream.name.clone(),
        path: endpoint.name(),
        instead: upstream.endpoints.iter().map(|endpoint| endpoint.name()).collect::<Vec<_>>().join(", "),
    })?;
    Ok(Route {
        upstream: at,
        target: Target::Endpoint(endpoint),
        dialect,
        path,
        query: query(endpoint, guessed, style, head, upstream),
        model_place: match (in_path, guessed) {
            (true, true) => ModelPlace::PathOnly,
            (true, false) => ModelPlace::Path,
            (false, _) if *style == PathStyle::Deployment && dialect != Dialect::Responses => ModelPlace::Path,
            (false, _) => ModelPlace::Body,
        },
        model_requested: requested.to_owned(),
        model: model.to_owned(),
    })
}

/// The route of a WebSocket, whose first message comes after the handshake: by header, mount, fallback, or the first
/// upstream that takes one.
///
/// # Errors
/// That no upstream takes one here.
pub fn socket(head: &Head<'_>, config: &Config) -> Result<Route, Error> {
    path::check(head.path)?;
    let (mount, rest) = path::mount(head.path, head.query, config)?;
    if Endpoint::from_path(rest) != Some(Endpoint::Responses) {
        return Err(Error::NotFound { path: head.path.to_owned() });
    }
    let named = head.headers.get(PROVIDER_HEADER).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase());
    let fixed = named.map(|name| configured(&name, config)).transpose()?.or(mount);
    let takes = |at: &usize| config.upstreams.get(*at).is_some_and(|upstream| upstream.socket);
    let first = || config.upstreams.iter().position(|upstream| upstream.socket);
    let at = fixed.or(config.fallback.filter(takes)).or_else(first).ok_or(Error::NoSocket { provider: String::new() })?;
    let upstream = config.upstreams.get(at).ok_or(Error::Internal)?;
    let path = upstream.path(Endpoint::Responses, "", &PathStyle::Usual).filter(|_| upstream.socket);
    Ok(Route {
        upstream: at,
        target: Target::Endpoint(Endpoint::Responses),
        dialect: Dialect::Responses,
        path: path.ok_or_else(|| Error::NoSocket { provider: upstream.name.clone() })?,
        query: None,
        model_place: ModelPlace::Body,
        model_requested: String::new(),
        model: String::new(),
    })
}

/// A model as an upstream that was chosen calls it.
pub fn model_at(requested: &str, at: usize, config: &Config) -> String {
    match config.aliases.get(requested) {
        Some((other, model)) if *other == at => model.clone(),
        _ => without_own_prefix(requested, at, config).to_owned(),
    }
}

/// How the upstream's path says what is wanted. Azure's dated versions have deployments in their paths; the version-less
/// API has not, and takes no date.
fn style(named: Option<&Named>, head: &Head<'_>, upstream: &Upstream) -> PathStyle {
    let style = named.map_or(PathStyle::Usual, |named| named.style.clone());
    if upstream.provider.id != "azure" {
        return if style == PathStyle::Deployment { PathStyle::Usual } else { style };
    }
    let versions = head.query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.strip_prefix("api-version="));
    let dated = upstream.api_version.is_some() || versions.into_iter().any(|version| !matches!(version, "preview" | "latest" | "v1"));
    if dated { PathStyle::Deployment } else { style }
}

/// What the upstream's query must say: a stream of events, where nobody asked for an array; Azure's version.
fn query(endpoint: Endpoint, guessed: bool, style: &PathStyle, head: &Head<'_>, upstream: &Upstream) -> Option<(&'static str, String)> {
    if endpoint == Endpoint::StreamGenerateContent && guessed {
        return Some(("alt", "sse".to_owned()));
    }
    let missing = *style == PathStyle::Deployment && !path::has_parameter(head.query, "api-version");
    let version = || upstream.api_version.clone().unwrap_or_else(|| provider::AZURE_API_VERSION.to_owned());
    missing.then(|| ("api-version", version()))
}

/// The upstream, and the model as it is called there.
fn choose<'a>(
    head: &Head<'_>,
    mount: Option<usize>,
    native: Option<usize>,
    requested: &'a str,
    config: &'a Config,
) -> Result<(usize, &'a str), Error> {
    let named = head.headers.get(PROVIDER_HEADER).map(|value| value.to_str().unwrap_or_default().trim());
    let fixed = match named {
        Some(name) => Some(configured(&name.to_ascii_lowercase(), config)?),
        None => mount,
    };
    if let Some(at) = fixed {
        return Ok((at, without_own_prefix(requested, at, config)));
    }
    if let Some((at, model)) = config.aliases.get(requested) {
        return Ok((*at, model));
    }
    if let Some((prefix, _)) = requested.split_once('/')
        && (config.upstream(prefix).is_some() || provider::find(prefix).is_some())
    {
        let at = configured(prefix, config)?;
        return Ok((at, without_own_prefix(requested, at, config)));
    }
    if let Some(at) = native {
        return Ok((at, requested));
    }
    let by_model = by_pattern(requested, config)?.or_else(|| by_credential(head.headers, config));
    match by_model.or_else(|| by_catalog(requested, config)).or(config.fallback) {
        Some(at) => Ok((at, requested)),
        None if requested.is_empty() => Err(Error::MissingModel),
        None => Err(Error::UnknownModel { model: shown(requested) }),
    }
}

/// A model name as an error may repeat it.
fn shown(model: &str) -> String {
    const SHOWN_BYTES_MAX: usize = 128;
    let end = model.floor_char_boundary(SHOWN_BYTES_MAX);
    model.get(..end).unwrap_or_default().to_owned()
}

fn configured(name: &str, config: &Config) -> Result<usize, Error> {
    match (config.upstream(name), provider::find(name)) {
        (Some(at), _) => Ok(at),
        (None, Some(provider)) => Err(off(provider)),
        (None, None) => Err(Error::UnknownProvider { provider: shown(name) }),
    }
}

fn off(provider: &provider::Provider) -> Error {
    Error::ProviderOff { provider: provider.id.to_owned(), variable: provider.key_variables.first().copied().unwrap_or_default() }
}

/// `openai/gpt-5` sent to `openai` means `gpt-5` there; any other prefix is part of the name, and so is its own where
/// models of the provider bear it (`openrouter/auto`).
fn without_own_prefix<'a>(model: &'a str, at: usize, config: &Config) -> &'a str {
    let upstream = config.upstreams.get(at);
    let own = |prefix: &str| upstream.is_some_and(|upstream| upstream.name == prefix || upstream.provider.id == prefix);
    match model.split_once('/') {
        Some((prefix, rest))
            if own(prefix)
                && !rest.is_empty()
                && (rest.contains('/') || !upstream.is_some_and(|upstream| upstream.names_models_after(prefix))) =>
        {
            rest
        }
        _ => model,
    }
}

/// By the looks of the name: what the operator listed first, then what providers are known for.
fn by_pattern(model: &str, config: &Config) -> Result<Option<usize>, Error> {
    if model.is_empty() {
        return Ok(None);
    }
    let listed = |upstream: &Upstream| upstream.models.iter().any(|pattern| provider::fits(model, pattern));
    let known = |upstream: &Upstream| upstream.serves(model);
    if let Some(at) = config.upstreams.iter().position(listed).or_else(|| config.upstreams.iter().position(known)) {
        return Ok(Some(at));
    }
    // Known to belong to a provider that is off: better to say so than to guess, unless something else may take it.
    let owner = provider::REGISTRY.iter().find(|provider| provider.models.iter().any(|pattern| provider::fits(model, pattern)));
    match owner {
        Some(owner) if config.fallback.is_none() && by_catalog(model, config).is_none() => Err(off(owner)),
        _ => Ok(None),
    }
}

/// By the shape of the caller's credential, where callers bring their own.
fn by_credential(headers: &HeaderMap, config: &Config) -> Option<usize> {
    config.upstreams.iter().position(|upstream| {
        let fits = |(name, prefix): &(&str, &str)| headers.get(*name).is_some_and(|value| value.as_bytes().starts_with(prefix.as_bytes()));
        upstream.credentials == Credentials::Caller && upstream.provider.credentials.iter().any(fits)
    })
}

fn by_catalog(model: &str, config: &Config) -> Option<usize> {
    if model.is_empty() {
        return None;
    }
    config.upstreams.iter().position(|upstream| config.prices.model(&upstream.catalog, model).is_some())
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
