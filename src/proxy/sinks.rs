//! Runs the sinks, each on a thread of its own.

use super::state::State;
use crate::config::Config;
use crate::sink::clickhouse::ClickHouse;
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
    config.sinks.names().map(|name| Running { name, progress: Arc::default() }).collect()
}

/// A service, so that threads begin after a daemon has left its terminal.
pub struct Feeding(pub Arc<State>);

#[async_trait]
impl BackgroundService for Feeding {
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
    let (sinks, folder) = (&config.sinks, &run.folder);
    let sink: Box<dyn Sink> = match name {
        "sqlite" => Box::new(Sqlite::open(told(&sinks.sqlite)?)?),
        "webhook" => Box::new(Webhook::open(told(&sinks.webhook)?, folder)?),
        "clickhouse" => Box::new(ClickHouse::open(told(&sinks.clickhouse)?, folder)?),
        #[cfg(feature = "postgres")]
        "postgres" => Box::new(crate::sink::postgres::Postgres::open(told(&sinks.postgres)?, folder)?),
        #[cfg(feature = "kafka")]
        "kafka" => Box::new(crate::sink::kafka::Kafka::open(told(&sinks.kafka)?, folder)?),
        _ => return Err("not built in".to_owned()),
    };
    Ok(sink)
}

fn told<T>(rules: &Option<T>) -> Result<&T, String> {
    rules.as_ref().ok_or_else(|| "not configured".to_owned())
}
