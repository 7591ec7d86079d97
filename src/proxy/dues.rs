//! What an answer waits for before it goes on: that its records are in the kernel's hands, or on the disk itself.

use super::commit::turn;
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

#[derive(Clone, Copy, Default)]
struct Owed {
    written: Option<Due>,
    synced: bool,
}

impl Dues {
    /// What is sent next waits until this record is written.
    pub fn await_written(&self, due: Due) {
        self.owe(|owed| owed.written = Some(due));
    }

    /// What is sent next waits until what was appended to the ledger is on the disk itself.
    pub fn await_synced(&self) {
        self.owe(|owed| owed.synced = true);
    }

    fn owe(&self, what: impl FnOnce(&mut Owed)) {
        what(&mut self.owed.lock().unwrap_or_else(PoisonError::into_inner));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Returns once all of it was done, or the disk has refused it, which is told. Whoever gives up waiting leaves it owed.
    pub async fn settle(&self, state: &State) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let Owed { written, synced } = *self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(due) = written {
            turn().await;
            state.written(due);
        }
        if synced {
            state.commits.wait().await;
        }
        *self.owed.lock().unwrap_or_else(PoisonError::into_inner) = Owed::default();
        self.any.store(false, Ordering::Relaxed);
    }
}
