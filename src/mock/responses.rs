//! OpenAI Responses.

use super::{Ask, EVENTS, Script, Tokens, document, named, stream};
use serde_json::{Value, json};

fn usage(tokens: Tokens) -> Value {
    json!({
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    })
}

fn response(ask: &Ask, status: &str, output: &Value, usage: Option<&Value>) -> Value {
    json!({
        "id": ask.id("resp_"), "object": "response", "created_at": 1_700_000_000, "status": status, "background": false,
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "model": ask.model,
        "output": output, "parallel_tool_calls": true, "service_tier": "default", "temperature": 1.0, "tool_choice": "auto",
        "tools": ask.body.get("tools").cloned().unwrap_or(json!([])), "top_p": 1.0, "usage": usage,
    })
}

fn item(ask: &Ask, status: &str, text: &str) -> Value {
    match &ask.tool {
        Some(name) => {
            json!({"id": ask.id("fc_"), "type": "function_call", "status": status, "arguments": "{}", "call_id": ask.id("call_"), "name": name})
        }
        None => {
            let content = if status == "completed" { json!([part(text)]) } else { json!([]) };
            json!({"id": ask.id("msg_"), "type": "message", "status": status, "role": "assistant", "content": content})
        }
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

pub fn answer(ask: &Ask, tokens: Tokens) -> Script {
    let usage = (ask.options.usage > 0).then(|| usage(tokens));
    let done = response(ask, "completed", &json!([item(ask, "completed", &ask.text())]), usage.as_ref());
    if ask.stream { streamed(ask, &done) } else { document(ask, &done) }
}

fn streamed(ask: &Ask, done: &Value) -> Script {
    let serial = std::cell::Cell::new(0u64);
    let event = |kind: &str, fields: Value| {
        let mut event = json!({"type": kind, "sequence_number": serial.replace(serial.get() + 1)});
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        named(&event)
    };
    let opened = response(ask, "in_progress", &json!([]), None);
    let message = ask.tool.is_none();
    let place = json!({"item_id": ask.id("msg_"), "output_index": 0, "content_index": 0});
    let at_place = |extra: Value| {
        let mut fields = place.clone();
        if let (Some(fields), Value::Object(extra)) = (fields.as_object_mut(), extra) {
            fields.extend(extra);
        }
        fields
    };
    let mut before = vec![
        event("response.created", json!({"response": opened})),
        event("response.in_progress", json!({"response": opened})),
        event("response.output_item.added", json!({"output_index": 0, "item": item(ask, "in_progress", "")})),
    ];
    if message {
        before.push(event("response.content_part.added", at_place(json!({"part": part("")}))));
    }
    let after = || {
        let text = ask.text();
        let mut after = if message {
            vec![
                event("response.output_text.done", at_place(json!({"text": text, "logprobs": []}))),
                event("response.content_part.done", at_place(json!({"part": part(&text)}))),
            ]
        } else {
            let fields = json!({"item_id": ask.id("fc_"), "output_index": 0, "arguments": "{}", "name": ask.tool});
            vec![event("response.function_call_arguments.done", fields)]
        };
        after.push(event("response.output_item.done", json!({"output_index": 0, "item": item(ask, "completed", &text)})));
        after.push(event("response.completed", json!({"response": done})));
        after
    };
    let error = || {
        event(
            "error",
            json!({"code": "server_error", "message": "the mock was told to fail", "param": null, "error": {"code": "mock_error"}}),
        )
    };
    let piece = |words: &str| {
        if message { event("response.output_text.delta", at_place(json!({"delta": words, "logprobs": []}))) } else { String::new() }
    };
    stream(ask, EVENTS, before, piece, after, error)
}
