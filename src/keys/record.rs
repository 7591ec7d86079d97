//! Keys as they are stored, and how they are made.

use super::{PREFIX, hash};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Random bits of an id: enough that no two meet.
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A key in the key file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// The part of it that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache: Option<bool>,
    pub created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The one in use last.
    pub secrets: Vec<StoredSecret>,
}

/// What is left of a secret: SHA-256 of the whole key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret {
    pub serial: u16,
    #[serde(with = "hex::serde")]
    pub hash: [u8; 32],
    /// Until when it is accepted after another took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl StoredSecret {
    pub(super) fn is_valid(&self, now: i64) -> bool {
        self.until.is_none_or(|until| until.as_second() > now)
    }
}

/// A key that was just made. Its text is nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Made {
    pub record: Record,
    pub text: String,
}

/// Makes a key that may do everything; the caller narrows the record.
///
/// # Errors
/// If the system has no random numbers.
pub fn make(name: &str, now: Timestamp) -> Result<Made, getrandom::Error> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id)?;
    let id = hex::encode(id);
    let (text, secret) = secret(&id, 0)?;
    let record = Record {
        id,
        name: name.to_owned(),
        org: None,
        project: None,
        models: vec![],
        providers: vec![],
        prompt_cache: None,
        created: now,
        expires: None,
        revoked: None,
        secrets: vec![secret],
    };
    Ok(Made { record, text })
}

/// Gives a key a new secret and returns its text. Old ones are accepted until `until`, or not at all.
///
/// # Errors
/// If the system has no random numbers.
pub fn rotate(record: &mut Record, now: Timestamp, until: Option<Timestamp>) -> Result<String, getrandom::Error> {
    let serial = record.secrets.iter().map(|secret| secret.serial).max().unwrap_or(0).wrapping_add(1);
    let (text, fresh) = secret(&record.id, serial)?;
    record.secrets.retain(|secret| secret.is_valid(now.as_second()));
    match until.filter(|until| *until > now) {
        Some(until) => record.secrets.iter_mut().for_each(|secret| secret.until = Some(secret.until.map_or(until, |old| old.min(until)))),
        None => record.secrets.clear(),
    }
    record.secrets.push(fresh);
    Ok(text)
}

fn secret(id: &str, serial: u16) -> Result<(String, StoredSecret), getrandom::Error> {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random)?;
    let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(random));
    let hash = hash(text.as_bytes());
    Ok((text, StoredSecret { serial, hash, until: None }))
}
