//! Records: what is appended. One JSON line each, told apart by `record`, tied by the entry's `id`.

use crate::price::PicoUsd;
use crate::usage::{Dimension, Usage, indexed};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

indexed! {
    /// How an attempt ended.
    Outcome {
        Ok = "ok",
        /// The caller left before the end.
        ClientClosed = "client_closed",
        /// The provider refused or failed, by status or inside the body.
        UpstreamError = "upstream_error",
        /// The answer was cut off.
        Truncated = "truncated",
        /// The gateway died; what was known stands.
        Interrupted = "interrupted",
    }
}

indexed! {
    /// How an entry's numbers came about.
    Source {
        /// The provider's final usage.
        Reported = "reported",
        /// Some of the provider's numbers, but not its final ones; what is missing is estimated.
        Partial = "partial",
        /// All of it by the text that passed.
        Estimated = "estimated",
        /// Nothing was reported.
        None = "none",
    }
}

macro_rules! as_text {
    ($($name:ident),+) => { $(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(from)?;
                Self::from_name(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown {} `{text}`", stringify!($name))))
            }
        }
    )+ };
}
as_text!(Outcome, Source);

impl<'de> Deserialize<'de> for PicoUsd {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an amount of pico-dollars"))
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Counts)
    }
}

/// Reads counts by their dimensions' names.
struct Counts;

impl<'de> Visitor<'de> for Counts {
    type Value = Usage;

    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("counts by dimension")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut from: M) -> Result<Usage, M::Error> {
        let mut usage = Usage::default();
        while let Some((Name(dimension), count)) = from.next_entry()? {
            usage.set(dimension, Some(count));
        }
        Ok(usage)
    }
}

/// A dimension by its name.
struct Name(Dimension);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        Dimension::from_name(&text).map(Self).ok_or_else(|| serde::de::Error::custom(format!("unknown dimension `{text}`")))
    }
}

/// What was used of one model, and what that costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The model that served.
    pub model: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_tier: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    pub usage: Usage,
    /// The factor by which the charge exceeds the cost, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub markup: Option<String>,
    pub charge: PicoUsd,
    /// Dimensions that were used and have no rate, `model` if none has. Empty: the charge is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unpriced: Vec<String>,
    /// Why the provider charges nothing for it, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<String>,
}

/// An attempt starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub request_id: String,
    /// From 1.
    pub attempt: u32,
    /// Milliseconds since 1970.
    pub start_ms: u64,
    pub provider: String,
    pub upstream: String,
    pub dialect: String,
    /// The endpoint, or the path that was let through.
    pub endpoint: String,
    pub model_requested: String,
    pub model: String,
    /// Streaming was asked for.
    pub stream: bool,
    pub bytes_in: u64,
    /// False for counting endpoints, whose numbers nobody pays for.
    pub billed: bool,
    /// Id and name of the gateway key that asked, and whom it is billed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The end user that the request named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A short hash of the caller's own credential, where callers bring theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What the caller tagged it with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Usage became known. Of several the one with the highest `reading` counts: records of one entry may lie in
/// different segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// How often usage had been read when this was written, from 0.
    pub reading: u32,
    pub source: Source,
    pub lines: Vec<Line>,
    /// Sum of the lines.
    pub total: PicoUsd,
    /// Which prices were applied.
    pub catalog: String,
    /// In US dollars, as the provider wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_cost: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub response_id: String,
    /// Paths of numbers in the usage, and names of tools, that the meter does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// An attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    pub end_ms: u64,
    /// When the first byte of the body came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// The upstream's status, 0 if there was none.
    pub status: u16,
    pub outcome: Outcome,
    /// The provider's or the gateway's word for what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What went wrong at the upstream, in the words of the system or the library: for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    pub bytes_out: u64,
    /// A usage record of this entry was written; its loss would show.
    pub metered: bool,
    /// The `reading` of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reading: Option<u32>,
    /// The charge is exact: see [`Close::is_exact`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

impl Close {
    /// True if the charge is exact: all that the provider may charge for is known, priced and without defect, or there is nothing to charge.
    pub fn is_exact(&self, billed: bool, used: Option<&Used>) -> bool {
        let lines = used.map(|used| used.lines.as_slice()).unwrap_or_default();
        // A response that is billed by an entry of its own has reported usage and no lines.
        if !billed || (lines.is_empty() && (self.status >= 400 || self.outcome == Outcome::UpstreamError)) {
            return true;
        }
        let reported = used.is_some_and(|used| used.source == Source::Reported);
        reported && self.faults.is_empty() && lines.iter().all(|line| line.unpriced.is_empty())
    }
}

/// What happened to an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Event {
    Open(Box<Open>),
    Usage(Used),
    Close(Close),
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the entry: a UUIDv7, in its text form.
    pub id: String,
    #[serde(flatten)]
    pub event: Event,
}

#[cfg(test)]
impl Close {
    /// An end like most, of which a test changes what it is about.
    pub fn of(outcome: Outcome) -> Self {
        Self {
            end_ms: 3,
            first_byte_ms: None,
            status: 200,
            outcome,
            error: None,
            cause: None,
            faults: vec![],
            bytes_out: 1,
            metered: true,
            last_reading: None,
            complete: false,
        }
    }
}
