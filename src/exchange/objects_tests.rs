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
        // An id counts before a name, which a client may choose.
        (r#"{"data":[{"name":"a","id":"b"}]}"#, r#"{"data":[]}"#),
    ] {
        assert_eq!(filtered(body, false).0, want);
    }
}

#[test]
fn a_list_that_cannot_be_filtered_is_empty() {
    let empty = String::from_utf8(EMPTY_LIST.to_vec()).unwrap();
    for body in [r#"[{"id":"b"}]"#, r#"{"items":[{"id":"b"}]}"#, r#"{"data":{"id":"b"}}"#, r#"{"data":[{"id":"a"}"#, "no JSON", ""] {
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
        (r#"{"container":{"id":"container_1","skills":[{"skill_id":"s"}]}}"#, &["container_1"]),
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
        assert_eq!(references(body.as_bytes()).unwrap(), want, "{body}");
    }
    let many = |count: usize| {
        format!(r#"{{"file_ids":{}}}"#, serde_json::to_string(&(0..count).map(|at| format!("file-{at}")).collect::<Vec<_>>()).unwrap())
    };
    assert_eq!(references(many(REFERENCES_MAX).as_bytes()).unwrap().len(), REFERENCES_MAX);
    assert!(references(many(REFERENCES_MAX + 1).as_bytes()).is_err());
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
