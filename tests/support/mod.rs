//! Real sockets in one process: a gateway, scripted upstreams, and a client that sees every byte.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tollgate::config::key_file;
use tollgate::config::{self, Source};
use tollgate::keys::{Record, make};
use tollgate::ledger::{Entry, Fold, read_folder};
use tollgate::proxy::server::{self, Start};

/// Nothing here takes longer unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A port that nobody else gets: below those that the system hands out, and each but once.
pub fn free_port() -> u16 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = u16::try_from(10_000 + std::process::id().wrapping_mul(97).wrapping_add(next) % 22_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `check` gives a value.
pub fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A gateway that runs until the test process ends.
pub struct Gateway {
    pub address: SocketAddr,
    folder: Arc<tempfile::TempDir>,
}

impl Gateway {
    /// Starts one; `settings` is YAML that is put behind the addresses.
    pub fn start(settings: &str) -> Self {
        Self::start_with(settings, "")
    }

    /// Starts one with further listeners.
    pub fn start_with(settings: &str, listeners: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), settings, listeners)
    }

    /// Another on the same data, as after a restart.
    pub fn successor(&self, upstream: &Upstream, more: &str) -> Self {
        Self::start_in(self.folder.clone(), &Self::one_upstream(upstream, more), "")
    }

    fn start_in(folder: Arc<tempfile::TempDir>, settings: &str, listeners: &str) -> Self {
        let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let text = format!(
            "listen: [\"{address}\"{listeners}]\nadmin: off\nmock: off\nworkers: 1\ndata: {}\naccess_log: off\n{settings}\n",
            folder.path().display()
        );
        let path = folder.path().join("tollgate.yaml");
        std::fs::write(&path, text).unwrap();
        let config = config::load(&Source::File(path), &|_| None).unwrap_or_else(|list| panic!("{list:#?}"));
        std::thread::spawn(move || {
            server::build(config, Start::default()).unwrap().run();
        });
        until("the gateway", || TcpStream::connect(address).ok());
        Self { address, folder }
    }

    /// One that knows a single upstream, `up`.
    pub fn before(upstream: &Upstream, more: &str) -> Self {
        Self::start(&Self::one_upstream(upstream, more))
    }

    fn one_upstream(upstream: &Upstream, more: &str) -> String {
        let address = upstream.address;
        format!("providers: {{up: {{base_url: \"http://{address}/v1\", models: [\"*\"], prices: mock, stream_usage: on_request}}}}\n{more}")
    }

    /// Where its data is, and `tollgate.yaml`.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Changes its key file; it looks at its files once a second.
    pub fn change_keys(&self, change: impl FnOnce(&mut Vec<Record>)) {
        let done = key_file::update(&self.folder().join("keys.json"), |keys| {
            change(keys);
            Ok(())
        });
        done.unwrap();
    }

    /// Puts a key into that file and returns its text.
    pub fn add_key(&self, change: impl FnOnce(&mut Record)) -> String {
        let mut made = make("ci", jiff::Timestamp::now()).unwrap();
        change(&mut made.record);
        self.change_keys(|keys| keys.push(made.record));
        made.text
    }

    /// Entries so far.
    pub fn entries(&self) -> Vec<Entry> {
        let mut fold = Fold::default();
        read_folder(&self.folder.path().join("ledger"), |record| fold.add(record), |_| {}).unwrap();
        fold.finish().0
    }

    /// Waits for so many entries that have ended.
    pub fn closed_entries(&self, count: usize) -> Vec<Entry> {
        until("entries", || {
            let entries = self.entries();
            (entries.iter().filter(|entry| entry.close.is_some()).count() >= count).then_some(entries)
        })
    }

    pub fn connect(&self) -> Client {
        Client::new(self.address)
    }

    /// One request on a connection of its own.
    pub fn post(&self, path: &str, body: &str) -> Response {
        self.connect().post(path, body)
    }
}

/// A request as an upstream got it.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What an upstream does with a request.
pub enum Act {
    Write(Vec<u8>),
    /// Waits for the next call of [`Upstream::go`].
    Wait,
    Close,
    /// Resets the connection.
    Reset,
}

/// An upstream that follows a script, over HTTP/1.1.
pub struct Upstream {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<Request>>>,
    go: std::sync::mpsc::Sender<()>,
}

impl Upstream {
    pub fn start(script: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(vec![]));
        let (go, gate) = std::sync::mpsc::channel();
        let (seen, gate, script) = (requests.clone(), Arc::new(Mutex::new(gate)), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, gate, script) = (seen.clone(), gate.clone(), script.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &gate, &*script));
            }
        });
        Self { address, requests, go }
    }

    /// Always writes the same bytes.
    pub fn fixed(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_| vec![Act::Write(bytes.clone())])
    }

    /// Lets one [`Act::Wait`] pass.
    pub fn go(&self) {
        self.go.send(()).unwrap();
    }

    pub fn last(&self) -> Request {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    gate: &Mutex<std::sync::mpsc::Receiver<()>>,
    script: &dyn Fn(&Request) -> Vec<Act>,
) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        seen.lock().unwrap().push(request.clone());
        for act in script(&request) {
            match act {
                Act::Write(bytes) => {
                    if (&stream).write_all(&bytes).is_err() {
                        return;
                    }
                }
                Act::Wait => {
                    let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
                }
                Act::Close => {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
                Act::Reset => {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
            }
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut lines = vec![];
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let first = lines.remove(0);
    let split = |line: String| line.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).unwrap();
    Some((first, lines.into_iter().map(split).collect()))
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let (line, headers) = read_head(reader)?;
    let (body, whole) = read_body(reader, &headers, false);
    whole.then_some(Request { line, headers, body })
}

/// The body, and whether its framing says that it is whole.
fn read_body(reader: &mut impl BufRead, headers: &[(String, String)], to_end: bool) -> (Vec<u8>, bool) {
    let mut body = vec![];
    if let Some(length) = header(headers, "content-length") {
        let length: u64 = length.parse().unwrap();
        let _ = reader.take(length).read_to_end(&mut body);
        let whole = body.len() as u64 == length;
        return (body, whole);
    }
    if header(headers, "transfer-encoding").is_some() {
        let whole = read_chunks(reader, &mut body).is_some();
        return (body, whole);
    }
    let whole = !to_end || reader.read_to_end(&mut body).is_ok();
    (body, whole)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.trim_end().strip_suffix('\r').unwrap_or(line.trim_end()), 16).ok()?;
        let before = body.len() as u64;
        reader.take(size).read_to_end(body).ok()?;
        if body.len() as u64 - before != size {
            return None;
        }
        let mut end = [0; 2];
        reader.read_exact(&mut end).ok()?;
        if size == 0 {
            return Some(());
        }
    }
}

/// A response as the client got it.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The framing said that nothing is missing.
    pub whole: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A client on one connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), stream, host: address }
    }

    pub fn post(&mut self, path: &str, body: &str) -> Response {
        self.request(path, &[], body.as_bytes())
    }

    pub fn request(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.head(path, headers, Some(body.len()));
        self.write(body);
        self.response()
    }

    pub fn head(&mut self, path: &str, headers: &[(&str, &str)], length: Option<usize>) {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n", self.host);
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if let Some(length) = length {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        self.write(head.as_bytes());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        // A server may answer and close before it has read everything.
        let _ = self.stream.write_all(bytes);
    }

    pub fn response(&mut self) -> Response {
        let (line, headers) = read_head(&mut self.reader).expect("a response");
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let none = status == 204 || status < 200;
        let (body, whole) = if none { (vec![], true) } else { read_body(&mut self.reader, &headers, true) };
        Response { status, headers, body, whole }
    }

    /// Reads exactly so many bytes as they come from the wire.
    pub fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.reader.read_exact(&mut out).unwrap();
        out
    }
}
