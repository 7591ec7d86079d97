//! Objects that providers keep (files, batches, vector stores), over real sockets: whose they are, and who pays for results.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Act, Gateway, Request, Response, Upstream, until};

const ALLOW: &str = "allow: [\"GET /*\", \"POST /*\", \"DELETE /*\"]";

fn document(body: &str) -> Vec<Act> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    vec![Act::Write((head + body).into_bytes())]
}

/// Numbers its objects; a batch has results in `file-out…`, and any file has contents that state usage.
fn provider(name: &'static str) -> Upstream {
    let made = AtomicUsize::new(0);
    Upstream::start(move |request: &Request| {
        let mut words = request.line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap().strip_prefix("/v1").unwrap().split('?').next().unwrap());
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let batch = |id: &str| format!(r#"{{"id":"{id}","object":"batch","output_file_id":"file-out{id}","error_file_id":null}}"#);
        if request.line.starts_with("GET /v1/responses ") {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            return vec![Act::Write(switch.as_bytes().to_vec()), Act::Wait];
        }
        match (method, parts.as_slice()) {
            ("POST", ["files"]) => document(&format!(r#"{{"id":"file-{name}{}","object":"file"}}"#, made.fetch_add(1, Ordering::SeqCst))),
            ("POST", ["vector_stores"]) => document(&format!(r#"{{"id":"vs_{name}{}"}}"#, made.fetch_add(1, Ordering::SeqCst))),
            ("POST", ["batches"]) => document(&batch(&format!("batch_{name}{}", made.fetch_add(1, Ordering::SeqCst)))),
            ("GET", ["files"]) => {
                document(r#"{"object":"list","data":[{"id":"file-a0"},{"id":"file-a1"},{"id":"file-elsewhere"}],"has_more":false}"#)
            }
            ("POST", ["skills"]) => document(&String::from_utf8(request.body.clone()).unwrap()),
            ("GET", ["files", id]) => document(&format!(r#"{{"id":"{id}","object":"file"}}"#)),
            ("GET", ["batches", id]) => document(&batch(id)),
            ("GET", ["files", _, "content"]) => document(
                r#"{"custom_id":"c","response":{"body":{"id":"x","model":"mock-x","usage":{"prompt_tokens":100000,"completion_tokens":1000,"total_tokens":101000}}}}"#,
            ),
            _ => document(
                r#"{"id":"resp_1","object":"response","status":"completed","model":"mock-x","usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2},"output":[{"type":"code_interpreter_call","container_id":"cntr_made"}]}"#,
            ),
        }
    })
}

fn gateway(a: &Upstream, b: &Upstream, more: &str) -> Gateway {
    let upstream = |upstream: &Upstream, more: &str| {
        format!("{{kind: openai, base_url: \"http://{}/v1\", prices: mock, api_key: theirs, {ALLOW}{more}}}", upstream.address)
    };
    Gateway::start(&format!(
        "providers: {{a: {}, b: {}}}\naliases: {{m: [{{to: a/mock-x, weight: 1}}, {{to: b/mock-x, weight: 1}}]}}\n{more}",
        upstream(a, ", shared_objects: [file-shared]"),
        upstream(b, "")
    ))
}

fn call(gateway: &Gateway, key: &str, line: &str, body: &str) -> Response {
    let mut client = gateway.connect();
    let length = if line.starts_with("GET") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n{length}\r\n",
        gateway.address
    );
    client.write((head + body).as_bytes());
    client.response()
}

fn id(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_object_belongs_to_the_key_that_created_it() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = gateway(&a, &b, "keys: {}");
    let (one, two) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    until("the keys", || (call(&gateway, &two, "GET /a/v1/models", "").status == 200).then_some(()));
    let file = id(&call(&gateway, &one, "POST /a/v1/files", "{}"));
    let batch = id(&call(&gateway, &one, "POST /a/v1/batches", &format!(r#"{{"input_file_id":"{file}"}}"#)));
    let store = id(&call(&gateway, &one, "POST /a/v1/vector_stores", &format!(r#"{{"file_ids":["{file}"]}}"#)));
    let results = format!("file-out{batch}");
    let own = id(&call(&gateway, &two, "POST /a/v1/files", "{}"));
    let reference = |field: &str| format!(r#"{{"model":"m","input":[{{"content":[{{{field}}}]}}]}}"#);
    let asked = || a.requests.lock().unwrap().len() + b.requests.lock().unwrap().len();
    let before = asked();
    for (line, body) in [
        (format!("GET /a/v1/files/{file}"), String::new()),
        (format!("GET /a/v1/files/{file}/content"), String::new()),
        (format!("DELETE /a/v1/files/{file}"), String::new()),
        (format!("GET /a/v1/batches/{batch}"), String::new()),
        (format!("POST /a/v1/batches/{batch}/cancel"), "{}".to_owned()),
        (format!("GET /a/v1/files/{results}/content"), String::new()),
        (format!("GET /a/v1/vector_stores/{store}/files"), String::new()),
        (format!("POST /a/v1/vector_stores/{store}/search"), "{}".to_owned()),
        ("GET /a/v1/files/file-elsewhere".to_owned(), String::new()),
        ("DELETE /a/v1/files/file-shared".to_owned(), String::new()),
        ("POST /a/v1/batches".to_owned(), format!(r#"{{"input_file_id":"{file}"}}"#)),
        ("POST /a/v1/batches".to_owned(), format!(r#"{{"\u0069nput_file_id":"\u0066{}"}}"#, &file[1..])),
        (format!("POST /a/v1/vector_stores/{store}/files"), format!(r#"{{"file_id":"{own}"}}"#)),
        ("POST /v1/responses".to_owned(), reference(&format!(r#""file_id":"{file}""#))),
        ("POST /v1/responses".to_owned(), reference(&format!(r#""f\u0069le_id":"{file}""#))),
        ("POST /v1/responses".to_owned(), reference(&format!(r#""vector_store_ids":["{store}"]"#))),
        ("POST /v1/responses".to_owned(), reference(r#""file_id":"file-elsewhere""#)),
        ("POST /v1/responses".to_owned(), reference(r#""container":"cntr_theirs""#)),
        ("POST /v1/responses".to_owned(), reference(&format!(r#""file_id":"{file}?x=1""#))),
        ("POST /a/v1/batches".to_owned(), format!(r#"{{"data_source":{{"source":{{"type":"file_id","id":"{file}"}}}}}}"#)),
        (format!("GET /b/v1/files/{file}"), String::new()),
    ] {
        let refused = call(&gateway, &two, &line, &body);
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (404, Some("object_not_found")), "{line} {body}");
    }
    // What cannot be read for certain.
    for (line, body) in [
        ("POST /a/v1/batches", format!("\u{feff}{{\"input_file_id\":\"{file}\"}}")),
        ("POST /a/v1/batches", format!(r#"{{"input_file_id":"{file}","x":1e999}}"#)),
        ("POST /a/v1/batches", format!("input_file_id={file}")),
        ("POST /a/v1/evals/x/runs", r#"{"data_source":{"source":{"type":"stored_completions"}}}"#.to_owned()),
        ("POST /v1/responses", reference(&format!(r#""file_id":"{file}","x":"\ud800""#))),
    ] {
        let refused = call(&gateway, &two, line, &body);
        assert!(matches!(refused.status, 400 | 404), "{line} {body}: {}", refused.text());
    }
    for spelled in ["/a/v1/Files/", "/a/v1/files//", "/a/v1/%66iles/", "/a/v1/files;x=1/", "/a/v1//files/"] {
        for key in [&one, &two] {
            assert!(matches!(call(&gateway, key, &format!("GET {spelled}{file}"), "").status, 400 | 403), "{spelled}");
        }
    }
    assert_eq!(asked(), before, "nothing that was refused reached a provider");
    for (line, body) in [
        (format!("GET /a/v1/files/{file}"), String::new()),
        (format!("GET /a/v1/batches/{batch}"), String::new()),
        ("GET /a/v1/files/file-shared".to_owned(), String::new()),
        ("POST /v1/responses".to_owned(), reference(r#""file_id":"file-shared""#)),
        // A text of the client's own under such a name.
        ("POST /v1/responses".to_owned(), reference(r#""file_id":"invoice 7""#)),
    ] {
        assert_eq!(call(&gateway, &one, &line, &body).status, 200, "{line} {body}");
    }
    // What names an object goes to the account that has it.
    for _ in 0..8 {
        assert_eq!(call(&gateway, &one, "POST /v1/responses", &reference(&format!(r#""file_id":"{file}""#))).status, 200);
    }
    assert_eq!(b.requests.lock().unwrap().iter().filter(|request| String::from_utf8_lossy(&request.body).contains(&file)).count(), 0);
    // A container that a tool created belongs to the response's key.
    assert_eq!(call(&gateway, &one, "GET /a/v1/containers/cntr_made/files/cfile_1/content", "").status, 200);
    assert_eq!(call(&gateway, &two, "GET /a/v1/containers/cntr_made/files/cfile_1/content", "").status, 404);
}

/// Opens a WebSocket and sends one message.
fn message_on_socket(gateway: &Gateway, key: &str, message: &str) -> std::net::TcpStream {
    let mut client = gateway.connect();
    let head = format!(
        "GET /a/v1/responses HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        gateway.address
    );
    client.write(head.as_bytes());
    let mut answer = vec![];
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        client.stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    // A mask of zeros leaves the text as it is.
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    client.write(&[&[0x81, 0xfe][..], &length, &[0; 4], message.as_bytes()].concat());
    client.stream.try_clone().unwrap()
}

#[test]
fn an_owner_stays_the_owner() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = gateway(&a, &b, "keys: {}");
    let (one, two) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    until("the keys", || (call(&gateway, &two, "GET /a/v1/models", "").status == 200).then_some(()));
    // Whoever reads a shared object does not become its owner.
    for key in [&one, &two] {
        assert_eq!(call(&gateway, key, "GET /a/v1/files/file-shared", "").status, 200);
        assert_eq!(call(&gateway, key, "DELETE /a/v1/files/file-shared", "").status, 404);
    }
    // No response takes over another's object, by a name that a client chooses or by its id.
    let file = id(&call(&gateway, &one, "POST /a/v1/files", "{}"));
    for field in ["name", "id"] {
        let made = call(&gateway, &two, "POST /a/v1/skills", &format!(r#"{{"{field}":"x/{file}"}}"#));
        assert_eq!((made.status, call(&gateway, &two, &format!("GET /a/v1/files/{file}"), "").status), (200, 404), "{field}");
        assert_eq!(call(&gateway, &one, &format!("GET /a/v1/files/{file}"), "").status, 200, "{field}");
    }
}

#[test]
fn a_message_on_a_websocket_names_own_objects_only() {
    const POLICY: u16 = 1008;
    let (a, b) = (provider("a"), provider("b"));
    let gateway = gateway(&a, &b, "keys: {}");
    let (one, two) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    until("the keys", || (call(&gateway, &two, "GET /a/v1/models", "").status == 200).then_some(()));
    let file = id(&call(&gateway, &one, "POST /a/v1/files", "{}"));
    let elsewhere = id(&call(&gateway, &one, "POST /b/v1/files", "{}"));
    let create =
        |field: &str| format!(r#"{{"type":"response.create","model":"mock-x","input":[{{"content":[{{{field}}}]}}],"pad":"{:100}"}}"#, "");
    for (key, field) in [
        (&two, format!(r#""file_id":"{file}""#)),
        (&two, format!(r#""f\u0069le_id":"{file}""#)),
        (&two, format!(r#""file_id":"{file}","x":1e999"#)),
        (&one, format!(r#""file_id":"{elsewhere}""#)),
    ] {
        let mut frame = [0; 4];
        message_on_socket(&gateway, key, &create(&field)).read_exact(&mut frame).unwrap();
        assert_eq!((frame[0], u16::from_be_bytes([frame[2], frame[3]])), (0x88, POLICY), "{field}");
    }
    // A turn that is forwarded has an entry.
    let turns = || gateway.entries().iter().filter(|entry| entry.open.stream).count();
    assert_eq!(turns(), 0);
    let _own = message_on_socket(&gateway, &one, &create(&format!(r#""file_id":"{file}""#)));
    until("the turn", || (turns() == 1).then_some(()));
}

#[test]
fn lists_show_a_key_its_own_objects() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = gateway(&a, &b, "keys: {}");
    let (one, two) = (gateway.add_key(|_| {}), gateway.add_key(|_| {}));
    until("the keys", || (call(&gateway, &two, "GET /a/v1/models", "").status == 200).then_some(()));
    let mine = [&one, &two].map(|key| id(&call(&gateway, key, "POST /a/v1/files", "{}")));
    for (key, mine) in [&one, &two].into_iter().zip(mine) {
        let list = call(&gateway, key, "GET /a/v1/files?limit=100", "");
        let ids: Vec<_> = list.json()["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, [mine]);
    }
}

/// Results are billed to the key that created the batch, once; contents of an uploaded file state no usage.
#[test]
fn only_results_of_own_batches_are_billed() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = gateway(&a, &b, "keys: {}");
    let one = gateway.add_key(|_| {});
    until("the key", || (call(&gateway, &one, "GET /a/v1/models", "").status == 200).then_some(()));
    let file = id(&call(&gateway, &one, "POST /a/v1/files", "{}"));
    assert_eq!(call(&gateway, &one, &format!("GET /a/v1/files/{file}/content"), "").status, 200);
    let batch = id(&call(&gateway, &one, "POST /a/v1/batches", &format!(r#"{{"input_file_id":"{file}"}}"#)));
    for _ in 0..2 {
        assert_eq!(call(&gateway, &one, &format!("GET /a/v1/files/file-out{batch}/content"), "").status, 200);
    }
    until("the entries", || gateway.entries().iter().all(|entry| entry.close.is_some()).then_some(()));
    let billed: Vec<_> = gateway.entries().into_iter().filter(|entry| entry.used.as_ref().is_some_and(|used| used.total.0 > 0)).collect();
    assert_eq!(billed.len(), 1, "{billed:?}");
    assert_eq!(billed[0].open.key.as_deref(), one.split('_').nth(1));
}

#[test]
fn without_keys_all_clients_are_one() {
    let (a, b) = (provider("a"), provider("b"));
    let gateway = gateway(&a, &b, "");
    assert_eq!(call(&gateway, "", "GET /a/v1/files/file-elsewhere", "").status, 200);
    assert_eq!(call(&gateway, "", "GET /a/v1/files", "").json()["data"].as_array().unwrap().len(), 3);
    let batch = id(&call(&gateway, "", "POST /a/v1/batches", "{}"));
    for file in ["file-elsewhere".to_owned(), format!("file-out{batch}")] {
        assert_eq!(call(&gateway, "", &format!("GET /a/v1/files/{file}/content"), "").status, 200);
    }
    until("the entries", || gateway.entries().iter().all(|entry| entry.close.is_some()).then_some(()));
    assert_eq!(gateway.entries().iter().filter(|entry| entry.used.as_ref().is_some_and(|used| used.total.0 > 0)).count(), 1);
}
