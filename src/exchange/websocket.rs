//! The Responses API over a WebSocket: one connection with many turns, each an attempt with a ledger entry of its own. Client
//! messages are buffered whole, read as strictly as HTTP bodies and forwarded; upstream messages are forwarded at once and read
//! on the way. Nothing that the gateway cannot read goes upstream.
//! <https://platform.openai.com/docs/guides/websocket-mode>

mod turns;

use super::Ending;
use super::attempt::Attempt;
use super::limits::CostBounds;
use crate::dialect::Dialect;
use crate::error::Error;
use crate::json::{Splices, resembles, text};
use crate::limit::Hold;
use crate::meter::{Meter, prompt_tokens};
use crate::route::RequestFields;
use crate::stream::websocket::{Frames, Head, Piece, frame, mask, server_frame};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
pub use turns::SessionEvent;

/// Turns requested while another one is in progress; one more closes the connection.
pub const WAITING_MAX: usize = 16;
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;
/// <https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1>
const PROTOCOL_ERROR: u16 = 1002;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
/// <https://www.iana.org/assignments/websocket/websocket.xhtml>
const RESTART: u16 = 1012;
const CREATE: &str = "response.create";

/// Both directions of a connection.
#[derive(Debug, Default)]
pub struct WebSocketSession {
    from_client: Frames,
    from_upstream: Frames,
    /// The frames of the client's message so far, as received.
    raw: BytesMut,
    /// The payload of that message, unmasked.
    plain: Vec<u8>,
    /// A message has begun and its last frame has not ended.
    in_message: bool,
    opcode: u8,
    key: [u8; 4],
    frame: Head,
    /// A control frame that is being forwarded.
    control: BytesMut,
    upstream_frame: Head,
    /// Reads upstream messages that belong to no turn.
    unrequested: Option<Box<Meter>>,
    /// Turns that wait for the one in progress, in the order of their requests.
    waiting: VecDeque<Turn>,
    /// What a turn in progress knows besides the exchange.
    current: Progress,
    /// Client messages that request no turn: how many were forwarded, and how many of them can cause no `error` event any more.
    others_sent: u64,
    others_resolved: u64,
    /// `error` events that name no response and could concern several messages.
    unassigned_errors: u64,
    /// Nothing more of the client is forwarded.
    closed: bool,
    /// The gateway sent the client a close frame.
    close_sent: bool,
    /// The side that closed the connection first.
    closed_by: Option<Side>,
}

/// An end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// A turn that the client requests.
#[derive(Debug)]
pub struct TurnRequest {
    pub requested: String,
    pub model: String,
    /// Bytes of the message.
    pub bytes: u64,
    pub bounds: CostBounds,
    pub conversation: Option<String>,
    /// The reservation for the turn.
    pub hold: Option<Hold>,
    /// Other client messages that were forwarded before this one.
    others_before: u64,
}

/// The result of reading bytes of the client.
#[derive(Debug)]
pub struct ClientData {
    /// The bytes to forward: whole messages, and a close frame if the session is refused.
    pub forward: Bytes,
    /// The turns that these messages request.
    pub turns: Vec<TurnRequest>,
    /// Why the session is closed.
    pub refused: Option<Error>,
}

/// How far a turn is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The upstream has sent something of its response.
    started: bool,
    others_before: u64,
}

/// A turn whose `start` record is written, while another one is in progress.
#[derive(Debug)]
struct Turn {
    requested: String,
    model: String,
    bytes: u64,
    prompt: Option<u64>,
    conversation: Option<String>,
    hold: Option<Hold>,
    attempt: Option<Box<Attempt>>,
    progress: Progress,
}

impl WebSocketSession {
    /// How a turn in progress ended when the connection closed.
    pub fn ending(&self, provider: String) -> Ending {
        match self.closed_by {
            Some(Side::Upstream) => Ending::Failed(Error::UpstreamBroken { provider }),
            Some(Side::Client) | None => Ending::ClientClosed,
        }
    }

    /// Takes bytes of the client. `admit` decides about a turn by its fields and its message, and returns the model's name at the upstream. The
    /// session is refused if a message has more than `max` bytes or is not a JSON object with a `type`, if bytes are not WebSocket
    /// frames, if too many turns are requested, or if `admit` refuses one.
    pub fn on_client_data(&mut self, chunk: &[u8], max: u64, admit: impl Fn(&RequestFields, &[u8]) -> Result<String, Error>) -> ClientData {
        let (mut out, mut turns, mut failed) = (BytesMut::new(), vec![], None);
        let mut frames = std::mem::take(&mut self.from_client);
        frames.push(chunk, |piece| {
            if self.closed || failed.is_some() {
                return;
            }
            let taken = match piece {
                Piece::Head { head, raw } => self.client_head(head, raw),
                Piece::Part { raw, .. } if self.frame.is_control() => {
                    self.control.extend_from_slice(raw);
                    Ok(())
                }
                Piece::Part { raw, at } => self.client_payload(raw, at, max),
                Piece::End if self.frame.is_control() => {
                    out.extend(self.control.split());
                    Ok(())
                }
                Piece::End if self.frame.fin && self.waiting.len() + turns.len() >= WAITING_MAX => Err(Error::TooManyTurns),
                Piece::End if self.frame.fin => self.client_message(&admit, &mut out).map(|turn| turns.extend(turn)),
                Piece::End => Ok(()),
                Piece::Broken => Err(Error::BadFrame),
            };
            failed = taken.err();
        });
        self.from_client = frames;
        if let Some(error) = &failed {
            self.closed = true;
            self.closed_by.get_or_insert(Side::Client);
            (self.raw, self.plain) = (BytesMut::new(), vec![]);
            out.extend(frame(CLOSE, self.key, &close_code(error).to_be_bytes()));
        }
        ClientData { forward: out.freeze(), turns, refused: failed }
    }

    fn client_head(&mut self, head: Head, raw: &[u8]) -> Result<(), Error> {
        self.frame = head;
        // A message must end before the next one begins, and opcodes 3 to 7 and from 11 on mean nothing:
        // <https://www.rfc-editor.org/rfc/rfc6455#section-5>
        let known = head.opcode <= BINARY || (CLOSE..=PONG).contains(&head.opcode);
        let in_order = head.is_control() || (head.opcode == CONTINUATION) == self.in_message;
        if head.mask.is_none() || !known || !in_order {
            return Err(Error::BadFrame);
        }
        if head.opcode == CLOSE {
            self.closed_by.get_or_insert(Side::Client);
        }
        if head.is_control() {
            self.control.extend_from_slice(raw);
            return Ok(());
        }
        if head.opcode != CONTINUATION {
            (self.opcode, self.key) = (head.opcode, head.mask.unwrap_or_default());
        }
        self.in_message = !head.fin;
        self.raw.extend_from_slice(raw);
        Ok(())
    }

    /// Binary messages are read like text: a provider may do the same.
    fn client_payload(&mut self, raw: &[u8], at: u64, max: u64) -> Result<(), Error> {
        self.raw.extend_from_slice(raw);
        let start = self.plain.len();
        self.plain.extend_from_slice(raw);
        if let (Some(plain), Some(key)) = (self.plain.get_mut(start..), self.frame.mask) {
            mask(plain, key, at);
        }
        if self.raw.len() as u64 > max { Err(Error::BodyTooLarge { bytes_max: max }) } else { Ok(()) }
    }

    /// Bytes of memory that hold a message whose end has not arrived.
    pub fn buffered_bytes(&self) -> usize {
        self.raw.len() + self.plain.len()
    }

    /// Forwards a whole message: as received, unless the model has another name at the upstream.
    fn client_message(
        &mut self,
        admit: &impl Fn(&RequestFields, &[u8]) -> Result<String, Error>,
        out: &mut BytesMut,
    ) -> Result<Option<TurnRequest>, Error> {
        let (raw, plain) = (self.raw.split(), std::mem::take(&mut self.plain));
        let fields = RequestFields::read(&plain, Some(Dialect::Responses))?;
        let kind = fields.kind.as_deref().ok_or(Error::BadField { name: "type", want: "the type of an event" })?;
        if kind != CREATE {
            if resembles(kind.as_bytes(), CREATE) {
                return Err(Error::BadField { name: "type", want: "spelled `response.create`" });
            }
            self.others_sent += 1;
            out.extend(raw);
            return Ok(None);
        }
        if fields.background {
            return Err(Error::BadField { name: "background", want: "absent on a WebSocket; create background responses over HTTP" });
        }
        let model = admit(&fields, &plain)?;
        let requested = fields.model.as_ref().map(|model| model.value.clone()).unwrap_or_default();
        let turn = TurnRequest {
            bytes: plain.len() as u64,
            bounds: CostBounds { input: prompt_tokens(&plain), ..CostBounds::of(&fields) },
            conversation: fields.conversation,
            hold: None,
            others_before: self.others_sent,
            requested,
            model,
        };
        match fields.model.filter(|model| model.value != turn.model) {
            Some(model) => {
                let mut splices = Splices::default();
                splices.replace(model.span, text::encode(&turn.model));
                out.extend(frame(self.opcode, self.key, &splices.apply(&Bytes::from(plain))));
            }
            None => out.extend(raw),
        }
        Ok(Some(turn))
    }

    /// Closes the connection between two turns because the gateway shuts down: the close frame for the client, which may
    /// reconnect at once. `None` within an upstream frame, or if a close frame was sent.
    pub fn close_for_shutdown(&mut self) -> Option<Vec<u8>> {
        if self.close_sent || !self.from_upstream.is_between() {
            return None;
        }
        (self.closed, self.close_sent) = (true, true);
        Some(server_frame(CLOSE, &RESTART.to_be_bytes()))
    }

    /// Closes the connection because of an error: the close frame for the client.
    pub fn close_with(&mut self, error: &Error) -> Vec<u8> {
        const REASON_BYTES_MAX: usize = 123;
        let code = close_code(error);
        (self.closed, self.close_sent) = (true, true);
        let reason = error.to_string();
        let reason = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default();
        server_frame(CLOSE, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// True once the gateway sent the client a close frame: nothing follows it.
    pub fn close_sent(&self) -> bool {
        self.close_sent
    }

    /// Reads bytes of the upstream; `on` receives each part of a message, and `None` at its end.
    fn on_upstream_frames(&mut self, chunk: &[u8], mut on: impl FnMut(&mut Self, Option<&[u8]>)) {
        let mut frames = std::mem::take(&mut self.from_upstream);
        frames.push(chunk, |piece| match piece {
            Piece::Head { head, .. } => {
                if head.opcode == CLOSE {
                    self.closed_by.get_or_insert(Side::Upstream);
                }
                self.upstream_frame = head;
            }
            Piece::Part { raw, at } if !self.upstream_frame.is_control() => match self.upstream_frame.mask {
                // Servers must not mask; one that does is understood all the same.
                Some(key) => {
                    let mut plain = raw.to_vec();
                    mask(&mut plain, key, at);
                    on(self, Some(&plain));
                }
                None => on(self, Some(raw)),
            },
            Piece::End if self.upstream_frame.fin && !self.upstream_frame.is_control() => on(self, None),
            _ => {}
        });
        self.from_upstream = frames;
    }

    /// Other messages that may still cause an `error` event.
    fn unresolved_others(&self) -> u64 {
        self.others_sent - self.others_resolved
    }
}

fn close_code(error: &Error) -> u16 {
    match error {
        Error::BadFrame => PROTOCOL_ERROR,
        Error::BodyTooLarge { .. } => TOO_BIG,
        _ => POLICY,
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
