//! Reads the `providers` of a configuration into upstreams.

use super::file::Reader;
use super::{Credentials, Pass, Secret, Upstream};
use crate::dialect::Endpoint;
use crate::provider::{self, Auth, CHAT_COMPATIBLE, Provider, StreamUsage};
use crate::yaml::{Map, Node};

/// What a provider made up of a base URL alone is.
const COMPATIBLE: &Provider = &Provider {
    id: "compatible",
    endpoints: &[Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses, Endpoint::Embeddings],
    ..CHAT_COMPATIBLE
};

impl Reader<'_> {
    pub(super) fn upstreams(&mut self, node: Option<Node<'_>>) -> Vec<Upstream> {
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
            self.check_certificates(map.line(), &path);
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
        let numbered = parsed.as_ref().is_none_or(|uri| {
            uri.port_u16().is_some() || uri.authority().is_some_and(|authority| authority.as_str().len() == authority.host().len())
        });
        match parts {
            Some((scheme @ ("http" | "https"), host, port, path))
                if numbered
                    && parsed.as_ref().is_some_and(|uri| {
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

    pub(super) fn add_from_environment(&mut self, upstreams: &mut Vec<Upstream>) {
        for provider in provider::REGISTRY {
            if upstreams.iter().any(|upstream| upstream.name == provider.id) {
                continue;
            }
            if let Some(key) = self.key_from_environment(provider) {
                upstreams.push(Upstream { key: Some(key), ..Upstream::of(provider, provider.id) });
            }
        }
    }
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
