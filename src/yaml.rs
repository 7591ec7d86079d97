//! YAML with positions: configuration and price files are read through here, so that every mistake can be told at
//! once with its line. Scalars stay text, so that decimals are never floats.

use saphyr::{MarkedYaml, YamlData, YamlLoader};
use std::fmt;

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 if it concerns the file as a whole.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(to, "{}: {}", self.file, self.message),
            line => write!(to, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Collects the mistakes of one file.
#[derive(Debug)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
}

impl Problems {
    /// For the file of this name.
    pub fn of(file: &str) -> Self {
        Self { file: file.to_owned(), list: vec![] }
    }

    /// Notes a mistake at a line.
    pub fn add(&mut self, line: usize, message: impl Into<String>) {
        self.list.push(Problem { file: self.file.clone(), line, message: message.into() });
    }

    /// All of them, in the order of their lines.
    pub fn into_list(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|problem| problem.line);
        self.list
    }
}

/// The document of a YAML text, `None` with a problem noted if it is none.
pub fn parse<'a>(text: &'a str, problems: &mut Problems) -> Option<MarkedYaml<'a>> {
    let mut loader = YamlLoader::<MarkedYaml<'a>>::default();
    loader.early_parse(false);
    let mut parser = saphyr_parser::Parser::new_from_str(text);
    let failed = parser.load(&mut loader, true).err().or_else(|| loader.error().cloned());
    if let Some(error) = failed {
        problems.add(error.marker().line(), format!("not valid YAML: {}", error.info()));
        return None;
    }
    let mut documents = loader.into_documents();
    if documents.len() > 1 {
        problems.add(0, "has more than one YAML document");
    }
    documents.drain(..).next()
}

/// A place in a document.
#[derive(Clone, Copy)]
pub struct Node<'a>(pub &'a MarkedYaml<'a>);

impl<'a> Node<'a> {
    pub fn line(self) -> usize {
        self.0.span.start.line()
    }

    /// The text of a scalar. Null (`~`, `null`, nothing) has none.
    pub fn text(self) -> Option<&'a str> {
        match &self.0.data {
            YamlData::Representation(text, style, _) => {
                let plain = matches!(style, saphyr::ScalarStyle::Plain);
                (!plain || !matches!(text.as_ref(), "" | "~" | "null")).then_some(text.as_ref())
            }
            _ => None,
        }
    }

    pub fn is_null(self) -> bool {
        matches!(&self.0.data, YamlData::Representation(..)) && self.text().is_none()
    }

    /// The elements of a sequence.
    pub fn items(self) -> Option<impl Iterator<Item = Node<'a>>> {
        match &self.0.data {
            YamlData::Sequence(items) => Some(items.iter().map(Node)),
            _ => None,
        }
    }

    /// Keys and values of a mapping whose keys are scalars.
    pub fn entries(self) -> Option<impl Iterator<Item = (&'a str, Node<'a>)>> {
        match &self.0.data {
            YamlData::Mapping(entries) => Some(entries.iter().filter_map(|(key, value)| Some((Node(key).text()?, Node(value))))),
            _ => None,
        }
    }
}

/// A mapping read key by key; what nobody asked for is a mistake.
pub struct Map<'a> {
    line: usize,
    entries: Vec<(&'a str, Node<'a>)>,
    asked: Vec<&'static str>,
}

impl<'a> Map<'a> {
    /// Reads `node` as a mapping; null is an empty one.
    pub fn new(node: Node<'a>, problems: &mut Problems) -> Self {
        let entries = match node.entries() {
            Some(entries) => entries.collect(),
            None => {
                if !node.is_null() {
                    problems.add(node.line(), "expected a mapping (key: value)");
                }
                vec![]
            }
        };
        Self { line: node.line(), entries, asked: vec![] }
    }

    /// The line at which the mapping starts.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Takes a key's value.
    pub fn take(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.asked.push(key);
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(key));
        let at = self.entries.iter().position(|(name, _)| *name == key)?;
        Some(self.entries.swap_remove(at).1).filter(|node| !node.is_null())
    }

    /// Takes a scalar's text.
    pub fn take_text(&mut self, key: &'static str, problems: &mut Problems) -> Option<(usize, &'a str)> {
        let node = self.take(key)?;
        let text = node.text();
        if text.is_none() {
            problems.add(node.line(), format!("`{key}` must be a single value"));
        }
        Some((node.line(), text?))
    }

    /// Takes a scalar and reads it, saying what was expected if that fails.
    pub fn take_as<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (line, text) = self.take_text(key, problems)?;
        let value = read(text);
        if value.is_none() {
            problems.add(line, format!("`{key}: {text}` is not {expected}"));
        }
        value
    }

    /// Takes `true` or `false`.
    pub fn take_bool(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        self.take_as(key, problems, "true or false", |text| text.parse().ok())
    }

    /// Takes a list of scalars; a single scalar is a list of one.
    pub fn take_list(&mut self, key: &'static str, problems: &mut Problems) -> Option<Vec<&'a str>> {
        let node = self.take(key)?;
        if let Some(text) = node.text() {
            return Some(vec![text]);
        }
        let texts: Option<Vec<_>> = node.items().and_then(|items| items.map(Node::text).collect());
        if texts.is_none() {
            problems.add(node.line(), format!("`{key}` must be a list of values"));
        }
        texts
    }

    /// Notes every key that was not asked for, with the one that was probably meant.
    pub fn finish(self, problems: &mut Problems) {
        for (key, node) in &self.entries {
            let close = self.asked.iter().map(|asked| (strsim::damerau_levenshtein(key, asked), asked)).min();
            let hint = match close {
                Some((distance, asked)) if distance <= 1 + key.len() / 4 => format!("; did you mean `{asked}`?"),
                _ => format!("; known here: {}", self.asked.join(", ")),
            };
            problems.add(node.line(), format!("unknown key `{key}`{hint}"));
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Keys that this thread asked for.
    pub static ASKED: std::cell::RefCell<std::collections::BTreeSet<&'static str>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_every_mistake_with_its_line() {
        let text = "listen: a\nworkrs: 3\nflag: maybe\nlist: {a: 1}\n";
        let mut problems = Problems::of("f.yaml");
        let document = parse(text, &mut problems).unwrap();
        let mut map = Map::new(Node(&document), &mut problems);
        assert_eq!(map.take_text("listen", &mut problems), Some((1, "a")));
        assert_eq!(map.take("workers").map(Node::line), None);
        assert_eq!(map.take_bool("flag", &mut problems), None);
        assert_eq!(map.take_list("list", &mut problems), None);
        map.finish(&mut problems);
        let list: Vec<_> = problems.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(
            list,
            [
                "f.yaml:2: unknown key `workrs`; did you mean `workers`?",
                "f.yaml:3: `flag: maybe` is not true or false",
                "f.yaml:4: `list` must be a list of values",
            ]
        );
    }

    #[test]
    fn refuses_what_is_no_yaml_and_doubled_keys() {
        for text in ["a: [1", "a: 1\na: 2\n"] {
            let mut problems = Problems::of("f");
            assert!(parse(text, &mut problems).is_none(), "{text}");
            assert_eq!(problems.into_list().len(), 1);
        }
    }
}
