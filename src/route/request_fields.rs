//! The fields of a request body that select its route, model, price, amount or owner, and the spans that rewriting may
//! change. A field that could be read in two ways (twice, in another case, of another type) is refused or counts as its most
//! expensive reading. The fields are listed in [`super::request_table`].

use super::request_table::{Key, table};
use super::{Destination, Head, form};
use crate::dialect::{Dialect, Endpoint};
use crate::error::Error;
use crate::json::Want::{self, Fields, Take};
use crate::json::{Malformed, Scanner, Visit, resembles, text};
use crate::rewrite::spans::{Ambiguous, items, members, unique_members};
use http::header::CONTENT_TYPE;
use std::ops::Range;

/// A value and the bytes it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// A number that bounds or multiplies the output of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// The request does not have it.
    #[default]
    Absent,
    Known(u64),
    /// The request has it, in a form that servers may read in different ways.
    Unreadable,
}

impl Count {
    /// Of two values the larger, since the server may read either.
    fn merge(&mut self, other: Self) {
        *self = match (*self, other) {
            (Self::Unreadable, _) | (_, Self::Unreadable) => Self::Unreadable,
            (Self::Absent, count) | (count, Self::Absent) => count,
            (Self::Known(one), Self::Known(other)) => Self::Known(one.max(other)),
        };
    }
}

/// A request body, as far as it matters for routing, limits, prices and ownership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFields {
    pub model: Option<Spanned<String>>,
    pub stream: Option<Spanned<bool>>,
    /// The raw value of `stream_options`.
    pub stream_options: Option<Range<usize>>,
    pub messages: bool,
    pub input: bool,
    pub prompt: bool,
    pub system: bool,
    pub contents: bool,
    /// The end user that the request is for.
    pub user: Option<String>,
    /// The id of the stored response that the request continues.
    pub previous: Option<String>,
    /// The id of the conversation that the request belongs to.
    pub conversation: Option<String>,
    /// The client does not wait for the response.
    pub background: bool,
    /// The provider stores the chat completion.
    pub store: bool,
    /// The maximum of output tokens per choice.
    pub output_max: Count,
    /// The number of choices per prompt.
    pub choices: Count,
    /// The number of prompts in one request.
    pub prompts: u64,
    /// The service tier, or the speed, that the request selects.
    pub tier: Option<String>,
    /// Models that the request names beside `model`: fallbacks, models of server-side tools.
    pub other_models: Vec<String>,
    /// A field by which the provider selects a model that the request does not name.
    pub hidden_model: Option<&'static str>,
    /// The `type` of a message on a WebSocket.
    pub kind: Option<String>,
    /// The body is a form and not JSON: values stand in it without quotes.
    pub form: bool,
}

/// Raw bytes of a number; a longer one is [`Count::Unreadable`].
const NUMBER_BYTES_MAX: usize = 64;
/// A longer model name is refused.
pub const MODEL_BYTES_MAX: usize = 1024;
/// Models beside `model` in one request; more are refused.
pub const OTHER_MODELS_MAX: usize = 16;
/// A longer list of models is refused.
const MODELS_BYTES_MAX: usize = 16 * 1024;

/// Reads a count, also one in quotes, and rounds it up. Servers read zero and negative numbers as "no bound", or refuse them.
fn count(raw: &[u8]) -> Count {
    let unquoted = if raw.first() == Some(&b'"') { text::decode(raw) } else { std::str::from_utf8(raw).ok().map(Into::into) };
    let Some(text) = unquoted else { return Count::Unreadable };
    let number = text.trim();
    let rounded = || number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number.ceil() as u64);
    match number.parse().ok().or_else(rounded) {
        Some(0) | None => Count::Unreadable,
        Some(count) => Count::Known(count),
    }
}

impl RequestFields {
    /// Reads the body of a request. Bodies of passed-through paths are not read.
    ///
    /// # Errors
    /// If the body is not usable, or has a field that could be read in two ways.
    pub fn of(body: &[u8], head: &Head<'_>, destination: &Destination) -> Result<Self, Error> {
        let Destination::Endpoint { endpoint, named, .. } = destination else { return Ok(Self::default()) };
        let types = || head.headers.get_all(CONTENT_TYPE).iter().map(http::HeaderValue::as_bytes);
        let Some(kind) = types().find(|kind| form::is_multipart(kind)) else {
            let mut fields = Self::read(body, endpoint.map(Endpoint::dialect))?;
            // The path names the model; another one in the body must be allowed as well.
            let in_body = fields.model.as_ref().map(|model| model.value.as_str());
            if let (Some(named), Some(in_body)) = (named, in_body)
                && in_body.rsplit('/').next() != named.model.rsplit('/').next()
            {
                fields.other_models.push(in_body.to_owned());
            }
            return Ok(fields);
        };
        // A body that is declared a form is never read as anything else.
        let boundary = std::str::from_utf8(kind).ok().and_then(form::boundary).filter(|_| types().count() == 1);
        match boundary.filter(|_| endpoint.is_some_and(Endpoint::takes_form)) {
            Some(boundary) => Self::read_form(body, boundary),
            None => Err(Error::BadForm { why: "this endpoint takes no form, or the content type does not state one plain boundary" }),
        }
    }

    /// The ids of stored responses and conversations that a request names.
    pub fn stored_ids<'f>(&'f self, destination: &'f Destination) -> impl Iterator<Item = &'f str> {
        let (named, continues) = match destination {
            Destination::Stored { id, .. } => (id.as_deref(), false),
            Destination::Endpoint { endpoint, .. } => (None, endpoint.is_none_or(|endpoint| endpoint.dialect() == Dialect::Responses)),
            _ => (None, false),
        };
        let before = [self.previous.as_deref(), self.conversation.as_deref()].map(|id| id.filter(|_| continues));
        named.into_iter().chain(before.into_iter().flatten())
    }

    fn read_form(body: &[u8], boundary: &str) -> Result<Self, Error> {
        const WANTED: [&str; 5] = ["model", "stream", "prompt", "user", "n"];
        let mut fields = Self { form: true, prompts: 1, ..Self::default() };
        for part in form::parts(body, boundary).map_err(|why| Error::BadForm { why })? {
            let text = || std::str::from_utf8(body.get(part.value.clone()).unwrap_or_default()).ok();
            match part.name {
                "model" | "stream" if part.file => return Err(Error::BadForm { why: "`model` and `stream` must not be files" }),
                "model" if fields.model.is_some() => return Err(Error::DuplicateField { name: "model" }),
                "model" => {
                    let value = text().filter(|model| model.len() <= MODEL_BYTES_MAX);
                    let value = value.ok_or(Error::BadForm { why: "`model` is not text of reasonable length" })?.to_owned();
                    fields.model = Some(Spanned { value, span: part.value });
                }
                "stream" if fields.stream.is_some() => return Err(Error::DuplicateField { name: "stream" }),
                "stream" => {
                    let value = text().is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1"));
                    fields.stream = Some(Spanned { value, span: part.value });
                }
                "prompt" => fields.prompt = true,
                "user" if fields.user.is_some() => return Err(Error::DuplicateField { name: "user" }),
                "user" => fields.user = text().map(str::to_owned),
                "n" => fields.choices.merge(text().map_or(Count::Unreadable, |text| count(text.as_bytes()))),
                other => {
                    if let Some(name) = WANTED.into_iter().find(|name| resembles(other.as_bytes(), name)) {
                        return Err(Error::LookAlikeField { name });
                    }
                }
            }
        }
        Ok(fields)
    }

    /// Reads a JSON body of a dialect. Without one, the fields that differ by dialect are not read.
    ///
    /// # Errors
    /// If it is not one JSON object, or has a field that could be read in two ways.
    pub fn read(body: &[u8], dialect: Option<Dialect>) -> Result<Self, Error> {
        let mut found = Found::default();
        let mut scanner = Scanner::strict(table(dialect));
        let broken = scanner.push(body, &mut found).err();
        match broken {
            Some(Malformed::TooDeep) => return Err(Error::BadJson { why: "nested too deeply" }),
            Some(Malformed::Syntax) => return Err(Error::BadJson { why: "a syntax error" }),
            Some(Malformed::LookAlike(name)) => return Err(Error::LookAlikeField { name }),
            None if body.trim_ascii_start().first() != Some(&b'{') => return Err(Error::BadJson { why: "expected an object" }),
            None if !scanner.is_done() => return Err(Error::BadJson { why: "it ends too early" }),
            None => {}
        }
        if let Some(name) = found.duplicate {
            return Err(Error::DuplicateField { name });
        }
        found.into_fields(body, dialect)
    }
}

/// The id of a conversation: a string, or the `id` of an object.
fn conversation(raw: &[u8]) -> Result<Option<String>, Error> {
    static ROOT: Want<usize> = Fields(&[("id", Take(0))]);
    if raw.first() != Some(&b'{') {
        return Ok(text::decode(raw).map(std::borrow::Cow::into_owned));
    }
    let [id] = unique(raw, &ROOT, "conversation")?;
    Ok(id.and_then(|span| raw.get(span)).and_then(text::decode).map(std::borrow::Cow::into_owned))
}

/// The members of an object of the request.
///
/// # Errors
/// [`Error::DuplicateField`] or [`Error::LookAlikeField`] in the object called `name`.
fn unique<const N: usize>(raw: &[u8], want: &'static Want<usize>, name: &'static str) -> Result<[Option<Range<usize>>; N], Error> {
    unique_members(raw, want).map_err(|why| match why {
        Ambiguous::LookAlike(name) => Error::LookAlikeField { name },
        Ambiguous::Duplicate => Error::DuplicateField { name },
        Ambiguous::Malformed => Error::BadJson { why: "a syntax error" },
    })
}

/// The models of a list: its strings, and the `model` of its objects.
fn models(raw: &[u8], name: &'static str, into: &mut Vec<String>) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Item {
        Name(String),
        Object { model: String },
    }
    let list: Option<Vec<Item>> = Some(raw).filter(|raw| raw.len() <= MODELS_BYTES_MAX).and_then(|raw| serde_json::from_slice(raw).ok());
    let list = list.filter(|list| list.len() <= OTHER_MODELS_MAX).ok_or(Error::BadField { name, want: "a short list of models" })?;
    into.extend(list.into_iter().map(|item| match item {
        Item::Name(model) | Item::Object { model } => model,
    }));
    Ok(())
}

/// Server tools and plugins of OpenRouter that use no other model; others may let the request or the model select one:
/// <https://openrouter.ai/docs/guides/features/server-tools>, <https://openrouter.ai/docs/guides/features/plugins>.
const OPENROUTER: &str = "openrouter:";
const OPENROUTER_PLAIN_TOOLS: &[&str] = &["openrouter:web_search", "openrouter:web_fetch", "openrouter:datetime"];
const OPENROUTER_PLAIN_PLUGINS: &[&str] = &["web", "file-parser", "response-healing", "context-compression"];

/// Collects the values while the body is scanned.
#[derive(Default)]
struct Found {
    fields: RequestFields,
    start: usize,
    null: bool,
    spans: Vec<(Key, Range<usize>)>,
    number: Vec<u8>,
    duplicate: Option<&'static str>,
}

impl Found {
    fn into_fields(self, body: &[u8], dialect: Option<Dialect>) -> Result<RequestFields, Error> {
        static USER_ID: Want<usize> = Fields(&[("user_id", Take(0))]);
        static INCLUDE_USAGE: Want<usize> = Fields(&[("include_usage", Take(0))]);
        let Self { mut fields, spans, .. } = self;
        fields.prompts = 1;
        let (mut user, mut speed) = (None, None);
        for (key, span) in spans {
            let raw = body.get(span.clone()).unwrap_or_default();
            let null = raw == b"null";
            let text = || text::decode(raw).map(std::borrow::Cow::into_owned);
            match key {
                Key::Model if null => {}
                Key::Model => {
                    let value = text().filter(|model| model.len() <= MODEL_BYTES_MAX);
                    let value = value.ok_or(Error::BadJson { why: "`model` is not a string of reasonable length" })?;
                    fields.model = Some(Spanned { value, span });
                }
                // Some servers take a number or a text for true.
                Key::Stream if !matches!(raw, b"true" | b"false" | b"null") => {
                    return Err(Error::BadField { name: "stream", want: "`true` or `false`" });
                }
                Key::Stream => fields.stream = Some(Spanned { value: raw == b"true", span }),
                Key::Store => fields.store = raw != b"false" && !null,
                Key::ToolType => {
                    let hides = |kind: String| kind.starts_with(OPENROUTER) && !OPENROUTER_PLAIN_TOOLS.contains(&kind.as_str());
                    if text().is_some_and(hides) {
                        fields.hidden_model = Some("tools");
                    }
                }
                Key::Plugin if text().is_none_or(|id| !OPENROUTER_PLAIN_PLUGINS.contains(&id.as_str())) => {
                    fields.hidden_model = Some("plugins");
                }
                Key::StreamOptions => {
                    if raw.first() == Some(&b'{') {
                        unique::<1>(raw, &INCLUDE_USAGE, "stream_options")?;
                    }
                    fields.stream_options = Some(span);
                }
                Key::Prompt if raw.first() == Some(&b'{') => fields.hidden_model = Some("prompt"),
                Key::Prompt if dialect == Some(Dialect::Completions) => fields.prompts = items(raw, b"\"[").max(1),
                Key::User => user = text().or(user),
                Key::SafetyIdentifier => fields.user = text(),
                // The gateway alone reads `user_id`: of several the last one counts, whatever their spelling.
                Key::Metadata => {
                    let [id] = members(raw, 0..raw.len(), &USER_ID);
                    user = id.and_then(|id| text::decode(raw.get(id)?)).map(Into::into).or(user);
                }
                Key::Previous => fields.previous = text(),
                Key::Conversation => fields.conversation = conversation(raw)?,
                // Some servers take any number or text for true.
                Key::Background => fields.background = raw != b"false" && !null,
                Key::Deferred if raw != b"false" && !null => {
                    return Err(Error::BadField { name: "deferred", want: "absent: the gateway cannot bill a deferred completion" });
                }
                Key::Tier => fields.tier = text(),
                Key::Kind => fields.kind = text(),
                Key::Speed => speed = text().filter(|speed| speed == "fast"),
                Key::Models(name) if !null => models(raw, name, &mut fields.other_models)?,
                Key::Hidden(name) if !null && raw != b"[]" => fields.hidden_model = Some(name),
                Key::OtherModel if !null => {
                    let model = text().filter(|model| model.len() <= MODEL_BYTES_MAX && fields.other_models.len() < OTHER_MODELS_MAX);
                    fields.other_models.push(model.ok_or(Error::BadField { name: "model", want: "a string, and in few places" })?);
                }
                _ => {}
            }
        }
        fields.tier = speed.or(fields.tier);
        fields.user = fields.user.or(user);
        Ok(fields)
    }
}

impl Visit<Key> for Found {
    fn begin(&mut self, key: Key, at: u64, first: u8) {
        if key != Key::Ignored {
            self.start = usize::try_from(at).unwrap_or(usize::MAX);
            self.null = first == b'n';
            self.number.clear();
        }
    }

    fn bytes(&mut self, key: Key, piece: &[u8]) {
        if matches!(key, Key::OutputMax | Key::Choices) && self.number.len() <= NUMBER_BYTES_MAX {
            self.number.extend_from_slice(piece.get(..piece.len().min(NUMBER_BYTES_MAX + 1)).unwrap_or_default());
        }
    }

    fn end(&mut self, key: Key, at: u64) {
        if let Some(name) = key.once()
            && self.spans.iter().any(|(other, _)| *other == key)
        {
            self.duplicate.get_or_insert(name);
        }
        let there = !self.null;
        match key {
            Key::Ignored => return,
            Key::Messages => self.fields.messages |= there,
            Key::Input => self.fields.input |= there,
            Key::Prompt => self.fields.prompt |= there,
            Key::System => self.fields.system |= there,
            Key::Contents => self.fields.contents |= there,
            Key::OutputMax | Key::Choices => {
                let count = match self.number.as_slice() {
                    b"null" => Count::Absent,
                    number if number.len() > NUMBER_BYTES_MAX => Count::Unreadable,
                    number => count(number),
                };
                let field = if key == Key::Choices { &mut self.fields.choices } else { &mut self.fields.output_max };
                return field.merge(count);
            }
            _ => {}
        }
        self.spans.push((key, self.start..usize::try_from(at).unwrap_or(usize::MAX)));
    }
}

#[cfg(test)]
#[path = "request_fields_tests.rs"]
mod tests;
