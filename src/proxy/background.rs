//! Answers that are made in the background: the gateway fetches each until it is done, so that it is billed also if its
//! caller never asks for it.

use super::head::{self, Outgoing};
use super::reload::Live;
use super::state::{State, now_ms, now_s};
use crate::config::{Credentials, Upstream, certificates};
use crate::dialect::Dialect;
use crate::exchange::stored_response::{StoredObject, bill, lost};
use crate::meter::{Framing, Meter};
use futures::StreamExt;
use pingora::http::RequestHeader;
use reqwest::{Client, redirect};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often one is asked for: at first, and as time goes by.
const PERIOD: Duration = Duration::from_secs(2);
const PERIOD_MAX: Duration = Duration::from_secs(60);
/// Of one that is not done by then nothing more is expected.
const PATIENCE_MS: u64 = 48 * 3600 * 1000;
/// One that its provider does not know is asked for again for so long: an account may be changed and changed back.
const GONE_AFTER: Duration = Duration::from_secs(600);
const TIMEOUT: Duration = Duration::from_secs(20);
/// A longer answer is not read.
pub const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Asked for at once.
const AT_ONCE: usize = 16;

/// What is fetched and when next, and with what.
#[derive(Default)]
pub struct Background {
    due: HashMap<String, Due>,
    clients: HashMap<Option<PathBuf>, Client>,
}

/// When one is asked for, and how long after that again.
struct Due {
    at: Instant,
    period: Duration,
    /// Since when who should know it does not.
    missed: Option<Instant>,
}

/// What came of asking.
enum Came {
    NotYet,
    Done(Box<Meter>),
    Gone,
}

impl Background {
    /// Asks for those that are due.
    pub async fn run(&mut self, state: &Arc<State>) {
        let held = state.held();
        let pending = state.answers.pending();
        let ids: HashSet<&str> = pending.iter().map(|kept| kept.id.as_str()).collect();
        // Another process bills some, and may count them.
        state.let_go_of(&held, &ids);
        self.due.retain(|id, _| ids.contains(id.as_str()));
        let live = state.live.load_full();
        let mut asked = vec![];
        for kept in pending {
            let first = || Due { at: Instant::now() + PERIOD, period: PERIOD, missed: None };
            let due = self.due.entry(kept.id.clone()).or_insert_with(first);
            if due.at > Instant::now() {
                continue;
            }
            due.period = (due.period * 3 / 2).min(PERIOD_MAX);
            due.at = Instant::now() + due.period;
            let client = self.client(&live, &kept);
            asked.push((kept, client));
        }
        let fetched = futures::stream::iter(asked).map(|(kept, client)| {
            let live = &live;
            async move {
                let came = match client {
                    Ok(client) => fetch(live, &kept, &client).await,
                    Err(why) => Err(why),
                };
                let came = came.unwrap_or_else(|why| {
                    log::warn!("an answer made in the background could not be fetched from `{}`: {why}", kept.upstream);
                    Came::NotYet
                });
                (kept, came)
            }
        });
        let mut fetched = fetched.buffer_unordered(AT_ONCE);
        while let Some((kept, came)) = fetched.next().await {
            if self.due.get_mut(&kept.id).is_none_or(|due| due.is_over(&came, Instant::now())) {
                settle(state, &live, &kept, came);
            }
        }
    }

    /// One for each set of certificates to trust.
    fn client(&mut self, live: &Live, kept: &StoredObject) -> Result<Client, String> {
        let upstream = live.config.upstream(&kept.upstream).and_then(|at| live.config.upstreams.get(at));
        let ca = upstream.ok_or("it is no longer configured")?.ca.clone();
        if let Some(client) = self.clients.get(&ca) {
            return Ok(client.clone());
        }
        let client = client(ca.as_deref())?;
        self.clients.insert(ca, client.clone());
        Ok(client)
    }
}

impl Due {
    /// False for one that is gone, but not for long.
    fn is_over(&mut self, came: &Came, now: Instant) -> bool {
        if !matches!(came, Came::Gone) {
            self.missed = None;
            return true;
        }
        now.duration_since(*self.missed.get_or_insert(now)) >= GONE_AFTER
    }
}

fn settle(state: &State, live: &Live, kept: &StoredObject, came: Came) {
    let (config, now) = (&live.config, now_ms());
    let started = kept.pending.as_ref().map_or(0, |open| open.start_ms);
    let closed = match came {
        Came::Done(meter) => bill(kept, meter.found(), config, now),
        Came::NotYet if now.saturating_sub(started) < PATIENCE_MS => return,
        Came::NotYet => lost(kept, "not_done_in_time", now),
        Came::Gone => lost(kept, "gone", now),
    };
    if let Some(closed) = closed {
        if closed.entry.used.is_none() {
            log::error!(
                "the bill of an answer made in the background at `{}` never became known: entry {}",
                kept.upstream,
                closed.entry.id
            );
        }
        state.item(&closed, Some(&kept.id), config);
    }
    state.answers.billed(&kept.id);
}

async fn fetch(live: &Live, kept: &StoredObject, client: &Client) -> Result<Came, String> {
    let at = live.config.upstream(&kept.upstream).ok_or("no longer configured")?;
    let upstream = live.config.upstreams.get(at).ok_or("no longer configured")?;
    // Its caller brought the key, and may fetch it.
    if upstream.credentials == Credentials::Caller {
        return Ok(Came::NotYet);
    }
    let request = request(live, at, upstream, &kept.id).await?;
    let mut answer = client.execute(request).await.map_err(|error| error.without_url().to_string())?;
    match answer.status().as_u16() {
        200 => {}
        404 | 410 => return Ok(Came::Gone),
        status => return Err(format!("it answered {status}")),
    }
    let mut meter = Meter::new(Dialect::Responses.grammar(), Framing::Whole);
    let (mut status, mut bytes) = (Status::default(), 0);
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        bytes += chunk.len() as u64;
        if bytes > ANSWER_BYTES_MAX {
            return Err("its answer is too long".to_owned());
        }
        meter.push(&chunk, |_| {});
        status.push(&chunk);
    }
    meter.finish(true);
    Ok(if status.is_final() { Came::Done(Box::new(meter)) } else { Came::NotYet })
}

/// A request as the proxy would send it.
async fn request(live: &Live, at: usize, upstream: &Upstream, id: &str) -> Result<reqwest::Request, String> {
    let held = match live.identities.get(at).and_then(Option::as_ref) {
        Some(holder) => holder.held(live.config.timeouts.connect).await,
        None => None,
    };
    let route = crate::route::stored_path(upstream, &format!("/responses/{id}")).ok_or("it keeps no answers")?;
    let mut header = RequestHeader::build("GET", route.as_bytes(), None).map_err(|error| error.to_string())?;
    let outgoing = Outgoing {
        upstream,
        proof: held.as_ref().map(|held| &held.proof),
        dialect: Dialect::Responses,
        path: &route,
        body: &[],
        headers: &[],
        request_id: &uuid::Uuid::now_v7().to_string(),
        config: &live.config,
    };
    head::upstream_request(&mut header, outgoing).map_err(|error| error.to_string())?;
    let url = format!("{}://{}{route}", if upstream.tls { "https" } else { "http" }, upstream.authority());
    let mut request = reqwest::Request::new(reqwest::Method::GET, url.parse().map_err(|_| "its address cannot be read")?);
    *request.headers_mut() = header.headers.clone();
    Ok(request)
}

fn client(ca: Option<&Path>) -> Result<Client, String> {
    let mut builder = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).no_proxy();
    if let Some(path) = ca {
        let list = certificates(path).map_err(|error| error.to_string())?;
        let list = list.iter().map(|certificate| reqwest::Certificate::from_der(certificate)).collect::<Result<Vec<_>, _>>();
        builder = builder.tls_certs_only(list.map_err(|error| error.to_string())?);
    }
    builder.build().map_err(|error| error.to_string())
}

/// The `status` of an answer, read as it comes.
struct Status {
    scanner: crate::json::Scanner<()>,
    text: Vec<u8>,
}

impl Default for Status {
    fn default() -> Self {
        static ROOT: crate::json::Want<()> = crate::json::Want::Fields(&[("status", crate::json::Want::Take(()))]);
        Self { scanner: crate::json::Scanner::new(&ROOT), text: vec![] }
    }
}

impl Status {
    fn push(&mut self, chunk: &[u8]) {
        let mut text = std::mem::take(&mut self.text);
        // What is no JSON has no status.
        let _ = self.scanner.push(chunk, &mut Taken(&mut text));
        self.text = text;
    }

    fn is_final(&self) -> bool {
        matches!(self.text.trim_ascii(), b"\"completed\"" | b"\"failed\"" | b"\"incomplete\"" | b"\"cancelled\"")
    }
}

struct Taken<'t>(&'t mut Vec<u8>);

impl crate::json::Visit<()> for Taken<'_> {
    fn begin(&mut self, (): (), _: u64, _: u8) {
        self.0.clear();
    }

    fn bytes(&mut self, (): (), piece: &[u8]) {
        const STATUS_BYTES_MAX: usize = 64;
        if self.0.len() + piece.len() <= STATUS_BYTES_MAX {
            self.0.extend_from_slice(piece);
        }
    }

    fn end(&mut self, (): (), _: u64) {}
}

/// Forgets answers that nobody will ask for any more.
pub fn forget(state: &State) {
    state.answers.forget(now_s());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_may_come_back() {
        let now = Instant::now();
        let mut due = Due { at: now, period: PERIOD, missed: None };
        let mut over = |came: Came, after: Duration| due.is_over(&came, now + after);
        let (soon, late) = (Duration::from_secs(5), GONE_AFTER + Duration::from_secs(5));
        assert!(!over(Came::Gone, Duration::ZERO) && !over(Came::Gone, soon));
        assert!(over(Came::NotYet, soon), "it is there again");
        assert!(!over(Came::Gone, late) && !over(Came::Gone, late + soon));
        assert!(over(Came::Gone, late * 2));
    }
}
