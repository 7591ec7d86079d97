//! Reads where the access log goes, and how.

use super::file::{Reader, absolute};
use super::units::{SHARE, share};
use crate::yaml::{Map, Node};
use std::path::{Path, PathBuf};

/// Where the access log goes, how its lines look, and which of them there are.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub to: LogTo,
    pub format: LogFormat,
    /// The share of requests whose attempts are told if they went well, from 0 to 1; others always are.
    pub sample: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    Off,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON everywhere else.
    #[default]
    Auto,
    Json,
    Text,
}

impl Reader<'_> {
    /// A word or a path, or a mapping.
    pub(super) fn access_log(&mut self, node: Option<Node<'_>>) -> AccessLog {
        let usual = AccessLog { to: LogTo::Stdout, format: LogFormat::Auto, sample: 1.0 };
        let Some(node) = node else { return usual };
        if let Some(text) = node.text() {
            return AccessLog { to: self.fill(node.line(), text).map_or(LogTo::Stdout, |text| to(&text)), ..usual };
        }
        let mut map = Map::new(node, &mut self.problems);
        let target = self.text(&mut map, "to").map_or(LogTo::Stdout, |(_, text)| to(&text));
        let format = map.take_as("format", &mut self.problems, "`auto`, `json` or `text`", format).unwrap_or_default();
        let sample = map.take_as("sample", &mut self.problems, SHARE, share).unwrap_or(1.0);
        map.finish(&mut self.problems);
        AccessLog { to: target, format, sample }
    }
}

fn to(text: &str) -> LogTo {
    match text {
        "off" | "false" => LogTo::Off,
        "stdout" => LogTo::Stdout,
        path => LogTo::File(absolute(Path::new(path))),
    }
}

fn format(text: &str) -> Option<LogFormat> {
    match text {
        "auto" => Some(LogFormat::Auto),
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::tests::load_text;

    #[test]
    fn reads_where_lines_go_and_how_they_look() {
        let read = |text: &str| load_text(text, &[("LOG", "/l")]).unwrap().access_log;
        let log = |to, format, sample| AccessLog { to, format, sample };
        let file = || LogTo::File(PathBuf::from("/l"));
        for (text, want) in [
            ("{}", log(LogTo::Stdout, LogFormat::Auto, 1.0)),
            ("access_log: off", log(LogTo::Off, LogFormat::Auto, 1.0)),
            ("access_log: \"${LOG}\"", log(file(), LogFormat::Auto, 1.0)),
            ("access_log: {to: /l, format: json, sample: 0.25}", log(file(), LogFormat::Json, 0.25)),
            ("access_log: {format: text}", log(LogTo::Stdout, LogFormat::Text, 1.0)),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
        for (bad, want) in [("{format: xml}", "`auto`, `json`"), ("{sample: 2}", "a share"), ("{form: json}", "format")] {
            assert!(load_text(&format!("access_log: {bad}"), &[]).unwrap_err().join("\n").contains(want), "{bad}");
        }
    }
}
