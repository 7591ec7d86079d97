use super::lists::{EMPTY_LIST, LIST_BYTES_MAX};
use super::references::REFERENCES_MAX;
use super::*;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Default)]
struct Known(HashMap<String, Option<String>>);

impl super::super::stored_response::ObjectStore for Known {
    fn find(&self, id: &str) -> Result<Option<StoredObject>, Error> {
        let stored =
            |owner: &Option<String>| StoredObject { id: id.to_owned(), upstream: "up".to_owned(), owner: owner.clone(), pending: None };
        Ok(self.0.get(id).map(stored))
    }
}

fn store(owned: &[(&str, &str)]) -> StoreHandle {
    StoreHandle(Some(Arc::new(Known(owned.iter().map(|(id, owner)| (object_key("up", id), Some((*owner).to_owned()))).collect()))))
}

fn filtered(body: &str, encoded: bool) -> (String, Vec<String>) {
    let mut filter = ListFilter::new(store(&[("a", "me"), ("b", "you"), ("c", "me")]), encoded);
    body.as_bytes().chunks(5).for_each(|chunk| filter.push(chunk));
    let (out, learned) = filter.finish("up", Some("me"));
    (String::from_utf8(out.to_vec()).unwrap(), learned.into_iter().map(|object| object.id).collect())
}

#[test]
fn lists_show_an_owner_its_own_objects() {
    for (body, want) in [
        (
            r#"{"object":"list","data":[{"id":"a","x":1.50},{"id":"b"} , {"id":"c","y":[{"id":"b"}]}],"first_id":"a","last_id":"c","has_more":true}"#,
            r#"{"object":"list","data":[{"id":"a","x":1.50},{"id":"c","y":[{"id":"b"}]}],"first_id":"a","last_id":"c","has_more":true}"#,
        ),
        (
            r#"{"first_id":"b","data":[{"id":"b"},{"x":1}, 3,{"id":"unknown"}],"last_id":"b"}"#,
            r#"{"first_id":null,"data":[],"last_id":null}"#,
        ),
        (r#"{"files":[{"name":"files/b"},{"name":"files/a"}]}"#, r#"{"files":[{"name":"files/a"}]}"#),
        (r#" [{"id":"b"},{"id":"a"}] "#, r#" [{"id":"a"}] "#),
        // A name is the client's choice, but for Google's.
        (r#"{"data":[{"name":"a"},{"name":"x/a"}]}"#, r#"{"data":[]}"#),
        // An id counts before a name, which a client may choose.
        (r#"{"data":[{"name":"a","id":"b"}]}"#, r#"{"data":[]}"#),
    ] {
        assert_eq!(filtered(body, false).0, want);
    }
}

#[test]
fn a_list_that_cannot_be_filtered_is_empty() {
    let empty = String::from_utf8(EMPTY_LIST.to_vec()).unwrap();
    for body in [r#"[{"id":"b"}"#, r#"{"items":[{"id":"b"}]}"#, r#"{"data":{"id":"b"}}"#, r#"{"data":[{"id":"a"}"#, "no JSON", ""] {
        assert_eq!(filtered(body, false).0, empty, "{body}");
    }
    assert_eq!(filtered(r#"{"data":[{"id":"a"}]}"#, true).0, empty);
    let list = r#"{"data":[{"id":"a"}]}"#;
    let padded = |length: usize| format!("{list}{}", " ".repeat(length - list.len()));
    assert!(filtered(&padded(LIST_BYTES_MAX), false).0 != empty && filtered(&padded(LIST_BYTES_MAX + 1), false).0 == empty);
}

#[test]
fn own_objects_of_a_list_name_the_results_of_batches() {
    let body = r#"{"data":[{"id":"a","output_file_id":"out","error_file_id":null},{"id":"b","output_file_id":"theirs"}]}"#;
    assert_eq!(filtered(body, false).1, [object_key("up", "out"), results_key("up", "out")]);
}

#[test]
fn bodies_name_objects_in_reference_fields_at_any_depth() {
    for (body, want) in [
        (r#"{"input":[{"content":[{"type":"input_file","file_id":"file-1"}]}]}"#, &["file-1"][..]),
        (r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1","vs_2","vs_1"]}]}"#, &["vs_1", "vs_2"]),
        (r#"{"tools":[{"container":{"type":"auto","file_ids":["file-1"]}},{"container":"cntr_1"}]}"#, &["file-1", "cntr_1"]),
        (r#"{"container":{"id":"container_1","skills":[{"skill_id":"s"}]}}"#, &["container_1", "s"]),
        (r#"{"\u0066ile_id":"\u0066ile-1"}"#, &["file-1"]),
        (
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://g.test/v1beta/files/abc"}}]}],"cachedContent":"cachedContents/x"}"#,
            &["abc", "x"],
        ),
        (r#"{"input_file_id":"file-1","metadata":{"x":"file-2"}}"#, &["file-1"]),
        (r#"{"messages":[{"content":"say \"file_id\": \"file-9\""}],"file_id":3}"#, &[]),
        (r#"{"properties":{"file_id":{"type":"string"}}}"#, &[]),
        (r#"{"a":"\u00e9\u003c"}"#, &[]),
    ] {
        assert_eq!(ids(body), want, "{body}");
    }
    let many = |count: usize| {
        format!(r#"{{"file_ids":{}}}"#, serde_json::to_string(&(0..count).map(|at| format!("file-{at}")).collect::<Vec<_>>()).unwrap())
    };
    assert_eq!(ids(&many(REFERENCES_MAX)).len(), REFERENCES_MAX);
    assert!(References::of_json(many(REFERENCES_MAX + 1).as_bytes()).is_err());
}

fn ids(body: &str) -> Vec<String> {
    References::of_json(body.as_bytes()).unwrap().ids.into_iter().map(|reference| reference.id).collect()
}

#[test]
fn texts_of_the_clients_own_name_nothing() {
    for body in [
        r#"{"metadata":{"file_id":"file-1"}}"#,
        r#"{"messages":[{"content":[{"type":"tool_use","id":"t","input":{"file_id":"file-1"}}]}]}"#,
        r#"{"contents":[{"parts":[{"functionCall":{"args":{"file_id":"file-1"}}}]}]}"#,
        r#"{"tools":[{"parameters":{"properties":{"file_id":{"const":"file-1"}}}}]}"#,
        r#"{"messages":[{"content":[{"toolUse":{"input":{"container":"file-1"}}}]}]}"#,
    ] {
        assert_eq!(ids(body), [""; 0], "{body}");
    }
    // Whatever may be read as something else is not.
    for body in [
        r#"{"type":"tool_use","input":{"file_id":"file-1"},"type":"message"}"#,
        r#"{"input":[{"file_id":"file-1"}],"type":"response.create"}"#,
    ] {
        assert_eq!(ids(body), ["file-1"], "{body}");
    }
}

#[test]
fn an_id_is_found_in_whatever_address_names_it() {
    let reference = |text: &str| {
        let mut found = References::default();
        found.add(text);
        found.ids.into_iter().map(|reference| (reference.id, reference.certain)).collect::<Vec<_>>()
    };
    for text in [
        "files/abc",
        " files/abc ",
        "https://g.test/v1beta/files/abc",
        "https://g.test/v1beta/files/abc/",
        "https://g.test/v1beta/files/abc?alt=json",
        "https://g.test/v1beta//files/abc#x",
        "https://g.test/v1beta/%66iles/abc",
    ] {
        assert_eq!(reference(text), [("abc".to_owned(), true)], "{text}");
    }
    assert_eq!(reference("file-1\u{0}"), [("file-1".to_owned(), true)]);
    assert_eq!(reference("gs://bucket/files/report.pdf"), [("report.pdf".to_owned(), false)]);
    assert_eq!(reference("https://video.test/watch?v=1"), []);
    assert_eq!(reference("invoice 7"), []);
}

#[test]
fn a_body_whose_references_cannot_be_read_is_refused() {
    let headers = |kind: &'static str| http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind))]);
    let read = |kind, body: &[u8], collection| References::of(body, &headers(kind), collection, false).map(|found| found.ids.len());
    let json = "application/json";
    for body in [
        &br#"{"file_id":"file-1","x":"\ud800"}"#[..],
        br#"{"file_id":"file-1","x":1e999}"#,
        br#"{"file_id":"file-1","x":NaN}"#,
        b"\xef\xbb\xbf{\"file_id\":\"file-1\"}",
        b"{\"file_id\":\"file-1\",\"x\":\"\xff\"}",
    ] {
        for collection in [true, false] {
            assert!(read(json, body, collection).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
    let wide: Vec<u8> = r#"{"file_id":"file-1"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(read(json, &wide, true).is_err());
    assert!(read("application/x-www-form-urlencoded", b"file_id=file-1", true).is_err());
    assert_eq!((read(json, b"", true), read(json, b"{}", true), read("audio/wav", b"\xff", false)), (Ok(0), Ok(0), Ok(0)));
    let form = "multipart/form-data; boundary=b";
    let part = |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n--b--\r\n");
    for (name, value, want) in
        [("file_id", "file-1", 1), ("file_ids[]", "file-1", 1), ("video", r#"{"id":"video_1"}"#, 1), ("purpose", "file-1", 0)]
    {
        assert_eq!(read(form, part(name, value).as_bytes(), true), Ok(want), "{name}");
    }
    assert!(read(form, b"no form", true).is_err());
    assert!(References::of_json(br#"{"data_source":{"source":{"type":"responses"}}}"#).unwrap().account);
    assert_eq!(ids(r#"{"data_source":{"source":{"type":"file_id","id":"file-1"}}}"#), ["file-1"]);
}

#[test]
fn an_object_is_read_wherever_its_response_is_cut() {
    let body =
        r#"{"id":"batch_1","object":"batch","metadata":{"id":"x","output_file_id":"y"},"output_file_id":"file-o","error_file_id":null}"#;
    for at in 0..=body.len() {
        let (head, tail) = body.as_bytes().split_at(at);
        let mut reader = ObjectReader::new();
        reader.push(head);
        reader.push(tail);
        assert!(reader.scanner.is_done());
        assert_eq!((reader.ids.object(), reader.ids.results.as_slice()), (Some("batch_1"), &["file-o".to_owned()][..]), "cut at {at}");
    }
}
