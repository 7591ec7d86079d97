//! What is told to the server beside requests: bills, whose answers are, and that requests are still under way.

use super::line::is_lost;
use super::{Counted, IDLE_MONEY, Job, LEASE, REST, Shared, millis, nano, tokens};
use crate::ledger::is_derived;
use crate::limit::{day, day_begins, month, month_begins};
use once_cell::sync::Lazy;
use redis::{AsyncCommands, RedisResult, Script};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long it is remembered that a request was settled, so that telling it again changes nothing.
const SETTLED: Duration = Duration::from_secs(3600);
/// The same of what may be fetched again at any time.
fn remembered(id: &str) -> Duration {
    if is_derived(id) { IDLE_MONEY } else { SETTLED }
}

/// Bills told at once.
const TOLD_AT_ONCE: usize = 64;

static RENEW: Lazy<Script> = Lazy::new(|| Script::new(include_str!("renew.lua")));
static SETTLE: Lazy<Script> = Lazy::new(|| Script::new(include_str!("settle.lua")));

impl Shared {
    /// Tells what waits, and renews what is reserved, for as long as the process lives.
    pub async fn run(self: Arc<Self>) {
        let mut renewed = Instant::now();
        loop {
            if renewed.elapsed() >= LEASE / 3 {
                renewed = Instant::now();
                self.renew().await;
            }
            match self.tell_some().await {
                Some(true) => {}
                Some(false) => drop(tokio::time::timeout(LEASE / 10, self.news.notified()).await),
                None => tokio::time::sleep(REST).await,
            }
        }
    }

    /// Tells some of what waits; false if nothing did, `None` if nobody listens.
    async fn tell_some(&self) -> Option<bool> {
        let jobs: Vec<Job> = {
            let mut waiting = self.waiting();
            let some = waiting.len().min(TOLD_AT_ONCE);
            self.telling.store(some > 0, Ordering::Release);
            waiting.drain(..some).collect()
        };
        if jobs.is_empty() {
            return Some(false);
        }
        let told = futures::future::join_all(
            jobs.iter().map(|job| async { tokio::time::timeout(self.rules.timeout.max(REST), self.tell_one(job)).await.map_err(drop) }),
        );
        let told = told.await;
        let mut failed: Vec<Job> = vec![];
        for (job, told) in jobs.into_iter().zip(told) {
            match told {
                Ok(Ok(())) => {}
                // What is refused would be again, and hold up all others.
                Ok(Err(error)) if !is_lost(&error) && !error.is_timeout() => {
                    log::error!("a bill is lost to limits: {error}");
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(_)) | Err(()) => failed.push(job),
            }
        }
        let (done, mut waiting) = (failed.is_empty(), self.waiting());
        failed.reverse();
        failed.into_iter().for_each(|job| waiting.push_front(job));
        self.telling.store(false, Ordering::Release);
        done.then_some(true)
    }

    async fn tell_one(&self, job: &Job) -> RedisResult<()> {
        let mut connection = self.line.get()?;
        let bill = match job {
            Job::Keep { key, text, ttl } => {
                // Whose it is does not change; for how long it is remembered does.
                let options = redis::SetOptions::default().conditional_set(redis::ExistenceCheck::NX);
                connection.set_options::<_, _, ()>(key, text, options).await?;
                return connection.expire(key, i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)).await;
            }
            Job::Settle(bill) => bill,
        };
        let mut tell = SETTLE.prepare_invoke();
        tell.key(self.key("settled", &bill.id));
        tell.key(&bill.keys);
        let at = bill.at_ms;
        tell.arg(&bill.hold).arg(nano(bill.reserved.spend)).arg(day(at)).arg(month(at)).arg(day_begins(at)).arg(month_begins(at));
        tell.arg(tokens(bill.reserved)).arg(tokens(bill.actual)).arg(nano(bill.actual.spend)).arg(millis(remembered(&bill.id)));
        for Counted { tokens_per_minute, money, ttl } in &bill.rules {
            tell.arg(*tokens_per_minute).arg(i32::from(*money)).arg(millis(*ttl));
        }
        tell.invoke_async(&mut connection).await
    }

    async fn renew(&self) {
        let live: Vec<(String, Vec<String>)> = self.live().iter().map(|(hold, keys)| (hold.clone(), keys.clone())).collect();
        for some in live.chunks(TOLD_AT_ONCE) {
            let renewed = futures::future::join_all(some.iter().map(|(hold, keys)| async move {
                let mut renew = RENEW.prepare_invoke();
                renew.key(keys).arg(hold).arg(millis(LEASE));
                tokio::time::timeout(REST, async { renew.invoke_async::<()>(&mut self.line.get()?).await }).await
            }));
            if !renewed.await.iter().all(|renewed| matches!(renewed, Ok(Ok(())))) {
                log::error!("reservations of requests under way cannot be renewed");
                return;
            }
        }
    }
}
