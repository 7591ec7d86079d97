//! Sends spans to an OpenTelemetry collector over OTLP/HTTP, beside requests: a queue that is full drops and counts.

use super::ctx::Ctx;
use super::gateway::Gateway;
use super::state::{State, now_ms};
use crate::config::TracingRules;
use crate::error::Error;
use crate::ledger::Entry;
use crate::trace::{TRACEPARENT, Told, Trace};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Spans that wait to be sent; more are dropped.
pub const WAITING_MAX: usize = 16_384;
/// Spans sent together.
const TOGETHER: usize = 512;
/// How long spans wait for others.
const PERIOD: Duration = Duration::from_millis(500);
/// For a collector to take what it is sent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What waits to be sent.
pub struct Spans {
    rules: TracingRules,
    waiting: Mutex<Vec<SpanData>>,
    sending: AtomicBool,
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
}

impl Spans {
    pub fn new(rules: TracingRules) -> Arc<Self> {
        Arc::new(Self {
            rules,
            waiting: Mutex::default(),
            sending: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// Takes part in the trace of a request, if that is sampled.
    pub fn begin(&self, traceparent: Option<&str>) -> Option<Trace> {
        Trace::begin(traceparent, self.rules.sample, now_ms())
    }

    /// Sends a span sooner or later.
    pub fn push(&self, span: SpanData) {
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_MAX {
            waiting.push(span);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// True once everything was sent, or given up.
    pub fn is_empty(&self) -> bool {
        self.waiting().is_empty() && !self.sending.load(Ordering::Acquire)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<SpanData>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits, for as long as the process lives.
    pub async fn run(self: Arc<Self>) {
        let built = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT).build();
        let client = match built {
            Ok(client) => Client(client),
            Err(error) => return log::error!("traces cannot be sent: {error}"),
        };
        let headers = self.rules.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(&self.rules.endpoint)
            .with_headers(headers)
            .with_timeout(TIMEOUT)
            .build();
        let mut exporter = match exporter {
            Ok(exporter) => exporter,
            Err(error) => return log::error!("traces cannot be sent: {error}"),
        };
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        exporter.set_resource(&Resource::builder_empty().with_service_name(self.rules.service.clone()).with_attribute(version).build());
        let mut failing = false;
        loop {
            let some: Vec<SpanData> = {
                let mut waiting = self.waiting();
                let count = waiting.len().min(TOGETHER);
                self.sending.store(count > 0, Ordering::Release);
                waiting.drain(..count).collect()
            };
            let count = some.len() as u64;
            if count > 0 {
                let sent = exporter.export(some).await;
                let counted = if sent.is_ok() { &self.sent } else { &self.dropped };
                counted.fetch_add(count, Ordering::Relaxed);
                match &sent {
                    Err(error) if !failing => log::error!("traces cannot be sent, and are dropped: {error}"),
                    Ok(()) if failing => log::warn!("traces are sent again"),
                    _ => {}
                }
                failing = sent.is_err();
            }
            if count < TOGETHER as u64 {
                tokio::time::sleep(PERIOD).await;
            }
        }
    }
}

/// The gateway's own way to speak HTTP.
#[derive(Debug)]
struct Client(reqwest::Client);

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.0.execute(request.try_into()?).await?.error_for_status()?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        *response.body_mut() = answer.bytes().await?;
        Ok(response)
    }
}

impl Gateway {
    /// The place of a request in a trace that is sampled.
    pub(super) fn begin_trace(&self, request: &RequestHeader) -> Option<Box<Trace>> {
        let header = |spans: &Arc<Spans>| {
            let traceparent = request.headers.get(TRACEPARENT).and_then(|header| header.to_str().ok());
            spans.begin(traceparent)
        };
        self.state.spans.as_ref().and_then(header).map(Box::new)
    }

    /// The exchange has ended.
    pub(super) fn end_trace(&self, session: &Session, ctx: &Ctx, failed: Option<Error>) {
        let (Some(spans), Some(trace)) = (&self.state.spans, &ctx.trace) else { return };
        let (request, error) = (session.req_header(), ctx.refused.as_ref().or(failed.as_ref()));
        let told = Told {
            method: request.method.as_str(),
            scheme: if session.digest().is_some_and(|digest| digest.ssl_digest.is_some()) { "https" } else { "http" },
            path: request.uri.path(),
            request_id: &ctx.request_id,
            status: session.response_written().map_or(0, |response| response.status.as_u16()),
            error: error.map(Error::code),
            end_ms: now_ms(),
        };
        spans.push(trace.span(&told));
    }
}

impl State {
    /// Where the upstream of an entry is.
    fn host_of(&self, entry: &Entry) -> String {
        let config = self.config();
        let upstream = config.upstream(&entry.open.upstream).and_then(|at| config.upstreams.get(at));
        upstream.map(|upstream| upstream.host.clone()).unwrap_or_default()
    }

    /// An attempt has ended.
    pub(super) fn trace(&self, trace: Option<&Trace>, entry: &Entry) {
        if let (Some(spans), Some(trace)) = (&self.spans, trace) {
            spans.push(trace.attempt_span(entry, &self.host_of(entry)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_collector_takes_is_dropped_and_counted() {
        let rules = TracingRules { endpoint: String::new(), headers: vec![], sample: 1.0, service: String::new() };
        let spans = Spans::new(rules);
        let trace = spans.begin(None).unwrap();
        let told = Told { method: "POST", scheme: "http", path: "/", request_id: "r", status: 200, error: None, end_ms: 1 };
        (0..=WAITING_MAX).for_each(|_| spans.push(trace.span(&told)));
        assert_eq!((spans.waiting().len(), spans.dropped.load(Ordering::Relaxed)), (WAITING_MAX, 1));
    }
}
