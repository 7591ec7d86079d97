//! Who serves: workers that share nothing, a thread each with an app and upstream connections of its own. One task accepts
//! for all of them and hands each connection to the least busy.

use super::sockets::Ready;
use super::timed::{Timed, Waits, connection};
use super::wire::{PREFACE, Version, Wire};
use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::{ALPN, Ssl, Stream};
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{Service, ServiceWithDependents};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a worker that leaves still serves what comes on connections that it has: the next answer on each says that it
/// is the last. Then those that are idle are closed.
pub const FAREWELL: Duration = Duration::from_secs(1);
/// How long a socket that is about to close is listened at for somebody who waits already.
const LAST_CALL: Duration = Duration::from_millis(5);
/// How long accepting rests when the process has no more files to open.
const REST: Duration = Duration::from_millis(100);

/// A listening socket, and how connections begin there.
pub struct Door {
    pub socket: Arc<TcpListener>,
    pub opening: Opening,
}

impl Door {
    pub fn plain(socket: Arc<TcpListener>, waits: Waits) -> Self {
        Self { socket, opening: Opening { tls: None, waits } }
    }
}

/// How a connection begins.
#[derive(Clone)]
pub struct Opening {
    /// What is spoken on it.
    pub tls: Option<Arc<Acceptor>>,
    pub waits: Waits,
}

/// How busy a worker is: connections that it has and requests that it serves.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one until it is dropped.
    pub fn one(&self) -> Busy {
        self.0.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }
}

/// One connection or request of a worker.
#[derive(Debug)]
pub struct Busy(Load);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection on its way to its worker. There are no more of them than the process may have files open.
struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    opening: Opening,
    /// It was accepted in another thread.
    moves: bool,
    busy: Busy,
}

struct Place {
    load: Load,
    inbox: UnboundedSender<Arrival>,
}

/// Makes workers and whoever accepts for them; all of them are services of Pingora's. They stop with the process, or when `until`
/// says so.
pub fn crew<A: ServerApp + Send + Sync + 'static>(
    name: &str,
    size: usize,
    doors: Vec<Door>,
    ready: &Ready,
    until: Option<ShutdownWatch>,
    app: impl Fn(Load) -> A,
) -> Vec<Box<dyn ServiceWithDependents>> {
    let size = size.max(1);
    let (mut services, mut places): (Vec<Worker<A>>, Vec<Place>) = (vec![], vec![]);
    for at in 0..size {
        let (inbox, arrivals) = unbounded_channel();
        let load = Load::default();
        services.push(Worker {
            name: format!("{name} {at}"),
            app: Arc::new(app(load.clone())),
            arrivals,
            accepting: None,
            until: until.clone(),
        });
        places.push(Place { load, inbox });
    }
    ready.expect();
    let accepting = Accepting { name: format!("{name} accept"), doors, places: places.into(), ready: ready.clone(), until };
    match services.as_mut_slice() {
        // A thread that only accepts would be one more to wake.
        [only] => only.accepting = Some(accepting),
        _ => return boxed(services).chain([Box::new(accepting) as Box<dyn ServiceWithDependents>]).collect(),
    }
    boxed(services).collect()
}

fn boxed<A: ServerApp + Send + Sync + 'static>(services: Vec<Worker<A>>) -> impl Iterator<Item = Box<dyn ServiceWithDependents>> {
    services.into_iter().map(|worker| Box::new(worker) as Box<dyn ServiceWithDependents>)
}

struct Worker<A> {
    name: String,
    app: Arc<A>,
    arrivals: UnboundedReceiver<Arrival>,
    accepting: Option<Accepting>,
    until: Option<ShutdownWatch>,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Worker<A> {
    async fn start_service(&mut self, _fds: Option<ListenFds>, shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let shutdown = self.until.clone().unwrap_or(shutdown);
        if let Some(accepting) = &mut self.accepting {
            accepting.start(&shutdown);
        }
        let farewell = farewell(shutdown.clone());
        tokio::pin!(farewell);
        loop {
            tokio::select! {
                arrival = self.arrivals.recv() => match arrival {
                    Some(arrival) => drop(tokio::spawn(serve(arrival, self.app.clone(), shutdown.clone()))),
                    // Nobody accepts any more; what was accepted is served as long as others are.
                    None => {
                        farewell.as_mut().await;
                        break;
                    }
                },
                () = &mut farewell => break,
            }
        }
        self.app.cleanup().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Returns once the process is to leave.
async fn leaving(shutdown: &mut ShutdownWatch) {
    // Whoever could say so is gone: as good.
    let _ = shutdown.wait_for(|leaves| *leaves).await;
}

/// The same, and what came last has had time to say something.
async fn farewell(mut shutdown: ShutdownWatch) {
    leaving(&mut shutdown).await;
    tokio::time::sleep(FAREWELL).await;
}

async fn serve<A: ServerApp + Send + Sync + 'static>(arrival: Arrival, app: Arc<A>, shutdown: ShutdownWatch) {
    let Arrival { stream, peer, opening, moves, busy: _busy } = arrival;
    let stream = if moves { stream.into_std().and_then(TcpStream::from_std) } else { Ok(stream) };
    let opened = tokio::select! {
        opened = open(stream, peer, opening) => opened,
        () = farewell(shutdown.clone()) => return,
    };
    let mut next = match opened {
        Ok(stream) => Some(stream),
        Err(why) => {
            log::info!("a connection from {peer} came to nothing: {why}");
            return;
        }
    };
    connection(async {
        while let Some(stream) = next {
            next = app.process_new(stream, &shutdown).await;
        }
    })
    .await;
}

async fn open(stream: io::Result<TcpStream>, peer: SocketAddr, opening: Opening) -> Result<Stream, String> {
    let Opening { tls, waits } = opening;
    let mut wire = stream.and_then(|stream| Wire::new(stream, peer)).map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        return match tokio::time::timeout(waits.head, wire.begin()).await {
            Ok(Ok(Version::Http2)) => Ok(Box::new(wire)),
            Ok(Ok(Version::Http1)) => Ok(Box::new(Timed::new(wire, waits))),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("nothing was asked".to_owned()),
        };
    };
    match tokio::time::timeout(HANDSHAKE_MAX, tls.tls_handshake(wire)).await {
        Ok(Ok(stream)) if stream.selected_alpn_proto() == Some(ALPN::H2) => Ok(Box::new(Timed::http2(stream, waits, PREFACE.len()))),
        Ok(Ok(stream)) => Ok(Box::new(Timed::new(stream, waits))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the TLS handshake took too long".to_owned()),
    }
}

struct Accepting {
    name: String,
    doors: Vec<Door>,
    places: Arc<[Place]>,
    ready: Ready,
    until: Option<ShutdownWatch>,
}

impl Accepting {
    /// Accepts until the process is to leave.
    fn start(&mut self, shutdown: &ShutdownWatch) -> Vec<tokio::task::JoinHandle<()>> {
        // Whoever is not heard does not begin.
        self.ready.serves();
        let mut tasks = vec![];
        for Door { socket, opening } in self.doors.drain(..) {
            // A copy of its own, closed when the task ends.
            match socket.try_clone().and_then(tokio::net::TcpListener::from_std) {
                Ok(socket) => tasks.push(tokio::spawn(accept(socket, opening, self.places.clone(), shutdown.clone()))),
                Err(error) => log::error!("{}: a socket cannot be watched: {error}", self.name),
            }
        }
        tasks
    }
}

#[async_trait]
impl Service for Accepting {
    async fn start_service(&mut self, _fds: Option<ListenFds>, shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let shutdown = self.until.clone().unwrap_or(shutdown);
        futures::future::join_all(self.start(&shutdown)).await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

async fn accept(socket: tokio::net::TcpListener, opening: Opening, places: Arc<[Place]>, mut shutdown: ShutdownWatch) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = leaving(&mut shutdown) => break,
        };
        match accepted {
            Ok(accepted) => give(&places, accepted, opening.clone()),
            Err(error) => {
                log::error!("a connection cannot be accepted: {error}");
                if !is_over(&error) {
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
    // Who waits now has come before the socket closes.
    while let Ok(Ok(accepted)) = tokio::time::timeout(LAST_CALL, socket.accept()).await {
        give(&places, accepted, opening.clone());
    }
}

/// True for faults of one connection.
fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

fn give(places: &[Place], (stream, peer): (TcpStream, SocketAddr), opening: Opening) {
    if let Some(place) = least_busy(places) {
        // A worker that is gone leaves with its process; the caller sees its connection closed.
        let _ = place.inbox.send(Arrival { stream, peer, opening, moves: places.len() > 1, busy: place.load.one() });
    }
}

fn least_busy(places: &[Place]) -> Option<&Place> {
    places.iter().min_by_key(|place| place.load.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_least_busy_gets_the_next() {
        let (inbox, mut arrivals) = unbounded_channel();
        let places: Vec<_> = (0..3).map(|_| Place { load: Load::default(), inbox: inbox.clone() }).collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut accepted = vec![];
        for _ in 0..9 {
            let _caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            accepted.push(listener.accept().await.unwrap());
        }
        let counts = |places: &[Place]| places.iter().map(|place| place.load.count()).collect::<Vec<_>>();
        let opening = Opening { tls: None, waits: Waits { head: Duration::ZERO, idle: Duration::ZERO } };
        let mut arrive = || give(&places, accepted.pop().unwrap(), opening.clone());
        // Long streams on the first alone.
        let streams = [places[0].load.one(), places[0].load.one()];
        (0..4).for_each(|_| arrive());
        assert_eq!(counts(&places), [2, 2, 2]);
        (0..3).for_each(|_| arrive());
        assert_eq!(counts(&places), [3, 3, 3]);
        drop(streams);
        arrive();
        arrive();
        assert_eq!(counts(&places), [3, 3, 3]);
        while arrivals.try_recv().is_ok() {}
        assert_eq!(counts(&places), [0, 0, 0]);
    }
}
