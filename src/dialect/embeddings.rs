//! Embeddings in OpenAI's format, with Voyage's and Cohere's ways to state the usage.
//! <https://platform.openai.com/docs/api-reference/embeddings/object>

use super::{ERROR, Grammar, Informational, Node, Slot, USAGE};
use crate::json::Want::{Fields, Take};
use crate::usage::{Cache, Field};
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));

pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("usage", Take(Slot::Usage)),
        ("meta", Fields(&[("billed_units", Take(Slot::Usage))])),
        ("model", Take(Slot::Model)),
        ("id", Take(Slot::Id)),
        ("error", Take(Slot::Error)),
    ]),
    usage: &[&[
        (&["prompt_tokens"], Field::Input),
        (&["input_tokens"], Field::Input),
        // Voyage states nothing else: https://docs.voyageai.com/reference/embeddings-api
        (&["total_tokens"], Field::Input),
        (&["total_tokens"], Field::Total),
        (&["image_tokens"], Field::ImageIn),
    ]],
    informational: &[&[Informational { path: &["text_tokens"], why: "text is what remains of the input: Voyage" }]],
    tree: &TREE,
    cache: Cache::Inside,
    needles: &[&USAGE, &ERROR],
    ..Grammar::NONE
};
