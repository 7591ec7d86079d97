//! Runs the sinks, each on a thread of its own.

use super::state::State;
use crate::config::Config;
use crate::sink::sqlite::Sqlite;
use crate::sink::webhook::Webhook;
use crate::sink::{Progress, Run, Sink};
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A sink and how it is doing.
pub struct Running {
    pub name: &'static str,
    pub progress: Arc<Progress>,
}

/// Those that are configured.
pub fn configured(config: &Config) -> Vec<Running> {
    let running = |name| Running { name, progress: Arc::default() };
    let names = [config.sinks.sqlite.as_ref().map(|_| "sqlite"), config.sinks.webhook.as_ref().map(|_| "webhook")];
    names.into_iter().flatten().map(running).collect()
}

/// A service, so that threads begin after a daemon has left its terminal.
pub struct Sinks(pub Arc<State>);

#[async_trait]
impl BackgroundService for Sinks {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let config = self.0.config();
        let stop = Arc::new(AtomicBool::new(false));
        for sink in &self.0.sinks {
            let run = Run {
                name: sink.name,
                ledger: config.data.join("ledger"),
                folder: config.data.join("sinks"),
                progress: sink.progress.clone(),
                stop: stop.clone(),
            };
            let config = config.clone();
            let named = std::thread::Builder::new().name(format!("sink {}", sink.name));
            if let Err(error) = named.spawn(move || run.feed(|| open(run.name, &config, &run))) {
                log::error!("sink {}: {error}", sink.name);
            }
        }
        // Whoever shuts down waits for the last request, not for sinks: what they have not taken waits in the ledger.
        drop(shutdown.changed().await);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn open(name: &str, config: &Config, run: &Run) -> Result<Box<dyn Sink>, String> {
    match (name, &config.sinks.sqlite, &config.sinks.webhook) {
        ("sqlite", Some(path), _) => Ok(Box::new(Sqlite::open(path)?)),
        ("webhook", _, Some(rules)) => Ok(Box::new(Webhook::open(rules, &run.folder)?)),
        _ => Err("not configured".to_owned()),
    }
}
