//! Serves the mock provider over sockets.

use super::timed;
use crate::mock::socket::{self, Socket};
use crate::mock::{self, Step};
use async_trait::async_trait;
use bytes::BytesMut;
use http::{HeaderValue, header};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest request body the mock takes.
const BODY_BYTES_MAX: usize = 256 << 20;

/// The app. Its clones number what they make together.
#[derive(Clone)]
pub struct MockApp {
    serial: Arc<AtomicU64>,
    options: HttpServerOptions,
}

impl Default for MockApp {
    fn default() -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        Self { serial: Arc::new(AtomicU64::new(1)), options }
    }
}

impl MockApp {
    /// Becomes a WebSocket, until either side closes it.
    async fn talk(&self, session: &mut ServerSession, key: &HeaderValue) -> Option<()> {
        let mut head = ResponseHeader::build(101, Some(3)).ok()?;
        head.insert_header(header::UPGRADE, "websocket").ok()?;
        head.insert_header(header::CONNECTION, "upgrade").ok()?;
        head.insert_header(header::SEC_WEBSOCKET_ACCEPT, socket::accept(key.as_bytes())).ok()?;
        session.write_response_header(Box::new(head)).await.ok()?;
        let mut socket = Socket::default();
        while let Some(chunk) = session.read_request_body().await.ok()? {
            let (steps, open) = socket.push(&chunk, &mut || self.serial.fetch_add(1, Ordering::Relaxed));
            for step in steps {
                match step {
                    Step::Send(data) => session.write_response_body(data, false).await.ok()?,
                    Step::Pause(pause) => tokio::time::sleep(pause).await,
                    Step::Cut => return None,
                }
            }
            if !open {
                break;
            }
        }
        session.shutdown().await;
        None
    }

    /// Answers one request; `None` if the connection is broken or was to be cut.
    async fn answer(&self, session: &mut ServerSession) -> Option<()> {
        if let Some(key) = session.req_header().headers.get(header::SEC_WEBSOCKET_KEY).cloned() {
            return self.talk(session, &key).await;
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = session.read_request_body().await.ok()? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_BYTES_MAX {
                return None;
            }
        }
        let target = session.req_header().uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let script = mock::answer(&target, &body, self.serial.fetch_add(1, Ordering::Relaxed));
        let mut head = ResponseHeader::build(script.status, Some(4)).ok()?;
        head.insert_header(header::CONTENT_TYPE, script.content_type).ok()?;
        match script.content_length {
            Some(length) => head.insert_header(header::CONTENT_LENGTH, length).ok()?,
            None => head.insert_header(header::TRANSFER_ENCODING, "chunked").ok()?,
        }
        if let Some(seconds) = script.retry_after_s {
            head.insert_header(header::RETRY_AFTER, seconds.to_string()).ok()?;
        }
        if let Some((name, value)) = script.error_header {
            head.insert_header(name, value).ok()?;
        }
        session.write_response_header(Box::new(head)).await.ok()?;
        let mut steps = script.steps.into_iter().filter(|step| !matches!(step, Step::Send(data) if data.is_empty())).peekable();
        while let Some(step) = steps.next() {
            match step {
                Step::Send(data) => session.write_response_body(data, steps.peek().is_none()).await.ok()?,
                Step::Pause(pause) => tokio::time::sleep(pause).await,
                Step::Cut => {
                    session.shutdown().await;
                    return None;
                }
            }
        }
        Some(())
    }
}

#[async_trait]
impl HttpServerApp for MockApp {
    async fn process_new_http(self: &Arc<Self>, mut session: ServerSession, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        timed::serves(true);
        session.set_keepalive(if *shutdown.borrow() { None } else { Some(60) });
        self.answer(&mut session).await?;
        timed::serves(false);
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
