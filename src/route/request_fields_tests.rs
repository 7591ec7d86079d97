use super::*;

fn read(dialect: Dialect, body: &str) -> Result<RequestFields, Error> {
    RequestFields::read(body.as_bytes(), Some(dialect))
}

fn chat(body: &str) -> Result<RequestFields, Error> {
    read(Dialect::Chat, body)
}

#[test]
fn fields_and_their_spans_are_found() {
    let body = r#"{"messages":[{"model":"no"}],"mod\u0065l" : "a\/b" ,"stream":true,"stream_options":{"x":1},"system":null}"#;
    let fields = chat(body).unwrap();
    let model = fields.model.unwrap();
    assert_eq!((model.value.as_str(), &body[model.span]), ("a/b", r#""a\/b""#));
    assert_eq!(&body[fields.stream_options.unwrap()], r#"{"x":1}"#);
    assert!(fields.stream.unwrap().value && fields.messages && !fields.system && !fields.input);
}

/// Every field that selects a model, a price, an amount, an owner or the visibility of a response: the dialect, the object that it
/// stands in, its name, and a value.
const SELECTING: &[(Dialect, &str, &str, &str)] = &[
    (Dialect::Chat, "", "model", r#""m""#),
    (Dialect::Chat, "", "stream", "true"),
    (Dialect::Chat, "", "stream_options", "{}"),
    (Dialect::Chat, "stream_options", "include_usage", "false"),
    (Dialect::Chat, "", "max_tokens", "7"),
    (Dialect::Chat, "", "max_completion_tokens", "7"),
    (Dialect::Chat, "", "n", "2"),
    (Dialect::Chat, "", "best_of", "2"),
    (Dialect::Chat, "", "service_tier", r#""flex""#),
    (Dialect::Chat, "", "user", r#""u""#),
    (Dialect::Chat, "", "safety_identifier", r#""u""#),
    (Dialect::Chat, "", "models", r#"["a"]"#),
    (Dialect::Chat, "", "fallbacks", r#"["a"]"#),
    (Dialect::Chat, "", "route", r#""fallback""#),
    (Dialect::Chat, "", "preset", r#""p""#),
    (Dialect::Chat, "", "data_sources", r#"[{}]"#),
    (Dialect::Chat, "", "compound_custom", "{}"),
    (Dialect::Chat, "compound_custom", "models", "{}"),
    (Dialect::Completions, "", "prompt", r#"["a"]"#),
    (Dialect::Completions, "", "max_tokens", "7"),
    (Dialect::Completions, "", "best_of", "2"),
    (Dialect::Completions, "", "n", "2"),
    (Dialect::Responses, "", "model", r#""m""#),
    (Dialect::Responses, "", "type", r#""response.create""#),
    (Dialect::Responses, "", "max_output_tokens", "7"),
    (Dialect::Responses, "", "previous_response_id", r#""r""#),
    (Dialect::Responses, "", "conversation", r#""c""#),
    (Dialect::Responses, "conversation", "id", r#""c""#),
    (Dialect::Responses, "", "background", "true"),
    (Dialect::Responses, "", "prompt", r#"{"id":"p"}"#),
    (Dialect::Responses, "", "input", r#""i""#),
    (Dialect::Messages, "", "max_tokens", "7"),
    (Dialect::Messages, "", "speed", r#""fast""#),
    (Dialect::Generate, "", "generationConfig", "{}"),
    (Dialect::Generate, "", "generation_config", "{}"),
    (Dialect::Generate, "generationConfig", "maxOutputTokens", "7"),
    (Dialect::Generate, "generationConfig", "max_output_tokens", "7"),
    (Dialect::Generate, "generation_config", "maxOutputTokens", "7"),
    (Dialect::Generate, "generationConfig", "candidateCount", "2"),
    (Dialect::Generate, "generation_config", "candidate_count", "2"),
    (Dialect::Generate, "", "serviceTier", r#""flex""#),
    (Dialect::Converse, "", "inferenceConfig", "{}"),
    (Dialect::Converse, "inferenceConfig", "maxTokens", "7"),
    (Dialect::Converse, "additionalModelRequestFields", "max_tokens", "7"),
    (Dialect::Converse, "serviceTier", "type", r#""flex""#),
    (Dialect::Invoke, "", "max_gen_len", "7"),
    (Dialect::Invoke, "", "max_tokens_to_sample", "7"),
    (Dialect::Invoke, "textGenerationConfig", "maxTokenCount", "7"),
    (Dialect::Invoke, "inferenceConfig", "max_new_tokens", "7"),
    (Dialect::Invoke, "", "num_generations", "2"),
    (Dialect::Cohere, "", "max_tokens", "7"),
    (Dialect::Images, "", "n", "2"),
];

fn body_of(object: &str, members: &str) -> String {
    if object.is_empty() { format!("{{{members}}}") } else { format!("{{\"{object}\":{{{members}}}}}") }
}

#[test]
fn unusual_spellings_of_selecting_fields_are_understood_or_refused() {
    for (dialect, object, name, value) in SELECTING {
        let plain = read(*dialect, &body_of(object, &format!("\"{name}\":{value}"))).unwrap();
        let escape = |letters: &str| letters.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<String>();
        for key in [escape(name), format!("{}{}", escape(&name[..1]), &name[1..])] {
            let mut escaped = read(*dialect, &body_of(object, &format!("\"{key}\":{value}"))).unwrap();
            // Only the spans differ.
            if let (Some(escaped), Some(plain)) = (&mut escaped.model, &plain.model) {
                escaped.span = plain.span.clone();
            }
            if let (Some(escaped), Some(plain)) = (&mut escaped.stream, &plain.stream) {
                escaped.span = plain.span.clone();
            }
            escaped.stream_options = escaped.stream_options.and(plain.stream_options.clone());
            assert_eq!(escaped, plain, "{dialect:?} {key}");
        }
        let upper = name.to_ascii_uppercase();
        let capital = format!("{}{}", upper.chars().next().unwrap(), &name[1..]);
        for key in [upper, capital, format!("{name} "), format!("\\t{name}"), format!("{name}\\u0000x")] {
            let found = read(*dialect, &body_of(object, &format!("\"{key}\":{value}")));
            assert!(matches!(found, Err(Error::LookAlikeField { name: refused }) if refused == *name), "{dialect:?} {key}: {found:?}");
        }
        // Twice: refused, or the larger of both counts.
        let twice = read(*dialect, &body_of(object, &format!("\"{name}\":{value},\"{}\":{value}", escape(name))));
        let merges = matches!(plain.output_max, Count::Known(_)) || matches!(plain.choices, Count::Known(_));
        let inert = twice.as_ref().is_ok_and(|twice| twice.hidden_model == plain.hidden_model && twice.prompts == plain.prompts);
        assert!(matches!(twice, Err(Error::DuplicateField { .. })) || merges || inert, "{dialect:?} {name}: {twice:?}");
    }
}

#[test]
fn ambiguous_fields_are_refused_by_name() {
    for (body, name) in [
        (r#"{"model":"a","model":"b"}"#, "model"),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "model"),
        (r#"{"stream":false,"stream":true}"#, "stream"),
        (r#"{"stream_options":null,"stream_options":{}}"#, "stream_options"),
        (r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#, "stream_options"),
    ] {
        assert_eq!(chat(body), Err(Error::DuplicateField { name }), "{body}");
    }
}

#[test]
fn a_fast_speed_is_a_tier() {
    for (dialect, body, tier) in [
        (Dialect::Chat, r#"{"service_tier":"flex"}"#, Some("flex")),
        (Dialect::Messages, r#"{"service_tier":"auto","speed":"fast"}"#, Some("fast")),
        (Dialect::Messages, r#"{"service_tier":"priority","speed":"standard"}"#, Some("priority")),
        (Dialect::Messages, r#"{"service_tier":null,"speed":1}"#, None),
        (Dialect::Converse, r#"{"serviceTier":{"type":"priority"}}"#, Some("priority")),
        (Dialect::Generate, r#"{"serviceTier":"priority"}"#, Some("priority")),
    ] {
        assert_eq!(read(dialect, body).unwrap().tier.as_deref(), tier, "{body}");
    }
}

#[test]
fn the_largest_bound_counts_and_an_unreadable_one_is_no_bound() {
    use Count::{Absent, Known, Unreadable};
    for (dialect, body, most) in [
        (Dialect::Chat, r#"{"max_tokens":5}"#, Known(5)),
        (Dialect::Chat, r#"{"max_tokens":5,"max_completion_tokens":9}"#, Known(9)),
        (Dialect::Chat, r#"{"max_tokens":7,"max_tokens":3}"#, Known(7)),
        (Dialect::Chat, r#"{"max_tokens":1e3}"#, Known(1000)),
        (Dialect::Chat, r#"{"max_tokens":10.5}"#, Known(11)),
        (Dialect::Chat, r#"{"max_tokens":null}"#, Absent),
        (Dialect::Chat, r#"{"max_tokens":"60000"}"#, Known(60_000)),
        (Dialect::Chat, r#"{"max_tokens":" \u0036e4 "}"#, Known(60_000)),
        (Dialect::Chat, r#"{"max_tokens":-1}"#, Unreadable),
        (Dialect::Chat, r#"{"max_tokens":0}"#, Unreadable),
        (Dialect::Chat, r#"{"max_tokens":"many"}"#, Unreadable),
        (Dialect::Chat, r#"{"max_tokens":[5]}"#, Unreadable),
        (Dialect::Chat, r#"{"max_tokens":{},"max_completion_tokens":5}"#, Unreadable),
        (Dialect::Chat, r#"{"max_tokens":1e400}"#, Unreadable),
        (Dialect::Chat, &format!(r#"{{"max_tokens":1{}}}"#, "0".repeat(80)), Unreadable),
        // Another dialect's bound is none.
        (Dialect::Chat, r#"{"max_gen_len":1,"max_output_tokens":2,"generationConfig":{"maxOutputTokens":2}}"#, Absent),
        (Dialect::Responses, r#"{"max_output_tokens":2,"max_tokens":9}"#, Known(2)),
        (Dialect::Generate, r#"{"generation_config":{"max_output_tokens":"60000"},"max_tokens":1}"#, Known(60_000)),
        (Dialect::Converse, r#"{"inferenceConfig":{"maxTokens":10},"additionalModelRequestFields":{"max_tokens":60000}}"#, Known(60_000)),
        (Dialect::Invoke, r#"{"textGenerationConfig":{"maxTokenCount":60000}}"#, Known(60_000)),
        (Dialect::Invoke, r#"{"inferenceConfig":{"max_new_tokens":60000}}"#, Known(60_000)),
    ] {
        assert_eq!(read(dialect, body).unwrap().output_max, most, "{dialect:?} {body}");
    }
    for (body, choices) in [
        (r#"{"n":3}"#, Known(3)),
        (r#"{"n":60.0}"#, Known(60)),
        (r#"{"n":"60"}"#, Known(60)),
        (r#"{"n":2,"best_of":5}"#, Known(5)),
        (r#"{"n":true}"#, Unreadable),
        ("{}", Absent),
    ] {
        assert_eq!(chat(body).unwrap().choices, choices, "{body}");
    }
}

#[test]
fn prompts_of_one_request_are_counted() {
    for (body, prompts) in [
        (r#"{"prompt":"a"}"#, 1),
        (r#"{"prompt":["a","b","c"]}"#, 3),
        (r#"{"prompt":[1,2,3]}"#, 1),
        (r#"{"prompt":[[1,2],[3]]}"#, 2),
        (r#"{"prompt":[]}"#, 1),
        ("{}", 1),
    ] {
        assert_eq!(read(Dialect::Completions, body).unwrap().prompts, prompts, "{body}");
    }
}

#[test]
fn models_beside_model_are_listed() {
    for (dialect, body, want) in [
        (Dialect::Chat, r#"{"model":"a","models":["b","c"]}"#, &["b", "c"][..]),
        (Dialect::Chat, r#"{"model":"a","fallbacks":["b",{"model":"c","x":1}],"models":null}"#, &["b", "c"]),
        (Dialect::Responses, r#"{"tools":[{"type":"image_generation","model":"gpt-image-1"},{"type":"x"}]}"#, &["gpt-image-1"]),
        (Dialect::Messages, r#"{"tools":[{"type":"advisor","mod\u0065l":"b"}]}"#, &["b"]),
        (Dialect::Chat, r#"{"compound_custom":{"models":{"answering_model":"b","reasoning_model":"c"}}}"#, &["b", "c"]),
        (Dialect::Generate, r#"{"requests":[{"model":"models/b"}]}"#, &["models/b"]),
    ] {
        assert_eq!(read(dialect, body).unwrap().other_models, want, "{body}");
    }
    let many = |count: usize| format!(r#"{{"models":{}}}"#, serde_json::to_string(&vec!["m"; count]).unwrap());
    assert_eq!(chat(&many(OTHER_MODELS_MAX)).unwrap().other_models.len(), OTHER_MODELS_MAX);
    for bad in [&many(OTHER_MODELS_MAX + 1), r#"{"models":"b"}"#, r#"{"models":[3]}"#, r#"{"tools":[{"model":3}]}"#, r#"{"deferred":true}"#]
    {
        assert!(matches!(chat(bad), Err(Error::BadField { .. })), "{bad}");
    }
    for (body, hidden) in [
        (r#"{"preset":"p"}"#, Some("preset")),
        (r#"{"route":null,"data_sources":[]}"#, None),
        (r#"{"data_sources":[{"type":"azure_search"}]}"#, Some("data_sources")),
        (r#"{"prompt":{"id":"pmpt_1"}}"#, Some("prompt")),
        (r#"{"prompt":"text","deferred":false}"#, None),
    ] {
        assert_eq!(chat(body).unwrap().hidden_model, hidden, "{body}");
    }
}

#[test]
fn bodies_that_are_not_objects_are_refused() {
    for bad in ["", "[]", "\"s\"", "{", "{}{}", "{\"model\":3}", "{\"a\":tru\u{1}}", "{\"a\" \"b\"}"] {
        assert!(matches!(chat(bad), Err(Error::BadJson { .. })), "{bad}");
    }
    let long = format!("{{\"model\":\"{}\"}}", "m".repeat(MODEL_BYTES_MAX + 1));
    assert!(matches!(chat(&long), Err(Error::BadJson { .. })));
}

#[test]
fn form_fields_that_resemble_a_wanted_name_are_refused() {
    let form = |name: &str| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n2\r\n--x--\r\n");
    for name in ["Model", "MODEL", "model ", "Stream", "N", "uſer"] {
        assert!(matches!(RequestFields::read_form(form(name).as_bytes(), "x"), Err(Error::LookAlikeField { .. })), "{name}");
    }
    assert_eq!(RequestFields::read_form(form("n").as_bytes(), "x").unwrap().choices, Count::Known(2));
    assert!(RequestFields::read_form(form("file").as_bytes(), "x").is_ok());
}
