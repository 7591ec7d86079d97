//! Prices: from usage and dated rates to an exact charge. Money is integer pico-dollars; no float comes near it.

mod catalog;
mod charge;
mod load;
mod money;

pub use catalog::{BATCH, Catalog, Moment, Price, Query, Rates};
pub use charge::{Charge, charge};
pub use load::{embedded, overlay};
pub use money::PicoUsd;
