//! What an answer waits for before it goes on: that its records are in the kernel's hands, or on the disk itself.

use super::commit::turn;
use super::state::State;
use crate::ledger::Due;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of one answer.
#[derive(Default)]
pub struct Dues(Mutex<Owed>);

#[derive(Clone, Copy, Default)]
struct Owed {
    written: Option<Due>,
    synced: bool,
}

impl Dues {
    /// What is sent next waits until this record is written.
    pub fn await_written(&self, due: Due) {
        self.owed().written = Some(due);
    }

    /// What is sent next waits until what was appended to the ledger is on the disk itself.
    pub fn await_synced(&self) {
        self.owed().synced = true;
    }

    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once all of it was done, or the disk has refused it, which is told. Whoever gives up waiting leaves it owed.
    pub async fn settle(&self, state: &State) {
        let Owed { written, synced } = *self.owed();
        if let Some(due) = written {
            turn().await;
            state.written(due);
            self.owed().written = None;
        }
        if synced {
            state.commits.wait().await;
            self.owed().synced = false;
        }
    }
}
