//! Reads names for models: what each stands for, and what takes its place when that fails.

use super::file::{DURATION, Reader, names};
use super::units::duration;
use crate::route::Ejection;
use crate::yaml::{Map, Node};
use std::collections::HashMap;
use std::time::Duration;

/// What one name stands for: steps that are tried in order, each of one target or of several that share the load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alias {
    pub steps: Vec<Vec<Target>>,
}

/// A model at an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub upstream: usize,
    pub model: String,
    /// Its share among those of its step.
    pub weight: u32,
    pub patience: Patience,
}

/// How long one is waited for, where that is said of it alone; `None`: as long as its provider is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, and for the next bytes once it stands, both ways.
    pub connect: Option<Duration>,
    pub upstream_read: Option<Duration>,
    pub upstream_write: Option<Duration>,
    /// For the head of its answer, and for all of it.
    pub first_byte: Option<Duration>,
    pub total: Option<Duration>,
}

/// When a request is tried again, before its caller has seen anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often all that may answer are asked once more after all have failed.
    pub again: u32,
    /// Before that; doubles each time.
    pub delay: Duration,
    /// Who asks for a longer wait is not waited for.
    pub wait_max: Duration,
    /// Attempts after the first, as a share of requests.
    pub budget_percent: u32,
    pub ejection: Ejection,
}

/// Of targets of one alias.
pub const TARGETS_MAX: usize = 16;
/// Of [`Retry::again`].
pub const AGAIN_MAX: u32 = 5;

impl Alias {
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.steps.iter().flatten()
    }

    /// All targets in the order in which to try them. Within a step `draw` decides, by weight.
    pub fn order(&self, mut draw: u64) -> Vec<&Target> {
        let mut ordered = vec![];
        for step in &self.steps {
            let mut left: Vec<&Target> = step.iter().collect();
            while left.len() > 1 {
                let sum: u64 = left.iter().map(|target| u64::from(target.weight)).sum();
                let mut at = draw % sum.max(1);
                draw = draw.rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let chosen = left.iter().position(|target| {
                    let hit = at < u64::from(target.weight);
                    at = at.saturating_sub(u64::from(target.weight));
                    hit
                });
                ordered.push(left.remove(chosen.unwrap_or(0)));
            }
            ordered.extend(left);
        }
        ordered
    }
}

impl Reader<'_> {
    pub(super) fn aliases(&mut self, node: Option<Node<'_>>, by_name: &HashMap<String, usize>) -> HashMap<String, Alias> {
        let entries = self.mapping(node, "aliases");
        entries.into_iter().map(|(name, node)| (name.to_owned(), self.alias(name, node, by_name))).collect()
    }

    fn alias(&mut self, name: &str, node: Node<'_>, by_name: &HashMap<String, usize>) -> Alias {
        let nodes: Vec<_> = node.items().map_or_else(|| vec![node], Iterator::collect);
        if nodes.is_empty() || nodes.len() > TARGETS_MAX {
            self.problems.add(node.line(), format!("alias `{name}` must stand for 1 to {TARGETS_MAX} models"));
        }
        let mut alias = Alias::default();
        let mut sharing = false;
        for node in nodes {
            let Some((target, shares)) = self.target(name, node, by_name) else { continue };
            match alias.steps.last_mut() {
                Some(step) if sharing && shares => step.push(target),
                _ => alias.steps.push(vec![target]),
            }
            sharing = shares;
        }
        alias
    }

    /// `provider/model`, or a mapping with a weight; true for the latter.
    fn target(&mut self, name: &str, node: Node<'_>, by_name: &HashMap<String, usize>) -> Option<(Target, bool)> {
        let (text, weight, patience) = match node.text() {
            Some(text) => (Some(text), None, Patience::default()),
            None => {
                let mut map = Map::new(node, &mut self.problems);
                let text = map.take_text("to", &mut self.problems).map(|(_, text)| text);
                let weight = map.take_as("weight", &mut self.problems, "a number from 1 to 1000", |text| {
                    text.parse().ok().filter(|weight| (1..=1000).contains(weight))
                });
                let mut wait = |key| map.take_as(key, &mut self.problems, DURATION, duration);
                let patience = Patience {
                    connect: wait("connect"),
                    upstream_read: wait("upstream_read"),
                    upstream_write: wait("upstream_write"),
                    first_byte: wait("first_byte"),
                    total: wait("total"),
                };
                map.finish(&mut self.problems);
                (text, weight, patience)
            }
        };
        let target = text.and_then(|text| text.split_once('/'));
        let found = target.and_then(|(upstream, model)| Some((*by_name.get(upstream)?, model)).filter(|_| !model.is_empty()));
        if found.is_none() {
            let known = names(by_name);
            self.problems.add(node.line(), format!("alias `{name}` must be `provider/model` with a configured provider ({known})"));
        }
        let (upstream, model) = found?;
        Some((Target { upstream, model: model.to_owned(), weight: weight.unwrap_or(1), patience }, weight.is_some()))
    }

    pub(super) fn retry(&mut self, node: Option<Node<'_>>) -> Retry {
        let ejection = Ejection { failures: 5, max: Duration::from_secs(60) };
        let default =
            Retry { again: 0, delay: Duration::from_millis(250), wait_max: Duration::from_secs(10), budget_percent: 20, ejection };
        let Some(node) = node else { return default };
        let mut map = Map::new(node, &mut self.problems);
        let mut number = |key, max: u32| {
            map.take_as(key, &mut self.problems, &format!("a number up to {max}"), |text| text.parse().ok().filter(|number| *number <= max))
        };
        let (again, failures) = (number("again", AGAIN_MAX), number("eject_after", 1000));
        let budget = map.take_as("budget", &mut self.problems, "a share up to 100% (20%)", |text| {
            text.strip_suffix('%')?.trim().parse().ok().filter(|percent| *percent <= 100)
        });
        let mut time = |key| map.take_as(key, &mut self.problems, "a duration (250ms, 10s)", duration);
        let (delay, wait_max, eject_max) = (time("delay"), time("wait_max"), time("eject_max"));
        map.finish(&mut self.problems);
        Retry {
            again: again.unwrap_or(default.again),
            delay: delay.unwrap_or(default.delay),
            wait_max: wait_max.unwrap_or(default.wait_max),
            budget_percent: budget.unwrap_or(default.budget_percent),
            ejection: Ejection { failures: failures.unwrap_or(ejection.failures).max(1), max: eject_max.unwrap_or(ejection.max) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_a_step_share_by_weight_and_steps_keep_their_order() {
        let target = |upstream, weight| Target { upstream, model: String::new(), weight, patience: Patience::default() };
        let alias = Alias { steps: vec![vec![target(0, 3), target(1, 1)], vec![target(2, 1)]] };
        let mut first = [0; 2];
        for draw in 0..4000u64 {
            let order: Vec<_> = alias.order(draw).iter().map(|target| target.upstream).collect();
            assert!(order == [0, 1, 2] || order == [1, 0, 2]);
            first[order[0]] += 1;
        }
        assert_eq!(first, [3000, 1000]);
    }
}
