//! The admin listener: health and metrics, for this machine and whoever the operator lets reach it. Read-only.

use crate::proxy::State;
use async_trait::async_trait;
use http::{Method, Response, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;

/// The app.
pub struct Admin {
    state: Arc<State>,
}

impl Admin {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn answer(&self, session: &ServerSession) -> (u16, &'static str, String) {
        let request = session.req_header();
        if let Err(error) = crate::proxy::check_origin(request, &self.state.config()) {
            return (error.status(), "text/plain", format!("{error}\n"));
        }
        if request.method != Method::GET {
            return (405, "text/plain", "only GET is served here\n".to_owned());
        }
        match request.uri.path() {
            "/metrics" => (200, "text/plain; version=0.0.4", self.state.metrics.render()),
            "/healthz" => self.health(),
            _ => (404, "text/plain", "there are /healthz and /metrics\n".to_owned()),
        }
    }

    /// Healthy while everything that was to be written to the ledger has been.
    fn health(&self) -> (u16, &'static str, String) {
        match self.state.ledger.failures() {
            0 => (200, "text/plain", "ok\n".to_owned()),
            failures => (503, "text/plain", format!("{failures} ledger records could not be written\n")),
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let (status, kind, text) = self.answer(session);
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, text.len())
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CACHE_CONTROL, "no-store");
        response.body(text.into_bytes()).unwrap_or_default()
    }
}
