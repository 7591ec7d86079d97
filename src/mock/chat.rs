//! Chat completions, completions and embeddings, and Cohere's chat.

use super::{Ask, EVENTS, Script, Tokens, data, document, stream};
use serde_json::{Value, json};

fn usage(tokens: Tokens) -> Value {
    json!({
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0},
    })
}

pub fn answer(ask: &Ask, tokens: Tokens, completions: bool) -> Script {
    if ask.stream { streamed(ask, tokens, completions) } else { whole(ask, tokens, completions) }
}

fn call(ask: &Ask, name: &str) -> Value {
    json!([{"index": 0, "id": ask.id("call_"), "type": "function", "function": {"name": name, "arguments": "{}"}}])
}

fn whole(ask: &Ask, tokens: Tokens, completions: bool) -> Script {
    let (object, choice) = match (&ask.tool, completions) {
        (_, true) => ("text_completion", json!({"index": 0, "text": ask.text(), "logprobs": null, "finish_reason": "stop"})),
        (Some(name), _) => (
            "chat.completion",
            json!({"index": 0, "message": {"role": "assistant", "content": null, "tool_calls": call(ask, name)}, "finish_reason": "tool_calls"}),
        ),
        (None, _) => (
            "chat.completion",
            json!({"index": 0, "message": {"role": "assistant", "content": ask.text(), "refusal": null}, "logprobs": null, "finish_reason": "stop"}),
        ),
    };
    let mut body = json!({
        "id": ask.id("chatcmpl-"), "object": object, "created": 1_700_000_000, "model": ask.model, "choices": [choice],
        "service_tier": "default", "system_fingerprint": "fp_mock",
    });
    if ask.options.usage > 0
        && let Some(body) = body.as_object_mut()
    {
        body.insert("usage".to_owned(), usage(tokens));
    }
    document(ask, &body)
}

fn streamed(ask: &Ask, tokens: Tokens, completions: bool) -> Script {
    let chunk = |choices: Value, usage: Option<Value>| {
        let object = if completions { "text_completion" } else { "chat.completion.chunk" };
        let mut event = json!({
            "id": ask.id("chatcmpl-"), "object": object, "created": 1_700_000_000, "model": ask.model,
            "service_tier": "default", "system_fingerprint": "fp_mock", "choices": choices,
        });
        if let Some(event) = event.as_object_mut().filter(|_| ask.include_usage) {
            event.insert("usage".to_owned(), usage.unwrap_or_default());
        }
        data(&event)
    };
    let delta =
        |delta: Value, finish: Option<&str>| chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]), None);
    let text =
        |text: &str, finish: Option<&str>| chunk(json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}]), None);
    let mut after = vec![match (&ask.tool, completions) {
        (_, true) => text("", Some("stop")),
        (Some(_), _) => delta(json!({}), Some("tool_calls")),
        (None, _) => delta(json!({}), Some("stop")),
    }];
    if ask.include_usage && ask.options.usage > 0 {
        after.push(chunk(json!([]), Some(usage(tokens))));
    }
    after.push("data: [DONE]\n\n".to_owned());
    let before = match (&ask.tool, completions) {
        (_, true) => vec![],
        (Some(name), _) => vec![delta(json!({"role": "assistant", "content": null, "tool_calls": call(ask, name)}), None)],
        (None, _) => vec![delta(json!({"role": "assistant", "content": ""}), None)],
    };
    let error = data(&json!({"error": {"message": "the mock was told to fail", "type": "server_error", "code": "mock_error"}}));
    let silent = ask.tool.is_some() && !completions;
    let piece = |words: &str| match (silent, completions) {
        (true, _) => String::new(),
        (_, true) => text(words, None),
        _ => delta(json!({"content": words}), None),
    };
    stream(ask, EVENTS, before, piece, || after, || error)
}

pub fn embeddings(ask: &Ask, tokens: Tokens) -> Script {
    let dimensions = ask.body.get("dimensions").and_then(Value::as_u64).unwrap_or(8).min(4096);
    let inputs = ask.body.get("input").and_then(Value::as_array).map_or(1, Vec::len);
    // 0.5 in each place; little-endian floats in base64 if that was asked for.
    let embedding = if ask.body.get("encoding_format").is_some_and(|format| format == "base64") {
        json!(base64_of_halves(dimensions))
    } else {
        json!(vec![0.5; usize::try_from(dimensions).unwrap_or(0)])
    };
    let data: Vec<Value> = (0..inputs).map(|index| json!({"object": "embedding", "index": index, "embedding": embedding})).collect();
    let body =
        json!({"object": "list", "data": data, "model": ask.model, "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input}});
    document(ask, &body)
}

/// Base64 of so many times the float 0.5 (00 00 00 3f). Three floats make sixteen letters.
fn base64_of_halves(count: u64) -> String {
    let rest = match count % 3 {
        1 => "AAAAPw==",
        2 => "AAAAPwAAAD8=",
        _ => "",
    };
    "AAAAPwAAAD8AAAA/".repeat(usize::try_from(count / 3).unwrap_or(0)) + rest
}

/// Cohere's chat, version 2.
pub fn cohere(ask: &Ask, tokens: Tokens) -> Script {
    let counts = json!({"input_tokens": tokens.input, "output_tokens": tokens.output});
    let usage = json!({"billed_units": counts, "tokens": counts});
    if !ask.stream {
        let message = json!({"role": "assistant", "content": [{"type": "text", "text": ask.text()}]});
        return document(ask, &json!({"id": ask.id("co-"), "finish_reason": "COMPLETE", "message": message, "usage": usage}));
    }
    let before = vec![data(&json!({"type": "message-start", "id": ask.id("co-"), "delta": {"message": {"role": "assistant"}}}))];
    let piece = |text: &str| data(&json!({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}}));
    let after = || vec![data(&json!({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}}))];
    let error = || data(&json!({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "the mock was told to fail"}}));
    stream(ask, EVENTS, before, piece, after, error)
}
