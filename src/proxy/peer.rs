//! Peers: upstreams as connectable addresses. Names are looked up ahead of time and again as they age, never once a
//! request. A connection is tried to all addresses of a name.

use crate::config::{Patience, Timeouts, Upstream, certificates};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pingora::connectors::L4Connect;
use pingora::protocols::ALPN;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use pingora::{ErrorType, Result};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// After this a name is looked up again: the resolver does not tell for how long its answer holds.
const LOOKUP_AGE_MAX: Duration = Duration::from_secs(30);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection to an upstream is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long one address is tried alone before the next one is tried beside it:
/// <https://www.rfc-editor.org/rfc/rfc8305#section-5> (Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Certificates as Pingora takes them.
fn trusted(path: &Path) -> io::Result<Arc<CaType>> {
    let list = certificates(path).map_err(io::Error::other)?;
    Ok(list.into_iter().map(|cert| WrappedX509::new(cert.to_vec(), parse_x509)).collect::<Vec<_>>().into())
}

/// The addresses of a name, the preferred one first, and when they were looked up.
#[derive(Debug, Default)]
struct Addresses {
    list: Vec<SocketAddr>,
    looked_up: Option<Instant>,
}

/// Connects to any of an upstream's addresses.
#[derive(Debug)]
struct Connector(Arc<ArcSwap<Addresses>>);

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, preferred: &PingoraAddress) -> Result<Stream> {
        let Some(preferred) = preferred.as_inet().copied() else { return Err(pingora::Error::new_up(ErrorType::ConnectError)) };
        let known = self.0.load_full();
        let others = known.list.iter().copied().filter(|address| *address != preferred);
        let (stream, winner) = race(std::iter::once(preferred).chain(others), TcpStream::connect).await?;
        if winner != preferred {
            // The next requests go there at once. Connections are kept by their address, so this one serves a single request.
            self.0.store(Arc::new(Addresses { list: first(winner, &known.list), looked_up: known.looked_up }));
        }
        Ok(stream.into())
    }
}

/// The same addresses with this one in front.
fn first(address: SocketAddr, list: &[SocketAddr]) -> Vec<SocketAddr> {
    std::iter::once(address).chain(list.iter().copied().filter(|other| *other != address)).collect()
}

/// The first connection that succeeds. The next address is tried as soon as one fails, or after [`ATTEMPT_DELAY`].
async fn race<S, F: Future<Output = io::Result<S>>>(
    addresses: impl Iterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(S, SocketAddr)> {
    let (mut left, mut running, mut failed) = (addresses.peekable(), FuturesUnordered::new(), vec![]);
    let attempt = |address| {
        let connecting = connect(address);
        async move { (address, connecting.await) }
    };
    loop {
        running.extend(left.next().map(attempt));
        let ended =
            if left.peek().is_some() { tokio::time::timeout(ATTEMPT_DELAY, running.next()).await } else { Ok(running.next().await) };
        match ended {
            Ok(Some((address, Ok(stream)))) => return Ok((stream, address)),
            Ok(Some((address, Err(error)))) => failed.push((address, error)),
            Ok(None) => return Err(refused(&failed)),
            Err(_) => {}
        }
    }
}

fn refused(failed: &[(SocketAddr, io::Error)]) -> Box<pingora::Error> {
    let kind = match failed.last().map(|(_, error)| error.kind()) {
        Some(io::ErrorKind::ConnectionRefused) => ErrorType::ConnectRefused,
        Some(io::ErrorKind::TimedOut) => ErrorType::ConnectTimedout,
        Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => ErrorType::ConnectNoRoute,
        _ => ErrorType::ConnectError,
    };
    let tried: Vec<_> = failed.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    pingora::Error::explain(kind, tried.join("; ")).into_up()
}

/// The peer of one upstream.
pub struct Peer {
    authority: (String, u16),
    options: HttpPeer,
    resolved: Arc<ArcSwap<Addresses>>,
    /// An address in the configuration needs no lookup.
    fixed: bool,
}

impl Peer {
    /// The peer of an upstream.
    ///
    /// # Errors
    /// If the certificates it is to be checked against cannot be read.
    pub fn new(upstream: &Upstream, timeouts: &Timeouts) -> io::Result<Self> {
        let placeholder = SocketAddr::from(([127, 0, 0, 1], upstream.port));
        let address = upstream.host.parse().ok().map(|ip| SocketAddr::new(ip, upstream.port));
        // Certificates are checked against this name; an empty one would silently turn the check off.
        let mut peer = HttpPeer::new(address.unwrap_or(placeholder), upstream.tls, upstream.host.clone());
        let resolved = Arc::<ArcSwap<Addresses>>::default();
        let options = &mut peer.options;
        options.custom_l4 = Some(Arc::new(Connector(resolved.clone())));
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.read_timeout = Some(timeouts.upstream_read);
        options.write_timeout = Some(timeouts.upstream_write);
        options.idle_timeout = Some(IDLE);
        options.alpn = if upstream.tls { ALPN::H2H1 } else { ALPN::H1 };
        options.ca = upstream.ca.as_deref().map(trusted).transpose()?;
        Ok(Self { authority: (upstream.host.clone(), upstream.port), options: peer, resolved, fixed: address.is_some() })
    }

    /// Where to connect now.
    ///
    /// # Errors
    /// Why the name cannot be looked up, if it never could.
    pub async fn get(&self) -> Result<Box<HttpPeer>> {
        if self.fixed {
            return Ok(Box::new(self.options.clone()));
        }
        let known = self.resolved.load_full();
        let address = match known.list.first() {
            Some(address) if known.looked_up.is_some_and(|at| at.elapsed() < LOOKUP_AGE_MAX) => *address,
            Some(address) => {
                // One request looks the name up again, and the others go on with what is known: an old address beats none.
                self.resolved.store(Arc::new(Addresses { list: known.list.clone(), looked_up: Some(Instant::now()) }));
                self.look_up(&known.list).await.unwrap_or(*address)
            }
            None => self.look_up(&[]).await?,
        };
        let mut peer = Box::new(self.options.clone());
        peer._address = PingoraAddress::Inet(address);
        Ok(peer)
    }

    /// What a target says of waiting for it holds in place of what its upstream says.
    pub fn wait(peer: &mut HttpPeer, patience: &Patience) {
        let options = &mut peer.options;
        options.connection_timeout = patience.connect.or(options.connection_timeout);
        options.total_connection_timeout = patience.connect.or(options.total_connection_timeout);
        options.read_timeout = patience.upstream_read.or(options.read_timeout);
        options.write_timeout = patience.upstream_write.or(options.write_timeout);
    }

    /// Where to connect now, for what HTTP/2 cannot carry.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub async fn get_http1(&self) -> Result<Box<HttpPeer>> {
        let mut peer = self.get().await?;
        peer.options.alpn = ALPN::H1;
        Ok(peer)
    }

    /// Looks the name up. The preferred address stays so if it is still one of them.
    async fn look_up(&self, known: &[SocketAddr]) -> Result<SocketAddr> {
        let lookup = tokio::net::lookup_host((self.authority.0.as_str(), self.authority.1));
        let failed = |why: String| pingora::Error::explain(ErrorType::ConnectError, format!("DNS: {}: {why}", self.authority.0)).into_up();
        let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("no answer in time".to_owned())),
        };
        let mut list: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        if let Some(preferred) = known.first().filter(|preferred| list.contains(preferred)) {
            list = first(*preferred, &list);
        }
        let address = *list.first().ok_or_else(|| failed("it has no address".to_owned()))?;
        self.resolved.store(Arc::new(Addresses { list, looked_up: Some(Instant::now()) }));
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 1))
    }

    /// Odd addresses refuse, those from 100 on never answer.
    async fn connect(to: SocketAddr) -> io::Result<SocketAddr> {
        let SocketAddr::V4(v4) = to else { panic!() };
        match v4.ip().octets()[3] {
            100.. => std::future::pending().await,
            odd if odd % 2 == 1 => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(to),
        }
    }

    #[tokio::test]
    async fn every_address_is_tried_until_one_answers() {
        for (addresses, want) in [(&[2, 4][..], 2), (&[1, 4], 4), (&[1, 3, 5, 6], 6), (&[100, 4], 4), (&[100, 1, 101, 8], 8)] {
            let (_, won) = race(addresses.iter().copied().map(address), connect).await.unwrap();
            assert_eq!(won, address(want), "{addresses:?}");
        }
        let error = race([1, 3].into_iter().map(address), connect).await.unwrap_err();
        assert_eq!(error.etype(), &ErrorType::ConnectRefused);
        assert!(error.to_string().contains("127.0.0.1:1: ") && error.to_string().contains("127.0.0.3:1: "), "{error}");
    }

    #[tokio::test]
    async fn a_dead_address_is_passed_over_from_then_on() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let resolved = Arc::new(ArcSwap::from_pointee(Addresses { list: vec![closed, alive], looked_up: Some(Instant::now()) }));
        Connector(resolved.clone()).connect(&PingoraAddress::Inet(closed)).await.unwrap();
        assert_eq!(resolved.load().list, [alive, closed]);
    }
}
