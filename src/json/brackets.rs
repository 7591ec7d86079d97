//! Which brackets of a document are open.

/// Containers open at once; one more is [`super::Malformed::TooDeep`]. serde_json refuses at the same depth.
pub const DEPTH_MAX: u32 = 128;

/// The containers that are open, from the outermost.
#[derive(Clone, Debug, Default)]
pub(super) struct Brackets {
    /// Bit n is set when the container at depth n is an object.
    objects: u128,
    depth: u32,
}

impl Brackets {
    /// How many there are.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// True if none fits in any more.
    pub(super) fn are_full(&self) -> bool {
        self.depth == DEPTH_MAX
    }

    /// Opens one more by its bracket.
    pub(super) fn open(&mut self, byte: u8) {
        let bit = 1u128 << self.depth;
        if byte == b'{' {
            self.objects |= bit;
        } else {
            self.objects &= !bit;
        }
        self.depth += 1;
    }

    /// True if the innermost is an object.
    pub(super) fn is_object(&self) -> bool {
        self.depth > 0 && self.objects & (1u128 << (self.depth - 1)) != 0
    }

    /// Closes the innermost by its bracket; false if that does not close it.
    pub(super) fn close(&mut self, byte: u8) -> bool {
        let closes = self.depth > 0 && (byte == b'}') == self.is_object();
        self.depth -= u32::from(closes);
        closes
    }
}
