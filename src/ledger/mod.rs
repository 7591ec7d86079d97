//! The ledger: the durable truth about what was used and what it costs. Records `open`, `usage` and `close` of every
//! attempt are appended to segment files before the caller can have the end of the answer; an [`Entry`] is their fold.

mod append;
mod entry;
mod read;
mod record;
mod render;
mod segment;
mod writer;

pub use append::{Due, KEPT_BYTES_MAX, Ledger};
pub use entry::{Entry, Fold, Parts, is_derived};
pub use read::{RECORD_BYTES_MAX, RecordReader, read_at_once, read_folder, segment_names, segments};
pub use record::{Close, Event, Line, Open, Outcome, Record, Source, Used};
pub use render::{Rendered, write_entry};
pub use writer::{Writers, writer_of};
