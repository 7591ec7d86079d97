//! OpenAI's images. <https://platform.openai.com/docs/api-reference/images/object>, streamed:
//! <https://platform.openai.com/docs/api-reference/images-streaming>

use super::{ERROR, Grammar, Slot, USAGE};
use crate::json::Want::{Fields, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static GENERATED: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"image_generation.completed\""));

/// Models priced by the token state usage; those priced by the picture (DALL·E) state none and are unmetered. Output is
/// pictures unless the details say otherwise.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("type", Take(Slot::Type)),
        ("usage", Take(Slot::Usage)),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        ("error", Take(Slot::Error)),
    ]),
    usage: &[&[
        (&["input_tokens"], Field::Input),
        (&["output_tokens"], Field::Output),
        (&["total_tokens"], Field::Total),
        (&["input_tokens_details", "image_tokens"], Field::ImageIn),
        (&["input_tokens_details", "cached_tokens"], Field::CacheRead),
        (&["output_tokens_details", "image_tokens"], Field::ImageOut),
        (&["output_tokens"], Field::ImageOut),
    ]],
    cache: Cache::Inside,
    needles: &[&USAGE, &ERROR],
    last_types: &["image_generation.completed"],
    marks: &[&GENERATED],
    ..Grammar::NONE
};
