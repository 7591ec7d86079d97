//! OpenAI's images and moderation.

use super::{Ask, EVENTS, Script, Tokens, document, named, stream};
use crate::dialect::Endpoint;
use serde_json::{Value, json};

/// A picture of one transparent pixel, PNG in base64.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

fn usage(tokens: Tokens) -> Value {
    json!({
        "input_tokens": tokens.input,
        "input_tokens_details": {"text_tokens": tokens.input - tokens.cached, "image_tokens": 0, "cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"image_tokens": tokens.output - tokens.reasoning, "text_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    })
}

pub fn answer(ask: &Ask, tokens: Tokens, endpoint: Endpoint) -> Script {
    let usage = (ask.options.usage > 0).then(|| usage(tokens));
    if !ask.stream {
        let pictures = ask.body.get("n").and_then(Value::as_u64).unwrap_or(1);
        let data: Vec<_> = (0..pictures.min(10)).map(|_| json!({"b64_json": PIXEL})).collect();
        return document(ask, &json!({"created": 1_700_000_000, "data": data, "usage": usage}));
    }
    let kind = if endpoint == Endpoint::Images { "image_generation" } else { "image_edit" };
    let piece = |_: &str| named(&json!({"type": format!("{kind}.partial_image"), "b64_json": PIXEL, "partial_image_index": 0}));
    let done = json!({"type": format!("{kind}.completed"), "b64_json": PIXEL, "usage": usage});
    let error = || named(&json!({"type": "error", "error": {"code": "mock_error", "message": "the mock was told to fail"}}));
    stream(ask, EVENTS, vec![], piece, || vec![named(&done)], error)
}

pub fn moderation(ask: &Ask) -> Script {
    let result = json!({"flagged": false, "categories": {}, "category_scores": {}, "category_applied_input_types": {}});
    document(ask, &json!({"id": ask.id("modr-"), "model": ask.model, "results": [result]}))
}
