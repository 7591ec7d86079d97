//! Lines of a batch's results: an item's name, and its answer in the dialect it was asked in.
//! <https://platform.openai.com/docs/api-reference/batch/request-output>,
//! <https://docs.claude.com/en/api/retrieving-message-batch-results>

use super::{Grammar, Node, Slot, chat, messages, responses};
use crate::json::Want::{Fields, Items, Take};
use crate::usage::Cache;
use once_cell::sync::Lazy;

static TREE: Lazy<Node> = Lazy::new(|| Node::of(&GRAMMAR));
static MESSAGES_TREE: Lazy<Node> = Lazy::new(|| Node::of(&MESSAGES));

/// OpenAI's, and those modelled on it. Their dialects share no key of their usage.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[("response", Fields(&[("body", Fields(responses::RESPONSE))])), ("error", Take(Slot::Error))]),
    usage: &[responses::USAGE_PATHS, chat::USAGE_PATHS],
    parts: chat::PARTS,
    informational: &[responses::INFORMATIONAL, chat::INFORMATIONAL],
    tree: &TREE,
    tools: responses::TOOLS,
    cache: Cache::Inside,
    ..Grammar::NONE
};

/// Anthropic's.
pub static MESSAGES: Grammar = Grammar {
    root: &Fields(&[(
        "result",
        Fields(&[
            (
                "message",
                Fields(&[
                    ("usage", Take(Slot::Usage)),
                    ("model", Take(Slot::Model)),
                    ("id", Take(Slot::Id)),
                    ("stop_reason", Take(Slot::StopReason)),
                    ("stop_details", messages::STOP_DETAILS),
                    ("content", Items(Slot::Item, &messages::ITEM)),
                ]),
            ),
            ("error", Take(Slot::Error)),
        ]),
    )]),
    usage: &[messages::USAGE_PATHS],
    informational: &[messages::INFORMATIONAL],
    tree: &MESSAGES_TREE,
    tools: messages::TOOLS,
    cache: Cache::Beside,
    ..Grammar::NONE
};
