//! What routing and rewriting need to know of a request body, with the spans of what may change.

use super::{Destination, Head, form};
use crate::dialect::{Dialect, Endpoint};
use crate::error::Error;
use crate::json::Want::{self, Fields, Take};
use crate::json::{Malformed, Scanner, Visit, text};
use crate::rewrite::spans::members;
use http::header::CONTENT_TYPE;
use std::ops::Range;

/// A value and the bytes it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// A request body, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub model: Option<Spanned<String>>,
    pub stream: Option<Spanned<bool>>,
    /// The raw value of `stream_options`.
    pub stream_options: Option<Range<usize>>,
    pub messages: bool,
    pub input: bool,
    pub prompt: bool,
    pub system: bool,
    pub contents: bool,
    /// The end user it is for.
    pub user: Option<String>,
    /// The answer that this one follows, and the conversation it belongs to.
    pub previous: Option<String>,
    pub conversation: Option<String>,
    /// Nobody waits for the answer.
    pub background: bool,
    /// The most tokens that an answer may have, and how many answers are wanted.
    pub output_max: Option<u64>,
    pub choices: Option<u64>,
    /// The tier of service that is asked for, or the speed.
    pub tier: Option<String>,
    /// The body is a form and no JSON: values stand there as they are.
    pub form: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Model,
    Stream,
    StreamOptions,
    Messages,
    Input,
    Prompt,
    System,
    Contents,
    User,
    SafetyIdentifier,
    Previous,
    Conversation,
    Background,
    OutputMax,
    Choices,
    Tier,
    Speed,
}

static ROOT: Want<Key> = Fields(&[
    ("model", Take(Key::Model)),
    ("stream", Take(Key::Stream)),
    ("stream_options", Take(Key::StreamOptions)),
    ("messages", Take(Key::Messages)),
    ("input", Take(Key::Input)),
    ("prompt", Take(Key::Prompt)),
    ("system", Take(Key::System)),
    ("contents", Take(Key::Contents)),
    // OpenAI's, the old and the new; Anthropic's.
    ("user", Take(Key::User)),
    ("safety_identifier", Take(Key::SafetyIdentifier)),
    ("previous_response_id", Take(Key::Previous)),
    ("conversation", Take(Key::Conversation)),
    ("background", Take(Key::Background)),
    // OpenAI's, old and new, and those of Responses; Anthropic's; Google's; Bedrock's; Llama's there.
    ("max_tokens", Take(Key::OutputMax)),
    ("max_completion_tokens", Take(Key::OutputMax)),
    ("max_output_tokens", Take(Key::OutputMax)),
    ("generationConfig", Fields(&[("maxOutputTokens", Take(Key::OutputMax)), ("candidateCount", Take(Key::Choices))])),
    ("inferenceConfig", Fields(&[("maxTokens", Take(Key::OutputMax))])),
    ("max_gen_len", Take(Key::OutputMax)),
    ("n", Take(Key::Choices)),
    ("service_tier", Take(Key::Tier)),
    // Anthropic's, besides the tier: the meter calls it a tier, too.
    ("speed", Take(Key::Speed)),
    ("serviceTier", Fields(&[("type", Take(Key::Tier))])),
    ("metadata", Fields(&[("user_id", Take(Key::User))])),
]);

/// Of a longer number nothing is known.
const NUMBER_BYTES_MAX: usize = 24;

/// A number as JSON has it, rounded up.
fn whole(number: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(number).ok()?;
    let rounded = || text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0).map(|number| number.ceil() as u64);
    text.parse().ok().or_else(rounded)
}

/// A longer model name is refused.
pub const MODEL_BYTES_MAX: usize = 1024;

impl Facts {
    /// Reads the body of a request. What a path of the allow-list carries is nobody's business.
    ///
    /// # Errors
    /// If it is of no use, or says twice what may be said once.
    pub fn of(body: &[u8], head: &Head<'_>, destination: &Destination) -> Result<Self, Error> {
        let Destination::Endpoint { endpoint, .. } = destination else { return Ok(Self::default()) };
        let types = || head.headers.get_all(CONTENT_TYPE).iter().map(http::HeaderValue::as_bytes);
        let is_form = |kind: &[u8]| kind.trim_ascii_start().get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"));
        let Some(kind) = types().find(|kind| is_form(kind)) else { return Self::read(body) };
        // What is called a form is never read as anything else.
        let boundary = std::str::from_utf8(kind).ok().and_then(form::boundary).filter(|_| types().count() == 1);
        match boundary.filter(|_| endpoint.is_some_and(Endpoint::takes_form)) {
            Some(boundary) => Self::read_form(body, boundary),
            None => Err(Error::BadForm { why: "no form is taken here, or its boundary is not said plainly and once" }),
        }
    }

    /// The ids of kept answers that a request names.
    pub fn kept_ids<'f>(&'f self, destination: &'f Destination) -> impl Iterator<Item = &'f str> {
        let (named, continues) = match destination {
            Destination::Kept { id, .. } => (id.as_deref(), false),
            Destination::Endpoint { endpoint, .. } => (None, endpoint.is_none_or(|endpoint| endpoint.dialect() == Dialect::Responses)),
            _ => (None, false),
        };
        let before = [self.previous.as_deref(), self.conversation.as_deref()].map(|id| id.filter(|_| continues));
        named.into_iter().chain(before.into_iter().flatten())
    }

    /// Reads a form.
    fn read_form(body: &[u8], boundary: &str) -> Result<Self, Error> {
        let mut facts = Self { form: true, ..Self::default() };
        for part in form::parts(body, boundary).map_err(|why| Error::BadForm { why })? {
            let text = || std::str::from_utf8(body.get(part.value.clone()).unwrap_or_default()).ok();
            match part.name {
                "model" | "stream" if part.file => return Err(Error::BadForm { why: "`model` and `stream` are no files" }),
                "model" if facts.model.is_some() => return Err(Error::DuplicateField { name: "model" }),
                "model" => {
                    let value = text().filter(|model| model.len() <= MODEL_BYTES_MAX);
                    let value = value.ok_or(Error::BadForm { why: "`model` is not a text of reasonable length" })?.to_owned();
                    facts.model = Some(Spanned { value, span: part.value });
                }
                "stream" if facts.stream.is_some() => return Err(Error::DuplicateField { name: "stream" }),
                "stream" => {
                    let value = text().is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1"));
                    facts.stream = Some(Spanned { value, span: part.value });
                }
                "prompt" => facts.prompt = true,
                "user" => facts.user = text().map(str::to_owned),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Reads a JSON body.
    ///
    /// # Errors
    /// If it is no JSON object, or says twice what may be said once.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        let mut found = Found::default();
        let mut scanner = Scanner::new(&ROOT);
        let broken = scanner.push(body, &mut found).err();
        match broken {
            Some(Malformed::TooDeep) => return Err(Error::BadJson { why: "nested too deeply" }),
            Some(Malformed::Syntax) => return Err(Error::BadJson { why: "a syntax error" }),
            None if body.trim_ascii_start().first() != Some(&b'{') => return Err(Error::BadJson { why: "expected an object" }),
            None if !scanner.is_done() => return Err(Error::BadJson { why: "it ends too early" }),
            None => {}
        }
        if let Some(name) = found.duplicate {
            return Err(Error::DuplicateField { name });
        }
        found.into_facts(body)
    }
}

/// Its id stands there, or in an object.
fn conversation(raw: &[u8]) -> Option<String> {
    static ROOT: Want<usize> = Fields(&[("id", Take(0))]);
    let [id] = members(raw, 0..raw.len(), &ROOT);
    let raw = id.and_then(|span| raw.get(span)).unwrap_or(raw);
    text::decode(raw).map(std::borrow::Cow::into_owned)
}

#[derive(Default)]
struct Found {
    facts: Facts,
    start: usize,
    null: bool,
    model: Option<Range<usize>>,
    stream: Option<Range<usize>>,
    user: Option<Range<usize>>,
    safety_identifier: Option<Range<usize>>,
    previous: Option<Range<usize>>,
    conversation: Option<Range<usize>>,
    background: Option<Range<usize>>,
    /// The largest bound that was named; the number that is being read.
    output_max: Option<u64>,
    number: Vec<u8>,
    choices: Option<Range<usize>>,
    tier: Option<Range<usize>>,
    speed: Option<Range<usize>>,
    duplicate: Option<&'static str>,
}

impl Found {
    fn into_facts(self, body: &[u8]) -> Result<Facts, Error> {
        let mut facts = self.facts;
        if let Some(span) = self.model {
            let raw = body.get(span.clone()).unwrap_or_default();
            if raw != b"null" {
                let value = text::decode(raw).filter(|model| model.len() <= MODEL_BYTES_MAX);
                let value = value.ok_or(Error::BadJson { why: "`model` is not a string of reasonable length" })?.into_owned();
                facts.model = Some(Spanned { value, span });
            }
        }
        if let Some(span) = self.stream {
            let value = body.get(span.clone()) == Some(b"true");
            facts.stream = Some(Spanned { value, span });
        }
        let text = |span: Range<usize>| body.get(span).and_then(text::decode).map(std::borrow::Cow::into_owned);
        let number = |span: Range<usize>| std::str::from_utf8(body.get(span)?).ok()?.parse::<u64>().ok();
        (facts.output_max, facts.choices) = (self.output_max, self.choices.and_then(number));
        // Some servers take any number or text for a yes.
        let raw = self.background.and_then(|span| body.get(span));
        facts.background = raw.is_some_and(|raw| raw != b"false" && raw != b"null");
        facts.previous = self.previous.and_then(text);
        facts.tier = self.speed.and_then(text).filter(|speed| speed == "fast").or_else(|| self.tier.and_then(text));
        facts.conversation = self.conversation.and_then(|span| conversation(body.get(span)?));
        facts.user = self.safety_identifier.and_then(text).or_else(|| self.user.and_then(text));
        Ok(facts)
    }

    fn once(&mut self, taken: bool, name: &'static str) {
        if taken {
            self.duplicate.get_or_insert(name);
        }
    }
}

impl Visit<Key> for Found {
    fn begin(&mut self, _: Key, at: u64, first: u8) {
        self.start = usize::try_from(at).unwrap_or(usize::MAX);
        self.null = first == b'n';
        self.number.clear();
    }

    fn bytes(&mut self, key: Key, piece: &[u8]) {
        if key == Key::OutputMax && self.number.len() + piece.len() <= NUMBER_BYTES_MAX {
            self.number.extend_from_slice(piece);
        }
    }

    fn end(&mut self, key: Key, at: u64) {
        let span = self.start..usize::try_from(at).unwrap_or(usize::MAX);
        let there = !self.null;
        match key {
            Key::Model => {
                self.once(self.model.is_some(), "model");
                self.model = Some(span);
            }
            Key::Stream => {
                self.once(self.stream.is_some(), "stream");
                self.stream = Some(span);
            }
            Key::StreamOptions => {
                self.once(self.facts.stream_options.is_some(), "stream_options");
                self.facts.stream_options = Some(span);
            }
            Key::Messages => self.facts.messages |= there,
            Key::Input => self.facts.input |= there,
            Key::Prompt => self.facts.prompt |= there,
            Key::System => self.facts.system |= there,
            Key::Contents => self.facts.contents |= there,
            Key::User => self.user = Some(span),
            Key::SafetyIdentifier => self.safety_identifier = Some(span),
            Key::Previous => {
                self.once(self.previous.is_some(), "previous_response_id");
                self.previous = Some(span);
            }
            Key::Conversation => {
                self.once(self.conversation.is_some(), "conversation");
                self.conversation = Some(span);
            }
            // Who serves it may look at another one than its caller means.
            Key::OutputMax => self.output_max = self.output_max.max(whole(&self.number)),
            Key::Choices => self.choices = Some(span),
            Key::Tier => {
                self.once(self.tier.is_some(), "service_tier");
                self.tier = Some(span);
            }
            Key::Speed => self.speed = Some(span),
            Key::Background => {
                self.once(self.background.is_some(), "background");
                self.background = Some(span);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters_and_where_it_stands() {
        let body = br#"{"messages":[{"model":"no"}],"mod\u0065l" : "a\/b" ,"stream":true,"stream_options":{"x":1},"system":null}"#;
        let facts = Facts::read(body).unwrap();
        let model = facts.model.unwrap();
        assert_eq!((model.value.as_str(), &body[model.span]), ("a/b", &br#""a\/b""#[..]));
        assert_eq!(&body[facts.stream_options.unwrap()], br#"{"x":1}"#);
        assert!(facts.stream.unwrap().value && facts.messages && !facts.system && !facts.input);
    }

    #[test]
    fn refuses_what_could_be_read_two_ways() {
        for (body, name) in [
            (r#"{"model":"a","model":"b"}"#, "model"),
            (r#"{"model":"a","mod\u0065l":"b"}"#, "model"),
            (r#"{"stream":false,"stream":true}"#, "stream"),
            (r#"{"stream_options":null,"stream_options":{}}"#, "stream_options"),
        ] {
            assert_eq!(Facts::read(body.as_bytes()), Err(Error::DuplicateField { name }), "{body}");
        }
    }

    #[test]
    fn a_fast_speed_is_a_tier() {
        for (body, tier) in [
            (r#"{"service_tier":"flex"}"#, Some("flex")),
            (r#"{"service_tier":"auto","speed":"fast"}"#, Some("fast")),
            (r#"{"service_tier":"priority","speed":"standard"}"#, Some("priority")),
            (r#"{"service_tier":null,"speed":1}"#, None),
            (r#"{"serviceTier":{"type":"priority"}}"#, Some("priority")),
        ] {
            assert_eq!(Facts::read(body.as_bytes()).unwrap().tier.as_deref(), tier, "{body}");
        }
    }

    #[test]
    fn of_all_bounds_the_largest_counts() {
        for (body, most) in [
            (r#"{"max_tokens":5}"#, Some(5)),
            (r#"{"max_tokens":100000,"max_gen_len":1,"generationConfig":{"maxOutputTokens":2}}"#, Some(100_000)),
            (r#"{"max_tokens":7,"max_tokens":3}"#, Some(7)),
            (r#"{"max_tokens":1e3}"#, Some(1000)),
            (r#"{"max_tokens":10.5,"max_output_tokens":null}"#, Some(11)),
            (r#"{"max_tokens":-1}"#, None),
            (r#"{"max_tokens":100000000000000000000000000}"#, None),
            (r#"{"max_tokens":"5"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(Facts::read(body.as_bytes()).unwrap().output_max, most, "{body}");
        }
    }

    #[test]
    fn refuses_what_is_no_object() {
        for bad in ["", "[]", "\"s\"", "{", "{}{}", "{\"model\":3}", "{\"a\":tru\u{1}}", "{\"a\" \"b\"}"] {
            assert!(matches!(Facts::read(bad.as_bytes()), Err(Error::BadJson { .. })), "{bad}");
        }
        let long = format!("{{\"model\":\"{}\"}}", "m".repeat(MODEL_BYTES_MAX + 1));
        assert!(matches!(Facts::read(long.as_bytes()), Err(Error::BadJson { .. })));
    }
}
