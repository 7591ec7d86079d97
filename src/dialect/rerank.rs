//! Reranking as Cohere has it (<https://docs.cohere.com/reference/rerank>), and those modelled on it that count tokens
//! (<https://api.jina.ai/redoc#tag/rerank>, <https://docs.voyageai.com/reference/reranker-api>).

use super::{ERROR, Grammar, Node, Slot, USAGE};
use crate::json::Want::{Fields, Take};
use crate::usage::{Cache, Field};
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));

/// Cohere charges by the search: up to a hundred documents each.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[
        ("id", Take(Slot::Id)),
        ("model", Take(Slot::Model)),
        ("meta", Fields(&[("billed_units", Take(Slot::Usage))])),
        ("usage", Take(Slot::Usage)),
        ("error", Take(Slot::Error)),
    ]),
    usage: &[
        &[(&["search_units"], Field::SearchUnit), (&["input_tokens"], Field::Input), (&["output_tokens"], Field::Output)],
        &[(&["prompt_tokens"], Field::Input), (&["completion_tokens"], Field::Output)],
        &[(&["total_tokens"], Field::Input)],
    ],
    tree: &TREE,
    cache: Cache::Inside,
    needles: &[&USAGE, &ERROR],
    ..Grammar::NONE
};
