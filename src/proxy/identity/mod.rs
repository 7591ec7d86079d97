//! Credentials that a cloud hands out for a while: fetched ahead of need by a task of their own, so that a request finds
//! one in memory. The clouds' own crates know where to ask.

mod aws;
mod entra;
mod google;

use crate::config::{Identity, Upstream};
use crate::metrics::Metrics;
use crate::provider::auth::AwsKeys;
use http::HeaderValue;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};

/// What is about to expire is not sent any more: the provider's clock may be ahead.
const MARGIN: Duration = Duration::from_secs(20);
/// How long before its end a credential is replaced.
const AHEAD: Duration = Duration::from_secs(300);
/// How often someone is asked who does not say when their credential ends, or who keeps one in store.
const LOOK: Duration = Duration::from_secs(60);
/// A cloud that does not answer within this has failed.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure, doubled with each further one.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// However many requests are told that the credential is wrong, it is replaced but so often.
const RENEW: Duration = Duration::from_secs(5);

/// What proves who the gateway is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The whole `Authorization` header.
    Bearer(HeaderValue),
    Aws(AwsKeys),
}

/// A proof and when it ends.
#[derive(Clone, Debug)]
pub struct Held {
    pub proof: Proof,
    until: Option<SystemTime>,
    /// Asked for again after this, where its source keeps it in store and says no more.
    look: Option<Duration>,
    since: Instant,
}

impl Held {
    /// # Errors
    /// If no header can carry the token.
    fn bearer(token: &str, until: Option<SystemTime>) -> Result<Self, String> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "the token is no text".to_owned())?;
        value.set_sensitive(true);
        Ok(Self::new(Proof::Bearer(value), until))
    }

    fn new(proof: Proof, until: Option<SystemTime>) -> Self {
        Self { proof, until, look: None, since: Instant::now() }
    }

    fn holds(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now + MARGIN < until)
    }

    /// After what time to ask for the next one.
    fn refresh_after(&self, now: SystemTime) -> Duration {
        if let Some(look) = self.look {
            return look;
        }
        let left = self.until.map(|until| until.duration_since(now).unwrap_or_default());
        // Of short-lived ones the last fifth.
        left.map_or(LOOK, |left| left.saturating_sub(AHEAD.min(left / 5))).max(RENEW)
    }
}

/// What is known of a credential.
#[derive(Clone, Debug)]
enum Known {
    /// It has been asked for.
    Awaited,
    Held(Arc<Held>),
    /// The last attempt to fetch it failed; the one before may still hold.
    Failed(Option<Arc<Held>>),
}

impl Known {
    fn held(&self) -> Option<&Arc<Held>> {
        match self {
            Self::Awaited => None,
            Self::Held(held) => Some(held),
            Self::Failed(held) => held.as_ref(),
        }
    }
}

/// The gateway as one cloud knows it.
pub struct Holder {
    upstream: String,
    identity: Identity,
    known: watch::Sender<Known>,
    renew: Arc<Notify>,
    started: AtomicBool,
}

impl Holder {
    /// Nobody is asked before [`Holder::start`].
    pub fn new(upstream: &Upstream, identity: &Identity) -> Self {
        Self {
            upstream: upstream.name.clone(),
            identity: identity.clone(),
            known: watch::Sender::new(Known::Awaited),
            renew: Arc::default(),
            started: AtomicBool::new(false),
        }
    }

    /// True if it stands for the same.
    pub fn is(&self, upstream: &Upstream) -> bool {
        self.upstream == upstream.name && upstream.identity.as_ref() == Some(&self.identity)
    }

    /// Fetches from now on, once; ends when nobody holds this any more. Called from a runtime that stays.
    pub fn start(self: &Arc<Self>, metrics: &Arc<Metrics>) {
        if !self.started.swap(true, Ordering::Relaxed) {
            tokio::spawn(keep_fresh(Arc::downgrade(self), metrics.clone()));
        }
    }

    /// The credential as it is now; waited for only while the first one is on its way.
    pub async fn held(&self, patience: Duration) -> Option<Arc<Held>> {
        let usable = |known: &Known| known.held().filter(|held| held.holds(SystemTime::now())).cloned();
        if let Some(held) = usable(&self.known.borrow()) {
            return Some(held);
        }
        let mut known = self.known.subscribe();
        // One that ended before its time (a machine that slept, a clock that was set) is replaced at once.
        if matches!(&*known.borrow(), Known::Held(_)) {
            self.renew.notify_one();
        }
        let settled = |known: &Known| usable(known).is_some() || matches!(known, Known::Failed(_));
        let settled = tokio::time::timeout(patience, known.wait_for(settled)).await;
        settled.ok()?.ok().and_then(|known| usable(&known))
    }

    /// The provider does not take it: another is fetched, unless there is one already. Where the status may also mean
    /// something else, only if it is not new.
    pub fn renew(&self, refused: &Arc<Held>, surely: bool) {
        let current = self.known.borrow().held().is_some_and(|held| Arc::ptr_eq(held, refused));
        if current && (surely || refused.since.elapsed() > LOOK) {
            self.renew.notify_one();
        }
    }
}

impl Drop for Holder {
    /// Whoever keeps it fresh finds that nobody needs that.
    fn drop(&mut self) {
        self.renew.notify_one();
    }
}

/// Keeps a credential fresh.
async fn keep_fresh(holder: Weak<Holder>, metrics: Arc<Metrics>) {
    let (mut source, mut pause) = (None, RETRY);
    loop {
        let Some(held) = holder.upgrade() else { return };
        let asked = Instant::now();
        let wait = match fetch(&mut source, &held.identity).await {
            Ok(fresh) => {
                pause = RETRY;
                let wait = fresh.refresh_after(SystemTime::now());
                metrics.identity(&held.upstream, true);
                held.known.send_replace(Known::Held(Arc::new(fresh)));
                wait
            }
            Err(why) => {
                log::error!("provider `{}`: no credential could be had: {why}", held.upstream);
                metrics.identity(&held.upstream, false);
                source = None;
                let before = held.known.borrow().held().cloned();
                held.known.send_replace(Known::Failed(before));
                let wait = pause;
                pause = (pause * 2).min(RETRY_MAX);
                wait
            }
        };
        let renew = held.renew.clone();
        drop(held);
        // By the clock on the wall, which credentials go by; the other stands still while a machine sleeps.
        let due = SystemTime::now() + wait;
        while let Ok(left) = due.duration_since(SystemTime::now()) {
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                () = renew.notified() => {
                    // What its source keeps in store is what the provider does not take.
                    source = None;
                    tokio::time::sleep_until((asked + RENEW).into()).await;
                    break;
                }
            }
        }
    }
}

/// Who is asked; keeps what it needs from one time to the next.
enum Source {
    Aws(aws::Chain),
    Google(google::Tokens),
    Entra(entra::Tokens),
}

async fn fetch(source: &mut Option<Source>, identity: &Identity) -> Result<Held, String> {
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, async {
        let source = match source {
            Some(source) => source,
            None => source.insert(open(identity).await?),
        };
        match source {
            Source::Aws(chain) => chain.fetch().await,
            Source::Google(tokens) => tokens.fetch().await,
            Source::Entra(tokens) => tokens.fetch().await,
        }
    });
    fetched.await.unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())))
}

async fn open(identity: &Identity) -> Result<Source, String> {
    Ok(match identity {
        Identity::Aws { profile, region } => Source::Aws(aws::Chain::open(profile.as_deref(), region).await?),
        Identity::GoogleDefault | Identity::GoogleFile(_) | Identity::GoogleMetadata => Source::Google(google::Tokens::open(identity)?),
        Identity::EntraSecret { .. } | Identity::EntraWorkload { .. } | Identity::EntraManaged { .. } => {
            Source::Entra(entra::Tokens::open(identity)?)
        }
    })
}

/// What went wrong, and why: libraries tell the reason apart.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let why = error.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_replaced_before_it_ends() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (lives_s, refresh_s) in [(Some(3600), 3300), (Some(100), 80), (Some(5), 5), (None, 60)] {
            let until = lives_s.map(|lives_s| now + Duration::from_secs(lives_s));
            let held = Held::bearer("hush", until).unwrap();
            assert_eq!(held.refresh_after(now).as_secs(), refresh_s, "{lives_s:?}");
            assert_eq!(held.holds(now), lives_s.is_none_or(|lives_s| lives_s > 20));
            assert!(!format!("{held:?}").contains("hush"));
        }
        assert!(Held::bearer("a\nb", None).is_err());
    }
}
