//! Open WebSockets, counted per key: each holds two connections and buffers for as long as its client likes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by key id. Clients without a key are counted together.
#[derive(Debug, Default)]
pub struct SocketSlots(Arc<Mutex<HashMap<String, usize>>>);

/// One open WebSocket of a key; dropped when it closes.
#[derive(Debug)]
pub struct SocketSlot {
    slots: Arc<Mutex<HashMap<String, usize>>>,
    key: String,
}

impl SocketSlots {
    /// Takes a slot; `None` if the key has `max` open.
    pub fn take(&self, key: Option<&str>, max: usize) -> Option<SocketSlot> {
        let key = key.unwrap_or_default().to_owned();
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = slots.entry(key.clone()).or_default();
        if *open >= max {
            return None;
        }
        *open += 1;
        drop(slots);
        Some(SocketSlot { slots: self.0.clone(), key })
    }
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slots.get_mut(&self.key) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                slots.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_bound_is_refused_until_one_closes() {
        let slots = SocketSlots::default();
        let first = slots.take(Some("a"), 2).unwrap();
        let _second = slots.take(Some("a"), 2).unwrap();
        assert!(slots.take(Some("a"), 2).is_none() && slots.take(Some("b"), 2).is_some() && slots.take(None, 2).is_some());
        drop(first);
        assert!(slots.take(Some("a"), 2).is_some());
        assert_eq!(slots.0.lock().unwrap().len(), 1, "keys without a socket are forgotten");
    }
}
