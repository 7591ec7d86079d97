//! Bedrock: Converse, and InvokeModel as Claude answers it. Streams are event-stream messages.

use super::{Ask, Script, Tokens, document, messages, stream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

fn usage(tokens: Tokens) -> Value {
    json!({
        "inputTokens": tokens.input - tokens.cached, "outputTokens": tokens.output, "totalTokens": tokens.input + tokens.output,
        "cacheReadInputTokens": tokens.cached, "cacheWriteInputTokens": 0,
    })
}

fn stop(ask: &Ask) -> &'static str {
    if ask.tool.is_some() { "tool_use" } else { "end_turn" }
}

pub fn converse(ask: &Ask, tokens: Tokens) -> Script {
    let content = match &ask.tool {
        Some(name) => json!([{"toolUse": {"toolUseId": ask.id("tooluse_"), "name": name, "input": {}}}]),
        None => json!([{"text": ask.text()}]),
    };
    let mut body = json!({
        "output": {"message": {"role": "assistant", "content": content}}, "stopReason": stop(ask), "metrics": {"latencyMs": 1},
    });
    if let Some(body) = body.as_object_mut().filter(|_| ask.options.usage > 0) {
        body.insert("usage".to_owned(), usage(tokens));
    }
    document(ask, &body)
}

pub fn converse_stream(ask: &Ask, tokens: Tokens) -> Script {
    let event = |kind: &str, payload: &Value| message("event", ":event-type", kind, payload);
    let mut before = vec![event("messageStart", &json!({"role": "assistant"}))];
    if let Some(name) = &ask.tool {
        let start = json!({"toolUse": {"toolUseId": ask.id("tooluse_"), "name": name}});
        before.push(event("contentBlockStart", &json!({"contentBlockIndex": 0, "start": start})));
    }
    let piece = |text: &str| {
        let delta = if ask.tool.is_some() { json!({"toolUse": {"input": "{}"}}) } else { json!({"text": text}) };
        event("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": delta}))
    };
    let after = || {
        let mut after =
            vec![event("contentBlockStop", &json!({"contentBlockIndex": 0})), event("messageStop", &json!({"stopReason": stop(ask)}))];
        if ask.options.usage > 0 {
            after.push(event("metadata", &json!({"usage": usage(tokens), "metrics": {"latencyMs": 1}})));
        }
        after
    };
    stream(ask, EVENT_STREAM, before, piece, after, exception)
}

/// The events of Messages, each wrapped; the last carries the invocation's metrics.
pub fn invoke_stream(ask: &Ask, tokens: Tokens) -> Script {
    let (before, piece, after) = messages::events(ask, tokens);
    let chunk = |event: &Value| message("event", ":event-type", "chunk", &json!({"bytes": STANDARD.encode(event.to_string()), "p": "abc"}));
    let last = |mut events: Vec<Value>| {
        if let Some(last) = events.last_mut().and_then(Value::as_object_mut).filter(|_| ask.options.usage > 0) {
            let metrics = json!({
                "inputTokenCount": tokens.input - tokens.cached, "outputTokenCount": tokens.output,
                "cacheReadInputTokenCount": tokens.cached, "invocationLatency": 1, "firstByteLatency": 1,
            });
            last.insert("amazon-bedrock-invocationMetrics".to_owned(), metrics);
        }
        events
    };
    let before = before.iter().map(chunk).collect();
    stream(ask, EVENT_STREAM, before, |text| chunk(&piece(text)), || last(after).iter().map(chunk).collect(), exception)
}

fn exception() -> Vec<u8> {
    message("exception", ":exception-type", "modelStreamErrorException", &json!({"message": "the mock was told to fail"}))
}

/// A message of an event stream: <https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html>.
fn message(kind: &str, name: &str, value: &str, payload: &Value) -> Vec<u8> {
    const STRING: u8 = 7;
    let mut headers = vec![];
    for (name, value) in [(name, value), (":content-type", "application/json"), (":message-type", kind)] {
        headers.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.extend(name.bytes().chain([STRING]));
        headers.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend(value.bytes());
    }
    let payload = payload.to_string();
    let lengths = [16 + headers.len() + payload.len(), headers.len()];
    let mut out: Vec<u8> = lengths.iter().flat_map(|length| u32::try_from(*length).unwrap_or(u32::MAX).to_be_bytes()).collect();
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload.bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}
