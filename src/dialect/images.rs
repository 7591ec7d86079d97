//! OpenAI's images. <https://platform.openai.com/docs/api-reference/images/object>, streamed:
//! <https://platform.openai.com/docs/api-reference/images-streaming>

use super::{ERROR, Grammar, Slot, USAGE};
use crate::json::Want::{Fields, Items, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static GENERATED: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"image_generation.completed\""));

static EDITED: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"image_edit.completed\""));

/// Models priced by the token state usage; of those priced by the picture the pictures are counted. Output is
/// pictures unless the details say otherwise.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("type", Take(Slot::Type)),
        ("usage", Take(Slot::Usage)),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        (
            "data",
            Items(Slot::Ignored, &Fields(&[("url", Take(Slot::Each(Field::Picture))), ("b64_json", Take(Slot::Each(Field::Picture)))])),
        ),
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
    last_types: &["image_generation.completed", "image_edit.completed"],
    marks: &[&GENERATED, &EDITED],
    ..Grammar::NONE
};
