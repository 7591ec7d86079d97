//! tollgate: an LLM gateway that charges every request exactly.
//!
//! One binary on Pingora stands between applications and LLM providers. Bytes pass through untouched; what they cost
//! is read out of them on the way. The modules stand here in the order in which data flows:
//!
//! ```text
//! body in → route → rewrite → upstream → scan → usage → price → ledger → metrics, log, sinks
//! ```

// For the JSON of wide table rows.
#![recursion_limit = "256"]

pub mod config;
pub mod error;
pub mod printable;
pub mod yaml;

pub mod exchange;
pub mod keys;
pub mod limit;
pub mod route;

pub mod dialect;
pub mod provider;

pub mod json;
pub mod rewrite;

pub mod meter;
pub mod stream;
pub mod usage;

pub mod price;

pub mod ledger;
pub mod sink;

pub mod access_log;
pub mod metrics;
pub mod trace;

pub mod admin;
pub mod mock;
pub mod proxy;

#[doc(hidden)]
pub mod fuzz;
