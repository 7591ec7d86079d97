//! What an answer waits for before it goes on: that its records are in the kernel's hands, or on the disk itself.

use super::state::State;
use crate::ledger::Due;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Of one answer.
#[derive(Default)]
pub struct Dues {
    any: AtomicBool,
    owed: Mutex<Owed>,
}

#[derive(Default)]
struct Owed {
    written: Option<Due>,
    synced: bool,
}

impl Dues {
    /// What is sent next waits until this record is written.
    pub fn written(&self, due: Due) {
        self.owe(|owed| owed.written = Some(due));
    }

    /// What is sent next waits until what was appended to the ledger is on the disk itself.
    pub fn synced(&self) {
        self.owe(|owed| owed.synced = true);
    }

    fn owe(&self, what: impl FnOnce(&mut Owed)) {
        what(&mut self.owed.lock().unwrap_or_else(PoisonError::into_inner));
        self.any.store(true, Ordering::Release);
    }

    /// Returns once nothing is owed any more.
    pub async fn settle(&self, state: &State) {
        if !self.any.load(Ordering::Relaxed) || !self.any.swap(false, Ordering::Acquire) {
            return;
        }
        let Owed { written, synced } = std::mem::take(&mut *self.owed.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(due) = written {
            turn().await;
            state.written(due);
        }
        if synced {
            state.commits.wait().await;
        }
    }
}

/// Lets all else go on that this thread has to do now: what it appends to the ledger goes along in one write.
pub async fn turn() {
    tokio::task::yield_now().await;
}
