//! Routing: from a request to an upstream, an endpoint there and a model. First match wins:
//!
//! `x-provider` → path mount → alias → model prefix → native path → model pattern → credential shape → catalog → fallback → a clear
//! error. The path fixes the dialect where it can, else the body does.

mod choose;
pub mod form;
mod format;
mod health;
mod path;
mod request_fields;
mod request_table;
mod stored_paths;
mod wait;

pub use health::{Budget, Circuit, Ejection, Health, Refusal};
pub use request_fields::{Count, RequestFields, Spanned};
pub use stored_paths::stored_path;
pub use wait::{asked as wait_asked, is_account_limit};

use crate::config::{Config, PathStyle, Patience, Upstream};
use crate::dialect::{Dialect, Endpoint};
use crate::error::Error;
use crate::provider::{self, collections};
use choose::{Choice, choose, configured, without_own_prefix};
use format::{guess, native, without_model};
use http::{HeaderMap, HeaderName, Method};

/// Chooses the provider by name.
pub const PROVIDER_HEADER: HeaderName = HeaderName::from_static("x-provider");

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
    /// A response that the provider stores, or a conversation.
    Stored,
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
    pub patience: Patience,
}

impl Route {
    /// A path of the allow-list, whose body nobody looks into.
    fn pass(upstream: usize, dialect: Dialect, path: String) -> Self {
        Self {
            upstream,
            target: Target::Pass,
            dialect,
            path,
            query: None,
            model_place: ModelPlace::Body,
            model_requested: String::new(),
            model: String::new(),
            patience: Patience::default(),
        }
    }
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
    /// A response that a provider stores (its id) or a conversation, and its path below the base path.
    Stored { mount: Option<usize>, id: Option<String>, below: String },
    /// Another path below a mount.
    Pass { mount: usize, path: String },
}

impl Destination {
    /// The upstream that the path names.
    pub fn mount(&self) -> Option<usize> {
        match self {
            Self::Models => None,
            Self::Endpoint { mount, .. } | Self::Stored { mount, .. } => *mount,
            Self::Pass { mount, .. } => Some(*mount),
        }
    }
}

/// What the path and headers alone say; the body need not have been read.
///
/// # Errors
/// Whatever makes the body not worth reading.
pub fn destination(head: &Head<'_>, config: &Config) -> Result<Destination, Error> {
    path::check(head.path)?;
    let (mount, rest) = path::mount(head.path, head.query, config)?;
    if let Some(stored) = stored_paths::find(head.method, rest, mount, config) {
        return Ok(stored);
    }
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
        if named.is_none() && endpoint.is_some_and(Endpoint::has_model_in_path) {
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

/// True if the path below a mount is an endpoint of the upstream: by its whole name, or with the model that it names.
fn is_endpoint(rest: &str, mount: usize, config: &Config) -> bool {
    let Some(upstream) = config.upstreams.get(mount) else { return false };
    let names_model = |endpoint: &Endpoint| upstream.endpoints.contains(endpoint) && endpoint.model_in(rest).is_some();
    Endpoint::from_name(path::below_base(rest, upstream)).is_some() || Endpoint::from_path(rest).filter(names_model).is_some()
}

fn pass(head: &Head<'_>, config: &Config, mount: usize, rest: &str) -> Result<Destination, Error> {
    let upstream = config.upstreams.get(mount).ok_or(Error::Internal)?;
    let below = path::below_base(rest, upstream);
    if !upstream.passes(head.method, below) {
        return Err(Error::NotAllowed { path: head.path.to_owned() });
    }
    // An endpoint that is spelled in escapes would pass unmetered.
    let plain = percent_encoding::percent_decode_str(below).decode_utf8_lossy();
    if plain != below && Endpoint::from_path(&plain).is_some() {
        return Err(Error::BadPath);
    }
    // What is kept belongs to who asked for it, which no list can say.
    if stored_paths::is_spelled(below) {
        return Err(Error::NotAllowed { path: head.path.to_owned() });
    }
    // The owner of an object is found by its path, so there is one way to spell that.
    collections::place(below).map_err(|_| Error::BadPath)?;
    Ok(Destination::Pass { mount, path: upstream.passed(below) })
}

/// The dialect in which a caller expects errors, as far as path and headers tell.
pub fn caller_dialect(path: &str, headers: &HeaderMap) -> Dialect {
    match Endpoint::from_path(path) {
        Some(endpoint) => endpoint.dialect(),
        None if headers.contains_key("anthropic-version") => Dialect::Messages,
        None => Dialect::Chat,
    }
}

/// The whole route, once the body has been read, and what may take its place in that order: where the model is an
/// alias of several. `draw` decides among those that share the load; nobody but `bound` will do, if there is one.
///
/// # Errors
/// That no upstream fits, and why.
pub fn routes(
    head: &Head<'_>,
    destination: Destination,
    fields: &RequestFields,
    config: &Config,
    draw: u64,
    bound: Option<usize>,
) -> Result<(Route, Vec<Route>), Error> {
    let (mount, endpoint, named) = match destination {
        Destination::Endpoint { mount, endpoint, named } => (mount, endpoint, named),
        Destination::Pass { mount, path } => {
            let dialect = caller_dialect(&path, head.headers);
            return Ok((Route::pass(mount, dialect, path), vec![]));
        }
        Destination::Stored { mount, below, .. } => {
            return stored_paths::route(head, bound.or(mount), &below, config).map(|route| (route, vec![]));
        }
        Destination::Models => return Err(Error::Internal),
    };
    let in_body = fields.model.as_ref().map_or("", |model| model.value.as_str());
    let requested = named.as_ref().map_or(in_body, |named| named.model.as_str());
    let native = endpoint.and_then(|endpoint| {
        let unnamed = || requested.is_empty().then(|| without_model(endpoint, config)).flatten();
        native(endpoint, named.as_ref(), config).or_else(unnamed)
    });
    let asked = Wanted { head, fields, endpoint, named: named.as_ref(), requested, config };
    if let Some(at) = bound {
        return Ok((asked.at(at, &model_at(requested, at, config))?, vec![]));
    }
    let alias = match choose(head, mount, native, requested, config)? {
        Choice::One(at, model) => return Ok((asked.at(at, model)?, vec![])),
        Choice::Alias(alias) => alias,
    };
    let (mut found, mut first_error): (Vec<Route>, _) = (vec![], None);
    for target in alias.order(draw) {
        match asked.at(target.upstream, &target.model) {
            // An answer in another format would be no answer to what was asked.
            Ok(route) if found.first().is_none_or(|first| first.dialect == route.dialect) => {
                found.push(Route { patience: target.patience, ..route });
            }
            Ok(_) => {}
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    if found.is_empty() {
        return Err(first_error.unwrap_or(Error::Internal));
    }
    let first = found.remove(0);
    Ok((first, found))
}

/// What is wanted, whoever may give it.
struct Wanted<'a> {
    head: &'a Head<'a>,
    fields: &'a RequestFields,
    endpoint: Option<Endpoint>,
    named: Option<&'a Named>,
    requested: &'a str,
    config: &'a Config,
}

impl Wanted<'_> {
    /// The route to an upstream, and a model as it is called there.
    fn at(&self, at: usize, model: &str) -> Result<Route, Error> {
        let Wanted { head, fields, named, requested, config, .. } = *self;
        let upstream = config.upstreams.get(at).ok_or(Error::Internal)?;
        let guessed = self.endpoint.is_none();
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint,
            None => guess(fields, upstream)?,
        };
        let dialect = endpoint.dialect();
        let in_path = endpoint.has_model_in_path();
        if in_path && model.is_empty() {
            return Err(Error::MissingModel);
        }
        if matches!(model, "." | "..") {
            return Err(Error::BadPath);
        }
        let style = &style(named, head, upstream);
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
            patience: Patience::default(),
        })
    }
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
        return passed_socket(head, config, mount, rest);
    }
    let named = head.headers.get(&PROVIDER_HEADER).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase());
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
        patience: Patience::default(),
    })
}

/// A WebSocket nobody here can read (Realtime): only below a mount, and only where configuration lists its path.
fn passed_socket(head: &Head<'_>, config: &Config, mount: Option<usize>, rest: &str) -> Result<Route, Error> {
    let Some(mount) = mount else { return Err(Error::NotFound { path: head.path.to_owned() }) };
    let Destination::Pass { mount, path } = pass(head, config, mount, rest)? else { return Err(Error::Internal) };
    Ok(Route::pass(mount, Dialect::Responses, path))
}

/// A model as an upstream that was chosen calls it.
pub fn model_at(requested: &str, at: usize, config: &Config) -> String {
    match config.aliases.get(requested).and_then(|alias| alias.targets().find(|target| target.upstream == at)) {
        Some(target) => target.model.clone(),
        None => without_own_prefix(requested, at, config).to_owned(),
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

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
