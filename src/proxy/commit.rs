//! Group commit, for `ledger.sync: always`: one thread syncs the ledger for all that wait, over and over, so that however
//! many requests end at once they share a few syncs. Nothing else waits for a disk.

use super::state::State;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use tokio::sync::watch;

/// Who waits for the disk, and how far it got.
pub struct Commits {
    asked: AtomicU64,
    done: watch::Sender<u64>,
    thread: OnceLock<Thread>,
}

impl Default for Commits {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), done: watch::Sender::new(0), thread: OnceLock::new() }
    }
}

impl Commits {
    /// Waits until all that was appended before is on the disk, or the disk has refused it, which is told and counted.
    pub async fn wait(&self) {
        let mut done = self.done.subscribe();
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
        // The sender lives as long as this does.
        let _ = done.wait_for(|done| *done >= ticket).await;
    }

    /// The same where nothing can be awaited: others of this thread are served by another meanwhile.
    pub fn wait_here(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            tokio::task::block_in_place(|| runtime.block_on(self.wait()));
        }
    }

    /// Syncs for ever.
    fn serve(&self, sync: impl Fn()) {
        drop(self.thread.set(std::thread::current()));
        loop {
            let asked = self.asked.load(Ordering::SeqCst);
            if *self.done.borrow() == asked {
                std::thread::park();
                continue;
            }
            sync();
            self.done.send_replace(asked);
        }
    }
}

/// Lets all else go on that this thread has to do now: what it appends to the ledger goes along in one write.
pub async fn turn() {
    tokio::task::yield_now().await;
}

/// Starts the thread that syncs.
pub fn start(state: &Arc<State>) {
    let held = state.clone();
    let serve = move || {
        held.commits.serve(|| {
            if let Err(error) = held.ledger.sync() {
                log::error!("the ledger could not be synced: {error}");
            }
        });
    };
    if let Err(error) = std::thread::Builder::new().name("commit".to_owned()).spawn(serve) {
        log::error!("nothing will be synced: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_waits_is_on_disk_and_many_share_a_sync() {
        let commits = Arc::new(Commits::default());
        let (written, synced, syncs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        {
            let (commits, written, synced, syncs) = (commits.clone(), written.clone(), synced.clone(), syncs.clone());
            std::thread::spawn(move || {
                commits.serve(|| {
                    let upto = written.load(Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    synced.store(upto, Ordering::SeqCst);
                    syncs.fetch_add(1, Ordering::SeqCst);
                });
            });
        }
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let (commits, written, synced) = (commits.clone(), written.clone(), synced.clone());
                tokio::spawn(async move {
                    let own = written.fetch_add(1, Ordering::SeqCst) + 1;
                    commits.wait().await;
                    assert!(synced.load(Ordering::SeqCst) >= own);
                })
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
        }
        assert!(syncs.load(Ordering::SeqCst) < 100);
    }
}
