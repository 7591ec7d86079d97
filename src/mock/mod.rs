//! The mock provider: answers like the real ones, with believable usage, from nothing but the request. It makes the
//! first request of a newcomer work without a key, and is the upstream of tests and benchmarks.
//!
//! What it does is set by the model's name (`mock-small?chunks=100&delay_ms=5`) or a `mock` object in the body; see
//! [`Options`].

mod audio;
mod batch;
mod bedrock;
mod chat;
mod google;
mod images;
mod messages;
mod responses;
pub mod socket;

use crate::dialect::{Dialect, Endpoint};
use crate::route::form;
use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;

/// What an answer consists of.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    pub status: u16,
    pub content_type: &'static str,
    /// Known beforehand, unless the answer is streamed.
    pub content_length: Option<usize>,
    pub retry_after_s: Option<u32>,
    /// A header that names the error, in dialects that have one.
    pub error_header: Option<(&'static str, &'static str)>,
    pub steps: Vec<Step>,
}

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Send(Bytes),
    Pause(Duration),
    /// The connection breaks.
    Cut,
}

/// Settings of one answer. All are numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Pieces of text in a stream.
    pub chunks: u64,
    /// Bytes of text in each.
    pub bytes: u64,
    /// Before the first and between any two pieces.
    pub delay_ms: u64,
    /// Bytes of each write; 0: an event a write.
    pub split: u64,
    /// A status to answer with instead.
    pub error: u64,
    /// An error event after so many pieces.
    pub error_after: Option<u64>,
    /// The connection breaks after so many pieces (in a document: bytes).
    pub cut_after: Option<u64>,
    pub input: Option<u64>,
    pub cached: Option<u64>,
    pub output: Option<u64>,
    pub reasoning: u64,
    /// 0: no usage is reported.
    pub usage: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chunks: 8,
            bytes: 12,
            delay_ms: 0,
            split: 0,
            error: 0,
            error_after: None,
            cut_after: None,
            input: None,
            cached: None,
            output: None,
            reasoning: 4,
            usage: 1,
        }
    }
}

impl Options {
    fn set(&mut self, name: &str, value: u64) {
        match name {
            "chunks" => self.chunks = value.min(CHUNKS_MAX),
            "bytes" => self.bytes = value.min(BYTES_MAX),
            "delay_ms" => self.delay_ms = value,
            "split" => self.split = value,
            "error" => self.error = value,
            "error_after" => self.error_after = Some(value),
            "cut_after" => self.cut_after = Some(value),
            "input" => self.input = Some(value),
            "cached" => self.cached = Some(value),
            "output" => self.output = Some(value),
            "reasoning" => self.reasoning = value,
            "usage" => self.usage = value,
            _ => {}
        }
    }
}

/// More pieces are not sent, nor larger ones.
const CHUNKS_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 8 << 20;

/// A request as the mock sees it.
#[derive(Debug)]
pub struct Ask {
    /// Without the options.
    pub model: String,
    pub options: Options,
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// The first tool offered, if the last message is not a tool's result.
    pub tool: Option<String>,
    pub body: Value,
    /// Makes ids differ.
    pub serial: u64,
}

/// Tokens of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl Ask {
    /// `named` is the model of a path that names one.
    fn read(body: &[u8], named: Option<String>, serial: u64) -> Option<Self> {
        let body: Value = if body.starts_with(b"--") { read_form(body)? } else { serde_json::from_slice(body).ok()? };
        let named = named.as_deref().or(body.get("model").and_then(Value::as_str)).unwrap_or("mock-small");
        let (model, settings) = named.split_once('?').unwrap_or((named, ""));
        let mut options = Options::default();
        for (name, value) in settings.split('&').filter_map(|setting| setting.split_once('=')) {
            value.parse().into_iter().for_each(|value| options.set(name, value));
        }
        for (name, value) in body.get("mock").and_then(Value::as_object).into_iter().flatten() {
            value.as_u64().into_iter().for_each(|value| options.set(name, value));
        }
        Some(Self {
            model: model.to_owned(),
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
            include_usage: body.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false),
            tool: offered_tool(&body),
            options,
            body,
            serial,
        })
    }

    /// One of the text's pieces.
    fn piece(&self, at: u64) -> String {
        const WORDS: &str = "The quick brown fox jumps over the lazy dog. ";
        let bytes = usize::try_from(self.options.bytes).unwrap_or(0);
        let start = usize::try_from(at).unwrap_or(0) * bytes % WORDS.len();
        WORDS.chars().cycle().skip(start).take(bytes).collect()
    }

    fn text(&self) -> String {
        (0..self.options.chunks).map(|at| self.piece(at)).collect()
    }

    /// About four bytes a token, a quarter of the input from the cache.
    fn tokens(&self, body_len: usize) -> Tokens {
        let input = self.options.input.unwrap_or(8 + body_len as u64 / 4);
        let output = self.options.output.unwrap_or(self.options.chunks * self.options.bytes.div_ceil(4) + self.options.reasoning);
        Tokens { input, cached: self.options.cached.unwrap_or(input / 4), output, reasoning: self.options.reasoning.min(output) }
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}mock{:020}", self.serial)
    }
}

/// The fields of a form as an object; its first line is the boundary.
fn read_form(body: &[u8]) -> Option<Value> {
    let boundary = std::str::from_utf8(body.split(|byte| *byte == b'\r').next()?).ok()?.strip_prefix("--")?;
    let value = |span: std::ops::Range<usize>| String::from_utf8_lossy(body.get(span).unwrap_or_default()).into_owned();
    let typed = |text: String| if text == "true" { Value::Bool(true) } else { Value::String(text) };
    let parts = form::parts(body, boundary).ok()?;
    Some(parts.into_iter().map(|part| (part.name.to_owned(), typed(value(part.value)))).collect::<serde_json::Map<_, _>>().into())
}

fn offered_tool(body: &Value) -> Option<String> {
    // Each dialect has its own place for them; Bedrock's is one deeper.
    let tool = body.get("tools").or(body.pointer("/toolConfig/tools"))?.get(0)?;
    let places = ["/function/name", "/name", "/functionDeclarations/0/name", "/toolSpec/name"];
    let name = places.iter().find_map(|place| tool.pointer(place))?.as_str()?;
    let last =
        body.get("messages").or(body.get("input")).or(body.get("contents")).and_then(Value::as_array).and_then(|messages| messages.last());
    let answered = last.is_some_and(|message| {
        let result = message.pointer("/content/0/type").is_some_and(|kind| kind == "tool_result")
            || message.pointer("/content/0/toolResult").or(message.pointer("/parts/0/functionResponse")).is_some();
        message.get("role").is_some_and(|role| role == "tool")
            || message.get("type").is_some_and(|kind| kind == "function_call_output")
            || result
    });
    (!answered).then(|| name.to_owned())
}

/// The answer to a request to a path, perhaps with a query. `serial` makes ids differ.
pub fn answer(target: &str, body: &[u8], serial: u64) -> Script {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.ends_with("/models") {
        return whole(
            200,
            &serde_json::json!({"object": "list", "data": [{"id": "mock-small", "object": "model", "created": 0, "owned_by": "mock"}]}),
        );
    }
    if let Some(script) = batch::response(path, body) {
        return script;
    }
    let Some(endpoint) = Endpoint::from_path(path) else {
        return failure(Dialect::Chat, 404, "not_found");
    };
    let named = endpoint.model_in(path).map(|model| percent_encoding::percent_decode_str(model).decode_utf8_lossy().into_owned());
    let Some(ask) = Ask::read(body, named, serial) else {
        return failure(endpoint.dialect(), 400, "invalid_json");
    };
    if let Ok(status @ 400..=599) = u16::try_from(ask.options.error) {
        return failure(endpoint.dialect(), status, "mock_error");
    }
    let tokens = ask.tokens(body.len());
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => chat::answer(&ask, tokens, endpoint == Endpoint::Completions),
        Endpoint::Embeddings | Endpoint::CohereEmbed => chat::embeddings(&ask, tokens),
        Endpoint::Responses | Endpoint::ResponsesCompact => responses::answer(&ask, tokens),
        Endpoint::Messages => messages::answer(&ask, tokens),
        Endpoint::RawPredict => messages::answer(&Ask { stream: false, ..ask }, tokens),
        Endpoint::StreamRawPredict => messages::answer(&Ask { stream: true, ..ask }, tokens),
        Endpoint::ResponsesInputTokens => whole(200, &serde_json::json!({"object": "response.input_tokens", "input_tokens": tokens.input})),
        Endpoint::MessagesCountTokens | Endpoint::RawCountTokens => whole(200, &serde_json::json!({"input_tokens": tokens.input})),
        Endpoint::GenerateContent
        | Endpoint::StreamGenerateContent
        | Endpoint::EmbedContent
        | Endpoint::BatchEmbedContents
        | Endpoint::CountTokens
        | Endpoint::Predict => google::answer(&ask, tokens, endpoint, query.split('&').any(|pair| pair == "alt=sse")),
        Endpoint::Converse => bedrock::converse(&ask, tokens),
        Endpoint::ConverseStream => bedrock::converse_stream(&ask, tokens),
        Endpoint::InvokeModel => messages::answer(&Ask { stream: false, ..ask }, tokens),
        Endpoint::InvokeModelStream => bedrock::invoke_stream(&ask, tokens),
        Endpoint::BedrockCountTokens => whole(200, &serde_json::json!({"inputTokens": tokens.input})),
        Endpoint::CohereChat => chat::cohere(&ask, tokens),
        Endpoint::Images | Endpoint::ImageEdits | Endpoint::ImageVariations => images::answer(&ask, tokens, endpoint),
        Endpoint::Speech => audio::speech(&ask, tokens),
        Endpoint::Transcriptions | Endpoint::Translations => audio::transcription(&ask, tokens),
        Endpoint::Rerank | Endpoint::CohereRerank => audio::rerank(&ask, tokens, endpoint == Endpoint::CohereRerank),
        Endpoint::Moderations => images::moderation(&ask),
    }
}

fn failure(dialect: Dialect, status: u16, code: &str) -> Script {
    let body: Bytes = dialect.error_body(status, code, "the mock was told to fail", "req_mock").into();
    let retry_after_s = (status == 429 || status == 503).then_some(1);
    let error_header = dialect.error_header(status);
    let content_length = Some(body.len());
    Script { status, content_type: "application/json", content_length, retry_after_s, error_header, steps: vec![Step::Send(body)] }
}

fn whole(status: u16, body: &Value) -> Script {
    let body: Bytes = body.to_string().into();
    Script {
        status,
        content_type: "application/json",
        content_length: Some(body.len()),
        retry_after_s: None,
        error_header: None,
        steps: vec![Step::Send(body)],
    }
}

/// A whole answer, with the delay and cut that were asked for.
fn document(ask: &Ask, body: &Value) -> Script {
    let mut script = whole(200, body);
    if let (Some(cut), Some(Step::Send(body))) = (ask.options.cut_after, script.steps.first_mut()) {
        body.truncate(usize::try_from(cut).unwrap_or(usize::MAX));
        script.steps.push(Step::Cut);
    }
    script.steps = split(script.steps, ask.options.split);
    if ask.options.delay_ms > 0 {
        script.steps.insert(0, Step::Pause(Duration::from_millis(ask.options.delay_ms)));
    }
    script
}

/// A stream: events before the text, one event a piece, events after it; each is made when its turn comes.
fn stream<E: Into<Bytes>>(
    ask: &Ask,
    content_type: &'static str,
    before: Vec<E>,
    piece: impl Fn(&str) -> E,
    after: impl FnOnce() -> Vec<E>,
    error: impl FnOnce() -> E,
) -> Script {
    let script = |steps| Script {
        status: 200,
        content_type,
        content_length: None,
        retry_after_s: None,
        error_header: None,
        steps: split(steps, ask.options.split),
    };
    let options = &ask.options;
    let pause = || (options.delay_ms > 0).then(|| Step::Pause(Duration::from_millis(options.delay_ms)));
    let mut steps: Vec<Step> = before.into_iter().map(|event| Step::Send(event.into())).collect();
    for at in 0..options.chunks {
        if options.cut_after == Some(at) || options.error_after == Some(at) {
            steps.push(if options.cut_after == Some(at) { Step::Cut } else { Step::Send(error().into()) });
            return script(steps);
        }
        steps.extend(pause());
        steps.push(Step::Send(piece(&ask.piece(at)).into()));
    }
    steps.extend(after().into_iter().map(|event| Step::Send(event.into())));
    script(steps)
}

const EVENTS: &str = "text/event-stream; charset=utf-8";

fn split(steps: Vec<Step>, bytes: u64) -> Vec<Step> {
    let Some(size) = usize::try_from(bytes).ok().filter(|size| *size > 0) else {
        return steps;
    };
    let cut = |step| match step {
        Step::Send(mut data) => {
            let mut pieces = vec![];
            while data.len() > size {
                pieces.push(Step::Send(data.split_to(size)));
            }
            pieces.push(Step::Send(data));
            pieces
        }
        step => vec![step],
    };
    steps.into_iter().flat_map(cut).collect()
}

fn data(event: &Value) -> String {
    format!("data: {event}\n\n")
}

fn named(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event.get("type").and_then(Value::as_str).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{Framing, Meter};
    use crate::stream::event_stream::EventStream;
    use crate::stream::sse::Sniffer;
    use crate::usage::{Convention, Dimension, Reasoning};

    fn sent(script: &Script) -> Vec<u8> {
        let sends = script.steps.iter().filter_map(|step| if let Step::Send(data) = step { Some(data.to_vec()) } else { None });
        sends.flatten().collect()
    }

    #[test]
    fn what_it_answers_meters_to_what_it_was_told() {
        let google = Convention { reasoning: Reasoning::Beside, ..Convention::OPENAI };
        let settings = r#""mock":{"input":100,"cached":40,"output":30,"reasoning":10,"chunks":3,"split":7}"#;
        for (path, dialect, convention) in [
            ("/v1/chat/completions", Dialect::Chat, Convention::OPENAI),
            ("/v1/completions", Dialect::Completions, Convention::OPENAI),
            ("/v1/responses", Dialect::Responses, Convention::OPENAI),
            ("/v1/messages", Dialect::Messages, Convention::ANTHROPIC),
            ("/v2/chat", Dialect::Cohere, Convention::OPENAI),
            ("/v1/images/generations", Dialect::Images, Convention::OPENAI),
            ("/v1beta/models/mock-small:generateContent", Dialect::Generate, google),
            ("/v1beta/models/mock-small:streamGenerateContent", Dialect::Generate, google),
            ("/v1beta/models/mock-small:streamGenerateContent?alt=sse", Dialect::Generate, google),
            ("/v1/publishers/anthropic/models/mock-small:rawPredict", Dialect::Messages, Convention::ANTHROPIC),
            ("/v1/publishers/anthropic/models/mock-small:streamRawPredict", Dialect::Messages, Convention::ANTHROPIC),
            ("/model/mock-small/converse", Dialect::Converse, Convention::ANTHROPIC),
            ("/model/mock-small/converse-stream", Dialect::Converse, Convention::ANTHROPIC),
            ("/model/mock-small/invoke", Dialect::Invoke, Convention::ANTHROPIC),
            ("/model/mock-small/invoke-with-response-stream", Dialect::Invoke, Convention::ANTHROPIC),
        ] {
            for stream in [false, true] {
                let body = format!(r#"{{"model":"mock-small","stream":{stream},"stream_options":{{"include_usage":true}},{settings}}}"#);
                let script = answer(path, body.as_bytes(), 1);
                let binary = script.content_type.starts_with("application/vnd");
                let framing = if binary { Framing::EventStream(EventStream::default()) } else { Framing::Undecided(Sniffer::default()) };
                let mut meter = Meter::new(dialect.grammar(), framing);
                meter.push(&sent(&script), |_| {});
                meter.finish(true);
                let (usage, consistent) = meter.found().reported.settle(convention);
                assert_eq!(meter.found().faults.iter().count(), 0, "{path} {stream}");
                assert!(consistent && meter.found().finished, "{path} {stream}");
                // Neither Converse nor Cohere nor images name the model; Cohere tells no parts, Converse no reasoning.
                let (names, parts) =
                    (!matches!(dialect, Dialect::Converse | Dialect::Cohere | Dialect::Images), dialect != Dialect::Cohere);
                assert!(!names || meter.found().model == "mock-small", "{path} {stream}");
                assert_eq!(usage.sum(Dimension::is_input), Some(100), "{path} {stream}");
                assert_eq!(usage.of(Dimension::CacheRead), parts.then_some(40), "{path} {stream}");
                assert_eq!(usage.sum(Dimension::is_output), Some(30), "{path} {stream}");
                assert_eq!(usage.of(Dimension::Reasoning), names.then_some(10), "{path} {stream}");
            }
        }
    }

    #[test]
    fn fails_as_told() {
        let script = answer("/v1/messages", br#"{"model":"mock-small?error=429"}"#, 1);
        assert_eq!((script.status, script.retry_after_s), (429, Some(1)));
        assert!(String::from_utf8(sent(&script)).unwrap().contains("rate_limit_error"));
        let cut = answer("/v1/chat/completions", br#"{"model":"mock-small?cut_after=2","stream":true}"#, 1);
        assert_eq!(cut.steps.last(), Some(&Step::Cut));
        assert_eq!(answer("/v1/chat/completions", b"{", 1).status, 400);
        assert_eq!(answer("/v1/else", b"{}", 1).status, 404);
    }
}
