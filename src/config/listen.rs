//! Reads where to listen, and the certificates for it.

use super::file::Reader;
use super::{Listener, Stamp, Tls};
use crate::yaml::{Map, Node};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

impl Reader<'_> {
    pub(super) fn listeners(&mut self, node: Option<Node<'_>>) -> Vec<Listener> {
        let Some(node) = node else {
            return "127.0.0.1:8080".parse().map(|address| Listener { address, tls: None }).into_iter().collect();
        };
        let nodes: Vec<_> = node.items().map_or_else(|| vec![node], Iterator::collect);
        if nodes.is_empty() {
            self.problems.add(node.line(), "`listen` names no address");
        }
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
        match (&cert, &key) {
            (Some(cert), Some(key)) => {
                self.check_certificates(map.line(), cert);
                self.check_key(map.line(), key);
            }
            _ => self.problems.add(map.line(), "`tls` needs `cert` and `key`"),
        }
        map.finish(&mut self.problems);
        Some(Tls { cert: cert?, key: key? })
    }

    /// Certificates that cannot be read would be found out only when they are needed.
    pub(super) fn check_certificates(&mut self, line: usize, path: &Path) {
        self.files.push(Stamp::of(path));
        if let Err(why) = certificates(path) {
            self.problems.add(line, why);
        }
    }

    fn check_key(&mut self, line: usize, path: &Path) {
        self.files.push(Stamp::of(path));
        if let Err(error) = PrivateKeyDer::from_pem_file(path) {
            self.problems.add(line, format!("{}: {error}", path.display()));
        }
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// Why there are none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let list = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match list {
        Ok(list) if list.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        Ok(list) => Ok(list),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
