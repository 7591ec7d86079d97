//! A webhook: batches of entries as JSON, signed, posted until they are taken.
//!
//! `x-tollgate-signature: t=<unix seconds>,v1=<hex>` is the HMAC-SHA-256 of `<unix seconds>.<body>` under the secret. A
//! batch that was taken and not known to be comes again: receivers know entries by their `id`.

use super::{Cursor, CursorFile, Sink};
use crate::config::WebhookRules;
use crate::ledger::Entry;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, redirect};
use sha2::Sha256;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// For a batch to be taken.
const TIMEOUT: Duration = Duration::from_secs(30);
/// More are posted one batch after another.
const BATCH_ENTRIES: usize = 500;

/// The receiver.
pub struct Webhook {
    rules: WebhookRules,
    client: Client,
    runtime: Runtime,
    cursor: CursorFile,
}

impl Webhook {
    /// # Errors
    /// Says why nothing can be posted from here.
    pub fn open(rules: &WebhookRules, folder: &Path) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build().map_err(|error| error.to_string())?;
        Ok(Self { rules: rules.clone(), client, runtime, cursor: CursorFile::new(folder.join("webhook.json")) })
    }

    fn post(&self, entries: &[Entry], now_s: u64) -> Result<(), String> {
        let body = serde_json::to_string(&serde_json::json!({"entries": entries})).map_err(|error| error.to_string())?;
        let mut request = self.client.post(&self.rules.url).header("content-type", "application/json");
        if let Some(secret) = &self.rules.secret {
            request = request.header("x-tollgate-signature", signature(secret.expose(), now_s, &body));
        }
        let answer = self.runtime.block_on(async { request.body(body).send().await }).map_err(|error| error.without_url().to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("the receiver answered {}", answer.status())) }
    }
}

fn signature(secret: &str, now_s: u64, body: &str) -> String {
    // A key of any length will do.
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map(|mac| mac.chain_update(now_s.to_string()).chain_update(".").chain_update(body));
    format!("t={now_s},v1={}", mac.map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default())
}

impl Sink for Webhook {
    fn cursor(&mut self) -> Result<Cursor, String> {
        self.cursor.read()
    }

    fn put(&mut self, entries: &[Entry], cursor: Option<&Cursor>) -> Result<(), String> {
        for batch in entries.chunks(BATCH_ENTRIES) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.post(batch, now.as_secs())?;
        }
        cursor.map_or(Ok(()), |cursor| self.cursor.write(cursor))
    }
}

#[cfg(test)]
mod tests {
    /// `printf 1.body | openssl dgst -sha256 -hmac secret`
    #[test]
    fn signs_time_and_body() {
        assert_eq!(super::signature("secret", 1, "body"), "t=1,v1=842b24d9575dee4b6ec460b7e3af7d683501d84fe6279102340787c79d2e2bab");
    }
}
