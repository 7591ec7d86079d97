//! What a scanner is asked for, and whom it tells.

/// What to look for at one place of a document. `S` names the value to whoever asked.
#[derive(Debug)]
pub enum Want<S: 'static> {
    /// The raw bytes of the value, whatever its type.
    Take(S),
    /// Fields of an object; anything but an object is skipped.
    Fields(&'static [(&'static str, Want<S>)]),
    /// Elements of an array: the array is announced by its bracket, then each element, and may be looked into.
    Items(S, &'static Want<S>),
    /// Nothing here.
    Skip,
}

/// Receives what was found. Offsets count from the first byte pushed.
pub trait Visit<S> {
    /// A wanted value or array element starts at `at` with the byte `first`.
    fn begin(&mut self, slot: S, at: u64, first: u8);
    /// A piece of the wanted value, in order; never called for array elements.
    fn bytes(&mut self, slot: S, piece: &[u8]);
    /// The value ended; `at` is just past its last byte.
    fn end(&mut self, slot: S, at: u64);
}

/// Why scanning stopped for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes are not JSON.
    Syntax,
    /// More than [`super::DEPTH_MAX`] containers in a request.
    TooDeep,
    /// A key of a request that is not the wanted name, but that a lenient server may take for it: other case, blanks, or
    /// letters that fold to ASCII.
    LookAlike(&'static str),
}
