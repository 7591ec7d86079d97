//! The core's way of a request, again and again, for who counts instructions: `paths NAME TIMES`; without a name it says
//! which there are. Planned, forwarded, metered, priced and closed as in the gateway, without sockets and files.

use std::fmt::Write;
use tollgate::fuzz::served;

/// What is asked and answered.
type Input = fn() -> Vec<u8>;

const PATHS: &[(&str, Input)] = &[("document", document), ("stream", stream), ("messages", messages), ("prompt", prompt), ("alias", alias)];

fn whole(target: &str, body: &str, kind: &str, answer: &str) -> Vec<u8> {
    // The first byte says where the answer is cut.
    format!("~POST {target}\ncontent-type: application/json\n\n{body}\n---\n200\ncontent-type: {kind}\n\n{answer}").into_bytes()
}

/// A chat completion of about a kilobyte.
fn document() -> Vec<u8> {
    let answer = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":20,"completion_tokens":10,"total_tokens":30,"prompt_tokens_details":{{"cached_tokens":8}},"completion_tokens_details":{{"reasoning_tokens":4}}}}}}"#,
        "word ".repeat(120)
    );
    whole("/openai/v1/chat/completions", r#"{"model":"gpt-5","messages":[{"role":"user","content":"Hello"}]}"#, "application/json", &answer)
}

fn events() -> String {
    (0..100).fold(String::new(), |mut out, at| {
        let _ = write!(
            out,
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word {at}\"}},\"finish_reason\":null}}]}}\n\n"
        );
        out
    })
}

/// A hundred events, then usage.
fn stream() -> Vec<u8> {
    let usage = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5\",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":10,\"total_tokens\":30}}\n\ndata: [DONE]\n\n";
    let body = r#"{"model":"gpt-5","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
    whole("/openai/v1/chat/completions", body, "text/event-stream", &(events() + usage))
}

/// The same in Anthropic's way.
fn messages() -> Vec<u8> {
    let mut answer = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":20,\"cache_read_input_tokens\":8,\"output_tokens\":1}}}\n\n".to_owned();
    for at in 0..100 {
        let _ = write!(
            answer,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"word {at}\"}}}}\n\n"
        );
    }
    answer += "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":10}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
    whole("/anthropic/v1/messages", body, "text/event-stream", &answer)
}

/// A prompt of 100 KB.
fn prompt() -> Vec<u8> {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"gpt-5"}}"#, "word ".repeat(20_000));
    whole(
        "/openai/v1/chat/completions",
        &body,
        "application/json",
        r#"{"id":"c","model":"gpt-5","choices":[],"usage":{"prompt_tokens":20000,"completion_tokens":1}}"#,
    )
}

/// A model by its prefix, which is taken off.
fn alias() -> Vec<u8> {
    let body = r#"{"model":"openai/gpt-5","messages":[{"role":"user","content":"Hello"}],"stream":false}"#;
    whole(
        "/v1/chat/completions",
        body,
        "application/json",
        r#"{"id":"c","model":"gpt-5","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":1}}"#,
    )
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, times] = &args[..] else {
        PATHS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let Some((_, make)) = PATHS.iter().find(|(known, _)| known == name) else { std::process::exit(2) };
    let input = make();
    // The start (configuration, prices) is part of the first time; it is not counted, as it differs from run to run.
    for time in 0..=times.parse().unwrap_or(1) {
        let done = if time == 0 { served(&input) } else { counted(&input) };
        assert!(done, "{name} did not get as far as an answer");
    }
}

/// Who counts does so while this runs: its name is in `instructions.sh`.
#[inline(never)]
fn counted(input: &[u8]) -> bool {
    served(std::hint::black_box(input))
}
