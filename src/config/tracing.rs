//! Reads where traces go.

use super::Secret;
use super::file::Reader;
use super::units::{SHARE, share};
use crate::yaml::{Map, Node};

/// Which collector, and how much it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingRules {
    /// Of OTLP over HTTP, with the path.
    pub endpoint: String,
    /// Sent with every batch; values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// The share of requests without a trace of their own that begin one, from 0 to 1.
    pub sample: f64,
    /// How the gateway calls itself.
    pub service: String,
}

impl Reader<'_> {
    pub(super) fn tracing(&mut self, node: Option<Node<'_>>) -> Option<TracingRules> {
        let node = node.filter(|node| !matches!(node.text(), Some("off" | "false")))?;
        let mut map = Map::new(node, &mut self.problems);
        let line = map.line();
        let (line, mut endpoint) = self.text(&mut map, "endpoint").unwrap_or((line, String::new()));
        let path = match endpoint.parse::<http::Uri>() {
            Ok(uri) if uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")) => uri.path().to_owned(),
            _ => {
                self.problems.add(line, "`endpoint` must be that of a collector for OTLP over HTTP (http://127.0.0.1:4318)");
                String::new()
            }
        };
        if matches!(path.as_str(), "" | "/") {
            endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        }
        let headers = self.mapping(map.take("headers"), "headers");
        let header = |reader: &mut Self, (name, node): (&str, Node<'_>)| {
            let value = node.text().and_then(|text| reader.fill(node.line(), text));
            if http::HeaderName::try_from(name).is_err() || value.as_deref().is_none_or(|value| http::HeaderValue::try_from(value).is_err())
            {
                reader.problems.add(node.line(), format!("`{name}` is no header, or has no value that can be sent"));
            }
            (name.to_owned(), Secret::new(value.unwrap_or_default()))
        };
        let headers = headers.into_iter().map(|pair| header(self, pair)).collect();
        let sample = map.take_as("sample", &mut self.problems, SHARE, share).unwrap_or(0.0);
        let service = self.text(&mut map, "service").map_or_else(|| "tollgate".to_owned(), |(_, name)| name);
        map.finish(&mut self.problems);
        Some(TracingRules { endpoint, headers, sample, service })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::file::tests::load_text;

    #[test]
    fn reads_where_traces_go() {
        let read = load_text("tracing: {endpoint: \"http://collector:4318/\", sample: 0.25, headers: {authorization: Bearer s3cret}}", &[]);
        let read = read.unwrap().tracing.unwrap();
        assert_eq!((read.endpoint.as_str(), read.sample, read.service.as_str()), ("http://collector:4318/v1/traces", 0.25, "tollgate"));
        assert!(!format!("{read:?}").contains("s3cret"));
        assert!(load_text("{}", &[]).unwrap().tracing.is_none());
        for (bad, want) in [
            ("tracing: {}", "`endpoint`"),
            ("tracing: {endpoint: \"collector:4318\"}", "`endpoint`"),
            ("tracing: {endpoint: \"http://c\", sample: 2}", "a share"),
            ("tracing: {endpoint: \"http://c\", headers: {\"a b\": x}}", "`a b`"),
        ] {
            assert!(load_text(bad, &[]).unwrap_err().join("\n").contains(want), "{bad}");
        }
    }
}
