//! Reads the `providers` of a configuration into upstreams.

use super::file::Reader;
use super::identity;
use super::{Credentials, Pass, PromptCache, Secret, Timeouts, Upstream};
use crate::dialect::Endpoint;
use crate::provider::auth::AwsKeys;
use crate::provider::{self, Auth, CHAT_COMPATIBLE, OnDisconnect, Provider, StreamUsage, collections};
use crate::yaml::{Map, Node};

/// What a provider made up of a base URL alone is.
const COMPATIBLE: &Provider = &Provider {
    id: "compatible",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses, Endpoint::Embeddings],
    ..CHAT_COMPATIBLE
};

impl Reader<'_> {
    pub(super) fn upstreams(&mut self, node: Option<Node<'_>>, timeouts: Timeouts) -> Vec<Upstream> {
        self.mapping(node, "providers").into_iter().filter_map(|(name, node)| self.upstream(name, node, timeouts)).collect()
    }

    fn upstream(&mut self, name: &str, node: Node<'_>, timeouts: Timeouts) -> Option<Upstream> {
        let fit = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
            && !matches!(name, "v1" | "v1beta" | "." | "..");
        if !fit {
            self.problems.add(node.line(), format!("`{name}` cannot name a provider: use small letters, digits, `-`, `_` and `.`"));
        }
        let mut map = Map::new(node, &mut self.problems);
        let kind = map.take_as("kind", &mut self.problems, &format!("a known provider ({})", known()), |text| {
            if text == "compatible" { Some(COMPATIBLE) } else { provider::find(text) }
        });
        let provider = kind.or_else(|| provider::find(name)).unwrap_or(COMPATIBLE);
        let mut upstream = Upstream::of(provider, name);
        let base_url = self.text(&mut map, "base_url");
        let missing = self.places(&mut map, &mut upstream);
        let base_url_given = base_url.is_some();
        match base_url {
            Some((line, url)) => self.base_url(line, &url, &mut upstream),
            None if !missing.is_empty() && self.address_from_environment(map.line(), &mut upstream) => {}
            None if !missing.is_empty() => {
                self.problems.add(map.line(), format!("provider `{name}` needs {} (or a `base_url`)", missing.join(" and ")));
            }
            None if upstream.host.is_empty() => {
                self.problems.add(map.line(), format!("provider `{name}` is not a known one ({}) and needs a `base_url`", known()))
            }
            None => {}
        }
        self.credentials(&mut map, &mut upstream, base_url_given);
        upstream.models = self.texts(&mut map, "models");
        upstream.ca = self.path(&mut map, "ca");
        if let Some(path) = upstream.ca.clone() {
            self.check_certificates(map.line(), &path);
        }
        if let Some(asked) = map.take_as("stream_usage", &mut self.problems, "`always`, `on_request` or `unknown`", stream_usage) {
            upstream.stream_usage = asked;
        }
        if let Some(asked) = map.take_as("on_disconnect", &mut self.problems, "`drain` or `cancel`", on_disconnect) {
            upstream.on_disconnect = asked;
        }
        if let Some((_, catalog)) = self.text(&mut map, "prices") {
            upstream.catalog = catalog;
        }
        if provider.id == "azure" {
            self.azure(&mut map, &mut upstream);
        }
        if let Some(paths) = map.take_list("endpoints", &mut self.problems) {
            upstream.endpoints = self.endpoints(map.line(), &paths);
        }
        upstream.socket = map.take_bool("websocket", &mut self.problems).unwrap_or(upstream.socket);
        upstream.prompt_cache = map.take("prompt_cache").and_then(|node| self.prompt_cache(node));
        upstream.timeouts = map.take("timeouts").map(|node| {
            let mut map = Map::new(node, &mut self.problems);
            let own = self.upstream_timeouts(&mut map, timeouts);
            map.finish(&mut self.problems);
            own
        });
        for text in self.texts(&mut map, "allow") {
            upstream.pass.extend(self.pass(map.line(), &text));
        }
        let creates = |pass: &Pass| pass.method == http::Method::POST && collections::matches_any(&pass.path);
        upstream.keeps_objects = upstream.pass.iter().any(creates);
        upstream.shared_objects = self.texts(&mut map, "shared_objects");
        map.finish(&mut self.problems);
        fit.then_some(upstream)
    }

    /// Whose credential goes up, and the gateway's own.
    fn credentials(&mut self, map: &mut Map<'_>, upstream: &mut Upstream, has_url: bool) {
        upstream.credentials =
            map.take_as("credentials", &mut self.problems, "`gateway` or `caller`", credentials).unwrap_or(Credentials::Gateway);
        upstream.key = self.text(map, "api_key").and_then(|(line, key)| self.key("api_key", line, &key));
        if let Some((line, token)) = self.text(map, "auth_token") {
            if upstream.key.is_some() {
                self.problems.add(line, "`api_key` and `auth_token` are two ways to say one thing");
            }
            (upstream.key, upstream.bearer) = (self.key("auth_token", line, &token), true);
        }
        if upstream.provider.auth == Auth::Aws {
            upstream.aws = self.aws_keys(map);
        }
        upstream.identity = self.identity(map, upstream);
        let far = !upstream.tls && !is_here(&upstream.host);
        if upstream.identity.is_some() && far {
            self.problems.add(map.line(), "an `identity` goes over https alone: what a cloud hands out opens more than this");
        }
        if upstream.is_anonymous() && upstream.credentials == Credentials::Gateway {
            self.credentials_from_environment(upstream, has_url);
            if upstream.is_anonymous() && !has_url {
                upstream.identity = identity::usual(upstream.provider, upstream);
            }
            if upstream.is_anonymous() && !upstream.provider.host.is_empty() && upstream.provider.auth != Auth::None && !has_url {
                let identity = if upstream.provider.cloud.is_some() { "say by `identity` who the gateway is, " } else { "" };
                let (name, variables) = (&upstream.name, upstream.provider.key_variables.join(" or "));
                let message =
                    format!("provider `{name}` has no key: give `api_key`, set {variables}, {identity}or write `credentials: caller`");
                self.problems.add(map.line(), message);
            }
        }
    }

    /// A key comes before an identity: it was made for this alone. What a cloud hands out goes to an address of the
    /// operator's own only if that is written out.
    fn credentials_from_environment(&self, upstream: &mut Upstream, has_url: bool) {
        upstream.key = self.variable(upstream.provider.key_variables).map(Secret::new);
        if let Some(token) = self.variable(upstream.provider.token_variables).filter(|_| upstream.key.is_none()) {
            (upstream.key, upstream.bearer) = (Some(Secret::new(token)), true);
        }
        upstream.aws = self.aws_from_environment(upstream.provider);
        if upstream.is_anonymous() && !has_url {
            upstream.identity = self.identity_from_environment(upstream);
        }
    }

    /// Places of the address, from the file or the environment; those that are missing.
    fn places(&mut self, map: &mut Map<'_>, upstream: &mut Upstream) -> Vec<String> {
        let mut missing = vec![];
        for place in upstream.provider.places {
            let given = self.text(map, place.name);
            if let Some((line, value)) = given.as_ref().filter(|(_, value)| !is_place(value)) {
                self.problems.add(*line, format!("`{value}` cannot be a {}", place.name));
            }
            let value = given.map(|(_, value)| value.trim().to_owned()).or_else(|| self.variable(place.variables));
            match value.filter(|value| is_place(value)) {
                Some(value) => upstream.set_place(place.name, value),
                None => missing.push(format!("`{}`", place.name)),
            }
        }
        missing
    }

    fn aws_keys(&mut self, map: &mut Map<'_>) -> Option<AwsKeys> {
        let [id, secret, token] = ["access_key_id", "secret_access_key", "session_token"].map(|key| self.text(map, key));
        match (id, secret) {
            (Some((_, id)), Some((_, secret))) => Some(AwsKeys::new(&id, &secret, token.as_ref().map(|(_, token)| token.as_str()))),
            (None, None) => None,
            _ => {
                self.problems.add(map.line(), "`access_key_id` and `secret_access_key` belong together");
                None
            }
        }
    }

    fn aws_from_environment(&self, provider: &Provider) -> Option<AwsKeys> {
        if provider.auth != Auth::Aws {
            return None;
        }
        let (id, secret) = (self.variable(&["AWS_ACCESS_KEY_ID"])?, self.variable(&["AWS_SECRET_ACCESS_KEY"])?);
        Some(AwsKeys::new(&id, &secret, self.variable(&["AWS_SESSION_TOKEN"]).as_deref()))
    }

    /// With an `api_version` deployments stand in paths; without, the version-less API takes them as models.
    fn azure(&mut self, map: &mut Map<'_>, upstream: &mut Upstream) {
        upstream.deployment = self.text(map, "deployment").map(|(_, name)| name);
        upstream.api_version = self.text(map, "api_version").map(|(_, version)| version);
        date_deployment(upstream);
        for (deployment, model) in self.mapping(map.take("deployments"), "deployments") {
            match model.text() {
                Some(model) => drop(upstream.deployments.insert(deployment.to_owned(), model.to_owned())),
                None => self.problems.add(model.line(), format!("deployment `{deployment}` needs the name of its model")),
            }
        }
    }

    fn key(&mut self, name: &str, line: usize, key: &str) -> Option<Secret> {
        if http::HeaderValue::from_str(key).is_err() {
            self.problems.add(line, format!("`{name}` holds a character that no header can carry (a line break?)"));
            return None;
        }
        Some(Secret::new(key))
    }

    /// `true`, `false`, or a mapping.
    fn prompt_cache(&mut self, node: Node<'_>) -> Option<PromptCache> {
        match node.text() {
            Some("true") => return Some(PromptCache::default()),
            Some("false") => return None,
            _ => {}
        }
        let mut map = Map::new(node, &mut self.problems);
        let ttl = map.take_as("ttl", &mut self.problems, "`5m` or `1h`", |text| matches!(text, "5m" | "1h").then_some(text == "1h"));
        let [key, org, retention] = ["key", "org", "retention"].map(|key| self.text(&mut map, key).map(|(_, text)| text));
        map.finish(&mut self.problems);
        Some(PromptCache { ttl_1h: ttl.unwrap_or(false), key, org, retention })
    }

    fn base_url(&mut self, line: usize, url: &str, upstream: &mut Upstream) {
        match Address::parse(url) {
            Some(address) => {
                address.base_path.clone_into(&mut upstream.base_path);
                address.apply(upstream);
            }
            None => self.problems.add(line, "`base_url` must look like https://host:port/path, without user or query"),
        }
    }

    /// The address that a variable says, as the provider's own clients take it: without the base path. True if there is one.
    fn address_from_environment(&mut self, line: usize, upstream: &mut Upstream) -> bool {
        let names = upstream.provider.url_variables;
        let Some(url) = self.variable(names) else { return false };
        match Address::parse(&url).filter(|address| address.base_path.is_empty() && (address.tls || is_here(&address.host))) {
            Some(address) => address.apply(upstream),
            None => self.problems.add(line, format!("{} must look like https://host, without a path", names.join(" or "))),
        }
        true
    }

    fn endpoints(&mut self, line: usize, paths: &[&str]) -> Vec<Endpoint> {
        let mut found = vec![];
        for path in paths {
            match Endpoint::from_name(path) {
                Some(endpoint) => found.push(endpoint),
                None => self.problems.add(line, format!("`{path}` is not an endpoint; known: {}", Endpoint::names())),
            }
        }
        found
    }

    fn pass(&mut self, line: usize, text: &str) -> Option<Pass> {
        let pass = text
            .split_once(' ')
            .and_then(|(method, path)| Some(Pass { method: method.parse().ok()?, path: path.trim().to_owned() }))
            .filter(|pass| pass.path.starts_with('/'));
        if pass.is_none() {
            self.problems.add(line, format!("`{text}` in `allow` must be a method and a path (POST /moderations)"));
        }
        pass
    }

    /// The first variable that is set to something. A blank one does not hide the next.
    pub(super) fn variable(&self, names: &[&str]) -> Option<String> {
        let value = |name: &&str| (self.variables)(name).map(|value| value.trim().to_owned());
        names.iter().find_map(|name| value(name).filter(|value| !value.is_empty()))
    }

    pub(super) fn add_from_environment(&mut self, upstreams: &mut Vec<Upstream>) {
        for provider in provider::REGISTRY {
            if upstreams.iter().any(|upstream| upstream.name == provider.id) {
                continue;
            }
            let mut upstream = Upstream::of(provider, provider.id);
            let found = provider.places.iter().all(|place| {
                let value = self.variable(place.variables).filter(|value| is_place(value));
                value.map(|value| upstream.set_place(place.name, value)).is_some()
            });
            self.credentials_from_environment(&mut upstream, false);
            let found = found || !upstream.is_anonymous() && self.address_from_environment(0, &mut upstream);
            if found && !upstream.is_anonymous() {
                if provider.id == "azure" {
                    upstream.deployment = self.variable(&["AZURE_OPENAI_DEPLOYMENT"]);
                    upstream.api_version = self.variable(&["AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION"]);
                    date_deployment(&mut upstream);
                }
                upstreams.push(upstream);
            }
        }
    }
}

/// Where an upstream is, as a URL says it.
struct Address {
    tls: bool,
    host: String,
    port: u16,
    base_path: String,
}

impl Address {
    /// `None` for anything but scheme, host, port and path.
    fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let bare = uri.query().is_none() && !authority.as_str().contains('@');
        let port = authority.port_u16();
        // What follows the host is a port, or nothing.
        let numbered = port.is_some() || authority.as_str().len() == authority.host().len();
        (bare && numbered).then(|| Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    fn apply(self, upstream: &mut Upstream) {
        (upstream.tls, upstream.host, upstream.port) = (self.tls, self.host, self.port);
    }
}

/// Only dated versions of Azure's API have deployments in their paths.
fn date_deployment(upstream: &mut Upstream) {
    if upstream.deployment.is_some() {
        upstream.api_version.get_or_insert_with(|| provider::AZURE_API_VERSION.to_owned());
    }
}

/// True for a host that is this machine.
fn is_here(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "::1" | "localhost")
}

/// True for what can be a part of a host or path.
fn is_place(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

fn credentials(text: &str) -> Option<Credentials> {
    match text {
        "gateway" => Some(Credentials::Gateway),
        "caller" => Some(Credentials::Caller),
        _ => None,
    }
}

fn on_disconnect(text: &str) -> Option<OnDisconnect> {
    match text {
        "drain" => Some(OnDisconnect::Drain),
        "cancel" => Some(OnDisconnect::Cancel),
        _ => None,
    }
}

fn stream_usage(text: &str) -> Option<StreamUsage> {
    match text {
        "always" => Some(StreamUsage::Always),
        "on_request" => Some(StreamUsage::OnRequest),
        "unknown" => Some(StreamUsage::Unknown),
        _ => None,
    }
}

fn known() -> String {
    provider::REGISTRY.iter().map(|provider| provider.id).collect::<Vec<_>>().join(", ")
}
