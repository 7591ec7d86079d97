//! The Responses API over a WebSocket: a connection of many turns, each an attempt with an entry of its own. What the
//! caller says is held message by message, since `response.create` may need another model; what the provider says
//! passes, and is read on the way. <https://platform.openai.com/docs/guides/websocket-mode>

use super::answer::Kept;
use super::limits::Bounds;
use super::who::Who;
use super::{Asked as AskedBy, Ending, Exchange, UnixMs};
use crate::config::Config;
use crate::error::Error;
use crate::json::Want::{self, Fields, Take};
use crate::json::{Splices, text};
use crate::limit::Hold;
use crate::meter::{Meter, prompt_tokens};
use crate::rewrite::spans::{count, members};
use crate::route::{self, Facts, Head as RequestHead, Target};
use crate::stream::websocket::{Frames, Head, Piece, frame, mask, server_frame};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;

/// Turns asked for while one is under way; one more ends the connection.
pub const WAITING_MAX: usize = 16;
const CLOSE: u8 = 8;
/// <https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1>
const PROTOCOL_ERROR: u16 = 1002;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
/// <https://www.iana.org/assignments/websocket/websocket.xhtml>
const RESTART: u16 = 1012;

/// Both directions of a connection.
#[derive(Debug, Default)]
pub struct Turns {
    up: Frames,
    down: Frames,
    /// Frames of the caller's message so far, as they came, and its text.
    raw: BytesMut,
    plain: Vec<u8>,
    opcode: u8,
    key: [u8; 4],
    frame: Head,
    /// Frames of control being passed on.
    control: BytesMut,
    down_frame: Head,
    /// Reads what nobody asked for.
    unasked: Option<Box<Meter>>,
    /// Models of turns that wait for the one under way.
    waiting: VecDeque<Asked>,
    /// The caller broke the bounds; nothing more of it goes up.
    closed: bool,
    /// The gateway told the caller that it closes.
    parted: bool,
    /// Who said first that it closes.
    leaver: Option<Side>,
}

/// An end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Caller,
    Provider,
}

/// A turn that the caller asked for.
#[derive(Debug)]
pub struct Asked {
    pub requested: String,
    pub model: String,
    /// Of the message.
    pub bytes: u64,
    pub bounds: Bounds,
    pub conversation: Option<String>,
    /// What is reserved for it.
    pub hold: Option<Hold>,
}

impl Turns {
    /// How a turn under way ended with the connection.
    pub fn ending(&self, provider: String) -> Ending {
        match self.leaver {
            Some(Side::Provider) => Ending::Failed(Error::UpstreamBroken { provider }),
            Some(Side::Caller) | None => Ending::ClientClosed,
        }
    }

    /// Takes bytes of the caller and returns what goes up, with the turns that begin with it. A message past `max`
    /// bytes, what is no frame, or a model (or an answer to follow) that `rename` refuses becomes a close: the provider's answer to it tells the caller.
    pub fn up(&mut self, chunk: &[u8], max: u64, rename: impl Fn(&str, &[&str]) -> Option<String>) -> (Bytes, Vec<Asked>) {
        let (mut out, mut asked): (_, Vec<Asked>) = (BytesMut::new(), vec![]);
        let mut frames = std::mem::take(&mut self.up);
        frames.push(chunk, |piece| {
            if self.closed {
                return;
            }
            match piece {
                Piece::Head { head, raw } => {
                    self.frame = head;
                    // <https://www.rfc-editor.org/rfc/rfc6455#section-5.1>
                    if head.mask.is_none() {
                        return self.close(PROTOCOL_ERROR, &mut out);
                    }
                    if head.opcode == CLOSE {
                        self.leaver.get_or_insert(Side::Caller);
                    }
                    if head.is_control() {
                        self.control.extend_from_slice(raw);
                        return;
                    }
                    if head.opcode != 0 {
                        (self.opcode, self.key) = (head.opcode, head.mask.unwrap_or_default());
                    }
                    self.raw.extend_from_slice(raw);
                }
                Piece::Part { raw, .. } if self.frame.is_control() => self.control.extend_from_slice(raw),
                Piece::Part { raw, at } => self.keep(raw, at),
                Piece::End if self.frame.is_control() => out.extend(self.control.split()),
                Piece::End if self.frame.fin && self.waiting.len() + asked.len() >= WAITING_MAX => self.close(POLICY, &mut out),
                Piece::End if self.frame.fin => asked.extend(self.message(&rename, &mut out)),
                Piece::End => {}
                Piece::Broken => self.close(PROTOCOL_ERROR, &mut out),
            }
            if self.raw.len() as u64 > max {
                self.close(TOO_BIG, &mut out);
            }
        });
        self.up = frames;
        (out.freeze(), asked)
    }

    /// How much there is of a message whose end has not come.
    pub fn held_bytes(&self) -> usize {
        self.raw.len()
    }

    fn keep(&mut self, raw: &[u8], at: u64) {
        self.raw.extend_from_slice(raw);
        // Of binary messages, too: a provider may read them as it reads text.
        let start = self.plain.len();
        self.plain.extend_from_slice(raw);
        if let (Some(plain), Some(key)) = (self.plain.get_mut(start..), self.frame.mask) {
            mask(plain, key, at);
        }
    }

    /// Sends a whole message on: as it came, unless its model has another name there.
    fn message(&mut self, rename: &impl Fn(&str, &[&str]) -> Option<String>, out: &mut BytesMut) -> Option<Asked> {
        static ROOT: Want<usize> = Fields(&[("type", Take(0)), ("model", Take(1))]);
        let (raw, plain) = (self.raw.split(), std::mem::take(&mut self.plain));
        let [kind, model] = members(&plain, 0..plain.len(), &ROOT);
        // What could be read two ways is refused here as it is over HTTP.
        if count(&plain, &ROOT) > 1 {
            self.close(POLICY, out);
            return None;
        }
        let is_create = kind.and_then(|kind| plain.get(kind)).and_then(text::decode).is_some_and(|kind| kind == "response.create");
        if !is_create {
            out.extend(raw);
            return None;
        }
        let Ok(facts) = Facts::read(&plain) else {
            self.close(POLICY, out);
            return None;
        };
        let requested = facts.model.as_ref().map(|model| model.value.clone()).unwrap_or_default();
        let kept: Vec<&str> = [&facts.previous, &facts.conversation].into_iter().flatten().map(String::as_str).collect();
        let Some(renamed) = rename(&requested, &kept) else {
            self.close(POLICY, out);
            return None;
        };
        let asked = Asked {
            bytes: plain.len() as u64,
            bounds: Bounds { input: prompt_tokens(&plain), ..Bounds::of(&facts) },
            conversation: facts.conversation,
            hold: None,
            requested: requested.clone(),
            model: renamed.clone(),
        };
        match model.filter(|_| renamed != requested) {
            Some(span) => {
                let mut splices = Splices::default();
                splices.replace(span, text::encode(&renamed));
                out.extend(frame(self.opcode, self.key, &splices.apply(&Bytes::from(plain))));
            }
            None => out.extend(raw),
        }
        Some(asked)
    }

    /// Between two turns, of a gateway that leaves: a close for the caller, which may come again at once and finds the
    /// next. `None` within a frame, or if it was told.
    pub fn part(&mut self) -> Option<Vec<u8>> {
        if self.parted || !self.down.is_between() {
            return None;
        }
        (self.closed, self.parted) = (true, true);
        Some(server_frame(CLOSE, &RESTART.to_be_bytes()))
    }

    /// Ends the connection towards the caller: the frame that says why.
    pub fn refuse(&mut self, why: &str) -> Vec<u8> {
        const REASON_BYTES_MAX: usize = 123;
        self.closed = true;
        let reason = why.get(..why.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default();
        server_frame(CLOSE, &[&POLICY.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// True once the caller was told that the gateway leaves: its answer to that is the end.
    pub fn has_parted(&self) -> bool {
        self.parted
    }

    fn close(&mut self, code: u16, out: &mut BytesMut) {
        self.closed = true;
        self.leaver.get_or_insert(Side::Caller);
        (self.raw, self.plain) = (BytesMut::new(), vec![]);
        out.extend(frame(CLOSE, self.key, &code.to_be_bytes()));
    }

    /// Reads bytes of the provider; `on` hears of each part of a message, and of its end.
    fn down(&mut self, chunk: &[u8], mut on: impl FnMut(Option<&[u8]>)) {
        let mut frames = std::mem::take(&mut self.down);
        frames.push(chunk, |piece| match piece {
            Piece::Head { head, .. } => {
                if head.opcode == CLOSE {
                    self.leaver.get_or_insert(Side::Provider);
                }
                self.down_frame = head;
            }
            Piece::Part { raw, at } if !self.down_frame.is_control() => match self.down_frame.mask {
                // Servers must not mask; one that does is understood all the same.
                Some(key) => {
                    let mut plain = raw.to_vec();
                    mask(&mut plain, key, at);
                    on(Some(&plain));
                }
                None => on(Some(raw)),
            },
            Piece::End if self.down_frame.fin && !self.down_frame.is_control() => on(None),
            _ => {}
        });
        self.down = frames;
    }
}

/// What happened on the way down, in order: to be written before the bytes leave.
#[derive(Debug)]
pub enum News {
    /// A turn began: its entry's id and record.
    Open(String, crate::ledger::Rendered),
    /// Answers that the provider keeps.
    Kept(Vec<Kept>),
    /// Usage, and the turn's end.
    Closed(Box<super::Closed>),
}

impl Exchange {
    /// Plans a WebSocket, whose turns are yet to come.
    ///
    /// # Errors
    /// If no upstream takes one.
    pub fn plan_socket(head: &RequestHead<'_>, config: Arc<Config>, asked: AskedBy) -> Result<Box<Self>, Error> {
        let route = route::socket(head, &config)?;
        if let (Some(key), Some(upstream)) = (&asked.key, config.upstreams.get(route.upstream)) {
            key.allows_provider(&upstream.name)?;
            if route.target == Target::Pass && !key.models.is_empty() {
                return Err(Error::NotAllowed { path: head.path.to_owned() });
            }
        }
        let unmetered = route.target == Target::Pass;
        let who = Who::read(head, &Facts::default())?;
        let mut exchange = Self::of(head, route, config, asked)?;
        (exchange.unmetered, exchange.who, exchange.stream) = (unmetered, who, true);
        Ok(exchange)
    }

    /// Begins the turns that were asked for, one at a time. The records must be appended before the request goes up.
    pub fn ask(&mut self, turns: &mut Turns, asked: Vec<Asked>, now: UnixMs) -> Vec<News> {
        let mut news = vec![];
        for turn in asked {
            if !self.is_open() {
                news.push(self.begin(turn, now));
            } else {
                turns.waiting.push_back(turn);
            }
        }
        news
    }

    fn begin(&mut self, turn: Asked, now: UnixMs) -> News {
        (self.route.model_requested, self.route.model, self.stream) = (turn.requested, turn.model, true);
        self.bytes_in = turn.bytes;
        (self.prompt, self.hold, self.keeping.conversation) = (Some(turn.bounds.input), turn.hold, turn.conversation);
        let (id, open) = self.attempt(now);
        let news = News::Open(id.to_owned(), open.clone());
        let grammar = self.route.dialect.grammar();
        if let Some(attempt) = &mut self.attempt {
            attempt.status = 200;
            attempt.meter = Some(Box::new(Meter::of_messages(grammar)));
        }
        news
    }

    /// Reads what the provider says; what happened must be written before the bytes leave.
    pub fn hear(&mut self, turns: &mut Turns, chunk: &[u8], now: UnixMs) -> Vec<News> {
        let mut news = vec![];
        let (mut waiting, mut unasked) = (std::mem::take(&mut turns.waiting), turns.unasked.take());
        turns.down(chunk, |part| {
            if self.attempt.is_none() {
                return news.extend(self.overhear(&mut unasked, part, now).into_iter().flatten());
            }
            let Some(attempt) = &mut self.attempt else { return };
            let Some(meter) = &mut attempt.meter else { return };
            match part {
                Some(part) => {
                    attempt.first_byte_ms.get_or_insert(now);
                    attempt.bytes_out += part.len() as u64;
                    meter.message_part(part);
                }
                None => {
                    meter.message_end();
                    let (ended, refused) = (meter.found().ended, meter.found().error.is_some());
                    if refused && !ended && waiting.pop_back().is_some() {
                        // A turn asked for too early was refused; the one under way goes on.
                        meter.forget_error();
                    } else if ended || refused {
                        news.push(News::Kept(self.keeps()));
                        self.keeping.remembered = false;
                        news.extend(self.close(&Ending::Complete, now).map(|closed| News::Closed(Box::new(closed))));
                        news.extend(waiting.pop_front().map(|turn| self.begin(turn, now)));
                    }
                }
            }
        });
        (turns.waiting, turns.unasked) = (waiting, unasked);
        news
    }

    /// Reads what comes though no turn is under way: what states usage is a turn of its own, whoever asked for it.
    fn overhear(&mut self, unasked: &mut Option<Box<Meter>>, part: Option<&[u8]>, now: UnixMs) -> Option<[News; 2]> {
        let meter = unasked.get_or_insert_with(|| Box::new(Meter::of_messages(self.route.dialect.grammar())));
        let Some(part) = part else {
            meter.message_end();
            if !meter.found().ended || !meter.found().has_usage() {
                return None;
            }
            let meter = unasked.take()?;
            let model = meter.found().model.clone();
            let asked = Asked { requested: String::new(), model, bytes: 0, bounds: Bounds::default(), conversation: None, hold: None };
            let open = self.begin(asked, now);
            self.attempt.as_mut()?.meter = Some(meter);
            let closed = self.close(&Ending::Complete, now)?;
            return Some([open, News::Closed(Box::new(closed))]);
        };
        meter.message_part(part);
        None
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
