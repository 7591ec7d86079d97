//! The key of a JSON object as it is read: decoded on the way, in constant memory, wherever the input is cut.

/// Bytes of a key, after its escapes are decoded, that are compared; no wanted name is longer.
pub const KEY_BYTES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    /// After `\u`: the digits read so far.
    Unicode(u8),
}

/// What the input of a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The input ends inside the key.
    Open,
    /// The key ends just before this place in the input.
    Closed(usize),
    /// An escape is not valid.
    Malformed,
}

/// Reads a key that has escapes or is cut by the input's end.
#[derive(Clone, Debug)]
pub(super) struct KeyReader {
    decoded: [u8; KEY_BYTES_MAX],
    /// One more than [`KEY_BYTES_MAX`] once the key is longer.
    len: usize,
    unit: u16,
    state: State,
}

impl KeyReader {
    pub(super) const fn new() -> Self {
        Self { decoded: [0; KEY_BYTES_MAX], len: 0, unit: 0, state: State::Text }
    }

    /// True before the first byte.
    pub(super) fn is_fresh(&self) -> bool {
        self.len == 0 && self.state == State::Text
    }

    pub(super) fn reset(&mut self) {
        (self.len, self.state) = (0, State::Text);
    }

    /// The decoded key, or the beginning of one that is too long to be compared.
    pub(super) fn decoded(&self) -> &[u8] {
        self.decoded.get(..self.len).unwrap_or(&self.decoded)
    }

    /// True if the key is longer than [`KeyReader::decoded`] can say.
    pub(super) fn is_long(&self) -> bool {
        self.len > KEY_BYTES_MAX
    }

    pub(super) fn push(&mut self, bytes: &[u8], mut at: usize) -> Progress {
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            let valid = match (self.state, byte) {
                (State::Escape, _) => self.escape(byte),
                (State::Unicode(digits), _) => self.unicode(digits, byte),
                (State::Text, b'"') => return Progress::Closed(at),
                (State::Text, b'\\') => {
                    self.state = State::Escape;
                    true
                }
                (State::Text, _) => self.byte(byte),
            };
            if !valid {
                return Progress::Malformed;
            }
        }
        Progress::Open
    }

    fn byte(&mut self, byte: u8) -> bool {
        if let Some(place) = self.decoded.get_mut(self.len) {
            *place = byte;
        }
        self.len = (self.len + 1).min(KEY_BYTES_MAX + 1);
        true
    }

    fn escape(&mut self, byte: u8) -> bool {
        self.state = State::Text;
        match byte {
            b'"' | b'\\' | b'/' => self.byte(byte),
            b'b' => self.byte(0x08),
            b'f' => self.byte(0x0c),
            b'n' => self.byte(b'\n'),
            b'r' => self.byte(b'\r'),
            b't' => self.byte(b'\t'),
            b'u' => {
                (self.unit, self.state) = (0, State::Unicode(0));
                true
            }
            _ => false,
        }
    }

    fn unicode(&mut self, digits: u8, byte: u8) -> bool {
        let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
        let Some(digit) = digit else { return false };
        self.unit = (self.unit << 4) | digit;
        if digits < 3 {
            self.state = State::Unicode(digits + 1);
            return true;
        }
        self.state = State::Text;
        let mut utf8 = [0; 4];
        match char::from_u32(u32::from(self.unit)) {
            Some(letter) => letter.encode_utf8(&mut utf8).bytes().all(|byte| self.byte(byte)),
            // Half of a surrogate pair: no wanted name has one.
            None => self.byte(0xff),
        }
    }
}

/// True if a lenient server may take `key` for `name`. Go's `encoding/json` folds case by Unicode's simple folding
/// (<https://pkg.go.dev/encoding/json#Unmarshal>); C strings end at a NUL; some trim blanks.
pub fn resembles(key: &[u8], name: &str) -> bool {
    if key.len() == name.len() {
        return key.eq_ignore_ascii_case(name.as_bytes());
    }
    // A key of other length resembles the name only if it has letters beyond ASCII, control characters or blanks.
    let special = |byte: &u8| !byte.is_ascii() || byte.is_ascii_control() || *byte == b' ';
    if key.len() < name.len() || !key.iter().any(special) {
        return false;
    }
    let key = key.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(key);
    let fold = |letter: char| letter.to_uppercase().next().and_then(|upper| upper.to_lowercase().next());
    text.trim().chars().map(fold).eq(name.chars().map(fold))
}
