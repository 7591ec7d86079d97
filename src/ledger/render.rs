//! Records as text: every record is rendered once, for the ledger and the access log alike. Written by hand, since it
//! happens three times a request; a test holds it against what serde makes of the same structures.

use super::record::{Close, Event, Line, Open, Used};
use crate::json::text::write_str;

/// What stands between the content of a line and its CRC-32 (that of IEEE 802.3) in eight hexadecimal digits.
const CRC: &str = ",\"crc\":\"";
const CRC_BYTES: usize = CRC.len() + 8 + 2;

/// The fields of a record as the inside of a JSON object, each with a comma in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    kind: &'static str,
    fields: Vec<u8>,
}

impl Rendered {
    pub fn open(open: &Open) -> Self {
        let mut to = Writer::new(512);
        to.text(",\"request_id\":", &open.request_id);
        to.number(",\"attempt\":", u64::from(open.attempt));
        to.number(",\"start_ms\":", open.start_ms);
        to.text(",\"provider\":", &open.provider);
        to.text(",\"upstream\":", &open.upstream);
        to.text(",\"dialect\":", &open.dialect);
        to.text(",\"endpoint\":", &open.endpoint);
        to.text(",\"model_requested\":", &open.model_requested);
        to.text(",\"model\":", &open.model);
        to.flag(",\"stream\":", open.stream);
        to.number(",\"bytes_in\":", open.bytes_in);
        to.flag(",\"billed\":", open.billed);
        let optional = [
            (",\"key\":", &open.key),
            (",\"key_name\":", &open.key_name),
            (",\"org\":", &open.org),
            (",\"project\":", &open.project),
            (",\"user\":", &open.user),
            (",\"credential\":", &open.credential),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                to.text(key, value);
            }
        }
        if !open.tags.is_empty() {
            to.texts(",\"tags\":", &open.tags);
        }
        Self { kind: "open", fields: to.0 }
    }

    pub fn used(used: &Used) -> Self {
        let mut to = Writer::new(512);
        to.number(",\"reading\":", u64::from(used.reading));
        to.text(",\"source\":", used.source.name());
        to.raw(",\"lines\":[");
        for (at, line) in used.lines.iter().enumerate() {
            to.raw(if at == 0 { "{" } else { ",{" });
            to.line(line);
            to.raw("}");
        }
        to.raw("]");
        to.quoted(",\"total\":", used.total.0);
        to.text(",\"catalog\":", &used.catalog);
        if let Some(cost) = &used.provider_cost {
            to.text(",\"provider_cost\":", cost);
        }
        if !used.response_id.is_empty() {
            to.text(",\"response_id\":", &used.response_id);
        }
        if !used.unknown.is_empty() {
            to.texts(",\"unknown\":", &used.unknown);
        }
        Self { kind: "usage", fields: to.0 }
    }

    pub fn close(close: &Close) -> Self {
        let mut to = Writer::new(256);
        to.number(",\"end_ms\":", close.end_ms);
        if let Some(first) = close.first_byte_ms {
            to.number(",\"first_byte_ms\":", first);
        }
        to.number(",\"status\":", u64::from(close.status));
        to.text(",\"outcome\":", close.outcome.name());
        if let Some(error) = &close.error {
            to.text(",\"error\":", error);
        }
        if let Some(cause) = &close.cause {
            to.text(",\"cause\":", cause);
        }
        if !close.faults.is_empty() {
            to.texts(",\"faults\":", &close.faults);
        }
        to.number(",\"bytes_out\":", close.bytes_out);
        to.flag(",\"metered\":", close.metered);
        if let Some(reading) = close.last_reading {
            to.number(",\"last_reading\":", u64::from(reading));
        }
        if close.complete {
            to.flag(",\"complete\":", true);
        }
        Self { kind: "close", fields: to.0 }
    }

    /// Renders any record.
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Open(open) => Self::open(open),
            Event::Usage(used) => Self::used(used),
            Event::Close(close) => Self::close(close),
        }
    }

    /// Appends the record's line.
    pub fn write_record(&self, id: &str, out: &mut Vec<u8>) {
        let start = out.len();
        for part in ["{\"id\":\"", id, "\",\"record\":\"", self.kind, "\""] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(&self.fields);
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.extend_from_slice(CRC.as_bytes());
        out.extend((0..8).map(|at| hex_digit(crc >> (28 - 4 * at))));
        out.extend_from_slice(b"\"}\n");
    }
}

fn hex_digit(number: u32) -> u8 {
    match u8::try_from(number & 15).unwrap_or_default() {
        digit @ 0..10 => b'0' + digit,
        digit => b'a' + digit - 10,
    }
}

/// A line as it was written, without its newline; `None` if its checksum does not hold.
pub fn checked(line: &[u8]) -> Option<&[u8]> {
    let (content, end) = line.split_at_checked(line.len().checked_sub(CRC_BYTES)?)?;
    let digits = end.strip_prefix(CRC.as_bytes())?.strip_suffix(b"\"}")?;
    let crc = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (crc == crc32fast::hash(content)).then_some(line)
}

/// Appends the line of an entry made of these records.
pub fn write_entry<'a>(id: &str, records: impl IntoIterator<Item = &'a Rendered>, out: &mut Vec<u8>) {
    for part in ["{\"id\":\"", id, "\""] {
        out.extend_from_slice(part.as_bytes());
    }
    records.into_iter().for_each(|record| out.extend_from_slice(&record.fields));
    out.extend_from_slice(b"}\n");
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key);
        write_str(&mut self.0, value);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.raw(key);
        for (at, value) in values.iter().enumerate() {
            self.raw(if at == 0 { "[" } else { "," });
            write_str(&mut self.0, value);
        }
        self.raw(if values.is_empty() { "[]" } else { "]" });
    }

    fn number(&mut self, key: &str, value: u64) {
        self.raw(key);
        self.raw(itoa::Buffer::new().format(value));
    }

    /// A number as a string: it may exceed what JSON numbers hold.
    fn quoted(&mut self, key: &str, value: i128) {
        self.raw(key);
        self.raw("\"");
        self.raw(itoa::Buffer::new().format(value));
        self.raw("\"");
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.raw(key);
        self.raw(if value { "true" } else { "false" });
    }

    fn line(&mut self, line: &Line) {
        self.text("\"model\":", &line.model);
        if !line.service_tier.is_empty() {
            self.text(",\"service_tier\":", &line.service_tier);
        }
        if !line.region.is_empty() {
            self.text(",\"region\":", &line.region);
        }
        self.raw(",\"usage\":{");
        for (at, (dimension, count)) in line.usage.iter().enumerate() {
            self.raw(if at == 0 { "\"" } else { ",\"" });
            self.raw(dimension.name());
            self.number("\":", count);
        }
        self.raw("}");
        if let Some(markup) = &line.markup {
            self.text(",\"markup\":", markup);
        }
        self.quoted(",\"charge\":", line.charge.0);
        if !line.unpriced.is_empty() {
            self.texts(",\"unpriced\":", &line.unpriced);
        }
        if let Some(free) = &line.free {
            self.text(",\"free\":", free);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Outcome, Record, Source};
    use crate::price::PicoUsd;
    use crate::usage::{Dimension, Usage};

    fn text(text: &str) -> String {
        text.to_owned()
    }

    /// A line with everything in it.
    fn line() -> Line {
        Line {
            model: text("m\"\\\n"),
            service_tier: text("flex"),
            region: text("us"),
            usage: Usage::from_iter([(Dimension::Input, 0), (Dimension::Output, u64::MAX)]),
            markup: Some(text("1.2")),
            charge: PicoUsd(i128::from(u64::MAX) * 7),
            unpriced: vec![text("web_search"), text("model")],
            free: Some(text("refusal")),
        }
    }

    /// Records with everything in them, and with as little as there can be.
    fn events() -> Vec<Event> {
        let open = Open {
            request_id: text("r"),
            attempt: 2,
            start_ms: 3,
            provider: text("p"),
            upstream: text("u"),
            dialect: text("chat"),
            endpoint: text("/x"),
            model_requested: text("ü\u{1}"),
            model: text(""),
            stream: true,
            bytes_in: 4,
            billed: false,
            key: None,
            key_name: None,
            org: None,
            credential: None,
            ..Open::default()
        };
        let used = Used {
            reading: 1,
            source: Source::Partial,
            lines: vec![],
            total: PicoUsd(-1),
            catalog: text("c"),
            provider_cost: None,
            response_id: text(""),
            unknown: vec!["usage.quantum_tokens".to_owned()],
        };
        let close = Close {
            end_ms: 9,
            first_byte_ms: None,
            status: 0,
            outcome: Outcome::Truncated,
            error: None,
            cause: None,
            faults: vec![],
            bytes_out: 1,
            metered: true,
            last_reading: Some(7),
            complete: true,
        };
        vec![
            Event::Open(Box::new(Open {
                key: Some(text("k")),
                key_name: Some(text("n\"")),
                org: Some(text("o")),
                project: Some(text("j")),
                user: Some(text("ü")),
                tags: vec![text("a"), text("\"")],
                credential: Some(text("h")),
                ..open.clone()
            })),
            Event::Open(Box::new(open)),
            Event::Usage(Used {
                lines: vec![line(), Line::default()],
                provider_cost: Some(text("0.1")),
                response_id: text("i"),
                ..used.clone()
            }),
            Event::Usage(used),
            Event::Close(Close {
                first_byte_ms: Some(5),
                error: Some(text("e")),
                cause: Some(text("why")),
                faults: vec![text("a"), text("b")],
                ..close.clone()
            }),
            Event::Close(close),
        ]
    }

    #[test]
    fn records_read_back_and_equal_what_serde_writes() {
        for event in events() {
            let record = Record { id: "a".to_owned(), event };
            let mut line = vec![];
            Rendered::of(&record.event).write_record("a", &mut line);
            let text = std::str::from_utf8(&line).unwrap().trim_end();
            let (content, _) = text.rsplit_once(CRC).unwrap();
            assert_eq!(format!("{content}}}"), serde_json::to_string(&record).unwrap());
            assert_eq!(serde_json::from_slice::<Record>(checked(text.as_bytes()).unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn entries_equal_what_serde_writes() {
        let mut events = events().into_iter().step_by(2);
        let (Some(Event::Open(open)), Some(Event::Usage(used)), Some(Event::Close(close))) = (events.next(), events.next(), events.next())
        else {
            panic!("the order of the records above");
        };
        let parts = [Rendered::open(&open), Rendered::used(&used), Rendered::close(&close)];
        let mut line = vec![];
        write_entry("a", &parts, &mut line);
        let entry = Entry { id: "a".to_owned(), open: *open, used: Some(used), close: Some(close) };
        assert_eq!(std::str::from_utf8(&line).unwrap().trim_end(), serde_json::to_string(&entry).unwrap());
    }
}
