//! Lines of a batch's results: an item's name, and its answer in the dialect it was asked in.
//! <https://platform.openai.com/docs/api-reference/batch/request-output>,
//! <https://docs.claude.com/en/api/retrieving-message-batch-results>

use super::{Grammar, Slot, chat, messages, responses};
use crate::json::Want::{Fields, Take};
use crate::usage::Cache;

/// OpenAI's, and those modelled on it. Their dialects share no key of their usage.
pub static GRAMMAR: Grammar = Grammar {
    root: &Fields(&[("response", Fields(&[("body", Fields(responses::RESPONSE))])), ("error", Take(Slot::Error))]),
    usage: &[responses::USAGE_PATHS, chat::USAGE_PATHS],
    cache: Cache::Inside,
    ..Grammar::NONE
};

/// Anthropic's.
pub static MESSAGES: Grammar = Grammar {
    root: &Fields(&[(
        "result",
        Fields(&[
            ("message", Fields(&[("usage", Take(Slot::Usage)), ("model", Take(Slot::Model)), ("id", Take(Slot::Id))])),
            ("error", Take(Slot::Error)),
        ]),
    )]),
    usage: &[messages::USAGE_PATHS],
    cache: Cache::Beside,
    ..Grammar::NONE
};
