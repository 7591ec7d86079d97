//! The stack of open containers of a JSON document, in constant memory.

/// Containers open at once in a request; one more is [`super::Malformed::TooDeep`]. serde_json refuses at the same depth.
/// Responses have no such bound: a provider may echo a request inside its own objects.
pub const DEPTH_MAX: u32 = 128;

/// The containers that are open, from the outermost. The kind of the first [`DEPTH_MAX`] is known; deeper ones are only
/// counted, so that memory does not grow with the document.
#[derive(Clone, Debug, Default)]
pub(super) struct Brackets {
    /// Bit n is set when the container at depth n is an object.
    objects: u128,
    depth: u32,
}

impl Brackets {
    /// The number of open containers.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// True if as many containers are open as a request may have.
    pub(super) fn are_full(&self) -> bool {
        self.depth >= DEPTH_MAX
    }

    /// Opens a container by its bracket.
    pub(super) fn open(&mut self, byte: u8) {
        if let Some(bit) = 1u128.checked_shl(self.depth) {
            self.objects = if byte == b'{' { self.objects | bit } else { self.objects & !bit };
        }
        self.depth = self.depth.saturating_add(1);
    }

    /// True if the innermost container is an object. False for one that is only counted.
    pub(super) fn is_object(&self) -> bool {
        self.kind() == Some(true)
    }

    fn kind(&self) -> Option<bool> {
        let bit = 1u128.checked_shl(self.depth.checked_sub(1)?)?;
        Some(self.objects & bit != 0)
    }

    /// Closes the innermost container by its bracket; false if none is open or it is of the other kind.
    pub(super) fn close(&mut self, byte: u8) -> bool {
        let closes = self.depth > 0 && self.kind().is_none_or(|object| object == (byte == b'}'));
        self.depth -= u32::from(closes);
        closes
    }
}
