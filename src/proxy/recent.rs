//! Items of batches that were written down lately: results are fetched again and again, and need no further records. What
//! is forgotten here is written again under the same id, which the ledger takes for the same entry.

use std::collections::{HashSet, VecDeque};
use uuid::Uuid;

/// So many are remembered, at some 40 bytes each.
pub const RECENT_MAX: usize = 256 * 1024;

/// The last ids.
#[derive(Debug, Default)]
pub struct Recent {
    known: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Recent {
    /// True the first time.
    pub fn is_new(&mut self, id: &str) -> bool {
        let Ok(id) = Uuid::parse_str(id) else { return true };
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let id = |at: usize| Uuid::from_u128(at as u128).to_string();
        let mut recent = Recent::default();
        assert!(recent.is_new(&id(0)) && !recent.is_new(&id(0)));
        (1..RECENT_MAX).for_each(|at| assert!(recent.is_new(&id(at))));
        assert!(!recent.is_new(&id(0)));
        assert!(recent.is_new(&id(RECENT_MAX)) && recent.is_new(&id(0)));
        assert_eq!((recent.known.len(), recent.order.len()), (RECENT_MAX, RECENT_MAX));
    }
}
