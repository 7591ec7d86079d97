//! The keys of a usage object, as a tree: a number is mapped to a field, listed as informational, or unknown.

use super::{Detail, Grammar, UsagePath};
use crate::usage::Field;

/// A number that adds nothing to a bill: where it stands, and why it is not charged. `*` as the last key stands for
/// everything below.
#[derive(Debug)]
pub struct Informational {
    pub path: &'static [&'static str],
    pub why: &'static str,
}

/// The meaning of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The field, if no path before this one (lower rank) is present.
    Field(Field, u8),
    /// Added to the field, which several paths count.
    Part(Field),
}

/// A key of a usage object.
#[derive(Debug, Default)]
pub struct Node {
    key: &'static str,
    pub meanings: Vec<Meaning>,
    /// Nothing at this key or below is charged.
    pub informational: bool,
    /// Objects of a list.
    pub details: Vec<&'static Detail>,
    children: Vec<Self>,
}

impl Node {
    /// The root for a grammar's usage object.
    pub fn of(grammar: &Grammar) -> Self {
        Self::new(grammar.usage, grammar.parts, grammar.informational, grammar.details)
    }

    /// The root for paths in their order of preference.
    pub fn new(fields: &[&[UsagePath]], parts: &[UsagePath], informational: &[&[Informational]], details: &'static [Detail]) -> Self {
        let mut root = Self::default();
        for (rank, (path, field)) in fields.iter().copied().flatten().enumerate() {
            let rank = u8::try_from(rank).unwrap_or(u8::MAX);
            root.at(path, &mut |node| node.meanings.push(Meaning::Field(*field, rank)));
        }
        for (path, field) in parts {
            root.at(path, &mut |node| node.meanings.push(Meaning::Part(*field)));
        }
        for Informational { path, .. } in informational.iter().copied().flatten() {
            root.at(path, &mut |node| node.informational = true);
        }
        for detail in details {
            root.at(&[detail.list], &mut |node| node.details.push(detail));
        }
        root
    }

    /// Changes the node at a path, which is added if need be.
    fn at(&mut self, path: &[&'static str], change: &mut dyn FnMut(&mut Self)) {
        let Some((&key, rest)) = path.split_first().filter(|(key, _)| **key != "*") else { return change(self) };
        if !self.children.iter().any(|child| child.key == key) {
            self.children.push(Self { key, ..Self::default() });
        }
        self.children.iter_mut().filter(|child| child.key == key).for_each(|child| child.at(rest, change));
    }

    /// The child with this key.
    pub fn child(&self, key: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.key == key)
    }

    /// True if the key's value is an object with known members.
    pub fn has_children(&self) -> bool {
        !self.children.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    #[test]
    fn each_informational_number_has_a_reason_and_no_field() {
        for dialect in Dialect::ALL {
            let tree = Node::of(dialect.grammar());
            for Informational { path, why } in dialect.grammar().informational.iter().copied().flatten() {
                assert!(why.len() > 10, "{path:?}");
                let node = path.iter().filter(|key| **key != "*").fold(&tree, |node, key| node.child(key).unwrap());
                assert!(node.meanings.is_empty() && node.details.is_empty(), "{}: {path:?}", dialect.name());
            }
        }
    }

    #[test]
    fn ranks_follow_the_order_of_paths() {
        let tree = Node::new(&[&[(&["a"], Field::Input), (&["b", "c"], Field::Input)], &[(&["a"], Field::Total)]], &[], &[], &[]);
        assert_eq!(tree.child("a").unwrap().meanings, [Meaning::Field(Field::Input, 0), Meaning::Field(Field::Total, 2)]);
        assert_eq!(tree.child("b").unwrap().child("c").unwrap().meanings, [Meaning::Field(Field::Input, 1)]);
        assert!(tree.child("c").is_none());
    }
}
