//! The admin listener: health, metrics, usage and the dashboard, for this machine or whoever has the token. To be read, but
//! for the reload.

mod ui;
mod usage;

use crate::config::Secret;
use crate::keys::hash;
use crate::proxy::{State, check_origin, check_site, now_ms, serves};
use crate::sink::report::BILL;
use async_trait::async_trait;
use http::{HeaderMap, Method, Response, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use usage::Answer;

const TEXT: &str = "text/plain";
const PATHS: &str = "there are /, /healthz, /readyz, /metrics, /status, /overview, /usage, /usage/requests/{id} and /reload\n";

/// True if nobody needs a token, or it is there.
fn is_trusted(headers: &HeaderMap, token: Option<&Secret>) -> bool {
    let Some(token) = token else { return true };
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    sent.is_some_and(|sent| hash(sent).ct_eq(&hash(token.expose().as_bytes())).into())
}

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
        let (config, path) = (self.state.config(), request.uri.path());
        // Where a token is asked for, the address may be called anything; else pages of others must not reach it by theirs.
        let named = config.admin_token.is_some() || matches!(path, "/healthz" | "/readyz");
        let checked = if named { check_site(request, &config, &[]) } else { check_origin(request, &config, &[]) };
        if let Err(error) = checked {
            return (error.status(), TEXT, format!("{error}\n"));
        }
        // The page is no secret; what it shows is.
        if let (&Method::GET, Some((_, kind, text))) = (&request.method, ui::file(path)) {
            return (200, kind, (*text).to_owned());
        }
        if path == "/healthz" && request.method == Method::GET {
            return self.health();
        }
        if path == "/readyz" && request.method == Method::GET {
            return self.readiness();
        }
        if !is_trusted(&request.headers, config.admin_token.as_ref()) {
            return (401, TEXT, "the admin token is needed: Authorization: Bearer …\n".to_owned());
        }
        match (&request.method, path) {
            (&Method::POST, "/reload") => self.reload(config.admin_token.is_some()).await,
            (&Method::GET, "/reload") => (405, TEXT, "POST to reload\n".to_owned()),
            (&Method::GET, "/metrics") => (200, "text/plain; version=0.0.4", self.state.exposition()),
            (&Method::GET, "/status") => (200, "application/json", self.state.status().to_string()),
            (&Method::GET, path) if matches!(path, "/usage" | "/overview") || path.starts_with(BILL) => {
                let (data, path) = (config.data.clone(), path.to_owned());
                let query = request.uri.query().unwrap_or_default().to_owned();
                let now = now_ms();
                let answered = tokio::task::spawn_blocking(move || usage::answer(&data, &path, &query, now));
                answered.await.unwrap_or_else(|_| (500, TEXT, "the report failed\n".to_owned()))
            }
            (&Method::GET, _) => (404, TEXT, PATHS.to_owned()),
            _ => (405, TEXT, "only GET is served here, and POST /reload\n".to_owned()),
        }
    }

    /// Who may change something says so, also on this machine: any page could post here.
    async fn reload(&self, may: bool) -> Answer {
        if !may {
            return (403, TEXT, "reloading over HTTP takes an `admin_token` in the configuration; send SIGHUP instead\n".to_owned());
        }
        let state = self.state.clone();
        match tokio::task::spawn_blocking(move || state.reload()).await {
            Ok(true) => (200, TEXT, "the configuration was read again and holds\n".to_owned()),
            Ok(false) => (422, TEXT, "the configuration was refused, and the one in use stays; the log says why\n".to_owned()),
            Err(_) => (500, TEXT, "the reload failed\n".to_owned()),
        }
    }

    /// Ready for new connections until the process is told to stop, and while it is healthy.
    fn readiness(&self) -> Answer {
        if self.state.is_ready() { self.health() } else { (503, TEXT, "the gateway shuts down\n".to_owned()) }
    }

    /// Healthy while the ledger takes what is written to it.
    fn health(&self) -> Answer {
        match (self.state.ledger.waiting_bytes(), self.state.ledger.is_failing()) {
            (_, false) => (200, TEXT, "ok\n".to_owned()),
            (waiting, true) => (503, TEXT, format!("the ledger cannot be written or synced; {waiting} bytes of it wait\n")),
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        serves(true);
        let (status, kind, text) = self.answer(session).await;
        serves(false);
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, text.len())
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CONTENT_SECURITY_POLICY, ui::POLICY)
            .header(header::REFERRER_POLICY, "no-referrer")
            .header("cross-origin-resource-policy", "same-origin")
            .header(header::CACHE_CONTROL, "no-store");
        response.body(text.into_bytes()).unwrap_or_default()
    }
}
