//! Google's generateContent.

use super::{Ask, EVENTS, Script, Tokens, data, document, stream};
use crate::dialect::Endpoint;
use serde_json::{Value, json};
use std::cell::Cell;

fn usage(tokens: Tokens) -> Value {
    json!({
        "promptTokenCount": tokens.input,
        "cachedContentTokenCount": tokens.cached,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "thoughtsTokenCount": tokens.reasoning,
        "totalTokenCount": tokens.input + tokens.output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens.input}],
    })
}

fn chunk(ask: &Ask, parts: &Value, finish: Option<&str>, usage: Option<Value>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let (Some(finish), Some(candidate)) = (finish, candidate.as_object_mut()) {
        candidate.insert("finishReason".to_owned(), finish.into());
    }
    let mut chunk = json!({"candidates": [candidate], "modelVersion": ask.model, "responseId": ask.id("gen-")});
    if let (Some(usage), Some(chunk)) = (usage.filter(|_| ask.options.usage > 0), chunk.as_object_mut()) {
        chunk.insert("usageMetadata".to_owned(), usage);
    }
    chunk
}

fn last_parts(ask: &Ask, text: &str) -> Value {
    match &ask.tool {
        Some(name) => json!([{"functionCall": {"name": name, "args": {}}}]),
        None => json!([{"text": text}]),
    }
}

/// `sse` says that `alt=sse` was asked for; without it a stream is one JSON array.
pub fn answer(ask: &Ask, tokens: Tokens, endpoint: Endpoint, sse: bool) -> Script {
    match endpoint {
        Endpoint::CountTokens => document(ask, &json!({"totalTokens": tokens.input})),
        Endpoint::EmbedContent => {
            document(ask, &json!({"embedding": {"values": [0.5, 0.25]}, "usageMetadata": {"promptTokenCount": tokens.input}}))
        }
        Endpoint::BatchEmbedContents => {
            document(ask, &json!({"embeddings": [{"values": [0.5, 0.25]}], "usageMetadata": {"promptTokenCount": tokens.input}}))
        }
        Endpoint::Predict => {
            let statistics = json!({"token_count": tokens.input, "truncated": false});
            document(ask, &json!({"predictions": [{"embeddings": {"values": [0.5, 0.25], "statistics": statistics}}]}))
        }
        Endpoint::StreamGenerateContent => streamed(ask, tokens, sse),
        _ => document(ask, &chunk(ask, &last_parts(ask, &ask.text()), Some("STOP"), Some(usage(tokens)))),
    }
}

fn streamed(ask: &Ask, tokens: Tokens, sse: bool) -> Script {
    let first = Cell::new(true);
    let event = |event: &Value| match (sse, first.replace(false)) {
        (true, _) => data(event),
        (false, true) => format!("[{event}"),
        (false, false) => format!(",\r\n{event}"),
    };
    // What came so far, as the real one counts in every chunk.
    let sofar = Tokens { output: tokens.reasoning, ..tokens };
    let piece = |text: &str| event(&chunk(ask, &json!([{"text": text}]), None, Some(usage(sofar))));
    let after = || {
        let last = event(&chunk(ask, &last_parts(ask, ""), Some("STOP"), Some(usage(tokens))));
        vec![if sse { last } else { last + "]" }]
    };
    let error = || event(&json!({"error": {"code": 503, "message": "the mock was told to fail", "status": "UNAVAILABLE"}}));
    stream(ask, if sse { EVENTS } else { "application/json; charset=UTF-8" }, vec![], piece, after, error)
}
