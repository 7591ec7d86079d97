//! The certificates of TLS listeners, which may be renewed while they serve.

use crate::config::{Config, certificates};
use arc_swap::ArcSwapOption;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::sync::Arc;

/// Those of every TLS listener.
#[derive(Debug, Default)]
pub struct Certificates(Vec<(SocketAddr, Arc<Slot>)>);

/// Those of one listener.
#[derive(Debug, Default)]
pub struct Slot(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Slot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// What was read, by listener.
pub type Read = Vec<(SocketAddr, Arc<CertifiedKey>)>;

impl Certificates {
    /// # Errors
    /// If a file cannot be read, or key and certificate do not belong together.
    pub fn new(config: &Config) -> Result<Self, String> {
        let tls = config.listen.iter().filter(|listener| listener.tls.is_some());
        let slots = Self(tls.map(|listener| (listener.address, Arc::default())).collect());
        let read = slots.read(config)?;
        slots.put(read);
        Ok(slots)
    }

    /// Those a listener serves with.
    pub fn of(&self, address: SocketAddr) -> Option<Arc<Slot>> {
        self.0.iter().find(|(other, _)| *other == address).map(|(_, slot)| slot.clone())
    }

    /// Reads all of them and changes nothing.
    ///
    /// # Errors
    /// If a file cannot be read, or key and certificate do not belong together.
    pub fn read(&self, config: &Config) -> Result<Read, String> {
        let tls = config.listen.iter().filter_map(|listener| Some((listener.address, listener.tls.as_ref()?)));
        let read = |(address, tls): (SocketAddr, &crate::config::Tls)| {
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", tls.key.display());
            let chain = certificates(&tls.cert)?;
            let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| failed(&error))?;
            let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| failed(&error))?;
            Ok((address, Arc::new(certified)))
        };
        tls.map(read).collect()
    }

    /// Handshakes from now on are done with these.
    pub fn put(&self, read: Read) {
        for (address, certified) in read {
            if let Some(slot) = self.of(address) {
                slot.0.store(Some(certified));
            }
        }
    }
}
