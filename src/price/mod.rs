//! Prices: from usage and dated rates to an exact charge. Money is integer pico-dollars; no float comes near it.

mod cache;
mod catalog;
mod charge;
pub mod import;
mod load;
mod markup;
mod moment;
mod money;
mod same_model;
pub mod show;
mod tolerance;

pub use cache::{CATALOG_BYTES_MAX, Cache, read as read_published};
pub use catalog::{BATCH, Catalog, Model, Origin, Price, Query, Rates};
pub use charge::{Charge, charge};
pub use load::{embedded, overlay};
pub use markup::{Markup, Sold, factor};
pub use moment::Moment;
pub use money::{PICO, PicoUsd};
pub use same_model::is_same_model;
pub use tolerance::Tolerance;
