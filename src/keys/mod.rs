//! Gateway keys: who may ask, for what, and in whose name. All are held in memory; a request looks nothing up outside.
//!
//! A key reads `tg_<id>_<secret>`. Only a hash of it is stored: the secret has 256 random bits, so that a fast hash is
//! as good as a slow one. Clients that sign as AWS does use a pair derived from the key's id (see [`signature`]).

mod record;
pub mod signature;

pub use record::{Made, Record, StoredSecret, make, rotate};

use crate::config::Secret;
use crate::error::Error;
use crate::provider::fits;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use signature::Signed;
use std::collections::HashMap;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// What every key begins with.
pub const PREFIX: &str = "tg_";
/// Carries a key where the usual headers carry a credential of the caller's own.
pub const KEY_HEADER: &str = "x-gateway-key";
/// Where SDKs put their key.
const USUAL_HEADERS: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// A key as requests meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    pub name: String,
    /// Whom it is billed to.
    pub org: Option<String>,
    pub project: Option<String>,
    /// Patterns of models it may use; empty: all.
    pub models: Vec<String>,
    /// Names of upstreams it may use; empty: all.
    pub providers: Vec<String>,
    /// Overrules the provider's prompt caching.
    pub prompt_cache: Option<bool>,
    /// Seconds since 1970.
    expires: Option<i64>,
    secrets: Vec<StoredSecret>,
}

impl Key {
    pub(crate) fn of(record: Record) -> Self {
        Self {
            id: record.id,
            name: record.name,
            org: record.org,
            project: record.project,
            models: record.models,
            providers: record.providers,
            prompt_cache: record.prompt_cache,
            expires: record.expires.map(jiff::Timestamp::as_second),
            secrets: record.secrets,
        }
    }

    /// May it use this upstream and model?
    ///
    /// # Errors
    /// [`Error::ForbiddenProvider`] or [`Error::ForbiddenModel`].
    pub fn allows(&self, upstream: &str, requested: &str, model: &str) -> Result<(), Error> {
        self.allows_provider(upstream)?;
        if self.allows_model(requested, model) {
            return Ok(());
        }
        Err(Error::ForbiddenModel { model: if requested.is_empty() { model } else { requested }.to_owned() })
    }

    /// May it use this upstream?
    ///
    /// # Errors
    /// [`Error::ForbiddenProvider`].
    pub fn allows_provider(&self, upstream: &str) -> Result<(), Error> {
        if self.providers.is_empty() || self.providers.iter().any(|name| name == upstream) {
            return Ok(());
        }
        Err(Error::ForbiddenProvider { provider: upstream.to_owned() })
    }

    /// True if the model is allowed as it was asked for or as it is called at the upstream.
    pub fn allows_model(&self, requested: &str, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| fits(requested, pattern) || fits(model, pattern))
    }

    /// Seconds since 1970.
    fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// The keys of a gateway.
#[derive(Debug, Default)]
pub struct Keys {
    by_id: HashMap<String, Arc<Key>>,
    /// From which pairs for AWS clients are derived; without it none can sign.
    pub signing: Option<Secret>,
    /// Accept signatures that leave the body out.
    pub unsigned_payload: bool,
    /// Of what a signature may speak.
    pub regions: Vec<String>,
}

/// Who asks. A signature holds only once the body has been seen.
#[derive(Clone, Debug)]
pub struct Caller {
    pub key: Arc<Key>,
    pub signed: Option<Box<Signed>>,
}

impl Keys {
    /// Revoked ones are left out.
    pub fn new(records: impl IntoIterator<Item = Record>) -> Self {
        let kept = records.into_iter().filter(|record| record.revoked.is_none());
        Self { by_id: kept.map(|record| (record.id.clone(), Arc::new(Key::of(record)))).collect(), ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The key of an id, if it was not revoked.
    pub fn get(&self, id: &str) -> Option<Arc<Key>> {
        self.by_id.get(id).cloned()
    }

    /// True if the key may still be used.
    pub fn holds(&self, id: &str, now: i64) -> bool {
        self.by_id.get(id).is_some_and(|key| !key.is_expired(now))
    }

    /// Finds out who asks, at `now` seconds since 1970.
    ///
    /// # Errors
    /// [`Error::MissingKey`] or [`Error::InvalidKey`]; [`Error::BadSignature`] if one cannot be checked.
    pub fn authenticate(&self, headers: &HeaderMap, now: i64) -> Result<Caller, Error> {
        let caller = self.identify(headers, now)?;
        // A signature by a key of the gateway beside another credential must be by the same key.
        let signed = headers.get(header::AUTHORIZATION).and_then(|value| signature::signed_by(value.as_bytes()));
        if let Some(id) = signed.filter(|_| caller.signed.is_none())
            && !self.by_access_key(id, now).is_ok_and(|(key, _)| key.id == caller.key.id)
        {
            return Err(Error::InvalidKey);
        }
        // A gateway key anywhere else must be the same one.
        let carried = USUAL_HEADERS.into_iter().chain([KEY_HEADER]);
        for name in carried {
            for value in headers.get_all(name) {
                let text = strip_bearer(value.as_bytes());
                let other =
                    text.starts_with(PREFIX.as_bytes()) && !self.by_text(text, now).is_ok_and(|other| other.key.id == caller.key.id);
                if other || (name == KEY_HEADER && headers.get(KEY_HEADER) != Some(value)) {
                    return Err(Error::InvalidKey);
                }
            }
        }
        Ok(caller)
    }

    /// The key that the request proves to have.
    fn identify(&self, headers: &HeaderMap, now: i64) -> Result<Caller, Error> {
        if let Some(value) = headers.get(KEY_HEADER) {
            return self.by_text(value.as_bytes(), now);
        }
        let authorization = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        if let Some(authorization) = authorization.filter(|value| value.starts_with(signature::SCHEME.as_bytes())) {
            let signed = Signed::read(authorization, headers, now)?;
            let (key, _) = self.by_access_key(&signed.access_key_id, now)?;
            return Ok(Caller { key, signed: Some(Box::new(signed)) });
        }
        let mut presented: Option<&[u8]> = None;
        for value in USUAL_HEADERS.iter().flat_map(|name| headers.get_all(*name)) {
            let text = strip_bearer(value.as_bytes());
            if presented.is_some_and(|other| other != text) {
                return Err(Error::InvalidKey);
            }
            presented = Some(text);
        }
        self.by_text(presented.ok_or(Error::MissingKey)?, now)
    }

    fn by_text(&self, text: &[u8], now: i64) -> Result<Caller, Error> {
        let id = std::str::from_utf8(text).ok().and_then(|text| text.strip_prefix(PREFIX)?.split_once('_')).map(|(id, _)| id);
        let key = id.and_then(|id| self.by_id.get(id)).ok_or(Error::InvalidKey)?;
        let hash = hash(text);
        // Every secret is compared, and each in constant time.
        let fit =
            key.secrets.iter().filter(|secret| secret.is_valid(now)).fold(0, |fit, secret| fit | secret.hash.ct_eq(&hash).unwrap_u8());
        if fit == 0 || key.is_expired(now) {
            return Err(Error::InvalidKey);
        }
        Ok(Caller { key: key.clone(), signed: None })
    }

    /// The key of an access key id, and the secret that belongs to it.
    fn by_access_key(&self, access_key_id: &str, now: i64) -> Result<(Arc<Key>, String), Error> {
        let (id, serial) = signature::id_of(access_key_id).ok_or(Error::InvalidKey)?;
        let (Some(signing), Some(key)) = (&self.signing, self.by_id.get(&id)) else { return Err(Error::InvalidKey) };
        let known = key.secrets.iter().any(|secret| secret.serial == serial && secret.is_valid(now));
        if !known || key.is_expired(now) {
            return Err(Error::InvalidKey);
        }
        Ok((key.clone(), signature::secret_of(signing, access_key_id)))
    }
}

/// A credential without the scheme it came with, in whatever case that was written.
pub(crate) fn strip_bearer(value: &[u8]) -> &[u8] {
    match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => value,
    }
}

/// Compared instead of a secret, it tells nothing of its length.
pub(crate) fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
