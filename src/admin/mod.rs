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

    /// Healthy while the ledger takes what is written to it.
    fn health(&self) -> (u16, &'static str, String) {
        match (self.state.ledger.waiting_bytes(), self.state.ledger.is_failing()) {
            (_, false) => (200, "text/plain", "ok\n".to_owned()),
            (waiting, true) => (503, "text/plain", format!("the ledger cannot be written; {waiting} bytes of it wait\n")),
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
