//! A resumable JSON scanner: bytes in, wanted values out. It owns the position in the document and must never keep
//! more of it than a key, nor care where the input is cut.
//!
//! Containers that lead to something wanted are read strictly; everything else is only skipped, with its brackets
//! matched, because whether it is valid is the provider's to say.

use super::brackets::Brackets;
use super::key::{KeyReader, Progress, resembles};
use super::text::{StringEnd, find_string_end};
use super::want::{Malformed, Visit, Want};

/// Containers on the way to a wanted value.
const PATH_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must follow.
    Value,
    /// A value or the end of the array.
    FirstItem,
    /// A key or the end of the object.
    FirstKey,
    Key,
    InKey,
    Colon,
    InString,
    InStringEscape,
    InScalar,
    /// Inside a container nobody asked about.
    Skipping,
    SkippingString,
    SkippingEscape,
    /// A comma or the end of the container.
    After,
    /// The document is complete; only blanks may follow.
    Done,
    /// Something else followed it.
    PastEnd,
    Broken(Malformed),
}

/// The scanner. Cheap to clone: a snapshot is a plain copy.
#[derive(Clone, Debug)]
pub struct Scanner<S: 'static> {
    root: &'static Want<S>,
    state: State,
    brackets: Brackets,
    /// The first `tracked` containers are on the way to something wanted.
    path: [&'static Want<S>; PATH_MAX],
    tracked: u32,
    /// What the value that comes next is wanted as.
    next: &'static Want<S>,
    capture: Option<(S, u32)>,
    key: KeyReader,
    /// Of a request: bounded in depth, and keys that resemble a wanted name are refused.
    strict: bool,
    offset: u64,
}

impl<S: Copy + 'static> Scanner<S> {
    const SKIP: &'static Want<S> = &Want::Skip;

    /// A scanner at the start of a document.
    pub fn new(root: &'static Want<S>) -> Self {
        Self {
            root,
            state: State::Value,
            brackets: Brackets::default(),
            path: [Self::SKIP; PATH_MAX],
            tracked: 0,
            next: root,
            capture: None,
            key: KeyReader::new(),
            strict: false,
            offset: 0,
        }
    }

    /// A scanner for a request: refuses what servers may read in different ways (see [`Malformed`]).
    pub fn strict(root: &'static Want<S>) -> Self {
        Self { strict: true, ..Self::new(root) }
    }

    /// Back to the start of a new document.
    pub fn reset(&mut self) {
        self.state = State::Value;
        self.brackets = Brackets::default();
        self.tracked = 0;
        self.next = self.root;
        self.capture = None;
        self.offset = 0;
    }

    /// True once the top-level value has ended, whatever follows it. A bare top-level number ends only with the input.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::PastEnd) || (matches!(self.state, State::InScalar) && self.brackets.depth() == 0)
    }

    /// Scans the next bytes of the document, however it is cut.
    ///
    /// # Errors
    /// [`Malformed`] once, and again on every later call.
    pub fn push(&mut self, bytes: &[u8], visit: &mut impl Visit<S>) -> Result<(), Malformed> {
        let mut at = 0;
        // Where the piece of a captured value that lies in these bytes starts.
        let mut from = 0;
        while at < bytes.len() {
            at = match self.state {
                State::Skipping | State::SkippingString | State::SkippingEscape => self.skip(bytes, at, from, visit),
                State::InString | State::InStringEscape => self.string(bytes, at, from, visit),
                State::InKey => self.key(bytes, at),
                State::InScalar => self.scalar(bytes, at, from, visit),
                State::PastEnd => return Err(Malformed::Syntax),
                State::Broken(why) => return Err(why),
                _ => self.structure(bytes, at, &mut from, visit),
            };
        }
        if let Some((slot, _)) = self.capture {
            visit.bytes(slot, bytes.get(from..).unwrap_or_default());
        }
        self.offset += bytes.len() as u64;
        match self.state {
            State::PastEnd => Err(Malformed::Syntax),
            State::Broken(why) => Err(why),
            _ => Ok(()),
        }
    }

    /// What stands between values, mostly a byte.
    fn structure(&mut self, bytes: &[u8], at: usize, from: &mut usize, visit: &mut impl Visit<S>) -> usize {
        let byte = bytes.get(at).copied().unwrap_or_default();
        match (self.state, byte) {
            (_, b' ' | b'\n' | b'\t' | b'\r') => {}
            (State::FirstItem, b']') | (State::FirstKey, b'}') => self.close(byte, at, *from, bytes, visit),
            (State::Value | State::FirstItem, _) => {
                *from = at;
                self.value(byte, at, visit);
                // A scalar starts and may end with this same byte.
                return if self.state == State::InScalar { at } else { at + 1 };
            }
            (State::FirstKey | State::Key, b'"') => self.begin_key(),
            (State::Colon, b':') => self.state = State::Value,
            // The next key mostly follows at once.
            (State::After, b',') if self.brackets.is_object() && bytes.get(at + 1) == Some(&b'"') => {
                self.begin_key();
                return at + 2;
            }
            (State::After, b',') if self.brackets.is_object() => self.state = State::Key,
            (State::After, b',') => {
                self.next = self.item();
                self.state = State::Value;
            }
            (State::After, b'}' | b']') => self.close(byte, at, *from, bytes, visit),
            (State::Done, _) => self.state = State::PastEnd,
            _ => self.state = State::Broken(Malformed::Syntax),
        }
        at + 1
    }

    fn begin_key(&mut self) {
        self.state = State::InKey;
        self.key.reset();
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8, at: usize, visit: &mut impl Visit<S>) {
        let want = self.next;
        let offset = self.offset + at as u64;
        if let Some(slot) = self.item_slot() {
            visit.begin(slot, offset, byte);
        }
        match want {
            Want::Take(slot) => {
                visit.begin(*slot, offset, byte);
                self.capture = Some((*slot, self.brackets.depth()));
            }
            Want::Items(slot, _) if byte == b'[' => visit.begin(*slot, offset, byte),
            _ => {}
        }
        match byte {
            b'{' | b'[' => self.open(byte, want),
            b'"' => self.state = State::InString,
            b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => self.state = State::InScalar,
            _ => self.state = State::Broken(Malformed::Syntax),
        }
    }

    fn open(&mut self, byte: u8, want: &'static Want<S>) {
        if self.strict && self.brackets.are_full() {
            self.state = State::Broken(Malformed::TooDeep);
            return;
        }
        self.brackets.open(byte);
        let tracked = match (want, byte) {
            (Want::Fields(_), b'{') => Some(State::FirstKey),
            (Want::Items(..), b'[') => Some(State::FirstItem),
            _ => None,
        };
        let place = self.path.get_mut(self.tracked as usize);
        if let (Some(state), Some(place)) = (tracked, place) {
            *place = want;
            self.tracked += 1;
            self.next = self.item();
            self.state = state;
        } else {
            self.state = State::Skipping;
        }
    }

    fn close(&mut self, byte: u8, at: usize, from: usize, bytes: &[u8], visit: &mut impl Visit<S>) {
        if !self.brackets.close(byte) {
            self.state = State::Broken(Malformed::Syntax);
            return;
        }
        self.tracked = self.tracked.min(self.brackets.depth());
        self.ended(at + 1, from, bytes, visit);
    }

    /// A value ended just before `end`; its container, if any, is tracked.
    fn ended(&mut self, end: usize, from: usize, bytes: &[u8], visit: &mut impl Visit<S>) {
        let offset = self.offset + end as u64;
        if let Some((slot, depth)) = self.capture
            && depth == self.brackets.depth()
        {
            visit.bytes(slot, bytes.get(from..end).unwrap_or_default());
            visit.end(slot, offset);
            self.capture = None;
        }
        if let Some(slot) = self.item_slot() {
            visit.end(slot, offset);
        }
        self.state = if self.brackets.depth() == 0 { State::Done } else { State::After };
    }

    /// What the innermost tracked container is wanted as.
    fn innermost(&self) -> &'static Want<S> {
        let place = (self.tracked as usize).checked_sub(1);
        place.and_then(|place| self.path.get(place)).copied().unwrap_or(Self::SKIP)
    }

    fn item(&self) -> &'static Want<S> {
        match self.innermost() {
            Want::Items(_, want) => want,
            _ => Self::SKIP,
        }
    }

    /// The name under which elements of the innermost array are announced.
    fn item_slot(&self) -> Option<S> {
        match self.innermost() {
            Want::Items(slot, _) if self.tracked == self.brackets.depth() => Some(*slot),
            _ => None,
        }
    }

    fn key(&mut self, bytes: &[u8], at: usize) -> usize {
        // Most keys are whole in the input and have no escapes: compared in place.
        if self.key.is_fresh()
            && let StringEnd::Closed(end) = find_string_end(bytes, at)
            && let Some(raw) = bytes.get(at..end - 1).filter(|raw| memchr::memchr(b'\\', raw).is_none())
        {
            // The colon mostly follows at once.
            let colon = bytes.get(end) == Some(&b':');
            self.state = if colon { State::Value } else { State::Colon };
            self.field_named(raw);
            return end + usize::from(colon);
        }
        match self.key.push(bytes, at) {
            Progress::Open => bytes.len(),
            Progress::Closed(end) => {
                self.state = State::Colon;
                let key = std::mem::replace(&mut self.key, KeyReader::new());
                self.field_named(key.decoded());
                if key.is_long() {
                    self.next = Self::SKIP;
                }
                end
            }
            Progress::Malformed => {
                self.state = State::Broken(Malformed::Syntax);
                bytes.len()
            }
        }
    }

    /// Selects what the value of this key is wanted as. Keys are compared decoded.
    fn field_named(&mut self, key: &[u8]) {
        self.next = Self::SKIP;
        let Want::Fields(fields) = self.innermost() else { return };
        if let Some((_, want)) = fields.iter().find(|(name, _)| name.as_bytes() == key) {
            self.next = want;
        } else if self.strict
            && let Some((name, _)) = fields.iter().find(|(name, _)| resembles(key, name))
        {
            self.state = State::Broken(Malformed::LookAlike(name));
        }
    }

    fn string(&mut self, bytes: &[u8], mut at: usize, from: usize, visit: &mut impl Visit<S>) -> usize {
        if self.state == State::InStringEscape {
            self.state = State::InString;
            at += 1;
        }
        match find_string_end(bytes, at) {
            StringEnd::Closed(end) => {
                self.ended(end, from, bytes, visit);
                end
            }
            StringEnd::Open { escape } => {
                self.state = if escape { State::InStringEscape } else { State::InString };
                bytes.len()
            }
        }
    }

    fn scalar(&mut self, bytes: &[u8], at: usize, from: usize, visit: &mut impl Visit<S>) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        let run = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'));
        match run {
            Some(run) => {
                self.ended(at + run, from, bytes, visit);
                at + run
            }
            None => bytes.len(),
        }
    }

    /// Passes over containers nobody asked about.
    fn skip(&mut self, bytes: &[u8], mut at: usize, from: usize, visit: &mut impl Visit<S>) -> usize {
        if self.state != State::Skipping {
            at += usize::from(self.state == State::SkippingEscape);
            match find_string_end(bytes, at) {
                StringEnd::Closed(end) => at = end,
                StringEnd::Open { escape } => return self.left_in_string(escape, bytes),
            }
            self.state = State::Skipping;
        }
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => match find_string_end(bytes, at) {
                    StringEnd::Closed(end) => at = end,
                    StringEnd::Open { escape } => return self.left_in_string(escape, bytes),
                },
                b'{' | b'[' if self.strict && self.brackets.are_full() => {
                    self.state = State::Broken(Malformed::TooDeep);
                    return at;
                }
                b'{' | b'[' => self.brackets.open(byte),
                b'}' | b']' if !self.brackets.close(byte) => {
                    self.state = State::Broken(Malformed::Syntax);
                    return at;
                }
                b'}' | b']' if self.brackets.depth() == self.tracked => {
                    self.ended(at, from, bytes, visit);
                    return at;
                }
                _ => {}
            }
        }
        at
    }

    fn left_in_string(&mut self, escape: bool, bytes: &[u8]) -> usize {
        self.state = if escape { State::SkippingEscape } else { State::SkippingString };
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::DEPTH_MAX;
    use crate::json::key::KEY_BYTES_MAX;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Slot {
        Model,
        Usage,
        Choice,
        Finish,
    }
    static ROOT: Want<Slot> = Want::Fields(&[
        ("model", Want::Take(Slot::Model)),
        ("usage", Want::Take(Slot::Usage)),
        ("choices", Want::Items(Slot::Choice, &Want::Fields(&[("finish", Want::Take(Slot::Finish))]))),
    ]);

    #[derive(Default, Clone)]
    struct Seen(Vec<(String, String)>, String);
    impl Visit<Slot> for Seen {
        fn begin(&mut self, _: Slot, _: u64, _: u8) {
            self.1.clear();
        }
        fn bytes(&mut self, _: Slot, piece: &[u8]) {
            self.1.push_str(std::str::from_utf8(piece).unwrap());
        }
        fn end(&mut self, slot: Slot, at: u64) {
            self.0.push((format!("{slot:?}@{at}"), std::mem::take(&mut self.1)));
        }
    }

    fn scan(parts: &[&[u8]]) -> Result<Vec<(String, String)>, Malformed> {
        let (mut scanner, mut seen) = (Scanner::new(&ROOT), Seen::default());
        for part in parts {
            scanner.push(part, &mut seen)?;
        }
        if scanner.is_done() { Ok(seen.0) } else { Err(Malformed::Syntax) }
    }

    const BODY: &str = r#" {"x":[{"model":"no"},"\\\"}"],"mod\u0065l":"a\"b","choices":[{"finish":null,"y":{}},3 ,{"finish":"st"}],"usage":{"n":[1,{"u":2}]},"z":-1.5e+3}"#;

    #[test]
    fn finds_wanted_values_wherever_the_input_is_cut() {
        let whole = scan(&[BODY.as_bytes()]).unwrap();
        let names: Vec<_> = whole.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(names, [r#""a\"b""#, "null", "", "", "\"st\"", "", r#"{"n":[1,{"u":2}]}"#]);
        for at in 0..=BODY.len() {
            let (head, tail) = BODY.as_bytes().split_at(at);
            assert_eq!(scan(&[head, tail]).unwrap(), whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = BODY.as_bytes().chunks(1).collect();
        assert_eq!(scan(&single).unwrap(), whole);
    }

    #[test]
    fn refuses_what_is_not_json() {
        for bad in
            ["{model:1}", r#"{"model":1,}"#, r#"{"a":[1}"#, r#"{"a":{"b":[}}"#, "[1,2", "}", r#"{"a" 1}"#, r#"{"a":1}}"#, "nul l", ""]
        {
            assert!(scan(&[bad.as_bytes()]).is_err(), "{bad}");
        }
        for good in ["null", "12", "[]", "{}", r#""s""#, "[[],{}]"] {
            assert_eq!(scan(&[good.as_bytes()]), Ok(vec![]), "{good}");
        }
    }

    #[test]
    fn depth_is_bounded_in_requests_only() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let strict = |text: &str| Scanner::strict(&ROOT).push(text.as_bytes(), &mut Seen::default());
        assert_eq!(strict(&nested(DEPTH_MAX as usize)), Ok(()));
        assert_eq!(strict(&nested(DEPTH_MAX as usize + 1)), Err(Malformed::TooDeep));
        // Beside, before and below the wanted values, whatever the depth.
        let deep = nested(10_000).replace('[', "{\"a\":[").replace(']', "]}");
        let body = format!(r#"{{"x":{deep},"choices":[{{"y":{deep},"finish":1}}],"usage":{{"n":{deep}}},"model":"m"}}"#);
        let names = |found: Vec<(String, String)>| {
            found.into_iter().map(|(name, value)| (name.split('@').next().unwrap().to_owned(), value.len())).collect::<Vec<_>>()
        };
        let found = names(scan(&[body.as_bytes()]).unwrap());
        let want = [("Finish", 1), ("Choice", 0), ("Usage", deep.len() + 6), ("Model", 3)];
        assert_eq!(found, want.map(|(name, length)| (name.to_owned(), length)));
    }

    /// Spellings of `key` that decode to it: each letter escaped or not, in either case of hex.
    fn escaped(key: &str, upper: bool) -> String {
        key.bytes().map(|byte| if upper { format!("\\u{byte:04X}") } else { format!("\\u{byte:04x}") }).collect()
    }

    #[test]
    fn keys_are_compared_decoded() {
        static LONG: Want<Slot> =
            Want::Fields(&[("previous_response_id_of_a_very_long_name_and_more_letters_stilll", Want::Take(Slot::Model))]);
        let Want::Fields([(name, _)]) = &LONG else { panic!() };
        assert_eq!(name.len(), KEY_BYTES_MAX);
        for key in [(*name).to_owned(), escaped(name, true), escaped(name, false)] {
            let body = format!(r#"{{"{key}":7,"a":{{"{key}":8}}}}"#);
            for size in [1, 2, 3, 5, 7, body.len()] {
                for strict in [false, true] {
                    let mut scanner = if strict { Scanner::strict(&LONG) } else { Scanner::new(&LONG) };
                    let mut seen = Seen::default();
                    body.as_bytes().chunks(size).for_each(|chunk| scanner.push(chunk, &mut seen).unwrap());
                    assert_eq!(seen.0.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["7"], "{key} in {size}");
                }
            }
        }
        for key in [format!("{name}x"), format!("{}\\u0078", escaped(name, true)), "k".repeat(1000)] {
            assert_eq!(Scanner::strict(&LONG).push(format!("{{\"{key}\":1}}").as_bytes(), &mut Seen::default()), Ok(()));
        }
        for bad in [r#"{"\x":1}"#, r#"{"\u12g4":1}"#, r#"{"\u":1}"#] {
            assert_eq!(scan(&[bad.as_bytes()]), Err(Malformed::Syntax), "{bad}");
        }
        assert_eq!(scan(&[br#"{"\ud83d\ude00":1,"\n\t\b\f\r\/\\\"":1}"#]), Ok(vec![]));
    }

    #[test]
    fn keys_that_resemble_a_wanted_name_are_refused_in_requests() {
        let strict = |key: &str| Scanner::strict(&ROOT).push(format!(r#"{{"{key}":1}}"#).as_bytes(), &mut Seen::default());
        for (key, name) in [
            ("Model", "model"),
            ("MODEL", "model"),
            ("m\\u004fdel", "model"),
            ("model ", "model"),
            ("\\tmodel", "model"),
            ("model\\u0000", "model"),
            ("u\u{17f}age", "usage"),
            ("u\\u017fage", "usage"),
            ("cho\u{131}ces", "choices"),
            ("CHO\u{130}CES", "choices"),
        ] {
            assert_eq!(strict(key), Err(Malformed::LookAlike(name)), "{key}");
            // A response is the provider's own.
            assert_eq!(scan(&[format!(r#"{{"{key}":1}}"#).as_bytes()]), Ok(vec![]));
        }
        let long = format!("model\\u0000{}", "x".repeat(100));
        assert_eq!(strict(&long), Err(Malformed::LookAlike("model")));
        for key in ["models", "mode", "my model", "m-o-d-e-l", "", "\u{fc}"] {
            assert_eq!(strict(key), Ok(()), "{key}");
        }
        // In objects that lead nowhere, keys are the client's own.
        assert_eq!(Scanner::strict(&ROOT).push(br#"{"metadata":{"Model":1},"x":[{"USAGE":2}]}"#, &mut Seen::default()), Ok(()));
        assert_eq!(
            Scanner::strict(&ROOT).push(br#"{"choices":[{"Finish":2}]}"#, &mut Seen::default()),
            Err(Malformed::LookAlike("finish"))
        );
    }
}
