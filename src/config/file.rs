//! Reads the configuration file into [`Config`], collecting every mistake.

use super::units::{bytes, bytes_or_share, duration, interpolate};
use super::{AccessLog, Bounds, Config, Credentials, HeaderRules, Listener, Pass, Secret, Timeouts, Tls, Upstream};
use crate::dialect::Endpoint;
use crate::price;
use crate::provider::{self, Auth, CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::yaml::{self, Map, Node, Problem, Problems};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    Embedded,
    File(PathBuf),
}

/// Variables of the environment, as a parameter so that tests need none.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a provider made up of a base URL alone is.
const COMPATIBLE: &Provider = &Provider {
    id: "compatible",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses, Endpoint::Embeddings],
    ..CHAT_COMPATIBLE
};

/// Loads and validates a configuration.
///
/// # Errors
/// Every mistake in the file and in the price files it names.
pub fn load(source: &Source, variables: Variables<'_>) -> Result<Config, Vec<Problem>> {
    let (name, text) = match source {
        Source::Embedded => ("(embedded configuration)".to_owned(), Ok(super::EMBEDDED.to_owned())),
        Source::File(path) => (path.display().to_string(), std::fs::read_to_string(path)),
    };
    let mut problems = Problems::of(&name);
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            problems.add(0, format!("cannot be read: {error}"));
            return Err(problems.into_list());
        }
    };
    let mut reader = Reader { problems, variables, prices: vec![] };
    let Some(document) = yaml::parse(&text, &mut reader.problems) else {
        return Err(reader.problems.into_list());
    };
    let config = reader.config(Map::new(Node(&document), &mut Problems::of("")));
    let mut list = reader.problems.into_list();
    list.extend(reader.prices);
    match config {
        Some(config) if list.is_empty() => Ok(config),
        _ => Err(list),
    }
}

struct Reader<'v> {
    problems: Problems,
    variables: Variables<'v>,
    /// Problems of price files, which have names of their own.
    prices: Vec<Problem>,
}

impl Reader<'_> {
    fn config(&mut self, mut map: Map<'_>) -> Option<Config> {
        let listen = self.listeners(map.take("listen"));
        let admin = self.address_or_off(&mut map, "admin", "127.0.0.1:9090");
        let mock = self.address_or_off(&mut map, "mock", "127.0.0.1:8081");
        let workers = map.take_as("workers", &mut self.problems, "`auto` or a number from 1 to 1024", workers);
        let data = self.path(&mut map, "data").unwrap_or_else(|| PathBuf::from("data"));
        let anonymous = map.take_bool("anonymous", &mut self.problems).unwrap_or(false);
        let hosts = self.texts(&mut map, "hosts");
        let from_environment = map.take_bool("environment_providers", &mut self.problems).unwrap_or(true);
        let mut upstreams = self.upstreams(map.take("providers"));
        if from_environment {
            self.add_from_environment(&mut upstreams);
        }
        if let Some(mock) = mock
            && upstreams.iter().all(|upstream| upstream.name != "mock")
            && let Some(provider) = provider::find("mock")
        {
            upstreams.push(Upstream { tls: false, host: mock.ip().to_string(), port: mock.port(), ..Upstream::of(provider, "mock") });
        }
        let by_name: HashMap<String, usize> = upstreams.iter().enumerate().map(|(at, upstream)| (upstream.name.clone(), at)).collect();
        let aliases = self.aliases(map.take("aliases"), &by_name);
        let fallback = self.fallback(&mut map, &by_name);
        let bounds = self.bounds(map.take("body"));
        let timeouts = self.timeouts(map.take("timeouts"));
        let headers = self.headers(map.take("headers"));
        let prices = self.prices(map.take("prices"));
        let access_log = self.access_log(&mut map);
        let pid_file = self.path(&mut map, "pid_file").unwrap_or_else(|| data.join("tollgate.pid"));
        let upgrade_socket = self.path(&mut map, "upgrade_socket").unwrap_or_else(|| data.join("run/upgrade.sock"));
        self.check_exposure(&listen, anonymous);
        map.finish(&mut self.problems);
        Some(Config {
            listen,
            admin,
            mock,
            workers: workers.flatten().unwrap_or_else(cores),
            data,
            pid_file,
            upgrade_socket,
            anonymous,
            hosts,
            upstreams,
            by_name,
            aliases,
            fallback,
            bounds,
            timeouts,
            headers,
            prices: prices?,
            access_log,
        })
    }

    /// Text with its variables filled in.
    fn fill(&mut self, line: usize, text: &str) -> Option<String> {
        interpolate(text, self.variables).map_err(|why| self.problems.add(line, why)).ok()
    }

    fn text(&mut self, map: &mut Map<'_>, key: &'static str) -> Option<(usize, String)> {
        let (line, text) = map.take_text(key, &mut self.problems)?;
        Some((line, self.fill(line, text)?))
    }

    fn texts(&mut self, map: &mut Map<'_>, key: &'static str) -> Vec<String> {
        let (line, texts) = (map.line(), map.take_list(key, &mut self.problems).unwrap_or_default());
        texts.into_iter().filter_map(|text| self.fill(line, text)).collect()
    }

    fn path(&mut self, map: &mut Map<'_>, key: &'static str) -> Option<PathBuf> {
        self.text(map, key).map(|(_, text)| PathBuf::from(text))
    }

    fn address(&mut self, line: usize, text: &str) -> Option<SocketAddr> {
        let text = self.fill(line, text)?;
        let address = text.parse().ok();
        if address.is_none() {
            self.problems.add(line, format!("`{text}` is not an address and port (127.0.0.1:8080, [::]:8080)"));
        }
        address
    }

    fn address_or_off(&mut self, map: &mut Map<'_>, key: &'static str, default: &str) -> Option<SocketAddr> {
        match map.take_text(key, &mut self.problems) {
            Some((_, "off" | "false")) => None,
            Some((line, text)) => self.address(line, text),
            None => default.parse().ok(),
        }
    }

    fn listeners(&mut self, node: Option<Node<'_>>) -> Vec<Listener> {
        let Some(node) = node else {
            return "127.0.0.1:8080".parse().map(|address| Listener { address, tls: None }).into_iter().collect();
        };
        let nodes: Vec<_> = node.items().map_or_else(|| vec![node], Iterator::collect);
        let listeners: Vec<Listener> = nodes.into_iter().filter_map(|node| self.listener(node)).collect();
        for (at, listener) in listeners.iter().enumerate() {
            if listeners.iter().take(at).any(|other| other.address == listener.address) {
                self.problems.add(node.line(), format!("{} is listed twice", listener.address));
            }
        }
        listeners
    }

    fn listener(&mut self, node: Node<'_>) -> Option<Listener> {
        if let Some(text) = node.text() {
            return Some(Listener { address: self.address(node.line(), text)?, tls: None });
        }
        let mut map = Map::new(node, &mut self.problems);
        let address = map.take_text("address", &mut self.problems);
        let address = address.and_then(|(line, text)| self.address(line, text));
        let tls = map.take("tls").and_then(|node| self.tls(node));
        if address.is_none() {
            self.problems.add(map.line(), "a listener needs an `address`");
        }
        map.finish(&mut self.problems);
        Some(Listener { address: address?, tls })
    }

    fn tls(&mut self, node: Node<'_>) -> Option<Tls> {
        let mut map = Map::new(node, &mut self.problems);
        let (cert, key) = (self.path(&mut map, "cert"), self.path(&mut map, "key"));
        for file in [&cert, &key] {
            match file {
                Some(path) => self.check_readable(map.line(), path),
                None => self.problems.add(map.line(), "`tls` needs `cert` and `key`"),
            }
        }
        map.finish(&mut self.problems);
        Some(Tls { cert: cert?, key: key? })
    }

    fn check_readable(&mut self, line: usize, path: &Path) {
        if let Err(error) = std::fs::File::open(path) {
            self.problems.add(line, format!("{}: {error}", path.display()));
        }
    }

    /// Without keys, nobody but this machine may reach the gateway unless that is written out.
    fn check_exposure(&mut self, listen: &[Listener], anonymous: bool) {
        for listener in listen.iter().filter(|listener| !listener.address.ip().is_loopback() && !anonymous) {
            self.problems.add(0, format!("{} can be reached from other machines and there are no gateway keys: listen on 127.0.0.1, or write `anonymous: true` to serve whoever comes", listener.address));
        }
    }

    fn upstreams(&mut self, node: Option<Node<'_>>) -> Vec<Upstream> {
        let entries: Vec<_> = node.and_then(Node::entries).into_iter().flatten().collect();
        if let Some(node) = node
            && node.entries().is_none()
        {
            self.problems.add(node.line(), "`providers` must be a mapping of names");
        }
        entries.into_iter().filter_map(|(name, node)| self.upstream(name, node)).collect()
    }

    fn upstream(&mut self, name: &str, node: Node<'_>) -> Option<Upstream> {
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
        match base_url {
            Some((line, url)) => self.base_url(line, &url, &mut upstream),
            None if upstream.host.is_empty() => {
                self.problems.add(map.line(), format!("provider `{name}` is not a known one ({}) and needs a `base_url`", known()))
            }
            None => {}
        }
        upstream.credentials =
            map.take_as("credentials", &mut self.problems, "`gateway` or `caller`", credentials).unwrap_or(Credentials::Gateway);
        upstream.key = self.text(&mut map, "api_key").map(|(_, key)| Secret::new(key));
        if upstream.key.is_none() && upstream.credentials == Credentials::Gateway {
            upstream.key = self.key_from_environment(provider);
            if upstream.key.is_none() && !provider.host.is_empty() && provider.auth != Auth::None && upstream.host == provider.host {
                self.problems.add(
                    map.line(),
                    format!(
                        "provider `{name}` has no key: give `api_key`, set {}, or write `credentials: caller`",
                        provider.key_variables.join(" or ")
                    ),
                );
            }
        }
        upstream.models = self.texts(&mut map, "models");
        upstream.ca = self.path(&mut map, "ca");
        if let Some(path) = upstream.ca.clone() {
            self.check_readable(map.line(), &path);
        }
        if let Some(asked) = map.take_as("stream_usage", &mut self.problems, "`always`, `on_request` or `unknown`", stream_usage) {
            upstream.stream_usage = asked;
        }
        if let Some((_, catalog)) = self.text(&mut map, "prices") {
            upstream.catalog = catalog;
        }
        if let Some(paths) = map.take_list("endpoints", &mut self.problems) {
            upstream.endpoints = self.endpoints(map.line(), &paths);
        }
        for text in self.texts(&mut map, "allow") {
            upstream.pass.extend(self.pass(map.line(), &text));
        }
        map.finish(&mut self.problems);
        fit.then_some(upstream)
    }

    fn base_url(&mut self, line: usize, url: &str, upstream: &mut Upstream) {
        let parsed: Option<http::Uri> = url.parse().ok();
        let parts = parsed.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.port_u16(), uri.path())));
        match parts {
            Some((scheme @ ("http" | "https"), host, port, path))
                if parsed.as_ref().is_some_and(|uri| {
                    uri.query().is_none() && !uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
                }) =>
            {
                upstream.tls = scheme == "https";
                upstream.host = host.trim_matches(['[', ']']).to_owned();
                upstream.port = port.unwrap_or(if upstream.tls { 443 } else { 80 });
                upstream.base_path = path.trim_end_matches('/').to_owned();
            }
            _ => self.problems.add(line, "`base_url` must look like https://host:port/path, without user or query"),
        }
    }

    fn endpoints(&mut self, line: usize, paths: &[&str]) -> Vec<Endpoint> {
        let mut found = vec![];
        for path in paths {
            match Endpoint::from_name(path) {
                Some(endpoint) => found.push(endpoint),
                None => self.problems.add(
                    line,
                    format!(
                        "`{path}` is not an endpoint; known: {}",
                        Endpoint::ALL.iter().map(|endpoint| endpoint.name()).collect::<Vec<_>>().join(", ")
                    ),
                ),
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

    fn key_from_environment(&self, provider: &Provider) -> Option<Secret> {
        let mut names = provider.key_variables.iter();
        names.find_map(|name| (self.variables)(name)).filter(|key| !key.trim().is_empty()).map(|key| Secret::new(key.trim()))
    }

    fn add_from_environment(&mut self, upstreams: &mut Vec<Upstream>) {
        for provider in provider::REGISTRY {
            if upstreams.iter().any(|upstream| upstream.name == provider.id) {
                continue;
            }
            if let Some(key) = self.key_from_environment(provider) {
                upstreams.push(Upstream { key: Some(key), ..Upstream::of(provider, provider.id) });
            }
        }
    }

    fn aliases(&mut self, node: Option<Node<'_>>, by_name: &HashMap<String, usize>) -> HashMap<String, (usize, String)> {
        let mut aliases = HashMap::new();
        for (name, node) in node.and_then(Node::entries).into_iter().flatten() {
            let target = node.text().and_then(|text| text.split_once('/'));
            let upstream = target.and_then(|(upstream, model)| Some((*by_name.get(upstream)?, model.to_owned())));
            match upstream {
                Some(target) => drop(aliases.insert(name.to_owned(), target)),
                None => self
                    .problems
                    .add(node.line(), format!("alias `{name}` must be `provider/model` with a configured provider ({})", names(by_name))),
            }
        }
        aliases
    }

    fn fallback(&mut self, map: &mut Map<'_>, by_name: &HashMap<String, usize>) -> Option<usize> {
        let (line, name) = map.take_text("fallback", &mut self.problems)?;
        let found = by_name.get(name).copied();
        if found.is_none() {
            self.problems.add(line, format!("fallback `{name}` is not a configured provider ({})", names(by_name)));
        }
        found
    }

    fn bounds(&mut self, node: Option<Node<'_>>) -> Bounds {
        const DEFAULT_MAX: u64 = 32 << 20;
        const DEFAULT_BUDGET: u64 = 1 << 30;
        let mut bounds = Bounds { body_bytes_max: DEFAULT_MAX, body_budget_bytes: bytes_or_share("25%").unwrap_or(DEFAULT_BUDGET) };
        let Some(node) = node else { return bounds };
        let mut map = Map::new(node, &mut self.problems);
        if let Some(max) = map.take_as("bytes_max", &mut self.problems, "a size (32MiB)", bytes) {
            bounds.body_bytes_max = max;
        }
        if let Some(budget) = map.take_as("budget", &mut self.problems, "a size or a share of memory (2GiB, 25%)", bytes_or_share) {
            bounds.body_budget_bytes = budget;
        }
        map.finish(&mut self.problems);
        bounds
    }

    fn timeouts(&mut self, node: Option<Node<'_>>) -> Timeouts {
        let mut map = node.map(|node| Map::new(node, &mut self.problems));
        let mut take = |key, default_s| {
            let given = map.as_mut().and_then(|map| map.take_as(key, &mut self.problems, "a duration (30s, 500ms, 10m)", duration));
            given.unwrap_or(std::time::Duration::from_secs(default_s))
        };
        let timeouts = Timeouts {
            body: take("body", 60),
            connect: take("connect", 10),
            upstream_read: take("upstream_read", 600),
            upstream_write: take("upstream_write", 60),
            downstream_write: take("downstream_write", 60),
            drain: take("drain", 600),
        };
        if let Some(map) = map {
            map.finish(&mut self.problems);
        }
        timeouts
    }

    fn headers(&mut self, node: Option<Node<'_>>) -> HeaderRules {
        let default = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut rules = HeaderRules {
            request_deny: default(&["openai-organization", "openai-project", "anthropic-organization-id"]),
            response_deny: default(&["set-cookie", "openai-organization", "openai-project", "anthropic-organization-id"]),
            ..HeaderRules::default()
        };
        let Some(node) = node else { return rules };
        let mut map = Map::new(node, &mut self.problems);
        let (request, response) = (map.take("request"), map.take("response"));
        self.header_rules(request, &mut rules.request_deny, &mut rules.request_add);
        self.header_rules(response, &mut rules.response_deny, &mut rules.response_add);
        map.finish(&mut self.problems);
        rules
    }

    fn header_rules(&mut self, node: Option<Node<'_>>, deny: &mut Vec<String>, add: &mut Vec<(String, String)>) {
        let Some(node) = node else { return };
        let mut map = Map::new(node, &mut self.problems);
        if let Some(names) = map.take_list("deny", &mut self.problems) {
            *deny = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        }
        for (name, value) in map.take("add").and_then(Node::entries).into_iter().flatten() {
            let text = value.text().and_then(|text| self.fill(value.line(), text)).filter(|text| http::HeaderValue::from_str(text).is_ok());
            match (http::HeaderName::try_from(name), text) {
                (Ok(name), Some(text)) => add.push((name.as_str().to_owned(), text)),
                _ => self.problems.add(value.line(), format!("`{name}` and its value cannot be a header")),
            }
        }
        map.finish(&mut self.problems);
    }

    fn prices(&mut self, node: Option<Node<'_>>) -> Option<price::Catalog> {
        let mut catalog = price::embedded().map_err(|list| self.prices.extend(list)).ok()?;
        if let Some(node) = node {
            let mut map = Map::new(node, &mut self.problems);
            for path in self.texts(&mut map, "overlay") {
                if let Err(list) = price::overlay(&mut catalog, &path) {
                    self.prices.extend(list);
                }
            }
            map.finish(&mut self.problems);
        }
        Some(catalog)
    }

    fn access_log(&mut self, map: &mut Map<'_>) -> AccessLog {
        match self.text(map, "access_log") {
            None => AccessLog::Stdout,
            Some((_, text)) if text == "off" || text == "false" => AccessLog::Off,
            Some((_, text)) if text == "stdout" => AccessLog::Stdout,
            Some((_, text)) => AccessLog::File(PathBuf::from(text)),
        }
    }
}

/// `None` inside stands for as many as there are cores.
fn workers(text: &str) -> Option<Option<usize>> {
    if text == "auto" {
        return Some(None);
    }
    text.parse().ok().filter(|workers| (1..=1024).contains(workers)).map(Some)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn credentials(text: &str) -> Option<Credentials> {
    match text {
        "gateway" => Some(Credentials::Gateway),
        "caller" => Some(Credentials::Caller),
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

fn names(by_name: &HashMap<String, usize>) -> String {
    let mut names: Vec<_> = by_name.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
