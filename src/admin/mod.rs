//! The admin listener: health, metrics and usage, for this machine and whoever the operator lets reach it. Read-only.

mod usage;

use crate::proxy::{State, now_ms};
use async_trait::async_trait;
use http::{Method, Response, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;
use usage::Answer;

/// The app.
pub struct Admin {
    state: Arc<State>,
}

impl Admin {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    async fn answer(&self, session: &ServerSession) -> Answer {
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
            path if path == "/usage" || path.starts_with("/usage/requests/") => {
                let (data, path) = (self.state.config().data.clone(), path.to_owned());
                let query = request.uri.query().unwrap_or_default().to_owned();
                let now = now_ms();
                let answered = tokio::task::spawn_blocking(move || usage::answer(&data, &path, &query, now));
                answered.await.unwrap_or_else(|_| (500, "text/plain", "the report failed\n".to_owned()))
            }
            _ => (404, "text/plain", "there are /healthz, /metrics, /usage and /usage/requests/{id}\n".to_owned()),
        }
    }

    /// Healthy while the ledger takes what is written to it.
    fn health(&self) -> Answer {
        match (self.state.ledger.waiting_bytes(), self.state.ledger.is_failing()) {
            (_, false) => (200, "text/plain", "ok\n".to_owned()),
            (waiting, true) => (503, "text/plain", format!("the ledger cannot be written; {waiting} bytes of it wait\n")),
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let (status, kind, text) = self.answer(session).await;
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, text.len())
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CACHE_CONTROL, "no-store");
        response.body(text.into_bytes()).unwrap_or_default()
    }
}
