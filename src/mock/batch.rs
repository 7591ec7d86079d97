//! Files, batch jobs and their results. A name says how many items the results have: `file-3`, `msgbatch_3`. Nothing is kept:
//! a job is finished as soon as it is created.

use super::{Script, Step, whole};
use bytes::Bytes;
use serde_json::{Value, json};

const ITEMS_MAX: usize = 100_000;
/// Items of a job whose input does not say.
const ITEMS: usize = 3;

/// The response to a request about files or batches; `None` if the path is none of theirs.
pub fn response(path: &str, body: &[u8]) -> Option<Script> {
    if let Some(script) = results(path) {
        return Some(script);
    }
    let (before, name) = path.rsplit_once('/')?;
    let object = match (before.rsplit('/').next()?, name) {
        (_, "files") if body.is_empty() => json!({"object": "list", "data": [file("file-1"), file("file-2")], "has_more": false}),
        (_, "files") => file(&format!("file-{ITEMS}")),
        ("messages", "batches") => json!({
            "id": format!("msgbatch_{ITEMS}"), "type": "message_batch", "processing_status": "ended",
            "request_counts": {"processing": 0, "succeeded": ITEMS, "errored": 0, "canceled": 0, "expired": 0},
            "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z",
        }),
        (_, "batches") if body.is_empty() => json!({"object": "list", "data": [batch(1), batch(2)], "has_more": false}),
        (_, "batches") => {
            let input = serde_json::from_slice::<Value>(body).ok()?;
            batch(items(input.get("input_file_id")?.as_str()?).unwrap_or(ITEMS))
        }
        ("files", id) => file(id),
        ("batches", id) => batch(items(id)?),
        _ => return None,
    };
    Some(whole(200, &object))
}

fn items(name: &str) -> Option<usize> {
    name.rsplit(['-', '_']).next()?.parse().ok().filter(|count| *count <= ITEMS_MAX)
}

fn file(id: &str) -> Value {
    json!({"id": id, "object": "file", "bytes": 1, "created_at": 0, "filename": "requests.jsonl", "purpose": "batch", "status": "processed"})
}

fn batch(items: usize) -> Value {
    json!({
        "id": format!("batch_{items}"), "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "input_file_id": format!("file-{items}"), "output_file_id": format!("file-out-{items}"), "error_file_id": null,
        "status": "completed", "created_at": 0,
    })
}

fn results(path: &str) -> Option<Script> {
    let between = |before, after| path.rsplit_once(before)?.1.strip_suffix(after);
    let (id, item): (_, fn(&str, usize) -> Value) = match between("/files/", "/content") {
        Some(id) => (id, of_file),
        None => (between("/messages/batches/", "/results")?, of_messages),
    };
    let body: String = (0..items(id)?).map(|at| format!("{}\n", item(id, at))).collect();
    let content_length = Some(body.len());
    Some(Script {
        content_type: "application/octet-stream",
        content_length,
        steps: vec![Step::Send(Bytes::from(body))],
        ..whole(200, &Value::Null)
    })
}

fn of_file(id: &str, at: usize) -> Value {
    let usage = json!({"prompt_tokens": 1003, "completion_tokens": 307, "total_tokens": 1310});
    let body = json!({"id": format!("chatcmpl-{at}"), "object": "chat.completion", "model": "mock-small", "choices": [], "usage": usage});
    json!({"id": format!("batch_req_{id}_{at}"), "custom_id": format!("item-{at}"), "response": {"status_code": 200, "request_id": "r", "body": body}, "error": null})
}

fn of_messages(_: &str, at: usize) -> Value {
    let usage = json!({"input_tokens": 602, "cache_read_input_tokens": 401, "cache_creation_input_tokens": 0, "output_tokens": 307, "service_tier": "batch"});
    let message = json!({"id": format!("msg_{at}"), "type": "message", "role": "assistant", "model": "mock-small", "content": [], "stop_reason": "end_turn", "usage": usage});
    json!({"custom_id": format!("item-{at}"), "result": {"type": "succeeded", "message": message}})
}
