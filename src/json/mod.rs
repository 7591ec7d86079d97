//! JSON at arm's length: a resumable scanner that finds wanted values and keeps nothing else, and splices that
//! change some bytes and no others. Neither ever re-serializes a document.

mod brackets;
pub mod edit;
mod key;
pub mod scan;
pub mod text;
mod want;

pub use brackets::DEPTH_MAX;
pub use edit::Splices;
pub use key::resembles;
pub use scan::Scanner;
pub use want::{Malformed, Visit, Want};
