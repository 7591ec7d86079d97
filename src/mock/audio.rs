//! Speech, transcription, reranking.

use super::{Ask, EVENTS, Script, Step, Tokens, document, named, split, stream, whole};
use bytes::Bytes;
use serde_json::{Value, json};

/// A frame of silence: MPEG audio, 24 kHz, mono.
const SILENCE: &[u8] = b"\xff\xf3\x44\xc4\0\0\0\x03H\0\0\0\0";

fn usage(tokens: Tokens) -> Value {
    json!({
        "type": "tokens",
        "input_tokens": tokens.input,
        "input_token_details": {"text_tokens": tokens.cached, "audio_tokens": tokens.input - tokens.cached},
        "output_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
    })
}

/// Sound; events of it where they are asked for.
pub fn speech(ask: &Ask, tokens: Tokens) -> Script {
    let usage = (ask.options.usage > 0)
        .then(|| json!({"input_tokens": tokens.input, "output_tokens": tokens.output, "total_tokens": tokens.input + tokens.output}));
    if ask.body.get("stream_format").is_some_and(|format| format == "sse") {
        let piece = |_: &str| named(&json!({"type": "speech.audio.delta", "audio": "//NExAAAAANIAAAAAA=="}));
        let done = || vec![named(&json!({"type": "speech.audio.done", "usage": usage}))];
        let error = || named(&json!({"type": "error", "error": {"code": "mock_error", "message": "the mock was told to fail"}}));
        return stream(ask, EVENTS, vec![], piece, done, error);
    }
    let frames = usize::try_from(ask.options.chunks).unwrap_or(1);
    let cut = ask.options.cut_after.and_then(|cut| usize::try_from(cut).ok());
    let mut sound = SILENCE.repeat(frames);
    sound.truncate(cut.unwrap_or(usize::MAX));
    let mut steps = vec![Step::Send(Bytes::from(sound))];
    steps.extend(cut.map(|_| Step::Cut));
    Script { content_type: "audio/mpeg", content_length: None, steps: split(steps, ask.options.split), ..whole(200, &Value::Null) }
}

/// Text of sound: by tokens, or by seconds for `verbose_json` and subtitles.
pub fn transcription(ask: &Ask, tokens: Tokens) -> Script {
    let text = ask.text();
    let format = ask.body.get("response_format").and_then(Value::as_str).unwrap_or("json");
    if matches!(format, "text" | "srt" | "vtt") {
        let body = Bytes::from(format!("{text}\n"));
        let content_length = Some(body.len());
        return Script {
            content_type: "text/plain; charset=utf-8",
            content_length,
            steps: vec![Step::Send(body)],
            ..whole(200, &Value::Null)
        };
    }
    if ask.stream {
        let piece = |piece: &str| named(&json!({"type": "transcript.text.delta", "delta": piece}));
        let usage = (ask.options.usage > 0).then(|| usage(tokens));
        let done = || vec![named(&json!({"type": "transcript.text.done", "text": text, "usage": usage}))];
        let error = || named(&json!({"type": "error", "error": {"code": "mock_error", "message": "the mock was told to fail"}}));
        return stream(ask, EVENTS, vec![], piece, done, error);
    }
    let used = |usage: Value| (ask.options.usage > 0).then_some(usage);
    if format == "verbose_json" {
        let usage = used(json!({"type": "duration", "seconds": 9}));
        return document(
            ask,
            &json!({"task": "transcribe", "language": "english", "duration": 8.47, "text": text, "segments": [], "usage": usage}),
        );
    }
    document(ask, &json!({"text": text, "usage": used(usage(tokens))}))
}

/// The documents in reverse; Cohere's numbers where its path is asked, tokens elsewhere.
pub fn rerank(ask: &Ask, tokens: Tokens, cohere: bool) -> Script {
    let documents = ask.body.get("documents").and_then(Value::as_array).map_or(0, Vec::len);
    let results: Vec<_> = (0..documents).rev().map(|index| json!({"index": index, "relevance_score": 0.5})).collect();
    document(
        ask,
        &match cohere {
            true => json!({
                "id": ask.id("rerank-"),
                "results": results,
                "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": documents.div_ceil(100).max(1)}},
            }),
            false => json!({"model": ask.model, "results": results, "usage": {"total_tokens": tokens.input}}),
        },
    )
}
