//! What several gateways share in Redis or Valkey: limits, each request reserved and settled by one script in one round
//! trip, and whose the answers are that providers keep.

mod line;
mod telling;

use crate::config::RedisRules;
use crate::error::Error;
use crate::exchange::stored_response::StoredObject;
use crate::limit::{Amount, Exceeded, Hold, Kind, Left, Rule, Settle, Standing, Who, day, day_ends, groups, less, month, month_ends};
use crate::price::PicoUsd;
pub use line::Line;
use line::Unanswered;
use once_cell::sync::Lazy;
use redis::{AsyncCommands, Script, TlsCertificates};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a reservation outlives the gateway that made it; while that lives it is renewed three times as often.
const LEASE: Duration = Duration::from_secs(60);
/// After which a counter nobody uses is forgotten: its buckets are empty by then.
const IDLE: Duration = Duration::from_secs(3600);
/// The same for money, whose month must be over.
const IDLE_MONEY: Duration = Duration::from_secs(32 * 86_400);
/// Bills that wait for Redis to come back; the oldest are lost beyond, and counted.
pub const WAITING_MAX: usize = 100_000;
/// How long a server that fails is left alone, while requests are refused or served unlimited at once.
const REST: Duration = Duration::from_millis(500);

static RESERVE: Lazy<Script> = Lazy::new(|| Script::new(include_str!("reserve.lua")));

/// The server, and what is yet to be told to it.
pub struct Shared {
    rules: RedisRules,
    /// What is told later goes over this one; each worker asks over its own.
    line: Line,
    waiting: Mutex<VecDeque<Job>>,
    news: Notify,
    /// Reservations of requests under way: the keys of their holds, by what stands there.
    live: Mutex<HashMap<String, Vec<String>>>,
    /// Some of what waited is being told.
    telling: AtomicBool,
    /// The server did not answer last time; told once.
    failing: AtomicBool,
    /// Bills that were given up, and requests that were served unlimited.
    pub lost: AtomicU64,
    pub unlimited: AtomicU64,
}

/// Something to be told.
#[derive(Debug)]
enum Job {
    Settle(Box<Bill>),
    Keep { key: String, text: String, ttl: Duration },
}

/// What a request came to, with all that telling it takes.
#[derive(Debug)]
struct Bill {
    id: String,
    /// As it stands among the holds.
    hold: String,
    /// Counters and holds, and of each pair what telling needs.
    keys: Vec<String>,
    rules: Vec<Counted>,
    reserved: Amount,
    actual: Amount,
    at_ms: u64,
}

/// What a rule counts, as far as bills go.
#[derive(Clone, Copy, Debug)]
struct Counted {
    tokens_per_minute: u64,
    money: bool,
    /// How long it is kept.
    ttl: Duration,
}

/// A request under way.
#[derive(Debug)]
struct Reserved {
    shared: Arc<Shared>,
    bill: Box<Bill>,
}

impl Settle for Reserved {
    fn settle(mut self: Box<Self>, actual: Amount, now: u64) {
        (self.bill.actual, self.bill.at_ms) = (actual, now);
        self.shared.live().remove(&self.bill.hold);
        let Self { shared, bill } = *self;
        shared.tell(Job::Settle(bill));
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Shared({})", self.rules.prefix)
    }
}

/// Why nothing was reserved.
#[derive(Debug)]
pub enum Refused {
    Exceeded(Exceeded),
    /// The server did not answer in time, and nobody is served unlimited.
    Unavailable,
}

impl Shared {
    /// # Errors
    /// If the address cannot be read.
    pub fn new(rules: RedisRules) -> Result<Arc<Self>, String> {
        let client = match rules.ca.clone() {
            None => redis::Client::open(rules.url.expose()),
            ca => redis::Client::build_with_tls(rules.url.expose(), TlsCertificates { client_tls: None, root_cert: ca }),
        };
        let client = client.map_err(|error| format!("`redis`: {:?}", error.kind()))?;
        Ok(Arc::new(Self {
            line: Line::new(client, rules.timeout),
            rules,
            waiting: Mutex::default(),
            news: Notify::new(),
            live: Mutex::default(),
            telling: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            unlimited: AtomicU64::new(0),
        }))
    }

    /// A worker's own.
    pub fn line(&self) -> Line {
        Line::new(self.line.client.clone(), self.rules.timeout)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, job: Job) {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        waiting.push_back(job);
        drop(waiting);
        self.news.notify_one();
    }

    /// True once everything was told.
    pub fn is_settled(&self) -> bool {
        self.waiting().is_empty() && !self.telling.load(Ordering::Acquire)
    }

    /// All of a name in one slot of a cluster.
    fn key(&self, kind: &str, name: &str) -> String {
        format!("{{{}}}:{kind}:{}", self.rules.prefix, hex::encode(Sha256::digest(name).get(..16).unwrap_or_default()))
    }

    /// Everything that telling needs, of rules that hold.
    fn bill(&self, rules: &[Rule], groups: &[(usize, String)], id: String, reserved: Amount, now: u64) -> Bill {
        let held = groups.iter().filter_map(|(at, group)| Some((rules.get(*at)?, group)));
        let (mut keys, mut of) = (vec![], vec![]);
        for (rule, group) in held {
            let counter = self.key("limit", &format!("{}\n{group}", rule.name));
            keys.extend([counter.clone(), format!("{counter}:holds")]);
            let money = rule.counts_money();
            let ttl = if money { IDLE_MONEY } else { IDLE };
            of.push(Counted { tokens_per_minute: rule.tokens_per_minute.unwrap_or(0), money, ttl });
        }
        let hold = format!("{id}:{}", nano(reserved.spend));
        Bill { id, hold, keys, rules: of, reserved, actual: Amount::default(), at_ms: now }
    }

    /// Reserves what a request may come to with every rule that holds for who asks, or with none. `None`: nothing limits
    /// it.
    ///
    /// # Errors
    /// The first limit that it would exceed, or that nobody can say.
    pub async fn reserve(
        self: &Arc<Self>,
        line: &Line,
        rules: &[Rule],
        who: &Who<'_>,
        amount: Amount,
        now: u64,
    ) -> Result<Option<Hold>, Refused> {
        let groups = groups(rules, who);
        if groups.is_empty() {
            return Ok(None);
        }
        let bill = self.bill(rules, &groups, uuid::Uuid::now_v7().simple().to_string(), amount, now);
        let mut ask = RESERVE.prepare_invoke();
        ask.key(self.key("settled", &bill.id)).key(&bill.keys);
        ask.arg(&bill.hold).arg(millis(LEASE)).arg(day(now)).arg(month(now)).arg(tokens(amount)).arg(nano(amount.spend));
        let held: Vec<&Rule> = groups.iter().filter_map(|(at, _)| rules.get(*at)).collect();
        for (rule, counted) in held.iter().zip(&bill.rules) {
            let counts = [rule.requests_per_minute, rule.tokens_per_minute, rule.concurrent].map(|limit| limit.unwrap_or(0));
            let money = [rule.spend_per_day, rule.spend_per_month].map(|limit| limit.map_or(0, nano));
            ask.arg(&counts).arg(&money).arg(millis(counted.ttl));
        }
        let told = match line.ask(&ask).await {
            Ok(told) => {
                self.failing.store(false, Ordering::Relaxed);
                told
            }
            Err(why) => return self.unanswered(&why, bill, now),
        };
        match told.as_slice() {
            [1, left @ ..] => Ok(Some(self.hold(bill, standing(&held, left), now))),
            [0, at, kind, period, wait] => Err(Refused::Exceeded(exceeded(&held, [*at, *kind, *period, *wait], now))),
            _ => Err(Refused::Unavailable),
        }
    }

    /// The server did not answer: nobody is served, or whoever comes, and what that came to is told later.
    fn unanswered(self: &Arc<Self>, why: &Unanswered, bill: Bill, now: u64) -> Result<Option<Hold>, Refused> {
        let first = !self.failing.swap(true, Ordering::Relaxed);
        if let Unanswered::Failed(why) = why
            && first
        {
            log::error!("limits cannot be asked for: {why}");
        }
        if !self.rules.fails_open {
            // It may have been taken all the same, and is given back; but bills come first.
            if matches!(why, Unanswered::Failed(_)) && self.waiting().len() < WAITING_MAX / 2 {
                self.tell(Job::Settle(Box::new(bill)));
            }
            return Err(Refused::Unavailable);
        }
        self.unlimited.fetch_add(1, Ordering::Relaxed);
        Ok(Some(self.hold(bill, Standing::default(), now)))
    }

    fn hold(self: &Arc<Self>, bill: Bill, standing: Standing, now: u64) -> Hold {
        self.live().insert(bill.hold.clone(), bill.keys.iter().skip(1).step_by(2).cloned().collect());
        let reserved = bill.reserved;
        Hold::elsewhere(Box::new(Reserved { shared: self.clone(), bill: Box::new(bill) }), reserved, standing, now)
    }

    /// Counts what was used without having been reserved; `id` tells whether that was done before.
    pub fn recall(&self, rules: &[Rule], who: &Who<'_>, id: &str, amount: Amount, now: u64) {
        let groups = groups(rules, who);
        if !groups.is_empty() {
            let bill = Bill { actual: amount, ..self.bill(rules, &groups, id.to_owned(), Amount::default(), now) };
            self.tell(Job::Settle(Box::new(bill)));
        }
    }

    /// Remembers for all whose an answer is.
    pub fn keep(&self, kept: &StoredObject, ttl: Duration) {
        let text = serde_json::json!({"upstream": kept.upstream, "owner": kept.owner}).to_string();
        self.tell(Job::Keep { key: self.key("answer", &kept.id), text, ttl });
    }

    /// Whose an answer is that another gateway has seen.
    ///
    /// # Errors
    /// [`Error::AnswersUnknown`] if Redis does not answer.
    pub async fn find(&self, id: &str) -> Result<Option<StoredObject>, Error> {
        let asked = async { self.line.get()?.get::<_, Option<String>>(self.key("answer", id)).await };
        let found = self.line.within(asked).await.map_err(|unanswered| {
            if let Unanswered::Failed(why) = unanswered {
                log::error!("whose an answer is cannot be asked for: {why}");
            }
            Error::AnswersUnknown
        })?;
        let found = found.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let text = |name| found.as_ref()?.get(name)?.as_str().map(str::to_owned);
        Ok(text("upstream").map(|upstream| StoredObject { id: id.to_owned(), upstream, owner: text("owner"), pending: None }))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Nano-dollars, rounded up: scripts count up to nine million dollars exactly, and nothing comes to more.
fn nano(amount: PicoUsd) -> i64 {
    const PICO: i128 = 1000;
    const EXACT_MAX: i64 = 1 << 53;
    i64::try_from(amount.0.max(0).saturating_add(PICO - 1) / PICO).unwrap_or(EXACT_MAX).min(EXACT_MAX)
}

/// As many tokens as scripts count exactly.
fn tokens(amount: Amount) -> u64 {
    const EXACT_MAX: u64 = 100_000_000_000;
    amount.tokens.min(EXACT_MAX)
}

fn standing(held: &[&Rule], left: &[u64]) -> Standing {
    let mut standing = Standing::default();
    for (rule, left) in held.iter().zip(left.chunks_exact(4)) {
        let [requests, requests_ms, tokens, tokens_ms] = *left else { continue };
        if let Some(limit) = rule.requests_per_minute {
            less(&mut standing.requests, Left { limit, remaining: requests, reset_ms: requests_ms });
        }
        if let Some(limit) = rule.tokens_per_minute {
            less(&mut standing.tokens, Left { limit, remaining: tokens, reset_ms: tokens_ms });
        }
    }
    standing
}

fn exceeded(held: &[&Rule], [at, kind, period, wait]: [u64; 4], now: u64) -> Exceeded {
    let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let kind = Kind::ALL.get(place(kind)).copied().unwrap_or(Kind::Concurrent);
    let rule = held.get(place(at).wrapping_sub(1));
    let dollars = |limit: Option<PicoUsd>| limit.map(|limit| u64::try_from(limit.0 / 1_000_000_000_000).unwrap_or(u64::MAX));
    let limit = rule.and_then(|rule| match kind {
        Kind::Requests => rule.requests_per_minute,
        Kind::Tokens => rule.tokens_per_minute,
        Kind::Concurrent => rule.concurrent,
        Kind::Day | Kind::Month | Kind::Reserved => dollars(if period == 0 { rule.spend_per_day } else { rule.spend_per_month }),
    });
    let retry_ms = match kind {
        Kind::Day => day_ends(now).saturating_sub(now),
        Kind::Month => month_ends(now).saturating_sub(now),
        _ => wait,
    };
    Exceeded { kind, limit: limit.unwrap_or(0), retry_ms }
}
