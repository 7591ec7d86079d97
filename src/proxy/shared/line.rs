//! A connection to the server, made when it is first used, and again when it was lost.

use super::REST;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{RedisError, RedisResult, ScriptInvocation};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Why there is no answer.
pub enum Unanswered {
    /// There was none just now: nothing was asked.
    Rests,
    Failed(String),
}

/// True if the connection is of no use.
pub(super) fn is_lost(error: &RedisError) -> bool {
    error.is_connection_dropped() || error.is_io_error() || error.is_connection_refusal()
}

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
    pub(super) async fn ask(&self, script: &ScriptInvocation<'_>) -> Result<Vec<u64>, Unanswered> {
        let asked = async {
            match script.invoke_async(&mut self.get()?).await {
                Err(error) if is_lost(&error) => script.invoke_async(&mut self.get()?).await,
                told => told,
            }
        };
        self.within(asked).await
    }

    /// Waits for an answer as long as may be, unless there was none just now.
    pub(super) async fn within<T>(&self, asked: impl Future<Output = RedisResult<T>>) -> Result<T, Unanswered> {
        let rests = || self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        if rests().is_some_and(|until| Instant::now() < until) {
            return Err(Unanswered::Rests);
        }
        let (told, silent) = match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(told)) => (Ok(told), false),
            // What a script complains of concerns one request.
            Ok(Err(error)) => (Err(Unanswered::Failed(error.to_string())), is_lost(&error) || error.is_timeout()),
            Err(late) => (Err(Unanswered::Failed(late.to_string())), true),
        };
        *rests() = silent.then(|| Instant::now() + REST);
        told
    }

    pub(super) fn get(&self) -> RedisResult<ConnectionManager> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        // Belongs to the runtime that is asked first.
        let fresh = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(self.connection.get_or_init(|| fresh).clone())
    }
}
