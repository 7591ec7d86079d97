//! The daemon: Pingora's server built from our configuration, listeners, signals and drain.

use super::gateway::Gateway;
use super::housekeeping::Housekeeping;
use super::mock_app::MockApp;
use super::sinks::Feeding;
use super::state::{State, now_ms};
use crate::access_log::Log;
use crate::admin::Admin;
use crate::config::{Config, Listener};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Attempts at one request, however many candidates an alias has and however often they are asked again.
const ATTEMPTS_MAX: usize = 32;
/// Kept-alive connections to upstreams, over all threads.
const POOL_CONNECTIONS_MAX: usize = 1024;
/// How long Pingora keeps serving after it was told to hand over.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How often a leaving process looks whether it is idle.
const IDLE_CHECK: Duration = Duration::from_millis(50);

/// How the daemon is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// Take over the sockets of a running process.
    pub upgrade: bool,
    /// Detach from the terminal.
    pub daemon: bool,
}

/// Opens what the daemon writes and builds the server.
///
/// # Errors
/// If the data folder, a log or a certificate cannot be used.
pub fn build(config: Config, start: Start) -> io::Result<(Server, Arc<State>)> {
    // Libraries that fetch credentials ask the process for its cryptography. Installed already: as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = Arc::new(config);
    if !start.upgrade {
        check_addresses(&config)?;
    }
    let folder = config.data.join("ledger");
    let ledger = Ledger::open(&folder, config.workers, config.ledger.segment_bytes, now_ms()).map_err(|error| named(&folder, &error))?;
    if let Some(folder) = config.upgrade_socket.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
    let access_log = Log::open(&config.access_log, metrics.clone())?;
    let state = State::new(config.clone(), ledger, metrics, access_log)?;
    state.recall_spending(&config, &[]).map_err(io::Error::other)?;
    let opt = Opt { upgrade: start.upgrade, daemon: start.daemon, ..Opt::default() };
    let mut server = Server::new_with_opt_and_conf(Some(opt), server_conf(&config, start));
    server.bootstrap();
    server.add_service(gateway(&server.configuration, &state, &config.listen)?);
    if !state.sinks.is_empty() {
        let mut sinks = background_service("sinks", Feeding(state.clone()));
        sinks.threads = Some(1);
        server.add_service(sinks);
    }
    let mut housekeeping = background_service("housekeeping", Housekeeping(state.clone()));
    housekeeping.threads = Some(1);
    server.add_service(housekeeping);
    if let Some(address) = config.admin {
        let mut service = Service::new("admin".to_owned(), Admin::new(state.clone()));
        service.threads = Some(1);
        service.add_tcp(&address.to_string());
        server.add_service(service);
    }
    if let Some(address) = config.mock {
        server.add_service(mock(address, 1));
    }
    Ok((server, state))
}

/// Finds out before anything starts whether every address is free: Pingora would only panic in the thread that listens.
fn check_addresses(config: &Config) -> io::Result<()> {
    let listen = config.listen.iter().map(|listener| listener.address);
    let mut held = vec![];
    for address in listen.chain(config.admin).chain(config.mock) {
        let listener = std::net::TcpListener::bind(address);
        held.push(listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?);
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Serves until told to stop.
pub fn run(server: Server, state: Arc<State>) {
    server.run(RunArgs { shutdown_signal: Box::new(Signals(state)) });
}

/// Serves the mock provider alone.
pub fn run_mock(address: SocketAddr, threads: usize) {
    let conf = ServerConf { threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    server.add_service(mock(address, threads));
    server.run(RunArgs::default());
}

fn server_conf(config: &Config, start: Start) -> ServerConf {
    ServerConf {
        daemon: start.daemon,
        pid_file: config.pid_file.display().to_string(),
        upgrade_sock: config.upgrade_socket.display().to_string(),
        threads: config.workers,
        upstream_keepalive_pool_size: POOL_CONNECTIONS_MAX,
        max_retries: ATTEMPTS_MAX,
        grace_period_seconds: Some(config.timeouts.drain.as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn gateway(conf: &Arc<ServerConf>, state: &Arc<State>, listen: &[Listener]) -> io::Result<Service<pingora_proxy::HttpProxy<Gateway>>> {
    let mut service = pingora_proxy::http_proxy_service_with_name(conf, Gateway(state.clone()), "gateway");
    if let Some(proxy) = service.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
    }
    for listener in listen {
        let address = listener.address.to_string();
        match &listener.tls {
            None => service.add_tcp(&address),
            Some(tls) => {
                let (cert, key) = (tls.cert.display().to_string(), tls.key.display().to_string());
                let mut settings = TlsSettings::intermediate(&cert, &key).map_err(|error| io::Error::other(error.to_string()))?;
                if let Some(certificates) = state.certificates.of(listener.address) {
                    settings.set_cert_resolver(certificates);
                }
                settings.enable_h2();
                service.add_tls_with_settings(&address, None, settings);
            }
        }
    }
    Ok(service)
}

fn mock(address: SocketAddr, threads: usize) -> Service<MockApp> {
    let mut service = Service::new("mock".to_owned(), MockApp::default());
    service.threads = Some(threads);
    service.add_tcp(&address.to_string());
    service
}

/// SIGTERM leaves when the last request has ended, SIGINT at once, SIGQUIT hands over to a successor, SIGHUP reloads.
struct Signals(Arc<State>);

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()];
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut quit), Ok(mut hangup)] = kinds.map(signal) else {
            return ShutdownSignal::FastShutdown;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = quit.recv() => {
                    // Pingora would leave all the same, and nobody would serve.
                    if !successor_waits(&self.0.config().upgrade_socket) {
                        log::error!("SIGQUIT: no successor waits for the sockets; start one with --upgrade first. Serving on");
                        continue;
                    }
                    leave_when_idle(self.0.clone(), HAND_OVER + Duration::from_secs(1));
                    return ShutdownSignal::GracefulUpgrade;
                }
                _ = hangup.recv() => drop(self.0.reload()),
            }
        }
        // Pingora stops accepting and closes idle connections at once.
        leave_when_idle(self.0.clone(), IDLE_CHECK);
        ShutdownSignal::GracefulTerminate
    }
}

/// True if a successor listens on the upgrade socket. Connecting would use up the one connection that it takes.
fn successor_waits(socket: &Path) -> bool {
    const LISTENING: &str = "00010000";
    let Some(path) = socket.to_str() else { return false };
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(3) == Some(LISTENING) && fields.nth(3) == Some(path)
    })
}

/// Pingora's grace period is a fixed sleep: a process that handed over leaves as soon as its last request has ended.
fn leave_when_idle(state: Arc<State>, after: Duration) {
    let watch = move || {
        std::thread::sleep(after);
        while state.metrics.in_flight.get() > 0 {
            std::thread::sleep(IDLE_CHECK);
        }
        state.write_out();
        std::process::exit(0);
    };
    if let Err(error) = std::thread::Builder::new().name("drain".to_owned()).spawn(watch) {
        log::error!("the process will stay for the whole drain time: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_listens_is_a_successor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        assert!(!successor_waits(&path));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(successor_waits(&path));
        drop(listener);
        // The file is still there; nobody listens.
        assert!(path.exists() && !successor_waits(&path));
    }
}
