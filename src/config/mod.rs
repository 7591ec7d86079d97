//! Configuration: one YAML file, read once into immutable, validated types. All mistakes are told at once, with file
//! and line, before a socket is bound.

mod access;
mod access_log;
mod alias;
mod file;
mod identity;
pub mod key_file;
mod ledger;
mod limits;
mod listen;
mod prices;
mod process;
mod providers;
mod redis;
mod secret;
mod sinks;
mod tracing;
mod units;
mod upstream;
mod watch;

pub use access_log::{AccessLog, LogFormat, LogTo};
pub use alias::{Alias, Patience, Retry, Target};
pub use file::{Source, load};
pub use identity::Identity;
pub use ledger::{LedgerRules, Sync};
pub use listen::certificates;
pub use prices::Published;
pub use process::ProcessRules;
pub use redis::RedisRules;
pub use secret::Secret;
pub use sinks::{ClickHouseRules, DATABASE, KafkaRules, PostgresRules, Sinks, WebhookRules};
pub use tracing::TracingRules;
pub use upstream::{Credentials, Pass, PathStyle, PromptCache, Upstream};
pub use watch::{Stamp, Watch};

use crate::keys::Keys;
use crate::limit::Rule;
use crate::price::{Catalog, Markup, Tolerance};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The configuration this binary was built with.
pub const EMBEDDED: &str = include_str!("../../conf/tollgate.yaml");

/// Everything the daemon was told. Shared by all requests, swapped whole.
#[derive(Debug)]
pub struct Config {
    pub source: Source,
    /// What was read: a change of any of these is a change of the configuration.
    pub files: Vec<Stamp>,
    pub listen: Vec<Listener>,
    pub admin: Option<SocketAddr>,
    /// Asked for at the admin listener; without one it serves this machine alone, and only to be read.
    pub admin_token: Option<Secret>,
    /// Where the built-in mock provider listens.
    pub mock: Option<SocketAddr>,
    pub workers: usize,
    pub data: PathBuf,
    pub pid_file: PathBuf,
    pub upgrade_socket: PathBuf,
    /// Serve without keys on addresses others can reach.
    pub anonymous: bool,
    /// Who may ask; `None`: whoever reaches the gateway.
    pub keys: Option<Keys>,
    pub key_file: Option<PathBuf>,
    /// Further names by which the gateway may be addressed.
    pub hosts: Vec<String>,
    /// Web sites whose pages may use the gateway (`https://app.example`).
    pub origins: Vec<String>,
    own_names: Vec<String>,
    pub upstreams: Vec<Upstream>,
    /// By name, and by the names of known providers that were given another.
    pub by_name: HashMap<String, usize>,
    /// Names for models.
    pub aliases: HashMap<String, Alias>,
    pub retry: Retry,
    pub fallback: Option<usize>,
    pub bounds: Bounds,
    pub timeouts: Timeouts,
    pub drain: DrainBounds,
    pub limits: Arc<[Rule]>,
    pub process: ProcessRules,
    /// What is shared with other gateways.
    pub redis: Option<RedisRules>,
    pub headers: HeaderRules,
    /// Tell callers the cost in heads and trailers.
    pub cost_headers: bool,
    /// Tell callers the cost in a comment at the end of streams, unless they say otherwise.
    pub cost_event: bool,
    pub prices: Catalog,
    /// The operator's price files.
    pub overlays: Vec<PathBuf>,
    /// Catalogs that are fetched, and what is charged beyond what something costs.
    pub published: Vec<Published>,
    pub markups: Vec<Markup>,
    /// How far the cost that a provider states may differ from the charge.
    pub cost_tolerance: Tolerance,
    pub access_log: AccessLog,
    /// Where traces go, if anywhere.
    pub tracing: Option<TracingRules>,
    pub ledger: LedgerRules,
    pub sinks: Sinks,
}

/// An address to listen on: HTTP/1.1 and h2c, or TLS with HTTP/1.1 and HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub tls: Option<Tls>,
}

/// Files of a certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a peer may make grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of one request body; one byte more is answered 413.
    pub body_bytes_max: u64,
    /// Of all request bodies held at once; more is answered 503.
    pub body_budget_bytes: u64,
}

/// How far answers are read whose callers left, for their bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainBounds {
    pub time: Duration,
    pub bytes: u64,
    /// Of all exchanges, at once; others are cancelled.
    pub exchanges: i64,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the first byte of a connection, and for the whole head of each request from its first byte.
    pub head: Duration,
    /// For the next request on a connection that is kept alive.
    pub idle: Duration,
    /// For a whole request body.
    pub body: Duration,
    /// For TCP and TLS to an upstream.
    pub connect: Duration,
    /// For each read from an upstream: its first byte, and every further one.
    pub upstream_read: Duration,
    pub upstream_write: Duration,
    /// For the head of an upstream's answer, and for all of it; `None`: as long as something comes.
    pub first_byte: Option<Duration>,
    pub total: Option<Duration>,
    /// After what silence between two events the caller is sent a comment, if ever.
    pub keep_alive: Option<Duration>,
    /// For a client to take what is sent to it.
    pub downstream_write: Duration,
    /// For open exchanges when the daemon is told to leave.
    pub drain: Duration,
}

/// Headers dropped and set on the way, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    pub request_deny: Vec<String>,
    pub request_add: Vec<(String, String)>,
    pub response_deny: Vec<String>,
    pub response_add: Vec<(String, String)>,
}

impl Config {
    /// The upstream of this name.
    pub fn upstream(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// True if a `Host` header may name this gateway; names are compared with their port.
    pub fn answers_for(&self, host: &str) -> bool {
        let named =
            |own: &str| own.eq_ignore_ascii_case(host) || host.rsplit_once(':').is_some_and(|(name, _)| own.eq_ignore_ascii_case(name));
        self.own_names.iter().any(|own| own.eq_ignore_ascii_case(host)) || self.hosts.iter().any(|own| named(own))
    }

    /// The names under which the bound addresses are reached from this machine.
    fn own_names(bound: impl Iterator<Item = SocketAddr>) -> Vec<String> {
        let names = |address: SocketAddr| {
            let port = address.port();
            let ip = if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() };
            let with_port = [ip.as_str(), "127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
            // Clients leave out the port that is usual for the scheme.
            let bare = [ip.as_str(), "127.0.0.1", "localhost", "[::1]"].map(str::to_owned);
            with_port.into_iter().chain(bare.into_iter().filter(move |_| matches!(port, 80 | 443)))
        };
        bound.flat_map(names).collect()
    }

    /// Takes over from another what a running process cannot change, and says what that was.
    pub fn keep_bound(&mut self, old: &Self) -> Vec<&'static str> {
        let changed = [
            ("listen", self.listen.iter().map(|listener| listener.address).ne(old.listen.iter().map(|listener| listener.address))),
            (
                "listen.tls",
                self.listen.iter().map(|listener| listener.tls.is_some()).ne(old.listen.iter().map(|listener| listener.tls.is_some())),
            ),
            ("admin", self.admin != old.admin),
            ("mock", self.mock != old.mock),
            ("workers", self.workers != old.workers),
            ("data", self.data != old.data),
            ("pid_file", self.pid_file != old.pid_file),
            ("upgrade_socket", self.upgrade_socket != old.upgrade_socket),
            ("access_log", self.access_log != old.access_log),
            ("sinks", self.sinks != old.sinks),
            ("redis", self.redis != old.redis),
            ("tracing", self.tracing != old.tracing),
            ("ledger.segment_bytes", self.ledger.segment_bytes != old.ledger.segment_bytes),
            ("timeouts.drain", self.timeouts.drain != old.timeouts.drain),
        ];
        let changed: Vec<_> = changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect();
        if changed.iter().any(|name| name.starts_with("listen")) {
            self.listen.clone_from(&old.listen);
        }
        (self.admin, self.mock, self.workers, self.timeouts.drain) = (old.admin, old.mock, old.workers, old.timeouts.drain);
        self.ledger.segment_bytes = old.ledger.segment_bytes;
        self.own_names.clone_from(&old.own_names);
        self.data.clone_from(&old.data);
        self.pid_file.clone_from(&old.pid_file);
        self.upgrade_socket.clone_from(&old.upgrade_socket);
        self.access_log.clone_from(&old.access_log);
        self.sinks.clone_from(&old.sinks);
        self.redis.clone_from(&old.redis);
        self.tracing.clone_from(&old.tracing);
        changed
    }

    /// Addresses that others can reach though whoever comes would be served, and what would mend that.
    pub fn exposed(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let admin = self.admin.filter(|_| self.admin_token.is_none());
        exposed(&self.listen, admin, self.mock, self.keys.is_some() || self.anonymous)
    }

    /// True if every listener is reachable from this machine alone.
    pub fn is_loopback_only(&self) -> bool {
        self.listen.iter().all(|listener| listener.address.ip().is_loopback())
    }
}

/// Of all addresses, those that others can reach though whoever comes would be served. Keys, or the word that nobody needs
/// one, hold for the listeners alone: who may see the bill is asked for a token in any case.
fn exposed(
    listen: &[Listener],
    admin: Option<SocketAddr>,
    mock: Option<SocketAddr>,
    guarded: bool,
) -> impl Iterator<Item = (SocketAddr, &'static str)> {
    const SERVES: &str = "listen on 127.0.0.1, give the gateway `keys`, or write `anonymous: true` to serve whoever comes";
    const SHOWS: &str = "listen on 127.0.0.1, or give it an `admin_token` (openssl rand -hex 16)";
    const PLAYS: &str = "listen on 127.0.0.1";
    let listen = listen.iter().map(|listener| listener.address).filter(move |_| !guarded).map(|address| (address, SERVES));
    let others = admin.map(|address| (address, SHOWS)).into_iter().chain(mock.map(|address| (address, PLAYS)));
    listen.chain(others).filter(|(address, _)| !address.ip().is_loopback())
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod reference;
