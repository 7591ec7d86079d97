//! A connection to the server, made when it is first used, and again when it was lost.

use super::REST;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{RedisResult, ScriptInvocation};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One connection.
pub struct Line {
    pub(super) client: redis::Client,
    timeout: Duration,
    connection: OnceLock<ConnectionManager>,
    /// It failed, and is left alone until then.
    rests: Mutex<Option<Instant>>,
}

impl Line {
    pub(super) fn new(client: redis::Client, timeout: Duration) -> Self {
        Self { client, timeout, connection: OnceLock::new(), rests: Mutex::default() }
    }

    /// Asks, and again if it turns out that the connection was closed meanwhile.
    pub(super) async fn ask(&self, script: &ScriptInvocation<'_>) -> Result<Vec<u64>, String> {
        let rests = || self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        if rests().is_some_and(|until| Instant::now() < until) {
            return Err("it failed just now".to_owned());
        }
        let asked = async {
            match script.invoke_async(&mut self.get()?).await {
                Err(error) if error.is_connection_dropped() || error.is_io_error() => script.invoke_async(&mut self.get()?).await,
                told => told,
            }
        };
        let told = match tokio::time::timeout(self.timeout, asked).await {
            Ok(told) => told.map_err(|error: redis::RedisError| error.to_string()),
            Err(late) => Err(late.to_string()),
        };
        *rests() = told.as_ref().err().map(|_| Instant::now() + REST);
        told
    }

    pub(super) fn get(&self) -> RedisResult<ConnectionManager> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection.clone());
        }
        let config = ConnectionManagerConfig::new().set_number_of_retries(0).set_connection_timeout(Some(self.timeout));
        // Belongs to the runtime that is asked first.
        let fresh = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(self.connection.get_or_init(|| fresh).clone())
    }
}
