//! What is done beside requests: late ledger records and the access log are written, segments synced, followed by others
//! and forgotten, changed files noticed. A service of Pingora's, so that it starts after a daemon has left its terminal;
//! threads of our own would stay behind there.

use super::background::{self, Background};
use super::commit;
use super::prices::Fetching;
use super::reload::WATCH_PERIOD;
use super::state::{State, now_ms};
use crate::config::{Sync, Watch};
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a record or a log line may be put off.
const PERIOD: Duration = Duration::from_millis(20);
/// How long it looks away while nothing is put off.
const REST_MAX: Duration = Duration::from_millis(500);
/// How often what others spend is counted.
const RECALL_PERIOD: Duration = Duration::from_millis(500);
/// How often segments are looked at that may be too old.
const FORGET_PERIOD: Duration = Duration::from_secs(600);

pub struct Housekeeping(pub Arc<State>);

/// Something that is done every now and then.
struct Every(Instant);

impl Every {
    fn is_due(&mut self, period: Duration) -> bool {
        let due = self.0.elapsed() >= period;
        if due {
            self.0 = Instant::now();
        }
        due
    }

    fn left(&self, period: Duration) -> Duration {
        period.saturating_sub(self.0.elapsed())
    }
}

#[async_trait]
impl BackgroundService for Housekeeping {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut watch = Watch::default();
        let [mut look, mut fetch, mut recall, mut sync, mut rotate, mut forget] = [(); 6].map(|()| Every(Instant::now()));
        let [mut telling, mut recalling, mut syncing, mut rotating, mut forgetting] = [(); 5].map(|()| Aside::default());
        let fetching = Fetching::default();
        tokio::spawn(fetch_answers(self.0.clone()));
        commit::start(&self.0);
        self.0.spans.iter().for_each(|spans| drop(tokio::spawn(spans.clone().run())));
        self.0.shared.iter().for_each(|shared| drop(tokio::spawn(shared.clone().run())));
        loop {
            self.0.write_out();
            if self.0.access_log.waits() {
                telling.run(&self.0, |state| state.access_log.write_out());
            }
            self.0.start_identities();
            let config = self.0.config();
            let rules = &config.ledger;
            if fetch.is_due(WATCH_PERIOD) {
                fetching.run(&self.0);
            }
            if look.is_due(WATCH_PERIOD) && watch.changed(&config.files) {
                self.0.reload();
            }
            if recall.is_due(RECALL_PERIOD) {
                recalling.run(&self.0, |state| state.recall_others());
            }
            if matches!(rules.sync, Sync::Every(period) if sync.is_due(period)) {
                syncing.run(&self.0, |state| told("synced", state.ledger.sync()));
            }
            if rotate.is_due(WATCH_PERIOD) {
                let now = now_ms();
                let age = u64::try_from(rules.segment_age.as_millis()).unwrap_or(u64::MAX);
                rotating.run(&self.0, move |state| told("continued in another segment", state.ledger.rotate(now.saturating_sub(age), now)));
            }
            if rules.keep.is_some() && forget.is_due(FORGET_PERIOD) {
                let keep = rules.keep;
                forgetting.run(&self.0, move |state| forget_old(state, keep));
            }
            tokio::time::sleep(PERIOD).await;
            // A disk that refuses is asked again and again.
            if !self.0.ledger.is_failing() {
                let rest = match rules.sync {
                    // What is appended at once is put off by nobody.
                    Sync::Every(period) => sync.left(period).min(REST_MAX),
                    Sync::Never | Sync::Always => REST_MAX,
                };
                // Whichever comes first is as good.
                let _ = tokio::time::timeout(rest, self.0.put_off.notified()).await;
            }
        }
    }
}

/// Sees to answers that are made in the background.
async fn fetch_answers(state: Arc<State>) {
    let (mut background, mut forget) = (Background::default(), Every(Instant::now()));
    loop {
        background.run(&state).await;
        if forget.is_due(FORGET_PERIOD) {
            background::forget(&state);
        }
        tokio::time::sleep(WATCH_PERIOD).await;
    }
}

/// What disks and readers take their time for, so that nothing else waits. One thing at a time: what finds another under
/// way is left to the next turn.
#[derive(Default)]
struct Aside(Option<tokio::task::JoinHandle<()>>);

impl Aside {
    fn run(&mut self, state: &Arc<State>, work: impl FnOnce(&State) + Send + 'static) {
        if self.0.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            let state = state.clone();
            self.0 = Some(tokio::task::spawn_blocking(move || work(&state)));
        }
    }
}

fn told(what: &str, done: std::io::Result<()>) {
    if let Err(error) = done {
        log::error!("the ledger could not be {what}: {error}");
    }
}

fn forget_old(state: &State, keep: Option<Duration>) {
    let before = keep.and_then(|keep| SystemTime::now().checked_sub(keep));
    match before
        .map(|before| state.ledger.forget(before, |segment, bytes| state.sinks.iter().all(|sink| sink.progress.has_taken(segment, bytes))))
    {
        Some(Ok(removed)) if removed > 0 => log::info!("{removed} ledger segments older than `keep` were removed"),
        Some(Err(error)) => log::error!("old ledger segments could not be removed: {error}"),
        _ => {}
    }
}
