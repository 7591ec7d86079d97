//! Results of batches that nobody asked for. Their name says how many items: `file-3`, `msgbatch_3`.

use super::{Script, Step, whole};
use bytes::Bytes;
use serde_json::{Value, json};

/// `None` if the path is none of results.
pub fn results(path: &str) -> Option<Script> {
    let between = |before, after| path.rsplit_once(before)?.1.strip_suffix(after);
    let (id, item): (_, fn(&str, usize) -> Value) = match between("/files/", "/content") {
        Some(id) => (id, of_file),
        None => (between("/messages/batches/", "/results")?, of_messages),
    };
    let count = id.rsplit(['-', '_']).next()?.parse().ok().filter(|count| *count <= 100_000)?;
    let body: String = (0..count).map(|at| format!("{}\n", item(id, at))).collect();
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
