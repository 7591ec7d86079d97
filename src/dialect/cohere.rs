//! Cohere's chat, version 2. <https://docs.cohere.com/reference/chat>

use super::{ARGUMENTS, Grammar, Informational, Node, Slot, TEXT, THINKING, USAGE};
use crate::json::Want::{Fields, Take};
use crate::usage::{Cache, Field};
use memchr::memmem::Finder;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));
static END: Lazy<Finder<'static>> = Lazy::new(|| Finder::new("\"message-end\""));

/// `billed_units` is what is paid for; `tokens` counts what the model saw.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("type", Take(Slot::Type)),
        ("usage", Take(Slot::Usage)),
        ("id", Take(Slot::Id)),
        ("finish_reason", Take(Slot::Finish)),
        ("delta", Fields(&[("usage", Take(Slot::Usage)), ("finish_reason", Take(Slot::Finish)), ("error", Take(Slot::Error))])),
    ]),
    usage: &[&[(&["billed_units", "input_tokens"], Field::Input), (&["billed_units", "output_tokens"], Field::Output)]],
    informational: &[&[
        Informational { path: &["tokens", "*"], why: "what the model saw; billed_units is what is charged" },
        Informational { path: &["cached_tokens"], why: "caching is not charged apart: billed_units is what is charged" },
    ]],
    tree: &TREE,
    cache: Cache::Beside,
    needles: &[&USAGE],
    last_types: &["message-end"],
    marks: &[&END],
    text: &[&TEXT, &THINKING, &ARGUMENTS],
    ..Grammar::NONE
};
