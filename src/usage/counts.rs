//! Counts that may be missing, as many kinds as there are.

/// Counts that may be missing, by number: half of what as many options take, since there are many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts<const N: usize> {
    /// Bit n is set if count n is there; the others are 0.
    there: u32,
    counts: [u64; N],
}

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        const { assert!(N <= u32::BITS as usize) };
        Self { there: 0, counts: [0; N] }
    }
}

impl<const N: usize> Counts<N> {
    pub(super) fn get(&self, at: usize) -> Option<u64> {
        let count = self.counts.get(at)?;
        (self.there & (1 << at) != 0).then_some(*count)
    }

    pub(super) fn set(&mut self, at: usize, count: Option<u64>) {
        if let Some(place) = self.counts.get_mut(at) {
            *place = count.unwrap_or(0);
            let bit = 1 << at;
            self.there = if count.is_some() { self.there | bit } else { self.there & !bit };
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.there == 0
    }

    /// The numbers of those that are there, in order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> + use<N> {
        let mut left = self.there;
        std::iter::from_fn(move || {
            let at = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            usize::try_from(at).ok()
        })
    }
}
