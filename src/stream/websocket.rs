//! WebSocket frames (<https://www.rfc-editor.org/rfc/rfc6455#section-5.2>), resumable at any byte. It owns the position
//! in the frame and must never hold a payload.

/// Longest head: two bytes, a length of eight and a mask of four.
const HEAD_BYTES_MAX: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last frame of its message.
    pub fin: bool,
    /// 0 continues a message, 1 is text, 2 binary; from 8 on frames of control.
    pub opcode: u8,
    pub mask: Option<[u8; 4]>,
    pub payload: u64,
}

impl Head {
    pub fn is_control(&self) -> bool {
        self.opcode >= 8
    }
}

/// What a chunk contained, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A head is complete; `raw` is how it stood there.
    Head { head: Head, raw: &'a [u8] },
    /// A piece of the payload, as it stood there, and how much of the payload came before.
    Part { raw: &'a [u8], at: u64 },
    /// The frame ended.
    End,
    /// What came is no frame; nothing more will be read.
    Broken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Payload,
    Broken,
}

/// The machine of one direction.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    state: State,
    held: [u8; HEAD_BYTES_MAX],
    held_len: usize,
    head: Head,
    passed: u64,
}

impl Frames {
    /// True between two frames.
    pub fn is_between(&self) -> bool {
        self.state == State::Head && self.held_len == 0
    }

    /// Cuts the next chunk into pieces.
    pub fn push(&mut self, chunk: &[u8], mut on: impl FnMut(Piece<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() && self.state != State::Broken {
            rest = match self.state {
                State::Payload => self.payload(rest, &mut on),
                _ => self.head(rest, &mut on),
            };
        }
    }

    fn head<'a>(&mut self, rest: &'a [u8], on: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let Some((&byte, rest)) = rest.split_first() else { return rest };
        if let Some(place) = self.held.get_mut(self.held_len) {
            *place = byte;
            self.held_len += 1;
        }
        let held = self.held.get(..self.held_len).unwrap_or_default();
        match read_head(held) {
            Ok(None) => {}
            Ok(Some(head)) => {
                on(Piece::Head { head, raw: held });
                (self.head, self.passed, self.held_len, self.state) = (head, 0, 0, State::Payload);
                if head.payload == 0 {
                    self.state = State::Head;
                    on(Piece::End);
                }
            }
            Err(()) => {
                self.state = State::Broken;
                on(Piece::Broken);
            }
        }
        rest
    }

    fn payload<'a>(&mut self, rest: &'a [u8], on: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let left = self.head.payload - self.passed;
        let (raw, rest) = rest.split_at(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        on(Piece::Part { raw, at: self.passed });
        self.passed += raw.len() as u64;
        if self.passed == self.head.payload {
            self.state = State::Head;
            on(Piece::End);
        }
        rest
    }
}

/// A head, `None` if bytes are missing; an error if extensions were used that nobody agreed on, or a frame of control
/// is too long or in pieces.
fn read_head(held: &[u8]) -> Result<Option<Head>, ()> {
    let [first, second, rest @ ..] = held else { return Ok(None) };
    let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
    let (masked, short) = (second & 0x80 != 0, second & 0x7f);
    let (payload, rest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    if reserved != 0 || payload > i64::MAX as u64 || (opcode >= 8 && (!fin || payload > 125)) {
        return Err(());
    }
    let mask = match (masked, rest.first_chunk::<4>()) {
        (false, _) => None,
        (true, Some(mask)) => Some(*mask),
        (true, None) => return Ok(None),
    };
    Ok(Some(Head { fin, opcode, mask, payload }))
}

/// Masks a payload, or takes the mask off, from a place in it on.
pub fn mask(bytes: &mut [u8], mask: [u8; 4], at: u64) {
    let turned = mask.iter().cycle().skip(usize::try_from(at % 4).unwrap_or(0));
    bytes.iter_mut().zip(turned).for_each(|(byte, mask)| *byte ^= mask);
}

/// A whole frame of a client.
pub fn frame(opcode: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = head(opcode, 0x80, payload.len());
    out.extend(key);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(payload) = out.get_mut(start..) {
        mask(payload, key, 0);
    }
    out
}

/// A whole frame of a server, which masks nothing.
pub fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = head(opcode, 0, payload.len());
    out.extend_from_slice(payload);
    out
}

/// The head of a whole message, but for the mask.
fn head(opcode: u8, masked: u8, length: usize) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => out.push(masked | short),
        (_, Ok(length)) => {
            out.push(masked | 126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opcode, end of message and payload of each frame; `None` for what is no frame.
    fn frames(parts: &[&[u8]]) -> Vec<Option<(u8, bool, Vec<u8>)>> {
        let (mut machine, mut out, mut now, mut payload) = (Frames::default(), vec![], Head::default(), vec![]);
        for part in parts {
            machine.push(part, |piece| match piece {
                Piece::Head { head, .. } => now = head,
                Piece::Part { raw, at } => {
                    let mut plain = raw.to_vec();
                    now.mask.into_iter().for_each(|key| mask(&mut plain, key, at));
                    payload.extend(plain);
                }
                Piece::End => out.push(Some((now.opcode, now.fin, std::mem::take(&mut payload)))),
                Piece::Broken => out.push(None),
            });
        }
        out
    }

    #[test]
    fn reads_frames_of_every_length_wherever_they_are_cut() {
        let lengths = [0usize, 1, 125, 126, 65_535, 65_536];
        let want: Vec<_> = lengths.iter().map(|length| Some((1, true, vec![b'x'; *length]))).collect();
        let bytes: Vec<u8> = lengths.iter().flat_map(|length| frame(1, [1, 2, 3, 4], &vec![b'x'; *length])).collect();
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 400) {
            assert_eq!(frames(&[&bytes[..at], &bytes[at..]]), want, "cut at {at}");
        }
        assert_eq!(frames(&bytes.chunks(1).collect::<Vec<_>>()), want);
        // RFC 6455, 5.7: an unmasked text in two fragments, with a ping between them.
        let example = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x89, 0x00, 0x80, 0x02, 0x6c, 0x6f];
        let want = vec![Some((1, false, b"Hel".to_vec())), Some((9, true, vec![])), Some((0, true, b"lo".to_vec()))];
        for at in 0..example.len() {
            assert_eq!(frames(&[&example[..at], &example[at..]]), want);
        }
    }

    #[test]
    fn refuses_what_nobody_agreed_on() {
        for bad in [&[0xc1, 0x00][..], &[0x09, 0x00], &[0x89, 0x7e, 0x00, 0x7e], &[0x81, 0x7f, 0xff, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(frames(&[bad]), [None], "{bad:02x?}");
        }
    }
}
