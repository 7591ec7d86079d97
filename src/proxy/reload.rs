//! Reload: another configuration takes the place of the one in use, whole, once it has been validated. What is in
//! flight keeps the one it was planned with; what cannot be read changes nothing.

use super::identity::Holder;
use super::peer::Peer;
use super::state::{State, now_s};
use crate::config::{self, Config, Credentials, Upstream};
use crate::route::Health;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often files are looked at. One that changed is read at the next look, when whoever writes it is done.
pub const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// A configuration and what was made of it.
pub struct Live {
    pub config: Arc<Config>,
    pub(super) peers: Vec<Peer>,
    /// Beside the peers.
    pub(super) identities: Vec<Option<Arc<Holder>>>,
    pub(super) health: Arc<Health>,
}

impl Live {
    /// # Errors
    /// If certificates for an upstream cannot be read.
    pub(super) fn new(config: Arc<Config>, old: Option<&Self>) -> io::Result<Self> {
        let peers = config
            .upstreams
            .iter()
            .map(|upstream| Peer::new(upstream, &upstream.timeouts.unwrap_or(config.timeouts)))
            .collect::<io::Result<_>>()?;
        let kept = |upstream: &Upstream| old?.identities.iter().flatten().find(|holder| holder.is(upstream)).cloned();
        let holder = |upstream: &Upstream| {
            // Whoever has a key needs no identity.
            let needed = upstream.key.is_none() && upstream.aws.is_none() && upstream.credentials == Credentials::Gateway;
            let identity = upstream.identity.as_ref().filter(|_| needed)?;
            Some(kept(upstream).unwrap_or_else(|| Arc::new(Holder::new(upstream, identity))))
        };
        let identities = config.upstreams.iter().map(holder).collect();
        let health = Arc::new(Health::new(&config, old.map(|old| &*old.health)));
        Ok(Self { config, peers, identities, health })
    }
}

impl State {
    /// Reads the configuration again and takes it over. True if that was done.
    pub fn reload(&self) -> bool {
        // What was read last must hold in the end.
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.config();
        let loaded = config::load(&old.source, &|name| std::env::var(name).ok());
        let taken =
            loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect()).and_then(|fresh| self.take_over(fresh, &old));
        match &taken {
            Ok(()) => log::info!("the configuration was reloaded"),
            Err(problems) => {
                problems.iter().for_each(|problem| log::error!("{problem}"));
                log::error!("the configuration in use stays as it was");
            }
        }
        self.metrics.reload(taken.is_ok(), now_s());
        taken.is_ok()
    }

    fn take_over(&self, mut fresh: Config, old: &Config) -> Result<(), Vec<String>> {
        let kept = fresh.keep_bound(old);
        // What is bound is still bound: the file was judged by the addresses that it names.
        if let Some((address, _)) = fresh.exposed().next() {
            return Err(vec![format!("{address} can be reached from other machines, and with this configuration it would ask for no key")]);
        }
        let certificates = self.certificates.read(&fresh).map_err(|why| vec![why])?;
        self.recall_spending(&fresh, &old.limits).map_err(|why| vec![why])?;
        let live = Live::new(Arc::new(fresh), Some(&self.live.load())).map_err(|error| vec![error.to_string()])?;
        for name in kept {
            log::warn!("`{name}` was changed; that takes a new process (start it with --upgrade, then send SIGQUIT)");
        }
        live.config.process.apply_log_level();
        self.live.store(Arc::new(live));
        self.certificates.put(certificates);
        Ok(())
    }
}
