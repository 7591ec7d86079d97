//! The daemon: Pingora's server built from our configuration, listeners, signals and drain.

use super::certificates::Slot;
use super::crew::{Door, FAREWELL, Opening, crew};
use super::gateway::Gateway;
use super::housekeeping::Housekeeping;
use super::mock_app::MockApp;
use super::sinks::Feeding;
use super::sockets::{Ready, Sockets};
use super::state::{State, now_ms};
use super::successor::{self, Launch, tell_stopping};
use super::timed::Waits;
use crate::access_log::Log;
use crate::admin::Admin;
use crate::config::{Config, Tls};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::{Acceptor, TlsSettings};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::ServiceWithDependents;
use pingora::services::background::background_service;
use pingora_proxy::HttpProxy;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Attempts at one request, however many candidates an alias has and however often they are asked again.
const ATTEMPTS_MAX: usize = 32;
/// Kept-alive connections to upstreams, of each worker.
const POOL_CONNECTIONS_MAX: usize = 1024;
/// How often a leaving process looks whether it is idle.
const IDLE_CHECK: Duration = Duration::from_millis(50);
/// How long it waits for others to hear of the last bills and spans.
const TELL_MAX: Duration = Duration::from_secs(2);

/// How the daemon is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// Take over the sockets of a running process.
    pub upgrade: bool,
    /// Detach from the terminal.
    pub daemon: bool,
}

/// Opens what the daemon writes and builds the server. A successor waits here for the sockets.
///
/// # Errors
/// If the data folder, a log, a certificate or an address cannot be used, or nobody hands over.
pub fn build(config: Config, start: Start) -> io::Result<Daemon> {
    // Libraries that fetch credentials ask the process for its cryptography. Installed already: as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    outlive_file_limits()?;
    let launch = Launch::of_this_process(&config.source, start.daemon);
    let config = Arc::new(config);
    let listen = config.listen.iter().map(|listener| listener.address);
    let addresses: Vec<_> = listen.chain(config.admin).chain(config.mock).collect();
    // Whoever has an address finds out before anything is written.
    let bound = if start.upgrade { None } else { Some((Sockets::bind(&addresses)?, Ready::default())) };
    let folder = config.data.join("ledger");
    let ledger = Ledger::open(&folder, config.workers, config.ledger.segment_bytes, now_ms())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
    let access_log = Log::open(&config.access_log, metrics.clone())?;
    let state = State::new(config.clone(), ledger, metrics, access_log)?;
    state.recall_all(&config).map_err(io::Error::other)?;
    // All that takes time is done before the sockets are asked for.
    let (sockets, ready) = bound.map_or_else(|| Sockets::inherit(&config.upgrade_socket, &addresses), Ok)?;
    let mut server = Server::new_with_opt_and_conf(None, server_conf(&config, start));
    server.bootstrap();
    // Before those that serve: what requests put off is written from the first on.
    let mut housekeeping = background_service("housekeeping", Housekeeping(state.clone()));
    housekeeping.threads = Some(1);
    server.add_service(housekeeping);
    if !state.sinks.is_empty() {
        let mut sinks = background_service("sinks", Feeding(state.clone()));
        sinks.threads = Some(1);
        server.add_service(sinks);
    }
    let mut serving = gateway(&server.configuration, &state, &sockets, &ready)?;
    let waits = waits(&config);
    let plain = |address| sockets.of(address).map(|socket| Door::plain(socket, waits)).into_iter().collect();
    if let Some(address) = config.admin {
        let admin = crew("admin", 1, plain(address), &ready, Some(state.admin_shutdown()), |_| Admin::new(state.clone()));
        serving.extend(admin);
    }
    if let Some(address) = config.mock {
        serving.extend(crew("mock", 1, plain(address), &ready, None, |_| MockApp::default()));
    }
    server.add_services(serving);
    Ok(Daemon { server, state, sockets, launch })
}

/// A server that is built and not yet run.
pub struct Daemon {
    server: Server,
    pub state: Arc<State>,
    sockets: Sockets,
    launch: Launch,
}

impl Daemon {
    /// Serves until told to stop.
    pub fn run(self) {
        let Self { server, state, sockets, launch } = self;
        let held = state.clone();
        let signals = Signals { state, sockets: Mutex::new(Some(Arc::new(sockets))), launch, stop: Arc::default() };
        server.run(RunArgs { shutdown_signal: Box::new(signals) });
        // What was cut off has been closed by now.
        match last_write(&held, Instant::now()) {
            0 => {}
            code => std::process::exit(code),
        }
    }
}

/// As the gateway has it by default.
const MOCK_WAITS: Waits = Waits { head: Duration::from_secs(60), idle: Duration::from_secs(120) };

/// Serves the mock provider alone, with as many workers.
///
/// # Errors
/// If the address is not free.
pub fn run_mock(address: SocketAddr, threads: usize) -> io::Result<()> {
    let mut server = Server::new_with_opt_and_conf(None, ServerConf::default());
    server.bootstrap();
    let socket = Sockets::bind(&[address])?.of(address);
    let doors = socket.map(|socket| Door::plain(socket, MOCK_WAITS)).into_iter().collect();
    let app = MockApp::default();
    server.add_services(crew("mock", threads, doors, &Ready::default(), None, |_| app.clone()));
    server.run(RunArgs::default());
    Ok(())
}

fn waits(config: &Config) -> Waits {
    Waits { head: config.timeouts.head, idle: config.timeouts.idle }
}

fn server_conf(config: &Config, start: Start) -> ServerConf {
    ServerConf {
        daemon: start.daemon,
        pid_file: config.pid_file.display().to_string(),
        // Of a worker.
        threads: 1,
        upstream_keepalive_pool_size: POOL_CONNECTIONS_MAX,
        max_retries: ATTEMPTS_MAX,
        grace_period_seconds: Some(config.timeouts.drain.as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn gateway(
    conf: &Arc<ServerConf>,
    state: &Arc<State>,
    sockets: &Sockets,
    ready: &Ready,
) -> io::Result<Vec<Box<dyn ServiceWithDependents>>> {
    let config = state.config();
    let mut doors = vec![];
    for listener in &config.listen {
        let tls = listener.tls.as_ref().map(|tls| acceptor(tls, state.certificates.of(listener.address))).transpose()?;
        let opening = Opening { tls, waits: waits(&config) };
        doors.extend(sockets.of(listener.address).map(|socket| Door { socket, opening }));
    }
    let idle = config.timeouts.idle;
    Ok(crew("gateway", config.workers, doors, ready, None, |load| {
        state.loads.lock().unwrap_or_else(PoisonError::into_inner).push(load.clone());
        let mut proxy = HttpProxy::new(Gateway::new(state.clone(), load), conf.clone());
        proxy.handle_init_modules();
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(idle);
        proxy.server_options = Some(options);
        proxy
    }))
}

fn acceptor(tls: &Tls, certificates: Option<Arc<Slot>>) -> io::Result<Arc<Acceptor>> {
    let (cert, key) = (tls.cert.display().to_string(), tls.key.display().to_string());
    let mut settings = TlsSettings::intermediate(&cert, &key).map_err(|error| io::Error::other(error.to_string()))?;
    if let Some(certificates) = certificates {
        settings.set_cert_resolver(certificates);
    }
    settings.enable_h2();
    Ok(Arc::new(settings.build()))
}

/// A limit on the size of files (`ulimit -f`) is a write that fails, and no end: once there is a handler it stays.
fn outlive_file_limits() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _context = runtime.enter();
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// SIGTERM leaves when the last request has ended, SIGINT at once, SIGQUIT hands over to a successor that waits, SIGUSR2
/// to one that it starts, SIGHUP reloads.
struct Signals {
    state: Arc<State>,
    launch: Launch,
    /// No successor is wanted any more.
    stop: Arc<AtomicBool>,
    /// Until this process no longer accepts.
    sockets: Mutex<Option<Arc<Sockets>>>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let kinds =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::user_defined2(), SignalKind::hangup()];
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut quit), Ok(mut replace), Ok(mut hangup)] = kinds.map(signal) else {
            return ShutdownSignal::FastShutdown;
        };
        loop {
            let started = tokio::select! {
                _ = terminate.recv() => {
                    tell_stopping();
                    self.state.stop_being_ready();
                    tokio::select! {
                        () = tokio::time::sleep(self.state.config().process.shutdown_delay) => break,
                        _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                    }
                }
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = quit.recv() => false,
                _ = replace.recv() => true,
                _ = hangup.recv() => {
                    self.state.reload();
                    continue;
                }
            };
            tokio::select! {
                handed = self.hand_over(started) => match handed {
                    Ok(()) => {
                        // The successor answers there now.
                        self.state.stop_admin();
                        break;
                    }
                    Err(error) => {
                        self.state.metrics.upgrades_failed.inc();
                        log::error!("{}: {error}. Serving on", if started { "SIGUSR2" } else { "SIGQUIT" });
                    }
                },
                // Who has the sockets already takes over all the same.
                _ = terminate.recv() => {
                    self.stop.store(true, Ordering::Release);
                    tell_stopping();
                    break;
                }
                _ = interrupt.recv() => {
                    self.stop.store(true, Ordering::Release);
                    return ShutdownSignal::FastShutdown;
                }
            }
        }
        self.state.leave();
        // What holds them now closes them when it has accepted who waits.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
        leave_when_idle(self.state.clone(), FAREWELL + IDLE_CHECK);
        let state = self.state.clone();
        tokio::spawn(async move {
            interrupt.recv().await;
            std::process::exit(last_write(&state, Instant::now()));
        });
        ShutdownSignal::GracefulTerminate
    }
}

impl Signals {
    /// Returns once a successor serves: one that waits, or one that is started here.
    async fn hand_over(&self, start: bool) -> io::Result<()> {
        let (path, sockets) =
            (self.state.config().upgrade_socket.clone(), self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let (Some(sockets), launch) = (sockets, self.launch.clone()) else { return Ok(()) };
        let stop = self.stop.clone();
        let give = move || {
            let child = start.then(|| launch.start(&path, &stop)).transpose()?;
            let given = if stop.load(Ordering::Acquire) { Err(io::Error::other("told to end")) } else { sockets.hand_over(&path) };
            if given.is_err() {
                child.into_iter().for_each(|child| successor::end(child, &path));
            }
            given
        };
        tokio::task::spawn_blocking(give).await.map_err(io::Error::other)?
    }
}

/// Writes what requests left to the ledger before the process ends, and returns its exit code. A disk that takes nothing is tried
/// until `deadline`; then the records go to `ledger.overflow`, or are lost, which is logged and makes the code 1.
fn last_write(state: &State, deadline: Instant) -> i32 {
    const RETRY: Duration = Duration::from_millis(200);
    state.finish();
    let overflow = state.config().ledger.overflow.clone();
    while state.ledger.waiting_records() > 0 && overflow.is_none() && Instant::now() < deadline {
        std::thread::sleep(RETRY);
        state.finish();
    }
    let (records, bytes) = (state.ledger.waiting_records(), state.ledger.waiting_bytes());
    if records == 0 {
        return 0;
    }
    match overflow.map(|folder| (state.ledger.save_elsewhere(&folder, now_ms()), folder)) {
        Some((Ok(saved), folder)) => {
            log::error!(
                "the ledger cannot be written: {saved} records are in {}; move its files into {} once that disk has room",
                folder.display(),
                state.config().data.join("ledger").display()
            );
            return 0;
        }
        Some((Err(error), folder)) => log::error!("{}: {error}", folder.display()),
        None => {}
    }
    log::error!("{records} records of the ledger ({bytes} bytes) are lost: its disk did not take them before the process ended");
    1
}

/// Pingora's grace period is a fixed sleep: a process that no longer accepts leaves as soon as its last request has ended.
fn leave_when_idle(state: Arc<State>, after: Duration) {
    let deadline = Instant::now() + state.config().timeouts.drain;
    let watch = move || {
        std::thread::sleep(after);
        // Idle twice: a request may just be on its way from one count to the next.
        let mut idle = 0;
        while idle < 2 {
            std::thread::sleep(IDLE_CHECK);
            idle = if state.is_idle() { idle + 1 } else { 0 };
        }
        state.let_go();
        let code = last_write(&state, deadline);
        // What limits and traces are yet to hear.
        let until = Instant::now() + TELL_MAX;
        let told =
            || state.shared.as_ref().is_none_or(|shared| shared.is_settled()) && state.spans.as_ref().is_none_or(|spans| spans.is_empty());
        while !told() && Instant::now() < until {
            std::thread::sleep(IDLE_CHECK);
        }
        std::process::exit(code);
    };
    if let Err(error) = std::thread::Builder::new().name("drain".to_owned()).spawn(watch) {
        log::error!("the process will stay for the whole drain time: {error}");
    }
}
