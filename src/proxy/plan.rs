//! Reads a request and decides where it goes.

use super::access;
use super::bill;
use super::body::{self, Limits};
use super::cors;
use super::ctx::Ctx;
use super::gateway::{Gateway, request_head};
use super::head;
use super::respond;
use super::state::now_ms;
use crate::error::Error;
use crate::exchange::{Asked, Exchange};
use crate::route::{self, Destination, RequestFields};
use bytes::Bytes;
use pingora_proxy::Session;
use tokio::time::Instant;

/// What becomes of a request.
pub(super) enum Planned {
    Forward(Box<Exchange>),
    Answer(Bytes),
    /// A page may ask.
    Preflight,
}

impl Gateway {
    /// Reads and plans a request; what goes wrong is the caller's to hear.
    pub(super) async fn plan(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Planned, Error> {
        let state = &self.state;
        let live = ctx.live.as_ref().ok_or(Error::Internal)?;
        let (config, health) = (live.config.clone(), live.health.clone());
        let request = session.req_header();
        if ctx.readers.are_pages() && cors::is_preflight(request) {
            return Ok(Planned::Preflight);
        }
        ctx.dialect = route::caller_dialect(request.uri.path(), &request.headers);
        let caller = self.admit(request, &config)?;
        ctx.key_name = caller.as_ref().map(|caller| caller.key.name.clone());
        let head = request_head(request);
        if let Some(id) = bill::asked(&head, &config) {
            access::verify(caller.as_ref(), request, &[], &config)?;
            return bill::answer(&config, id, caller.as_ref()).await.map(Planned::Answer);
        }
        let destination = route::destination(&head, &config)?;
        if destination == Destination::Models {
            access::verify(caller.as_ref(), request, &[], &config)?;
            return Ok(Planned::Answer(respond::models(&config, caller.as_ref().map(|caller| &*caller.key))));
        }
        let limits = Limits {
            bytes_max: config.bounds.body_bytes_max,
            budget_bytes: config.bounds.body_budget_bytes,
            timeout: config.timeouts.body,
        };
        let (body, permit) = body::read(&mut session.downstream_session, limits, &state.budget).await?;
        state.metrics.read_body(body.len());
        ctx.read = Some(Instant::now());
        access::verify(caller.as_ref(), session.req_header(), &body, &config)?;
        let head = request_head(session.req_header());
        let asked = Asked {
            request_id: ctx.request_id.clone(),
            key: caller.map(|caller| caller.key),
            now: now_ms(),
            health,
            memory: state.store(),
        };
        let planned = Exchange::plan(&head, destination, &body, config, asked);
        if planned.is_err() {
            ctx.model = requested_model(&body);
        }
        let exchange = planned?;
        ctx.dialect = exchange.dialect();
        let hold = self.reserve(&exchange).await;
        if hold.is_err() {
            ctx.model = Some(exchange.model_requested().to_owned());
        }
        ctx.hold = hold?;
        let asked = session.req_header().headers.get(&head::COST_EVENT).map(|value| value == "true");
        ctx.asks_comments = asked.unwrap_or(exchange.config().cost_event);
        ctx.permit = Some(permit);
        Ok(Planned::Forward(exchange))
    }
}

/// The model that a refused request names, for the log.
fn requested_model(body: &[u8]) -> Option<String> {
    const MODEL_BYTES_MAX: usize = 128;
    let model = RequestFields::read(body, None).ok()?.model?.value;
    Some(model.get(..model.floor_char_boundary(MODEL_BYTES_MAX))?.to_owned())
}
