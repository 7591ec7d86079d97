//! The downstream wrapper: stands in for the caller's session once its body has been read, and hands Pingora that
//! body whole, whatever its size, on every attempt.
//!
//! Pingora forwards a body that a filter has read only out of a 64 KiB retry buffer; larger ones hang. A `Custom`
//! session may give its own. The trait is public but hidden, hence the exact version of Pingora.

use super::costs::{self, Costs, Unsent};
use super::drain::{Drain, Left};
use super::dues::Dues;
use super::failure::{LATE, is_gone};
use super::last_words;
use super::state::State;
use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{ErrorType, Result};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Says nothing, to whoever closes connections that are silent:
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes>
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// In place of an attempt: what was held of one is to be forgotten.
const FORGOTTEN: u32 = u32::MAX;

/// What the hooks and the wrapper share.
#[derive(Clone, Default)]
pub struct Outlet(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Where the real session waits after the wrapper is gone, also if a panic took the wrapper.
    slot: Mutex<Option<Box<ServerSession>>>,
    costs: Costs,
    drain: Drain,
    /// By when something must have come.
    deadline: Mutex<Option<Instant>>,
    dues: Dues,
    /// The attempt whose answer is held until its first event is known; 0: none is; [`FORGOTTEN`].
    begins: AtomicU32,
    /// What was sent ends between two events.
    between_events: AtomicBool,
}

impl Outlet {
    /// Holds the answer of an attempt until [`Outlet::begin`]: its caller sees nothing of one that begins with an error.
    pub fn await_beginning(&self, attempt: u32) {
        self.0.begins.store(attempt, Ordering::Release);
    }

    /// Says whether what is sent now ends between two events.
    pub fn set_between_events(&self, between: bool) {
        self.0.between_events.store(between, Ordering::Relaxed);
    }

    /// What is held may go.
    pub fn begin(&self) {
        self.0.begins.store(0, Ordering::Release);
    }

    /// What is held is of an attempt that failed, and nobody's.
    pub fn forget_beginning(&self) {
        self.0.begins.store(FORGOTTEN, Ordering::Release);
    }

    /// True while the answer is held until its first event is known.
    pub fn awaits_beginning(&self) -> bool {
        !matches!(self.0.begins.load(Ordering::Acquire), 0 | FORGOTTEN)
    }

    /// By when something must have come from the upstream; `None`: as long as it takes.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    fn deadline(&self) -> Option<Instant> {
        *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is sent next waits for.
    pub fn dues(&self) -> &Dues {
        &self.0.dues
    }

    pub fn costs(&self) -> &Costs {
        &self.0.costs
    }

    pub fn drain(&self) -> &Drain {
        &self.0.drain
    }
}

/// Replaces `session` by a wrapper that replays `body`, and sends a comment between events that nothing followed for
/// `keep_alive`.
pub fn install(session: &mut Box<ServerSession>, body: Bytes, outlet: &Outlet, keep_alive: Option<Duration>, state: &Arc<State>) {
    let (inner, outlet, state) = (Some(std::mem::replace(session, placeholder())), outlet.clone(), state.clone());
    let wrapper = Wrapper { inner, outlet, state, body, keep_alive, unsent: Unsent::default(), early: (0, vec![]), left: None };
    **session = ServerSession::Custom(Box::new(wrapper));
}

/// Puts the real session back. Nothing happens if that was done before.
pub fn uninstall(session: &mut Box<ServerSession>, outlet: &Outlet) {
    if session.is_custom() {
        // Dropping the wrapper leaves the inner session in the slot.
        **session = ServerSession::Custom(Box::new(()));
    }
    if let Some(inner) = outlet.0.slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
        *session = inner;
    }
}

fn placeholder() -> Box<ServerSession> {
    Box::new(ServerSession::Custom(Box::new(())))
}

struct Wrapper {
    /// Taken only when dropped.
    inner: Option<Box<ServerSession>>,
    outlet: Outlet,
    state: Arc<State>,
    body: Bytes,
    unsent: Unsent,
    keep_alive: Option<Duration>,
    /// What is held until the first event is known, and of which attempt.
    early: (u32, Vec<HttpTask>),
    /// The caller is gone; what comes is read for its bill.
    left: Option<Left>,
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        *self.outlet.0.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.inner.take();
    }
}

impl Wrapper {
    fn inner(&self) -> &ServerSession {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("the inner session leaves only in drop"),
        }
    }

    fn inner_mut(&mut self) -> &mut ServerSession {
        match &mut self.inner {
            Some(inner) => inner,
            None => unreachable!("the inner session leaves only in drop"),
        }
    }
}

impl Wrapper {
    /// True if the error means that the caller left, and its answer is read all the same.
    fn leaves(&mut self, error: &pingora::Error) -> bool {
        if self.left.is_none() && is_gone(error.etype()) {
            self.left = self.outlet.0.drain.begin();
        }
        self.left.is_some()
    }
}

impl Wrapper {
    /// After what silence a comment is due, if one ever is here. Over HTTP/2 one that is given up half written would take
    /// what follows along, and connections have pings of their own.
    fn next_word(&self) -> Option<Duration> {
        if self.inner().is_http2() {
            return None;
        }
        let grows = |head: &ResponseHeader| !head.status.is_informational() && !head.headers.contains_key(http::header::CONTENT_LENGTH);
        self.keep_alive.filter(|_| self.inner().response_written().is_some_and(grows))
    }

    /// Waits for the caller to leave, and tells it now and then that its stream goes on. Whoever waits here drops this for
    /// what the upstream sends; a comment that has begun is whole in what is gathered for the caller.
    async fn idle(&mut self, pause: Duration) -> Result<Option<Bytes>> {
        loop {
            let (deadline, next) = (self.outlet.deadline(), Instant::now() + pause);
            let until = deadline.map_or(next, |deadline| deadline.min(next));
            if let Ok(read) = tokio::time::timeout_at(until, self.inner_mut().read_body_or_idle(true)).await {
                return read;
            }
            if deadline.is_some_and(|deadline| deadline <= until) {
                return Err(pingora::Error::new(ErrorType::Custom(LATE)));
            }
            if self.outlet.0.between_events.load(Ordering::Relaxed) {
                self.inner_mut().write_response_body(Bytes::from_static(KEEP_ALIVE), false).await?;
            }
        }
    }

    /// What may go of what is to be sent: nothing before the first event of an answer is known. `None`: nothing.
    fn begun(&mut self, mut tasks: Vec<HttpTask>) -> Option<Vec<HttpTask>> {
        let mut attempt = self.outlet.0.begins.load(Ordering::Acquire);
        if attempt != 0 && self.early.0 != attempt {
            self.early = (attempt, vec![]);
        }
        if attempt == FORGOTTEN {
            self.outlet.begin();
            attempt = 0;
        }
        if attempt != 0 && tasks.iter().any(|task| matches!(task, HttpTask::Failed(_))) {
            // Nothing was sent, and nothing is of an answer that broke off before it began.
            self.early = (0, vec![]);
            return Some(tasks.into_iter().filter(|task| matches!(task, HttpTask::Failed(_))).collect());
        }
        if attempt != 0 && !tasks.iter().any(HttpTask::is_end) {
            self.early.1.append(&mut tasks);
            return None;
        }
        let (_, mut early) = std::mem::take(&mut self.early);
        if early.is_empty() {
            return Some(tasks);
        }
        early.append(&mut tasks);
        Some(early)
    }
}

type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

#[async_trait]
impl CustomSession for Wrapper {
    fn req_header(&self) -> &RequestHeader {
        self.inner().req_header()
    }
    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner_mut().req_header_mut()
    }
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }
    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner_mut().drain_request_body().await
    }
    async fn write_response_header(&mut self, header: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.inner_mut().write_response_header(header).await
    }
    async fn write_response_header_ref(&mut self, header: &ResponseHeader, _end: bool) -> Result<()> {
        self.inner_mut().write_response_header_ref(header).await
    }
    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner_mut().write_response_body(data, end).await
    }
    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner_mut().write_response_trailers(trailers).await
    }
    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.outlet.dues().settle(&self.state).await;
        if let Some(left) = &mut self.left {
            return left.swallow(tasks);
        }
        let Some(tasks) = self.begun(tasks) else { return Ok(false) };
        // With the first bytes of an answer no other attempt will follow that could need the body.
        if !self.body.is_empty() && tasks.iter().any(|task| matches!(task, HttpTask::Body(Some(data), _) if !data.is_empty())) {
            self.body = Bytes::new();
        }
        let tasks = costs::pass(&self.outlet.0.costs, &mut self.unsent, tasks);
        if tasks.is_empty() {
            return Ok(false);
        }
        let (ended, failed) = (tasks.iter().any(HttpTask::is_end), tasks.iter().any(|task| matches!(task, HttpTask::Failed(_))));
        match last_words::write(self.inner_mut(), tasks).await {
            Err(error) if !failed && self.leaves(&error) => Ok(ended),
            sent => sent,
        }
    }
    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_read_timeout(timeout);
    }
    fn get_read_timeout(&self) -> Option<Duration> {
        self.inner().get_read_timeout()
    }
    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_write_timeout(timeout);
    }
    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner().get_write_timeout()
    }
    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_total_drain_timeout(timeout);
    }
    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner().get_total_drain_timeout()
    }
    fn request_summary(&self) -> String {
        self.inner().request_summary()
    }
    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner().response_written()
    }
    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.inner_mut().shutdown().await;
    }
    fn is_body_done(&mut self) -> bool {
        true
    }
    async fn finish(&mut self) -> Result<()> {
        if self.left.is_some() {
            // A caller that only stopped sending must not take half an answer for a whole one.
            self.inner_mut().set_keepalive(None);
            self.inner_mut().shutdown().await;
            return Ok(());
        }
        self.inner_mut().finish_body().await
    }
    fn is_body_empty(&mut self) -> bool {
        self.body.is_empty()
    }
    async fn read_body_or_idle(&mut self, _no_body_expected: bool) -> Result<Option<Bytes>> {
        if self.left.is_none() {
            // The body is here; what remains is to notice that the caller leaves.
            let read = match self.next_word() {
                None => {
                    let deadline = self.outlet.deadline();
                    let read = self.inner_mut().read_body_or_idle(true);
                    match deadline {
                        None => read.await,
                        Some(deadline) => {
                            tokio::time::timeout_at(deadline, read).await.map_err(|_| pingora::Error::new(ErrorType::Custom(LATE)))?
                        }
                    }
                }
                Some(pause) => self.idle(pause).await,
            };
            match read {
                Err(error) if self.leaves(&error) => {}
                read => return read,
            }
        }
        match &self.left {
            Some(left) => Err(left.wait().await),
            None => Ok(None),
        }
    }
    fn body_bytes_sent(&self) -> usize {
        self.inner().body_bytes_sent()
    }
    fn body_bytes_read(&self) -> usize {
        self.inner().body_bytes_read()
    }
    fn digest(&self) -> Option<&Digest> {
        self.inner().digest()
    }
    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner_mut().digest_mut()
    }
    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner().client_addr()
    }
    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner().server_addr()
    }
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner().to_h1_raw()
    }
    fn enable_retry_buffering(&mut self) {}
    fn retry_buffer_truncated(&self) -> bool {
        false
    }
    fn get_retry_buffer(&self) -> Option<Bytes> {
        (!self.body.is_empty()).then(|| self.body.clone())
    }
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }
    fn restore_custom_message_reader(&mut self, _reader: Messages) -> Result<()> {
        Ok(())
    }
    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }
    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
