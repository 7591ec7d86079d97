//! What all requests share, and what is done with an entry once its attempt has ended.

use super::answers::Answers;
use super::body::Budget;
use super::certificates::Certificates;
use super::commit::{Commits, turn};
use super::crew::Load;
use super::recent::Recent;
use super::reload::Live;
use super::seldom::Seldom;
use super::shared::Shared;
use super::sinks::{Running, configured};
use super::socket_slots::SocketSlots;
use super::spans::Spans;
use crate::access_log::Log;
use crate::config::Config;
use crate::exchange::stored_response::{StoreHandle, StoredObject};
use crate::exchange::{Closed, Ending, Exchange, Records, amount_of, who_of};
use crate::ledger::{Due, Entry, Ledger, Rendered};
use crate::limit::{Amount, Hold, Limits};
use crate::metrics::{Metrics, follow};
use crate::sink::copies::set_aside_count;
use crate::sink::{Progress, Tail};
use crate::trace::Trace;
use arc_swap::ArcSwap;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

/// What all requests share.
pub struct State {
    pub(super) live: ArcSwap<Live>,
    pub(super) certificates: Certificates,
    pub(super) reloading: Mutex<()>,
    pub ledger: Ledger,
    pub metrics: Arc<Metrics>,
    pub access_log: Log,
    pub(super) budget: Arc<Budget>,
    /// Items of batches that were written down.
    pub(super) items: Mutex<Recent>,
    pub(super) sinks: Vec<Running>,
    pub(super) answers: Arc<Answers>,
    pub(super) commits: Arc<Commits>,
    pub(super) limits: Arc<Limits>,
    /// Who follows what other processes write to the ledger, while there are any.
    pub(super) others: Mutex<Option<Tail>>,
    /// In place of those, and of answers known here alone.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) socket_slots: SocketSlots,
    /// What is reserved for answers made in the background, by their ids.
    pub(super) background: Mutex<HashMap<String, Hold>>,
    leaving: AtomicBool,
    /// `/readyz` says so.
    unready: AtomicBool,
    /// The admin listener outlives the others, until this says so.
    admin_stop: watch::Sender<bool>,
    /// Failures of the disk, which each request may meet.
    disk_log: Seldom,
    /// Rung when something was put off that [`State::write_out`] is to write.
    pub(super) put_off: Notify,
    /// Of the gateway's workers.
    pub(super) loads: Mutex<Vec<Load>>,
    /// Where traces go.
    pub(super) spans: Option<Arc<Spans>>,
}

impl State {
    /// Puts together what was opened.
    ///
    /// # Errors
    /// If certificates cannot be read.
    pub fn new(config: Arc<Config>, ledger: Ledger, metrics: Arc<Metrics>, access_log: Log) -> io::Result<Arc<Self>> {
        let sinks = configured(&config);
        let certificates = Certificates::new(&config).map_err(io::Error::other)?;
        let spans = config.tracing.clone().map(Spans::new);
        let shared = config.redis.clone().map(Shared::new).transpose().map_err(io::Error::other)?;
        let answers = Answers::open(&config.data.join("answers.db"), shared.clone(), config.ledger.sync == crate::config::Sync::Always)
            .map_err(io::Error::other)?;
        let live = ArcSwap::from_pointee(Live::new(config, None)?);
        Ok(Arc::new(Self {
            live,
            certificates,
            reloading: Mutex::default(),
            ledger,
            metrics,
            access_log,
            budget: Budget::new(),
            items: Mutex::default(),
            sinks,
            answers: Arc::new(answers),
            commits: Arc::default(),
            limits: Arc::default(),
            others: Mutex::default(),
            shared,
            socket_slots: SocketSlots::default(),
            background: Mutex::default(),
            leaving: AtomicBool::new(false),
            unready: AtomicBool::new(false),
            admin_stop: watch::Sender::new(false),
            disk_log: Seldom::default(),
            put_off: Notify::new(),
            loads: Mutex::default(),
            spans,
        }))
    }

    /// The configuration that holds now.
    pub fn config(&self) -> Arc<Config> {
        self.live.load().config.clone()
    }

    /// Nothing new is accepted any more.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The process was told to stop: load balancers are to send it nothing new.
    pub(super) fn stop_being_ready(&self) {
        self.unready.store(true, Ordering::Relaxed);
    }

    /// True until the process was told to stop.
    pub fn is_ready(&self) -> bool {
        !self.unready.load(Ordering::Relaxed) && !self.is_leaving()
    }

    /// True once the admin listener is to stop.
    pub(super) fn admin_shutdown(&self) -> watch::Receiver<bool> {
        self.admin_stop.subscribe()
    }

    pub(super) fn stop_admin(&self) {
        self.admin_stop.send_replace(true);
    }

    /// True once nothing is under way, and nothing waits to be sent on a connection but on WebSockets without a turn.
    pub(super) fn is_idle(&self) -> bool {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let busy: usize = loads.iter().map(Load::count).sum();
        // A socket is a connection and a request.
        self.metrics.in_flight.get() == 0 && busy <= 2 * usize::try_from(self.metrics.sockets.get()).unwrap_or(0)
    }

    /// What is reserved for answers made in the background is let go: who bills them counts them then.
    pub(super) fn let_go(&self) {
        let holds = std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        holds.into_values().for_each(|hold| hold.settle(Amount::default(), now_ms()));
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// How it is doing, for those who look.
    pub fn status(&self) -> serde_json::Value {
        let sink = |sink: &Running| {
            let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
            let Progress { entries, failures, lag_bytes, .. } = &*sink.progress;
            serde_json::json!({"name": sink.name, "entries": count(entries), "failures": count(failures), "lag_bytes": count(lag_bytes)})
        };
        let config = self.config();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "in_flight": self.metrics.in_flight.get(),
            "streams": self.metrics.streams.get(),
            "websockets": self.metrics.sockets.get(),
            "draining": self.metrics.draining.get(),
            "ejected": self.ejected(),
            "config_holds": self.metrics.config_holds(),
            "catalog": config.prices.version,
            "providers": config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>(),
            "ledger": {
                "failing": self.ledger.is_failing(), "waiting_bytes": self.ledger.waiting_bytes(),
                "failures": self.ledger.failures(), "lost": self.ledger.lost(),
            },
            "sinks": self.sinks.iter().map(sink).collect::<Vec<_>>(),
        })
    }

    /// Candidates that are left out.
    fn ejected(&self) -> Vec<String> {
        let (live, now) = (self.live.load(), now_ms());
        let out = live.health.candidates().filter(|(_, _, circuit)| circuit.is_ejected(now));
        let mut names: Vec<_> = out.map(|(provider, model, _)| format!("{provider}/{model}")).collect();
        names.sort_unstable();
        names
    }

    /// All metrics, as Prometheus reads them.
    pub fn exposition(&self) -> String {
        let now = now_ms();
        for (provider, model, circuit) in self.live.load().health.candidates() {
            self.metrics.candidate(provider, model, &circuit.ejections, circuit.is_ejected(now));
        }
        self.metrics.waiting(self.ledger.waiting_bytes());
        self.metrics.render()
    }

    /// Begins to fetch what clouds hand out. Called again and again: a reload may have brought new ones.
    pub(super) fn start_identities(&self) {
        self.live.load().identities.iter().flatten().for_each(|holder| holder.start(&self.metrics));
    }

    /// Writes that an attempt begins. False if it must not.
    pub(super) fn begin(&self, id: &str, record: &Rendered, config: &Config) -> bool {
        if config.ledger.serve_unwritten {
            self.append(id, record);
            return true;
        }
        self.begun(|ledger| ledger.append(id, record))
    }

    /// The same together with what others of this thread append in this turn.
    pub(super) async fn begin_together(&self, id: &str, record: &Rendered, config: &Config) -> bool {
        if config.ledger.serve_unwritten {
            let due = self.ledger.put_used(id, record);
            turn().await;
            self.written(due);
            return true;
        }
        let due = self.ledger.put_open(id, record);
        turn().await;
        self.begun(|ledger| ledger.opened(due, id, record))
    }

    fn begun(&self, write: impl FnOnce(&Ledger) -> io::Result<()>) -> bool {
        let known = self.ledger.is_failing();
        let written = write(&self.ledger);
        // It may be whole, and others that were written with it are not.
        if !known && self.ledger.is_failing() {
            // Once is enough: callers, metrics and the access log hear of each.
            let why = written.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
            self.disk_log.error(format_args!("attempts are refused, since the ledger cannot be written{why}"));
        }
        written.is_ok()
    }

    /// Writes what an attempt used; kept if the disk does not take it.
    pub(super) fn append(&self, id: &str, record: &Rendered) {
        if let Err(error) = self.ledger.append_or_keep(id, record) {
            self.disk_log.error(format_args!("a ledger record of entry {id} waits for the disk: {error}"));
        }
    }

    /// The same of one that was put into the ledger before.
    pub(super) fn written(&self, due: Due) {
        if let Err(error) = self.ledger.written(due) {
            self.disk_log.error(format_args!("records of the ledger wait for the disk: {error}"));
        }
    }

    /// Writes what requests put off, at the end of the process.
    pub fn finish(&self) {
        self.write_out();
        self.access_log.finish();
    }

    /// Writes what requests put off, but for the access log: who reads that may take nothing for long.
    pub fn write_out(&self) {
        let known = self.ledger.is_failing();
        match self.ledger.flush() {
            Err(error) if !known => self.disk_log.error(format_args!("the ledger cannot be written: {error}")),
            Ok(()) if known && !self.ledger.is_failing() => log::warn!("the ledger can be written again"),
            _ => {}
        }
        // The ledger counts; the metric follows.
        let failures = self.ledger.failures();
        self.metrics.ledger_failures.inc_by(failures.saturating_sub(self.metrics.ledger_failures.get()));
        self.metrics.ledger_lost.inc_by(self.ledger.lost().saturating_sub(self.metrics.ledger_lost.get()));
        if let Some(shared) = &self.shared {
            follow(&self.metrics.unlimited, &shared.unlimited);
            follow(&self.metrics.unheard, &shared.lost);
        }
        if let Some(spans) = &self.spans {
            self.metrics.spans(&spans.sent, &spans.dropped);
        }
        for sink in &self.sinks {
            self.metrics.sink(sink.name, &sink.progress);
        }
        self.metrics.set_aside(set_aside_count());
        self.answers.write_out(now_s());
    }

    /// Ends an attempt: the ledger first, then what is derived from the entry.
    pub(super) fn close(&self, exchange: &mut Exchange, ending: &Ending, trace: Option<&Trace>) {
        let mut hold = None;
        self.remember(exchange, &mut hold);
        if let Some(closed) = exchange.close(ending, now_ms()) {
            self.closed(&closed, exchange.config());
            self.trace(trace, &closed.entry);
        }
        hold.into_iter().for_each(|hold: Hold| exchange.settle_hold(hold, now_ms()));
    }

    /// What is known of kept answers.
    pub(super) fn store(&self) -> StoreHandle {
        StoreHandle(Some(self.answers.clone()))
    }

    /// Remembers answers that a provider keeps.
    pub(super) fn remember(&self, exchange: &mut Exchange, hold: &mut Option<Hold>) {
        let kept = exchange.take_stored_responses();
        if !kept.is_empty() {
            self.keep(kept);
        }
        if let Some(id) = exchange.owes()
            && let Some(reserved) = hold.take()
        {
            // Its bill will settle it.
            self.background.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), reserved);
        }
    }

    /// Remembers answers that are to be found again.
    pub(super) fn keep(&self, kept: Vec<StoredObject>) {
        self.answers.remember(kept, now_s());
        self.put_off.notify_one();
    }

    /// Lets go what is reserved for answers that somebody else has billed: of those that were held before it was known which
    /// are open.
    pub(super) fn let_go_of(&self, held: &[String], open: &HashSet<&str>) {
        let mut holds = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|id| !open.contains(id.as_str())).for_each(|id| drop(holds.remove(id)));
    }

    /// The answers for which something is reserved.
    pub(super) fn held(&self) -> Vec<String> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Writes down an item of a batch, or the bill of an answer made in the background (`kept`), unless that was done before.
    pub(super) fn item(&self, item: &Closed, kept: Option<&str>, config: &Config) {
        if !self.items.lock().unwrap_or_else(PoisonError::into_inner).is_new(&item.entry.id) {
            return;
        }
        let (id, Records { open, used, close }) = (&item.entry.id, &item.records);
        if let Err(error) = self.ledger.append_all(id, std::iter::once(open).chain(used).chain([close])) {
            self.disk_log.error(format_args!("the ledger records of entry {id} wait for the disk: {error}"));
        }
        self.tell(item, config);
        let (came_to, now) = (amount_of(&item.entry), now_ms());
        match kept.and_then(|kept| self.background.lock().unwrap_or_else(PoisonError::into_inner).remove(kept)) {
            Some(hold) if item.cost_unknown => hold.keep(now),
            Some(hold) => hold.settle(came_to, now),
            // Nothing was reserved for it.
            None => self.recall(&item.entry, config, came_to, now),
        }
    }

    fn recall(&self, entry: &Entry, config: &Config, came_to: Amount, now: u64) {
        let who = who_of(&entry.open);
        match &self.shared {
            Some(shared) => shared.recall(&config.limits, &who, &entry.id, came_to, now),
            None => self.limits.recall(&*config.limits, &who, came_to, now),
        }
    }

    /// Writes down what has ended.
    pub(super) fn closed(&self, closed: &Closed, config: &Config) {
        let id = &closed.entry.id;
        if let Some(used) = closed.usage_news() {
            self.append(id, used);
        }
        self.ledger.append_later(id, &closed.records.close);
        if closed.unreserved {
            self.recall(&closed.entry, config, amount_of(&closed.entry), now_ms());
        }
        closed.gap_ms.into_iter().for_each(|gap| self.metrics.gap(&closed.entry.open.upstream, gap));
        self.tell(closed, config);
    }

    /// Counts and logs what was written down.
    fn tell(&self, closed: &Closed, config: &Config) {
        self.metrics.attempt(&closed.entry, config);
        self.access_log.entry(&closed.entry, |buffer| closed.write_line(buffer));
        self.put_off.notify_one();
    }
}

/// Seconds since 1970.
pub(super) fn now_s() -> i64 {
    i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
