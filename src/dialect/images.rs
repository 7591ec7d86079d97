//! OpenAI's images. <https://platform.openai.com/docs/api-reference/images/object>, streamed:
//! <https://platform.openai.com/docs/api-reference/images-streaming>

use super::{ERROR, Grammar, Informational, Node, Slot, USAGE};
use crate::json::Want::{Fields, Items, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));

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
    informational: &[&[
        Informational { path: &["input_tokens_details", "text_tokens"], why: "text is what remains of the input" },
        Informational { path: &["output_tokens_details", "text_tokens"], why: "text is what remains of the output" },
    ]],
    tree: &TREE,
    cache: Cache::Inside,
    needles: &[&USAGE, &ERROR],
    last_types: &["image_generation.completed", "image_edit.completed"],
    marks: &[&GENERATED, &EDITED],
    ..Grammar::NONE
};
