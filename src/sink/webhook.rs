//! A webhook: batches of entries as JSON, signed, posted until they are taken.
//!
//! `x-tollgate-signature: t=<unix seconds>,v1=<hex>` is the HMAC-SHA-256 of `<unix seconds>.<body>` under the secret. A
//! batch that was taken and not known to be comes again: receivers know entries by their `id`.

use super::post::Poster;
use super::{Cursor, CursorFile, Sink};
use crate::config::WebhookRules;
use crate::ledger::Entry;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// More are posted one batch after another.
const BATCH_ENTRIES: usize = 500;

/// The receiver.
pub struct Webhook {
    rules: WebhookRules,
    poster: Poster,
    cursor: CursorFile,
}

impl Webhook {
    /// # Errors
    /// Says why nothing can be posted from here.
    pub fn open(rules: &WebhookRules, folder: &Path) -> Result<Self, String> {
        Ok(Self { rules: rules.clone(), poster: Poster::new()?, cursor: CursorFile::new(folder.join("webhook.json")) })
    }

    fn post(&self, entries: &[Entry], now_s: u64) -> Result<(), String> {
        let body = serde_json::to_string(&serde_json::json!({"entries": entries})).map_err(|error| error.to_string())?;
        let mut request = self.poster.client.post(&self.rules.url).header("content-type", "application/json");
        if let Some(secret) = &self.rules.secret {
            request = request.header("x-tollgate-signature", signature(secret.expose(), now_s, &body));
        }
        self.poster.send(request.body(body))
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
