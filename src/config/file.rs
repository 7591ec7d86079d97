//! Reads the configuration file into [`Config`], collecting every mistake.

use super::units::{bytes, bytes_or_share, duration, interpolate};
use super::{Bounds, Config, DrainBounds, HeaderRules, Listener, Secret, Stamp, Timeouts, Upstream, exposed};
use crate::provider;
use crate::yaml::{self, Map, Node, Problem, Problems};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    Embedded,
    File(PathBuf),
}

/// Variables of the environment, as a parameter so that tests need none.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Loads and validates a configuration.
///
/// # Errors
/// Every mistake in the file and in the price files it names.
pub fn load(source: &Source, variables: Variables<'_>) -> Result<Config, Vec<Problem>> {
    let (origin, files) = match source {
        Source::Embedded => (Source::Embedded, vec![]),
        Source::File(path) => (Source::File(absolute(path)), vec![Stamp::of(&absolute(path))]),
    };
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
    let mut reader = Reader { problems, variables, prices: vec![], source: origin, files };
    let Some(document) = yaml::parse(&text, &mut reader.problems) else {
        let mut list = reader.problems.into_list();
        if list.is_empty() {
            let message = "nothing is in it; an empty mapping (`{}`) means the defaults".to_owned();
            list.push(Problem { file: name, line: 0, message });
        }
        return Err(list);
    };
    let map = Map::new(Node(&document), &mut reader.problems);
    let config = reader.config(map);
    let mut list = reader.problems.into_list();
    list.extend(reader.prices);
    match config {
        Some(config) if list.is_empty() => Ok(config),
        _ => Err(list),
    }
}

/// Where it is reached.
struct Addresses {
    listen: Vec<Listener>,
    admin: Option<SocketAddr>,
    admin_token: Option<Secret>,
    mock: Option<SocketAddr>,
}

/// A shorter token of the admin listener is refused.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;
pub(super) const DURATION: &str = "a duration (30s, 500ms, 10m)";

pub(super) struct Reader<'v> {
    pub(super) problems: Problems,
    pub(super) variables: Variables<'v>,
    /// Problems of price files, which have names of their own.
    pub(super) prices: Vec<Problem>,
    source: Source,
    /// What was read so far.
    pub(super) files: Vec<Stamp>,
}

impl Reader<'_> {
    fn config(&mut self, mut map: Map<'_>) -> Option<Config> {
        let Addresses { listen, admin, admin_token, mock } = self.addresses(&mut map);
        let workers = map.take_as("workers", &mut self.problems, "`auto` or a number from 1 to 1024", workers);
        // A daemon leaves the folder it was started in.
        let data = absolute(&self.path(&mut map, "data").unwrap_or_else(|| PathBuf::from("data")));
        let anonymous = map.take_bool("anonymous", &mut self.problems).unwrap_or(false);
        let (hosts, origins) = (self.texts(&mut map, "hosts"), self.origins(&mut map));
        let from_environment = map.take_bool("environment_providers", &mut self.problems).unwrap_or(true);
        let timeouts = self.timeouts(map.take("timeouts"));
        let mut upstreams = self.upstreams(map.take("providers"), timeouts);
        if from_environment {
            self.add_from_environment(&mut upstreams);
        }
        upstreams.extend(mock.filter(|_| upstreams.iter().all(|upstream| upstream.name != "mock")).and_then(built_in));
        let (key_file, keys) = self.keys(map.take("keys"), &data, &upstreams).unzip();
        let by_name: HashMap<String, usize> = upstreams.iter().enumerate().map(|(at, upstream)| (upstream.name.clone(), at)).collect();
        let (aliases, retry) = (self.aliases(map.take("aliases"), &by_name), self.retry(map.take("retry")));
        let fallback = self.fallback(&mut map, &by_name);
        let (bounds, drain) = (self.bounds(map.take("body")), self.drain(map.take("after_disconnect")));
        let (limits, redis, process) = (self.limits(map.take("limits")), self.redis(map.take("redis")), self.process(&mut map));
        let (headers, prices) = (self.headers(map.take("headers")), self.prices(map.take("prices"), &data));
        let mut flag = |reader: &mut Self, key, default| map.take_bool(key, &mut reader.problems).unwrap_or(default);
        let (cost_headers, cost_event) = (flag(self, "cost_headers", true), flag(self, "cost_event", false));
        let (access_log, tracing) = (self.access_log(map.take("access_log")), self.tracing(map.take("tracing")));
        let (ledger, sinks) = (self.ledger(map.take("ledger")), self.sinks(map.take("sinks"), &data));
        let [pid_file, upgrade_socket] = [("pid_file", "tollgate.pid"), ("upgrade_socket", "run/upgrade.sock")]
            .map(|(key, usual)| self.path(&mut map, key).unwrap_or_else(|| data.join(usual)));
        exposed(&listen, admin.filter(|_| admin_token.is_none()), mock, keys.is_some() || anonymous)
            .for_each(|(address, instead)| self.exposed(address, instead));
        map.finish(&mut self.problems);
        let prices = prices?.for_upstreams(&mut upstreams);
        Some(Config {
            source: self.source.clone(),
            files: std::mem::take(&mut self.files),
            own_names: Config::own_names(listen.iter().map(|listener| listener.address).chain(admin)),
            listen,
            admin,
            admin_token,
            mock,
            workers: workers.flatten().unwrap_or_else(cores),
            data,
            pid_file,
            upgrade_socket,
            anonymous,
            keys,
            key_file,
            hosts,
            origins,
            upstreams,
            by_name,
            aliases,
            retry,
            fallback,
            bounds,
            timeouts,
            drain,
            limits,
            process,
            redis,
            headers,
            cost_headers,
            cost_event,
            prices: prices.catalog,
            overlays: prices.overlays,
            published: prices.published,
            markups: prices.markups,
            cost_tolerance: prices.cost_tolerance,
            access_log,
            tracing,
            ledger,
            sinks,
        })
    }

    fn origins(&mut self, map: &mut Map<'_>) -> Vec<String> {
        let (line, origins) = (map.line(), self.texts(map, "origins"));
        let is_origin = |origin: &str| {
            origin.split_once("://").is_some_and(|(scheme, rest)| {
                matches!(scheme, "http" | "https") && !rest.is_empty() && !rest.contains(['/', '*', '@', ' '])
            })
        };
        for origin in origins.iter().filter(|origin| !is_origin(origin)) {
            self.problems.add(line, format!("`{origin}` is no origin (https://app.example, with its port if that is not the usual)"));
        }
        origins
    }

    fn addresses(&mut self, map: &mut Map<'_>) -> Addresses {
        let listen = self.listeners(map.take("listen"));
        let admin = self.address_or_off(map, "admin", "127.0.0.1:9090");
        let mock = self.address_or_off(map, "mock", "127.0.0.1:8081");
        Addresses { listen, admin, admin_token: self.admin_token(map), mock }
    }

    fn admin_token(&mut self, map: &mut Map<'_>) -> Option<Secret> {
        let (line, token) = self.text(map, "admin_token")?;
        if token.len() < ADMIN_TOKEN_BYTES_MIN {
            self.problems.add(line, format!("`admin_token` needs at least {ADMIN_TOKEN_BYTES_MIN} characters (openssl rand -hex 16)"));
        }
        Some(Secret::new(token))
    }

    fn exposed(&mut self, address: SocketAddr, instead: &str) {
        self.problems.add(0, format!("{address} can be reached from other machines and asks for no key: {instead}"));
    }

    /// Text with its variables filled in.
    pub(super) fn fill(&mut self, line: usize, text: &str) -> Option<String> {
        interpolate(text, self.variables).map_err(|why| self.problems.add(line, why)).ok()
    }

    pub(super) fn text(&mut self, map: &mut Map<'_>, key: &'static str) -> Option<(usize, String)> {
        let (line, text) = map.take_text(key, &mut self.problems)?;
        Some((line, self.fill(line, text)?))
    }

    pub(super) fn texts(&mut self, map: &mut Map<'_>, key: &'static str) -> Vec<String> {
        let (line, texts) = (map.line(), map.take_list(key, &mut self.problems).unwrap_or_default());
        texts.into_iter().filter_map(|text| self.fill(line, text)).collect()
    }

    /// Names and what stands under them.
    pub(super) fn mapping<'a>(&mut self, node: Option<Node<'a>>, key: &str) -> Vec<(&'a str, Node<'a>)> {
        let entries = node.and_then(Node::entries).map(Iterator::collect);
        if let Some(node) = node.filter(|_| entries.is_none()) {
            self.problems.add(node.line(), format!("`{key}` must be a mapping (name: value)"));
        }
        entries.unwrap_or_default()
    }

    pub(super) fn path(&mut self, map: &mut Map<'_>, key: &'static str) -> Option<PathBuf> {
        self.text(map, key).map(|(_, text)| absolute(Path::new(&text)))
    }

    pub(super) fn address(&mut self, line: usize, text: &str) -> Option<SocketAddr> {
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

    /// Without keys, nobody but this machine may reach the gateway unless that is written out.
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
        // On a small machine or in a small container, the default share may be less than one body.
        let share = bytes_or_share("25%").unwrap_or(DEFAULT_BUDGET).max(DEFAULT_MAX);
        let mut bounds = Bounds { body_bytes_max: DEFAULT_MAX, body_budget_bytes: share };
        let Some(node) = node else { return bounds };
        let mut map = Map::new(node, &mut self.problems);
        if let Some(max) = map.take_as("bytes_max", &mut self.problems, "a size (32MiB)", bytes) {
            bounds.body_bytes_max = max;
        }
        if let Some(budget) = map.take_as("budget", &mut self.problems, "a size or a share of memory (2GiB, 25%)", bytes_or_share) {
            bounds.body_budget_bytes = budget;
        }
        if bounds.body_budget_bytes < bounds.body_bytes_max {
            self.problems.add(map.line(), "`budget` is smaller than `bytes_max`: the largest body could never be read");
        }
        map.finish(&mut self.problems);
        bounds
    }

    fn timeouts(&mut self, node: Option<Node<'_>>) -> Timeouts {
        let seconds = Duration::from_secs;
        let timeouts = Timeouts {
            head: seconds(60),
            idle: seconds(120),
            body: seconds(60),
            connect: seconds(10),
            upstream_read: seconds(600),
            upstream_write: seconds(60),
            first_byte: None,
            total: None,
            keep_alive: None,
            downstream_write: seconds(60),
            drain: seconds(600),
        };
        let Some(node) = node else { return timeouts };
        let mut map = Map::new(node, &mut self.problems);
        let timeouts = self.upstream_timeouts(&mut map, timeouts);
        let mut take = |key, or| map.take_as(key, &mut self.problems, DURATION, duration).unwrap_or(or);
        let (head, idle, body) = (take("head", timeouts.head), take("idle", timeouts.idle), take("body", timeouts.body));
        let (write, drain) = (take("downstream_write", timeouts.downstream_write), take("drain", timeouts.drain));
        let keep_alive = map.take_as("keep_alive", &mut self.problems, DURATION, duration);
        let timeouts = Timeouts { head, idle, body, downstream_write: write, drain, keep_alive, ..timeouts };
        map.finish(&mut self.problems);
        timeouts
    }

    /// Those that a provider may have of its own.
    pub(super) fn upstream_timeouts(&mut self, map: &mut Map<'_>, or: Timeouts) -> Timeouts {
        let mut take = |key| map.take_as(key, &mut self.problems, DURATION, duration);
        let (connect, read, write) = (take("connect"), take("upstream_read"), take("upstream_write"));
        let (first_byte, total) = (take("first_byte").or(or.first_byte), take("total").or(or.total));
        Timeouts {
            connect: connect.unwrap_or(or.connect),
            upstream_read: read.unwrap_or(or.upstream_read),
            upstream_write: write.unwrap_or(or.upstream_write),
            first_byte,
            total,
            ..or
        }
    }

    fn drain(&mut self, node: Option<Node<'_>>) -> DrainBounds {
        let mut bounds = DrainBounds { time: Duration::from_secs(120), bytes: 64 << 20, exchanges: 1000 };
        let Some(node) = node else { return bounds };
        let mut map = Map::new(node, &mut self.problems);
        if let Some(time) = map.take_as("time", &mut self.problems, "a duration (120s)", duration) {
            bounds.time = time;
        }
        if let Some(max) = map.take_as("bytes", &mut self.problems, "a size (64MiB)", bytes) {
            bounds.bytes = max;
        }
        let number = |text: &str| text.parse().ok().filter(|count| (0..=1_000_000).contains(count));
        if let Some(max) = map.take_as("exchanges", &mut self.problems, "a number up to 1000000", number) {
            bounds.exchanges = max;
        }
        map.finish(&mut self.problems);
        bounds
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
        for (name, value) in self.mapping(map.take("add"), "add") {
            let text = value.text().and_then(|text| self.fill(value.line(), text)).filter(|text| http::HeaderValue::from_str(text).is_ok());
            match (http::HeaderName::try_from(name), text) {
                (Ok(name), Some(text)) => add.push((name.as_str().to_owned(), text)),
                _ => self.problems.add(value.line(), format!("`{name}` and its value cannot be a header")),
            }
        }
        map.finish(&mut self.problems);
    }
}

/// A path as it was meant when the process started: a daemon leaves that folder, and may read its configuration again.
pub(super) fn absolute(path: &Path) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::current_dir().unwrap_or_default()).join(path)
}

/// The mock provider that the gateway itself serves.
fn built_in(at: SocketAddr) -> Option<Upstream> {
    let provider = provider::find("mock")?;
    Some(Upstream { tls: false, host: at.ip().to_string(), port: at.port(), ..Upstream::of(provider, "mock") })
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

pub(super) fn names(by_name: &HashMap<String, usize>) -> String {
    let mut names: Vec<_> = by_name.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(super) mod tests;
