//! The Responses API over a WebSocket: each `response.create` is answered with the events that a stream would have.
//! <https://platform.openai.com/docs/guides/websocket-mode>

use super::{Step, answer};
use crate::stream::websocket::{Frames, Head, Piece, mask, server_frame};
use base64::Engine;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// A longer message ends the connection.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a handshake is answered with: <https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2>.
pub fn accept(key: &[u8]) -> String {
    let digest = Sha1::new_with_prefix(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// One connection.
#[derive(Debug, Default)]
pub struct Socket {
    frames: Frames,
    frame: Head,
    opcode: u8,
    message: Vec<u8>,
    control: Vec<u8>,
}

impl Socket {
    /// Takes bytes of the client; what is sent for them, and whether the connection goes on. `serial` makes ids differ.
    pub fn push(&mut self, chunk: &[u8], serial: &mut impl FnMut() -> u64) -> (Vec<Step>, bool) {
        let (mut steps, mut open) = (vec![], true);
        let mut frames = std::mem::take(&mut self.frames);
        frames.push(chunk, |piece| match piece {
            Piece::Head { head, .. } => {
                self.frame = head;
                if !head.is_control() && head.opcode != 0 {
                    self.opcode = head.opcode;
                }
            }
            Piece::Part { raw, at } => self.keep(raw, at),
            Piece::End if self.frame.is_control() => {
                let payload = std::mem::take(&mut self.control);
                match self.frame.opcode {
                    PING => steps.push(Step::Send(server_frame(PONG, &payload).into())),
                    CLOSE => {
                        steps.push(Step::Send(server_frame(CLOSE, &payload).into()));
                        open = false;
                    }
                    _ => {}
                }
            }
            Piece::End if self.frame.fin => {
                let message = std::mem::take(&mut self.message);
                if self.opcode == TEXT {
                    steps.extend(turn(&message, serial()));
                }
            }
            Piece::End => {}
            Piece::Broken => open = false,
        });
        self.frames = frames;
        (steps, open && self.message.len() <= MESSAGE_BYTES_MAX)
    }

    fn keep(&mut self, raw: &[u8], at: u64) {
        let to = if self.frame.is_control() { &mut self.control } else { &mut self.message };
        let start = to.len();
        to.extend_from_slice(raw);
        if let (Some(plain), Some(key)) = (to.get_mut(start..), self.frame.mask) {
            mask(plain, key, at);
        }
    }
}

/// The events of a turn, a frame each.
fn turn(message: &[u8], serial: u64) -> Vec<Step> {
    let Ok(Value::Object(mut request)) = serde_json::from_slice(message) else {
        return vec![error(400, &json!({"type": "invalid_request_error", "code": "invalid_json", "message": "no JSON object"}))];
    };
    if request.remove("type").as_ref().and_then(Value::as_str) != Some("response.create") {
        return vec![error(400, &json!({"type": "invalid_request_error", "code": "unknown_type", "message": "expected response.create"}))];
    }
    request.insert("stream".to_owned(), true.into());
    let script = answer("/v1/responses", Value::Object(request).to_string().as_bytes(), serial);
    let mut text = vec![];
    let mut steps = vec![];
    for step in script.steps {
        match step {
            Step::Send(part) => {
                text.extend_from_slice(&part);
                steps.extend(events(&mut text));
            }
            step => steps.push(step),
        }
    }
    if script.status >= 400 {
        let told = serde_json::from_slice::<Value>(&text).ok().and_then(|body| body.get("error").cloned());
        return vec![error(script.status, &told.unwrap_or_default())];
    }
    steps
}

/// Takes whole events out of a stream's text.
fn events(text: &mut Vec<u8>) -> Vec<Step> {
    let mut steps = vec![];
    while let Some(end) = memchr::memmem::find(text, b"\n\n") {
        let event: Vec<u8> = text.drain(..end + 2).collect();
        let data = memchr::memmem::find(&event, b"data: ").and_then(|at| event.get(at + 6..end));
        steps.extend(data.map(|data| Step::Send(server_frame(TEXT, data).into())));
    }
    steps
}

fn error(status: u16, error: &Value) -> Step {
    Step::Send(server_frame(TEXT, json!({"type": "error", "status": status, "error": error}).to_string().as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::websocket::frame;

    fn sent(steps: &[Step]) -> Vec<Value> {
        let mut out = vec![];
        for step in steps {
            let Step::Send(bytes) = step else { continue };
            let mut payload = vec![];
            Frames::default().push(bytes, |piece| match piece {
                Piece::Part { raw, .. } => payload.extend_from_slice(raw),
                Piece::Head { head, .. } => assert!(head.mask.is_none() && head.fin),
                _ => {}
            });
            out.push(serde_json::from_slice(&payload).unwrap_or_default());
        }
        out
    }

    #[test]
    fn accepts_as_the_standard_has_it() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn answers_each_turn_wherever_its_frame_is_cut() {
        let ask = frame(TEXT, [1, 2, 3, 4], br#"{"type":"response.create","model":"mock-small?chunks=2","input":"hi"}"#);
        for at in 0..=ask.len() {
            let (mut socket, mut steps) = (Socket::default(), vec![]);
            for part in [&ask[..at], &ask[at..]] {
                let (new, open) = socket.push(part, &mut || 1);
                assert!(open);
                steps.extend(new);
            }
            let events = sent(&steps);
            let last = events.last().unwrap();
            assert_eq!((events[0]["type"].as_str(), last["type"].as_str()), (Some("response.created"), Some("response.completed")));
            assert!(last["response"]["usage"]["input_tokens"].is_u64());
        }
    }

    #[test]
    fn tells_errors_answers_pings_and_closes() {
        let mut socket = Socket::default();
        for (text, code) in [("[]", "invalid_json"), (r#"{"type":"x"}"#, "unknown_type")] {
            let (steps, open) = socket.push(&frame(TEXT, [0; 4], text.as_bytes()), &mut || 1);
            assert_eq!((sent(&steps)[0]["error"]["code"].as_str(), open), (Some(code), true));
        }
        let failing = frame(TEXT, [0; 4], br#"{"type":"response.create","model":"mock-small?error=429"}"#);
        assert_eq!(sent(&socket.push(&failing, &mut || 1).0)[0]["status"], 429);
        assert_eq!(socket.push(&frame(PING, [9; 4], b"p"), &mut || 1), (vec![Step::Send(server_frame(PONG, b"p").into())], true));
        assert!(!socket.push(&frame(CLOSE, [9; 4], &[3, 232]), &mut || 1).1);
    }
}
