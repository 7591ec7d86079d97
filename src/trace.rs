//! Traces: a span for each exchange and one for each of its attempts, made when they have ended of what their entries say.
//! Names are those of OpenTelemetry's conventions for generative AI:
//! <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>. What nobody samples costs a look at one header.

use crate::dialect::Endpoint;
use crate::exchange::Cost;
use crate::ledger::{Entry, Outcome};
use crate::usage::Dimension;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Carries the place in a trace: <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub const TRACEPARENT: &str = "traceparent";

/// The place of one exchange in a trace that is sampled.
#[derive(Clone, Debug)]
pub struct Trace {
    id: TraceId,
    parent: Option<SpanId>,
    span: SpanId,
    /// The attempt under way.
    attempt: SpanId,
    began_ms: u64,
}

/// What is told of an exchange once it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub request_id: &'a str,
    /// 0 if nothing was answered.
    pub status: u16,
    /// The gateway's own word for what went wrong.
    pub error: Option<&'a str>,
    pub end_ms: u64,
}

impl Trace {
    /// Takes part in the caller's trace if that is sampled, or begins one of its own with the probability of `sample`.
    pub fn begin(traceparent: Option<&str>, sample: f64, now_ms: u64) -> Option<Self> {
        let (id, parent) = match traceparent.and_then(parse) {
            Some((_, _, false)) => return None,
            Some((id, parent, true)) => (id, Some(parent)),
            None if sample > 0.0 && share() < sample => (TraceId::from_bytes(random()), None),
            None => return None,
        };
        Some(Self { id, parent, span: span_id(), attempt: SpanId::INVALID, began_ms: now_ms })
    }

    /// Begins an attempt.
    pub fn attempt(&mut self) {
        self.attempt = span_id();
    }

    /// The header that the upstream of the attempt gets.
    pub fn header(&self) -> String {
        format!("00-{}-{}-01", self.id, self.attempt)
    }

    /// The header that the upstream of a WebSocket gets, whose turns are yet to come.
    pub fn connection(&self) -> String {
        format!("00-{}-{}-01", self.id, self.span)
    }

    /// The place of a turn, which is an attempt of its own.
    pub fn turn(&self) -> Self {
        Self { attempt: span_id(), ..self.clone() }
    }

    /// The span of an attempt at a host (`server`) that has ended.
    pub fn attempt_span(&self, entry: &Entry, server: &str) -> SpanData {
        let (open, close) = (&entry.open, entry.close.as_ref());
        let operation = operation(&open.endpoint);
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", operation),
            KeyValue::new("gen_ai.provider.name", provider(&open.provider)),
            KeyValue::new("gen_ai.request.model", open.model.clone()),
            KeyValue::new("gen_ai.request.stream", open.stream),
            KeyValue::new("server.address", server.to_owned()),
            KeyValue::new("tollgate.entry_id", entry.id.clone()),
            KeyValue::new("tollgate.upstream", open.upstream.clone()),
            KeyValue::new("tollgate.attempt", i64::from(open.attempt)),
            KeyValue::new("tollgate.outcome", entry.outcome().name()),
        ];
        let whose = [("tollgate.key", &open.key_name), ("tollgate.org", &open.org), ("tollgate.project", &open.project)];
        attributes.extend(whose.into_iter().filter_map(|(name, text)| Some(KeyValue::new(name, text.clone()?))));
        if let Some(used) = &entry.used {
            let cached = |of: fn(Dimension) -> bool| used.lines.first().and_then(|line| line.usage.sum(of));
            let Cost { prompt_tokens, completion_tokens, .. } = Cost::of(used);
            let counts = [
                ("gen_ai.usage.input_tokens", prompt_tokens),
                ("gen_ai.usage.output_tokens", completion_tokens),
                ("gen_ai.usage.cache_read.input_tokens", cached(|dimension| dimension == Dimension::CacheRead)),
                ("gen_ai.usage.cache_creation.input_tokens", cached(is_written)),
            ];
            attributes.extend(counts.into_iter().filter_map(|(name, count)| Some(KeyValue::new(name, i64::try_from(count?).ok()?))));
            let texts = [
                ("gen_ai.response.model", used.lines.first().map(|line| line.model.clone())),
                ("gen_ai.response.id", Some(used.response_id.clone()).filter(|id| !id.is_empty())),
                ("tollgate.cost_usd", Some(used.total.to_string())),
                ("tollgate.usage_source", Some(used.source.name().to_owned())),
            ];
            attributes.extend(texts.into_iter().filter_map(|(name, text)| Some(KeyValue::new(name, text?))));
        }
        let error = close.and_then(|close| close.error.clone());
        attributes.extend(close.filter(|close| close.status > 0).map(|close| status_code(close.status)));
        attributes.extend(error.clone().map(|error| KeyValue::new("error.type", error)));
        let end_ms = close.map_or(open.start_ms, |close| close.end_ms);
        let status = match entry.outcome() {
            Outcome::Ok | Outcome::ClientClosed => Status::Unset,
            other => Status::error(error.unwrap_or_else(|| other.name().to_owned())),
        };
        let mut span =
            self.span_data(self.attempt, (open.start_ms, end_ms), format!("{operation} {}", open.model).trim_end().to_owned(), status);
        (span.span_kind, span.parent_span_id, span.attributes) = (SpanKind::Client, self.span, attributes);
        let first = close.and_then(|close| close.first_byte_ms).map(|at| Event::new("first byte", time(at), vec![], 0));
        span.events.events.extend(first);
        span
    }

    /// The span of the exchange.
    pub fn span(&self, told: &Told<'_>) -> SpanData {
        let mut attributes = vec![
            KeyValue::new("http.request.method", told.method.to_owned()),
            KeyValue::new("url.scheme", told.scheme.to_owned()),
            KeyValue::new("url.path", told.path.to_owned()),
            KeyValue::new("tollgate.request_id", told.request_id.to_owned()),
        ];
        attributes.extend(Some(told.status).filter(|status| *status > 0).map(status_code));
        attributes.extend(told.error.map(|error| KeyValue::new("error.type", error.to_owned())));
        let status = match told.error {
            Some(error) if told.status >= 500 || told.status == 0 => Status::error(error.to_owned()),
            _ => Status::Unset,
        };
        let mut span = self.span_data(self.span, (self.began_ms, told.end_ms), told.method.to_owned(), status);
        (span.span_kind, span.attributes) = (SpanKind::Server, attributes);
        (span.parent_span_id, span.parent_span_is_remote) = (self.parent.unwrap_or(SpanId::INVALID), self.parent.is_some());
        span
    }

    fn span_data(&self, id: SpanId, (start_ms, end_ms): (u64, u64), name: String, status: Status) -> SpanData {
        SpanData {
            span_context: SpanContext::new(self.id, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: time(start_ms),
            end_time: time(end_ms),
            attributes: vec![],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("tollgate").build(),
        }
    }
}

/// Trace, parent, and whether it is sampled; `None` for what is no `traceparent`.
fn parse(header: &str) -> Option<(TraceId, SpanId, bool)> {
    let mut parts = header.trim().split('-');
    let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    // Later versions may say more.
    let whole = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
    let is_hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !whole || !is_hex(trace, 32) || !is_hex(parent, 16) || !is_hex(flags, 2) {
        return None;
    }
    let (trace, parent) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    (trace != TraceId::INVALID && parent != SpanId::INVALID).then_some((trace, parent, sampled))
}

fn random<const N: usize>() -> [u8; N] {
    // Version 4 and its variant leave a few bits fixed, which does not hurt here.
    let mut bytes = [0; N];
    let source = uuid::Uuid::new_v4().into_bytes();
    bytes.iter_mut().zip(source.iter().rev()).for_each(|(byte, random)| *byte = *random);
    bytes
}

fn span_id() -> SpanId {
    SpanId::from_bytes(random())
}

/// From 0 to 1, evenly.
fn share() -> f64 {
    f64::from(u32::from_be_bytes(random())) / f64::from(u32::MAX)
}

fn is_written(dimension: Dimension) -> bool {
    matches!(dimension, Dimension::CacheWrite5m | Dimension::CacheWrite1h)
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn status_code(status: u16) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status))
}

/// As the conventions call what an endpoint does; what they have no word for goes by one of the same make.
/// <https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/#gen-ai-operation-name>
fn operation(endpoint: &str) -> &'static str {
    // What a list lets through is named by its path.
    let Some(endpoint) = Endpoint::from_name(endpoint) else { return "request" };
    match endpoint {
        Endpoint::ChatCompletions
        | Endpoint::Responses
        | Endpoint::ResponsesCompact
        | Endpoint::Messages
        | Endpoint::RawPredict
        | Endpoint::StreamRawPredict
        | Endpoint::Converse
        | Endpoint::ConverseStream
        | Endpoint::InvokeModel
        | Endpoint::InvokeModelStream
        | Endpoint::CohereChat => "chat",
        Endpoint::Completions => "text_completion",
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => "generate_content",
        Endpoint::Embeddings | Endpoint::EmbedContent | Endpoint::BatchEmbedContents | Endpoint::Predict | Endpoint::CohereEmbed => {
            "embeddings"
        }
        Endpoint::ResponsesInputTokens
        | Endpoint::MessagesCountTokens
        | Endpoint::RawCountTokens
        | Endpoint::CountTokens
        | Endpoint::BedrockCountTokens => "count_tokens",
        Endpoint::Images | Endpoint::ImageEdits | Endpoint::ImageVariations => "image_generation",
        Endpoint::Moderations => "moderation",
        Endpoint::Speech => "speech",
        Endpoint::Transcriptions => "transcription",
        Endpoint::Translations => "translation",
        Endpoint::Rerank | Endpoint::CohereRerank => "rerank",
    }
}

/// As the conventions call a provider.
fn provider(id: &str) -> String {
    match id {
        "azure" => "azure.ai.openai",
        "bedrock" => "aws.bedrock",
        "googleai" => "gcp.gemini",
        "mistral" => "mistral_ai",
        "vertex" => "gcp.vertex_ai",
        "xai" => "x_ai",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Close, Line, Open, Source, Used};
    use crate::price::PicoUsd;
    use crate::usage::{Dimension, Usage};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn follows_its_caller_and_samples_for_itself() {
        assert!(Trace::begin(Some(PARENT), 0.0, 1).is_some());
        let unsampled = PARENT.replace("-01", "-00");
        assert!(Trace::begin(Some(&unsampled), 1.0, 1).is_none());
        for none in
            ["", "00-0-0-01", &PARENT.to_uppercase(), &format!("{PARENT}-x"), &PARENT.replace("b7ad6b7169203331", "0000000000000000")]
        {
            assert!(Trace::begin(Some(none), 0.0, 1).is_none(), "{none}");
        }
        assert!(Trace::begin(Some(&format!("01{}-more", &PARENT[2..])), 0.0, 1).is_some());
        let own: Vec<_> = (0..1000).filter_map(|_| Trace::begin(None, 0.3, 1)).collect();
        assert!((200..400).contains(&own.len()), "{}", own.len());
        assert!(own[0].id != own[1].id && own[0].span != own[1].span);
    }

    #[test]
    fn says_what_an_attempt_came_to() {
        let mut trace = Trace::begin(Some(PARENT), 0.0, 1).unwrap();
        trace.attempt();
        let header = trace.header();
        let (id, attempt, sampled) = parse(&header).unwrap();
        assert_eq!((id.to_string().as_str(), sampled), ("0af7651916cd43dd8448eb211c80319c", true));
        let usage = Usage::from_iter([(Dimension::Input, 5), (Dimension::CacheRead, 3), (Dimension::Output, 2)]);
        let line = Line { model: "gpt-5-2025".to_owned(), usage, ..Line::default() };
        let used = Used {
            reading: 1,
            source: Source::Reported,
            lines: vec![line],
            total: PicoUsd(1_500_000_000),
            catalog: String::new(),
            provider_cost: None,
            response_id: "r1".to_owned(),
            unknown: vec!["usage.quantum_tokens".to_owned()],
        };
        let open = Open {
            provider: "azure".to_owned(),
            endpoint: "/chat/completions".to_owned(),
            model: "gpt-5".to_owned(),
            start_ms: 10,
            attempt: 1,
            org: Some("acme".to_owned()),
            ..Open::default()
        };
        let close = Close {
            end_ms: 30,
            first_byte_ms: Some(20),
            status: 200,
            outcome: Outcome::Truncated,
            error: None,
            cause: None,
            faults: vec![],
            bytes_out: 1,
            metered: true,
            last_reading: Some(1),
            complete: true,
        };
        let span = trace.attempt_span(&Entry { id: "e".to_owned(), open, used: Some(used), close: Some(close) }, "acme.example");
        assert_eq!((span.name.as_ref(), span.span_context.span_id(), span.parent_span_id), ("chat gpt-5", attempt, trace.span));
        assert_eq!((span.start_time, span.end_time, span.events.len()), (time(10), time(30), 1));
        assert_eq!(span.status, Status::error("truncated"));
        let told =
            |name: &str| span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|found| found.value.to_string());
        for (name, want) in [
            ("gen_ai.provider.name", "azure.ai.openai"),
            ("gen_ai.usage.input_tokens", "8"),
            ("gen_ai.usage.output_tokens", "2"),
            ("gen_ai.usage.cache_read.input_tokens", "3"),
            ("server.address", "acme.example"),
            ("tollgate.org", "acme"),
            ("gen_ai.response.model", "gpt-5-2025"),
            ("tollgate.cost_usd", "0.0015"),
            ("http.response.status_code", "200"),
        ] {
            assert_eq!(told(name).as_deref(), Some(want), "{name}");
        }
        let told = Told {
            method: "POST",
            scheme: "https",
            path: "/v1/chat/completions",
            request_id: "q",
            status: 502,
            error: Some("upstream_broken"),
            end_ms: 40,
        };
        let exchange = trace.span(&told);
        assert_eq!((exchange.span_context.span_id(), exchange.parent_span_is_remote), (trace.span, true));
        assert_eq!((exchange.parent_span_id.to_string().as_str(), exchange.status), ("b7ad6b7169203331", Status::error("upstream_broken")));
    }

    #[test]
    fn operations_have_the_conventions_names() {
        for (endpoint, want) in [
            ("/chat/completions", "chat"),
            ("/completions", "text_completion"),
            ("/responses", "chat"),
            ("/embeddings", "embeddings"),
            (":embedContent", "embeddings"),
            (":streamGenerateContent", "generate_content"),
            ("/converse", "chat"),
            ("/images/generations", "image_generation"),
            ("/messages/count_tokens", "count_tokens"),
            (":predict", "embeddings"),
            ("/files/*", "request"),
        ] {
            assert_eq!(operation(endpoint), want, "{endpoint}");
        }
    }
}
