//! Peers: upstreams as connectable addresses. Names are looked up ahead of time and again as they age, never once a
//! request.

use crate::config::{Patience, Timeouts, Upstream, certificates};
use arc_swap::ArcSwapOption;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After this a name is looked up again.
const LOOKUP_AGE_MAX: Duration = Duration::from_secs(30);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection to an upstream is closed after this.
const IDLE: Duration = Duration::from_secs(60);

/// Certificates as Pingora takes them.
fn trusted(path: &Path) -> io::Result<Arc<CaType>> {
    let list = certificates(path).map_err(io::Error::other)?;
    Ok(list.into_iter().map(|cert| WrappedX509::new(cert.to_vec(), parse_x509)).collect::<Vec<_>>().into())
}

/// A name that nobody knows.
#[derive(Debug)]
pub struct Unresolved;

/// The peer of one upstream.
pub struct Peer {
    authority: (String, u16),
    options: HttpPeer,
    resolved: ArcSwapOption<(SocketAddr, Instant)>,
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
        let options = &mut peer.options;
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.read_timeout = Some(timeouts.upstream_read);
        options.write_timeout = Some(timeouts.upstream_write);
        options.idle_timeout = Some(IDLE);
        options.alpn = if upstream.tls { ALPN::H2H1 } else { ALPN::H1 };
        options.ca = upstream.ca.as_deref().map(trusted).transpose()?;
        Ok(Self {
            authority: (upstream.host.clone(), upstream.port),
            options: peer,
            resolved: ArcSwapOption::empty(),
            fixed: address.is_some(),
        })
    }

    /// Where to connect now.
    ///
    /// # Errors
    /// [`Unresolved`] if the name cannot be looked up and never could.
    pub async fn get(&self) -> Result<Box<HttpPeer>, Unresolved> {
        if self.fixed {
            return Ok(Box::new(self.options.clone()));
        }
        let known = self.resolved.load_full();
        let address = match known.as_deref() {
            Some((address, at)) if at.elapsed() < LOOKUP_AGE_MAX => *address,
            known => {
                // One looks it up again, and the others go on with what is known: an old address beats none.
                let known = known.map(|(address, _)| *address);
                if let Some(known) = known {
                    self.resolved.store(Some(Arc::new((known, Instant::now()))));
                }
                self.look_up().await.or(known).ok_or(Unresolved)?
            }
        };
        let mut peer = Box::new(self.options.clone());
        peer._address = pingora::protocols::l4::socket::SocketAddr::Inet(address);
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
    pub async fn get_http1(&self) -> Result<Box<HttpPeer>, Unresolved> {
        let mut peer = self.get().await?;
        peer.options.alpn = ALPN::H1;
        Ok(peer)
    }

    async fn look_up(&self) -> Option<SocketAddr> {
        let lookup = tokio::net::lookup_host((self.authority.0.as_str(), self.authority.1));
        let address = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await.ok()?.ok()?.next()?;
        self.resolved.store(Some(Arc::new((address, Instant::now()))));
        Some(address)
    }
}
