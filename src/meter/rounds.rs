//! Attempts within one response: Anthropic's `iterations`, each with its own usage and, where it differs, its own model.
//! <https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback>, and recorded traffic.

use super::event::TEXT_BYTES_MAX;
use super::fault::Fault;
use super::found::Found;
use super::usage_object::Reading;
use crate::dialect::Grammar;
use crate::usage::{Field, Reported};
use simd_json::prelude::*;
use simd_json::tape::Value;

/// More attempts are not read. The API allows three fallbacks, and compaction and advisors a few each.
const ROUNDS_MAX: usize = 256;

/// The kind of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundKind {
    /// By the model that served. The top level of the usage is the sum of these.
    Served,
    /// By the same model, and not in the sum.
    Compaction,
    /// By another model.
    Other,
    /// A model refused before it wrote anything, and another served: free.
    Declined,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub kind: RoundKind,
    pub model: String,
    pub reported: Reported,
}

/// The counts that the top level states as a sum.
const SUMMED: [Field; 4] = [Field::Input, Field::Output, Field::CacheRead, Field::CacheWrite];
/// Parts of a sum, which attempts may leave out, and the sum they are of.
const SPLIT: [(Field, Field); 3] =
    [(Field::CacheWrite1h, Field::CacheWrite), (Field::CacheWrite5m, Field::CacheWrite), (Field::Reasoning, Field::Output)];

impl Found {
    /// Reads `iterations`; true if there are any: then the usage stands by itself, and what opened the stream may have described another
    /// attempt.
    pub(super) fn read_rounds(&mut self, usage: Value<'_, '_>, grammar: &Grammar) -> bool {
        let Some(rounds) = usage.get("iterations").filter(|rounds| !rounds.is_null()) else { return false };
        let Some(list) = rounds.as_array() else {
            self.faults.add(Fault::UnknownRound);
            return false;
        };
        let last_fallback =
            list.iter().enumerate().filter(|(_, round)| member(*round, "type") == "fallback_message").map(|(at, _)| at).last();
        let fallback =
            last_fallback.and_then(|at| list.get(at)).map(|round| member(round, "model").to_owned()).filter(|model| !model.is_empty());
        if let Some(served) = fallback {
            // A stream begins with the name of the first model of the chain.
            self.model = served;
        }
        self.rounds.clear();
        if list.len() > ROUNDS_MAX {
            self.faults.add(Fault::TooLong);
        }
        for (at, round) in list.iter().enumerate().take(ROUNDS_MAX) {
            let reported = self.take_reading(Reading::of(grammar.tree, round, "usage.iterations"));
            let own = member(round, "model").is_empty() || member(round, "model") == self.model;
            // The model neither wrote, nor thought, nor called a tool.
            let mut work = Field::TOOL_FEES.into_iter().chain([Field::Reasoning]);
            let idle = reported.of(Field::Output) == Some(0) && work.all(|field| reported.of(field).unwrap_or(0) == 0);
            let declined = idle && last_fallback.is_some_and(|last| at < last);
            if round.get("iterations").is_some_and(|nested| !nested.is_null()) {
                self.faults.add(Fault::UnknownRound);
            }
            let kind = match member(round, "type") {
                "message" | "fallback_message" if declined => RoundKind::Declined,
                "message" | "fallback_message" if own => RoundKind::Served,
                "compaction" if own => RoundKind::Compaction,
                "" => RoundKind::Other,
                _ if !own => RoundKind::Other,
                _ => {
                    self.faults.add(Fault::UnknownRound);
                    continue;
                }
            };
            let model = if own { self.model.clone() } else { member(round, "model").to_owned() };
            if model.is_empty() && kind == RoundKind::Other {
                self.faults.add(Fault::UnknownRound);
                continue;
            }
            self.rounds.push(Round { kind, model, reported });
        }
        !list.is_empty()
    }

    /// The usage of the model that served, and the parts of it that are priced one by one, since each is a request of its own for price
    /// tiers by context. False if the attempts do not add up to the top level; then they count.
    pub fn served(&self) -> (Reported, Vec<Reported>, bool) {
        let of = |kind: RoundKind| self.rounds.iter().filter(move |round| round.kind == kind).map(|round| &round.reported);
        let mut parts: Vec<Reported> = of(RoundKind::Served).cloned().collect();
        if parts.is_empty() && of(RoundKind::Compaction).next().is_none() {
            return (self.reported.clone(), vec![], true);
        }
        let mut sum = Reported::default();
        parts.iter().for_each(|part| sum.add(part));
        let agrees = SUMMED.iter().all(|field| self.reported.of(*field).unwrap_or(0) == sum.of(*field).unwrap_or(0));
        let mut whole = self.reported.clone();
        if parts.is_empty() {
            parts.push(whole.clone());
        } else if !agrees {
            whole = with_fees(sum, &self.reported);
            if let [only] = parts.as_mut_slice() {
                only.clone_from(&whole);
            }
        } else if let [only] = parts.as_mut_slice() {
            only.clone_from(&whole);
        } else {
            distribute(&whole, &mut parts);
        }
        for compaction in of(RoundKind::Compaction) {
            whole.add(compaction);
            parts.push(compaction.clone());
        }
        (whole, parts, agrees)
    }
}

/// A member that is a text of tolerable length.
fn member<'i>(round: Value<'_, 'i>, key: &str) -> &'i str {
    round.get(key).and_then(|text| text.into_string()).filter(|text| text.len() <= TEXT_BYTES_MAX).unwrap_or_default()
}

/// The sum of attempts with what only the top level states: fees of tools.
fn with_fees(mut sum: Reported, top: &Reported) -> Reported {
    for field in Field::TOOL_FEES {
        top.of(field).into_iter().for_each(|count| sum.set(field, count));
    }
    sum
}

/// Gives attempts their share of what only their sum states.
fn distribute(top: &Reported, parts: &mut [Reported]) {
    for (field, of) in SPLIT {
        let Some(mut left) = top.of(field).filter(|_| parts.iter().all(|part| part.of(field).is_none())) else { continue };
        for part in parts.iter_mut() {
            let share = left.min(part.of(of).unwrap_or(0));
            part.set(field, share);
            left -= share;
        }
    }
    if let Some(first) = parts.first_mut() {
        let with = with_fees(std::mem::take(first), top);
        *first = with;
    }
}
