//! Anthropic Messages.

use super::{Ask, EVENTS, Script, Tokens, document, named, stream};
use serde_json::{Value, json};

fn usage(tokens: Tokens, output: u64) -> Value {
    json!({
        "input_tokens": tokens.input - tokens.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    })
}

pub fn answer(ask: &Ask, tokens: Tokens) -> Script {
    if ask.stream { streamed(ask, tokens) } else { whole(ask, tokens) }
}

fn last_usage(tokens: Tokens) -> Value {
    let mut usage = usage(tokens, tokens.output);
    if let Some(usage) = usage.as_object_mut() {
        usage.insert("output_tokens_details".to_owned(), json!({"thinking_tokens": tokens.reasoning}));
    }
    usage
}

fn message(ask: &Ask, content: &Value, stop: Option<&str>, usage: &Value) -> Value {
    json!({
        "id": ask.id("msg_"), "type": "message", "role": "assistant", "model": ask.model, "content": content,
        "stop_reason": stop, "stop_sequence": null, "usage": usage,
    })
}

fn stop(ask: &Ask) -> &'static str {
    if ask.tool.is_some() { "tool_use" } else { "end_turn" }
}

fn whole(ask: &Ask, tokens: Tokens) -> Script {
    let content = match &ask.tool {
        Some(name) => json!([{"type": "tool_use", "id": ask.id("toolu_"), "name": name, "input": {}}]),
        None => json!([{"type": "text", "text": ask.text()}]),
    };
    document(ask, &message(ask, &content, Some(stop(ask)), &last_usage(tokens)))
}

/// The events of a stream: before the text, each piece of it, and after it.
pub fn events(ask: &Ask, tokens: Tokens) -> (Vec<Value>, impl Fn(&str) -> Value, Vec<Value>) {
    let block = match &ask.tool {
        Some(name) => json!({"type": "tool_use", "id": ask.id("toolu_"), "name": name, "input": {}}),
        None => json!({"type": "text", "text": ""}),
    };
    // The opening's output count is a placeholder, as the real one's is.
    let before = vec![
        json!({"type": "message_start", "message": message(ask, &json!([]), None, &usage(tokens, 1))}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "ping"}),
    ];
    let mut last = json!({"type": "message_delta", "delta": {"stop_reason": stop(ask), "stop_sequence": null}});
    if let Some(last) = last.as_object_mut().filter(|_| ask.options.usage > 0) {
        last.insert("usage".to_owned(), last_usage(tokens));
    }
    let after = vec![json!({"type": "content_block_stop", "index": 0}), last, json!({"type": "message_stop"})];
    let piece = |text: &str| match ask.tool {
        Some(_) => json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        None => json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
    };
    (before, piece, after)
}

fn streamed(ask: &Ask, tokens: Tokens) -> Script {
    let (before, piece, after) = events(ask, tokens);
    let error = || named(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "the mock was told to fail"}}));
    let before = before.iter().map(named).collect();
    stream(ask, EVENTS, before, |text| named(&piece(text)), || after.iter().map(named).collect(), error)
}
