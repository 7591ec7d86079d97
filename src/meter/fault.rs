//! Metering defects: data that marks an entry, never an error.

use crate::usage::indexed;

indexed! {
    /// A metering defect. It marks the entry; the bytes flow on.
    Fault {
        /// The body or an event that mattered is not JSON.
        Malformed = "malformed",
        /// A value is longer than it may be ([`USAGE_BYTES_MAX`] and its like).
        TooLong = "too_long",
        /// A count is negative, fractional or too large.
        BadCount = "bad_count",
        /// Parts of the usage do not add up to their whole.
        Inconsistent = "inconsistent",
        /// The usage has a round of a kind that is not known.
        UnknownRound = "unknown_round",
        /// The body is compressed in a way that cannot be read.
        Encoded = "encoded",
        /// A checksum or a length in an event stream is wrong.
        BadFrame = "bad_frame",
        /// The response ended before its document or last event did.
        CutOff = "cut_off",
        /// The charge does not fit its type.
        Overflow = "overflow",
        /// The tier that served has no price and was charged as standard.
        UnknownTier = "unknown_tier",
        /// The region where it was served has no price and was charged as any other.
        UnknownRegion = "unknown_region",
        /// The usage has a number that is not known; see `unknown`.
        UnknownUsage = "unknown_usage",
        /// A server-side tool ran whose fee is not known or not stated; see `unknown`.
        UnknownTool = "unknown_tool",
        /// The model refused before it wrote anything, and it is not known whether that is charged; it was.
        UnclearRefusal = "unclear_refusal",
        /// The provider states a cost that differs from the charge.
        CostMismatch = "cost_mismatch",
        /// Let through by configuration though nobody here can read it.
        Unmetered = "unmetered",
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// Adds one.
    pub fn add(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u16;
    }
    /// True if none occurred.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// True if `fault` occurred.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u16) != 0
    }
    /// Those that occurred.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.has(*fault))
    }
}
