//! HTTP/2 and TLS: h2c and h2 downstream, h2 over TLS upstream, in every pairing with HTTP/1.1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use support::{Gateway, Upstream, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tollgate::ledger::{Outcome, Source};

const WHOLE: &str = r#"{"id":"c","model":"mock-x","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#;
const EVENT: &str = "data: {\"id\":\"c\",\"model\":\"mock-x\",\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
const END: &str = "data: {\"id\":\"c\",\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":4,\"total_tokens\":14}}\n\ndata: [DONE]\n\n";

struct Identity {
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    folder: tempfile::TempDir,
}

/// A certificate for localhost and its key, in memory and as files.
fn identity() -> Identity {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
    Identity { cert: cert.der().clone(), key: PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(), folder }
}

impl Identity {
    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Serves with the certificate, and speaks the protocols in the order of its liking.
fn acceptor(identity: &Identity, names: &[&str]) -> TlsAcceptor {
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![identity.cert.clone()], identity.key.clone_key()).unwrap();
    config.alpn_protocols = protocols(names);
    TlsAcceptor::from(Arc::new(config))
}

/// A gateway that listens with the certificate, too, and where.
fn over_tls(settings: &str, identity: &Identity) -> (Gateway, SocketAddr) {
    let address: SocketAddr = format!("127.0.0.1:{}", support::free_port()).parse().unwrap();
    let (cert, key) = (identity.file("cert.pem"), identity.file("key.pem"));
    let gateway = Gateway::start_with(settings, &format!(", {{address: \"{address}\", tls: {{cert: \"{cert}\", key: \"{key}\"}}}}"));
    until("the TLS listener", || std::net::TcpStream::connect(address).ok());
    (gateway, address)
}

/// Trusts the certificate alone.
async fn connect(address: SocketAddr, identity: &Identity, names: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.cert.clone()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols(names);
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An upstream that speaks HTTP/2 over TLS: streams if the body asks for it, and echoes the body's length in a header.
async fn h2_upstream(identity: &Identity) -> SocketAddr {
    let acceptor = acceptor(identity, &["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond));
                }
            });
        }
    });
    address
}

async fn answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let mut body = vec![];
    let mut stream = request.into_body();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    let text = String::from_utf8_lossy(&body);
    let head = |kind: &str| http::Response::builder().header("content-type", kind).header("x-body-bytes", body.len()).body(()).unwrap();
    if text.contains("cut") {
        let mut send = respond.send_response(head("text/event-stream"), false).unwrap();
        send.send_data(EVENT.into(), false).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        send.send_reset(h2::Reason::INTERNAL_ERROR);
    } else if text.contains("\"stream\":true") {
        let mut send = respond.send_response(head("text/event-stream"), false).unwrap();
        for part in [EVENT, EVENT, END] {
            send.send_data(part.into(), false).unwrap();
        }
        send.send_data(Bytes::new(), true).unwrap();
    } else {
        let mut send = respond.send_response(head("application/json"), false).unwrap();
        send.send_data(WHOLE.into(), true).unwrap();
    }
}

async fn h2c_client(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// True if a handshake with the certificate succeeds.
async fn handshake(address: SocketAddr, identity: &Identity) -> bool {
    connect(address, identity, &[]).await.is_ok()
}

async fn tls_client(address: SocketAddr, identity: &Identity) -> SendRequest<Bytes> {
    let stream = connect(address, identity, &["h2"]).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The status, headers (trailers among them) and body, or what came of it and the error that ended it.
type Answer = (StatusCode, http::HeaderMap, Result<Vec<u8>, (Vec<u8>, h2::Error)>);

async fn post(client: &SendRequest<Bytes>, address: SocketAddr, body: Bytes, announce: bool) -> Answer {
    let mut request = Request::builder().method(Method::POST).uri(format!("http://{address}/v1/chat/completions"));
    if announce {
        request = request.header("content-length", body.len());
    }
    let mut client = client.clone().ready().await.unwrap();
    let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let writing = tokio::spawn(async move {
        let mut rest = body;
        while !rest.is_empty() {
            send.reserve_capacity(rest.len());
            let Some(Ok(granted)) = std::future::poll_fn(|context| send.poll_capacity(context)).await else { return };
            let part = rest.split_to(granted.min(rest.len()));
            if send.send_data(part, false).is_err() {
                return;
            }
        }
        let _ = send.send_data(Bytes::new(), true);
    });
    let response = response.await.unwrap();
    let (status, mut headers) = (response.status(), response.headers().clone());
    let mut stream = response.into_body();
    let mut out = vec![];
    let body = loop {
        match stream.data().await {
            Some(Ok(data)) => {
                stream.flow_control().release_capacity(data.len()).unwrap();
                out.extend_from_slice(&data);
            }
            Some(Err(error)) => break Err((out, error)),
            None => break Ok(out),
        }
    };
    if body.is_ok() {
        headers.extend(stream.trailers().await.unwrap().into_iter().flatten());
    }
    let _ = writing.await;
    (status, headers, body)
}

fn providers(address: SocketAddr, ca: &Path) -> String {
    format!(
        "providers: {{up: {{base_url: \"https://localhost:{}/v1\", models: [\"*\"], prices: mock, ca: \"{}\"}}}}",
        address.port(),
        ca.display()
    )
}

#[test]
fn http2_callers_reach_http2_upstreams_over_tls() {
    runtime().block_on(async {
        let identity = identity();
        let upstream = h2_upstream(&identity).await;
        let settings = providers(upstream, &identity.folder.path().join("cert.pem"));
        let (gateway, tls) = over_tls(&settings, &identity);
        let mut count = 0;
        for (client, address) in [(h2c_client(gateway.address).await, gateway.address), (tls_client(tls, &identity).await, tls)] {
            for announce in [true, false] {
                for size in [40, 65 << 10, (128 << 10) + 1, 5 << 20] {
                    let body = Bytes::from(format!("{{\"model\":\"m\",\"p\":\"{}\"}}", "x".repeat(size)));
                    let length = body.len();
                    let (status, headers, answer) = post(&client, address, body, announce).await;
                    assert_eq!(
                        (status, headers["x-body-bytes"].to_str().unwrap()),
                        (StatusCode::OK, length.to_string().as_str()),
                        "{size}"
                    );
                    assert_eq!(answer.unwrap(), WHOLE.as_bytes());
                    count += 1;
                }
            }
            let (_, headers, answer) = post(&client, address, Bytes::from_static(b"{\"model\":\"m\",\"stream\":true}"), true).await;
            assert_eq!(answer.unwrap(), [EVENT, EVENT, END].concat().as_bytes());
            // A stream tells its cost in trailers.
            assert_eq!(["x-gateway-cost", "x-gateway-prompt-tokens"].map(|name| headers[name].as_bytes()), [&b"0.00003"[..], b"10"]);
            assert!(headers.contains_key("x-gateway-request-id") && !headers.contains_key("transfer-encoding"));
            let (status, _, answer) = post(&client, address, Bytes::from_static(b"{"), true).await;
            assert_eq!((status, answer.unwrap().is_empty()), (StatusCode::BAD_REQUEST, false));
            count += 1;
        }
        let entries = gateway.closed_entries(count);
        assert!(
            entries
                .iter()
                .all(|entry| entry.outcome() == Outcome::Ok && entry.used.as_ref().is_some_and(|used| used.source == Source::Reported))
        );
    });
}

/// Takes WebSockets over HTTP/1.1, though it would rather speak HTTP/2.
async fn socket_upstream(identity: &Identity) -> SocketAddr {
    let acceptor = acceptor(identity, &["h2", "http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap_or(0));
                assert!(head.len() < 10_000, "this is no HTTP/1.1");
            }
            let accepted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(accepted.as_bytes()).await.unwrap();
            // A close, which ends it.
            stream.write_all(&[0x88, 0]).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    address
}

#[test]
fn a_websocket_reaches_a_provider_that_prefers_http2() {
    let identity = identity();
    let runtime = runtime();
    let upstream = runtime.block_on(socket_upstream(&identity));
    let settings = providers(upstream, &identity.folder.path().join("cert.pem")).replace("models:", "websocket: true, models:");
    let gateway = Gateway::start(&settings);
    let mut client = gateway.connect();
    let head = format!(
        "GET /v1/responses HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        gateway.address
    );
    client.write(head.as_bytes());
    assert_eq!(client.response().status, 101);
    assert_eq!(client.read(2), [0x88, 0]);
}

#[test]
fn a_renewed_certificate_is_served_without_a_restart() {
    let (old, new) = (identity(), identity());
    let (_gateway, address) = over_tls("providers: {}", &old);
    let runtime = runtime();
    let kept = runtime.block_on(tls_client(address, &old));
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(new.file(name), old.file(name)).unwrap();
    }
    until("the new certificate", || runtime.block_on(handshake(address, &new)).then_some(()));
    assert!(!runtime.block_on(handshake(address, &old)));
    // Who is connected stays.
    assert_eq!(runtime.block_on(post(&kept, address, Bytes::from_static(b"{}"), true)).0, StatusCode::BAD_REQUEST);
}

#[test]
fn a_head_has_to_be_whole_in_time_over_tls() {
    runtime().block_on(async {
        let identity = identity();
        let (_gateway, address) = over_tls("providers: {}\ntimeouts: {head: 500ms}", &identity);
        let mut caller = connect(address, &identity, &["http/1.1"]).await.unwrap();
        let started = std::time::Instant::now();
        let ended = loop {
            if caller.write_all(b"a").await.is_err() {
                break started.elapsed();
            }
            let read = tokio::time::timeout(std::time::Duration::from_millis(50), caller.read(&mut [0; 512])).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                break started.elapsed();
            }
        };
        assert!((500..5000).contains(&ended.as_millis()), "{ended:?}");
    });
}

/// After how many milliseconds the gateway closes a connection on which this is sent and no more; heads and idle connections
/// have half a second.
async fn closed_after(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), bytes: &[u8]) -> u128 {
    let started = std::time::Instant::now();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut into = vec![];
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_end(&mut into)).await;
    started.elapsed().as_millis()
}

#[test]
fn silent_connections_are_closed() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let begun = [PREFACE, SETTINGS].concat();
    runtime().block_on(async {
        let identity = identity();
        let (gateway, address) = over_tls("providers: {}\ntimeouts: {head: 500ms, idle: 500ms}", &identity);
        for sent in [&b""[..], &PREFACE[..10], &begun] {
            for protocol in ["h2", "http/1.1"] {
                let mut caller = connect(address, &identity, &[protocol]).await.unwrap();
                let took = closed_after(&mut caller, if protocol == "h2" { sent } else { b"" }).await;
                assert!((450..5000).contains(&took), "{protocol} {sent:?}: {took}");
            }
            let mut caller = TcpStream::connect(gateway.address).await.unwrap();
            let took = closed_after(&mut caller, sent).await;
            assert!((450..5000).contains(&took), "{sent:?}: {took}");
        }
    });
}

#[test]
fn a_reset_upstream_stream_is_a_reset_answer() {
    runtime().block_on(async {
        let identity = identity();
        let upstream = h2_upstream(&identity).await;
        let settings = providers(upstream, &identity.folder.path().join("cert.pem"));
        let gateway = tokio::task::spawn_blocking(move || Gateway::start(&settings)).await.unwrap();
        let client = h2c_client(gateway.address).await;
        let (_, _, answer) = post(&client, gateway.address, Bytes::from_static(b"{\"model\":\"cut\",\"stream\":true}"), true).await;
        assert!(answer.is_err(), "the caller must be able to tell: {answer:?}");
        assert_eq!(gateway.closed_entries(1)[0].outcome(), Outcome::Truncated);
    });
}

#[test]
fn http1_callers_reach_http2_upstreams_and_http2_callers_reach_http1_upstreams() {
    runtime().block_on(async {
        let identity = identity();
        let h2 = h2_upstream(&identity).await;
        let http1 = Upstream::fixed(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{WHOLE}", WHOLE.len()));
        let settings = format!(
            "providers: {{two: {{base_url: \"https://localhost:{}/v1\", prices: mock, ca: \"{}\"}}, one: {{base_url: \"http://{}/v1\", prices: mock}}}}",
            h2.port(),
            identity.file("cert.pem"),
            http1.address
        );
        let gateway = tokio::task::spawn_blocking(move || Gateway::start(&settings)).await.unwrap();
        let address = gateway.address;
        let large = format!("{{\"model\":\"two/m\",\"p\":\"{}\"}}", "x".repeat(3 << 20));
        let response = tokio::task::spawn_blocking(move || support::Client::new(address).post("/v1/chat/completions", &large)).await.unwrap();
        assert_eq!((response.status, response.text(), response.whole), (200, WHOLE, true));
        let client = h2c_client(address).await;
        let large = Bytes::from(format!("{{\"model\":\"one/m\",\"p\":\"{}\"}}", "x".repeat(3 << 20)));
        let (status, _, body) = post(&client, address, large.clone(), false).await;
        assert_eq!((status, body.unwrap()), (StatusCode::OK, WHOLE.as_bytes().to_vec()));
        assert_eq!(http1.last().body.len(), large.len() - "one/".len());
        assert_eq!(http1.last().header("host"), Some(http1.address.to_string().as_str()));
        gateway.closed_entries(2);
    });
}

#[test]
fn an_upstream_with_a_certificate_nobody_trusts_gets_nothing() {
    runtime().block_on(async {
        let (trusted, other) = (identity(), identity());
        let upstream = h2_upstream(&other).await;
        let settings = providers(upstream, &trusted.folder.path().join("cert.pem"));
        let gateway = tokio::task::spawn_blocking(move || Gateway::start(&settings)).await.unwrap();
        let client = h2c_client(gateway.address).await;
        let (status, _, _) = post(&client, gateway.address, Bytes::from_static(b"{\"model\":\"m\"}"), true).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
    });
}

/// What came in one read with the break would be lost with the stream that it resets.
#[test]
fn what_came_with_a_break_reaches_a_caller_over_http2() {
    runtime().block_on(async {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let start = format!("{head}{:x}\r\n{EVENT}\r\n", EVENT.len());
        let upstream = support::Upstream::start(move |_| vec![support::Act::Write(start.clone().into()), support::Act::Close]);
        let gateway = Gateway::before(&upstream, "");
        let client = h2c_client(gateway.address).await;
        for count in 1..=20 {
            let (status, _, answer) = post(&client, gateway.address, Bytes::from_static(b"{\"model\":\"m\",\"stream\":true}"), true).await;
            let (came, _) = answer.unwrap_err();
            assert_eq!((status, came == EVENT.as_bytes()), (StatusCode::OK, true), "{count}");
        }
        assert!(gateway.closed_entries(20).iter().all(|entry| entry.outcome() == Outcome::Truncated));
    });
}
