//! Posting batches over HTTP, from a thread that may wait.

use reqwest::{Client, RequestBuilder, redirect};
use std::time::Duration;
use tokio::runtime::Runtime;

/// For a batch to be taken.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer that refuses, so much is told.
const TOLD_CHARS_MAX: usize = 200;

/// A client and what drives it.
pub struct Poster {
    pub client: Client,
    runtime: Runtime,
}

impl Poster {
    /// # Errors
    /// Says why nothing can be posted from here.
    pub fn new() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build().map_err(|error| error.to_string())?;
        Ok(Self { client, runtime })
    }

    /// Sends a request that must be answered with success.
    ///
    /// # Errors
    /// Says what came instead.
    pub fn send(&self, request: RequestBuilder) -> Result<(), String> {
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
            let status = answer.status();
            if status.is_success() {
                return Ok(());
            }
            let text: String = answer.text().await.unwrap_or_default().chars().take(TOLD_CHARS_MAX).collect();
            Err(format!("the receiver answered {status}: {}", text.escape_debug()))
        })
    }
}
