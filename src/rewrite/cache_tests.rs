use super::*;
use bytes::Bytes;

fn marked(body: &str, dialect: Dialect, by: CacheBy, cache: &PromptCache, asked: &Asked) -> (String, Headers) {
    let mut splices = Splices::default();
    let headers = mark(body.as_bytes(), dialect, by, cache, asked, &mut splices);
    let out = String::from_utf8(splices.apply(&Bytes::from(body.to_owned())).to_vec()).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    (out, headers)
}

#[test]
fn anthropic_marks_the_last_system_block_and_the_last_block_of_the_last_message() {
    let cache = PromptCache::default();
    let hour = PromptCache { ttl_1h: true, ..PromptCache::default() };
    for (body, want) in [
        (
            r#"{"system":"S","messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}"#,
            r#"{"system":[{"type":"text","text":"S","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}]}]}"#,
        ),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"a"}, {"type":"image","source":{}} ]}],"system":[{"type":"text","text":"x" }]}"#,
            r#"{"messages":[{"content":[{"type":"text","text":"a"}, {"type":"image","source":{},"cache_control":{"type":"ephemeral"}} ]}],"system":[{"type":"text","text":"x" ,"cache_control":{"type":"ephemeral"}}]}"#,
        ),
    ] {
        assert_eq!(marked(body, Dialect::Messages, CacheBy::Control, &cache, &Asked::default()).0, want);
        let longer = want.replace("\"ephemeral\"", "\"ephemeral\",\"ttl\":\"1h\"");
        assert_eq!(marked(body, Dialect::Messages, CacheBy::Control, &hour, &Asked::default()).0, longer);
    }
    for same in [
        r#"{"system":"S","messages":[{"content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}]}"#,
        r#"{"cache_control":{"type":"ephemeral"},"messages":[{"content":"a"}]}"#,
        r#"{"tools":[{"name":"t","cache_control":{"type":"ephemeral"}}],"messages":[{"content":"a"}]}"#,
        r#"{"messages":[{"content":[{"type":"tool_result","content":[{"type":"text","text":"r","cache\u005fcontrol":{}}]}]}]}"#,
        // A second member of the name would be no JSON anybody agrees on.
        r#"{"messages":[{"content":[{"type":"text","text":"a","cache_control":null}]}]}"#,
        r#"{"system":"","messages":[{"content":""}]}"#,
        r#"{"messages":[{"content":[{"type":"thinking","thinking":"x","signature":"y"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"text","text":""}]}]}"#,
        r#"{"messages":[]}"#,
        r#"{"messages":{"content":3}}"#,
    ] {
        assert_eq!(marked(same, Dialect::Messages, CacheBy::Control, &cache, &Asked::default()).0, same);
    }
}

#[test]
fn what_only_looks_like_a_marker_is_none() {
    let cache = PromptCache::default();
    for (dialect, by, body) in [
        (Dialect::Messages, CacheBy::Control, r#"{"messages":[{"content":"cache_control"}]}"#),
        (
            Dialect::Messages,
            CacheBy::Control,
            r#"{"tools":[{"name":"t","input_schema":{"properties":{"cache_control":{}}}}],"messages":[{"content":"a"}]}"#,
        ),
        (Dialect::Converse, CacheBy::Point, r#"{"messages":[{"content":[{"text":"cachePoint"}]}]}"#),
    ] {
        assert_ne!(marked(body, dialect, by, &cache, &Asked::default()).0, body);
    }
}

#[test]
fn bedrock_sets_points_after_system_messages_and_tools() {
    let body = r#"{"system":[{"text":"s"}],"messages":[{"content":[{"text":"a"}]},{"content":[{"text":"b"} ]}],"toolConfig":{"tools":[{"toolSpec":{}}]}}"#;
    let want = r#"{"system":[{"text":"s"},{"cachePoint":{"type":"default"}}],"messages":[{"content":[{"text":"a"}]},{"content":[{"text":"b"},{"cachePoint":{"type":"default"}} ]}],"toolConfig":{"tools":[{"toolSpec":{}},{"cachePoint":{"type":"default"}}]}}"#;
    let cache = PromptCache::default();
    assert_eq!(marked(body, Dialect::Converse, CacheBy::Point, &cache, &Asked::default()).0, want);
    assert_eq!(marked(want, Dialect::Converse, CacheBy::Point, &cache, &Asked::default()).0, want);
    let off = Asked { off: true, ..Asked::default() };
    assert_eq!(marked(body, Dialect::Converse, CacheBy::Point, &cache, &off).0, body);
}

#[test]
fn openai_gets_a_key_that_lasts_from_turn_to_turn() {
    let cache = PromptCache { retention: Some("24h".to_owned()), ..PromptCache::default() };
    let key = |body: &str, asked: &Asked| {
        let (out, _) = marked(body, Dialect::Chat, CacheBy::Key, &cache, asked);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(value["prompt_cache_key"].is_null() || value["prompt_cache_retention"] == "24h", "{out}");
        value["prompt_cache_key"].as_str().map(str::to_owned)
    };
    let none = Asked::default();
    let first = key(r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#, &none).unwrap();
    assert_eq!(first.len(), 32);
    assert_eq!(key(r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"other"}]}"#, &none), Some(first.clone()));
    assert_ne!(key(r#"{"messages":[{"role":"system","content":"t"},{"role":"user","content":"a"}]}"#, &none), Some(first));
    assert_eq!(key(r#"{"messages":[{"role":"user","content":"a"}]}"#, &none), None);
    let asked = Asked { key: Some("k".to_owned()), org: Some("o".to_owned()), ..Asked::default() };
    assert_eq!(key(r#"{"messages":[]}"#, &asked).as_deref(), Some("o:k"));
    let keyed = Asked { key: Some("k".to_owned()), ..Asked::default() };
    assert_eq!(key(r#"{"org_id":"b\u006fdy","messages":[]}"#, &keyed).as_deref(), Some("body:k"));
    assert_eq!(key(r#"{"org_id":"body","messages":[]}"#, &asked).as_deref(), Some("o:k"), "the header wins");
    let own = r#"{"prompt_cache_key":"mine","messages":[]}"#;
    assert_eq!(marked(own, Dialect::Chat, CacheBy::Key, &cache, &asked).0, own);
    for (length, whole) in [(KEY_BYTES_MAX - 2, true), (KEY_BYTES_MAX - 1, false)] {
        let asked = Asked { key: Some("k".repeat(length)), ..asked.clone() };
        assert_eq!(key(r#"{"messages":[]}"#, &asked).unwrap().starts_with("o:"), whole, "{length}");
    }
    let (responses, _) = marked(r#"{"instructions":"i","input":"x"}"#, Dialect::Responses, CacheBy::Key, &cache, &none);
    assert!(responses.starts_with(r#"{"prompt_cache_key":""#), "{responses}");
}

#[test]
fn others_get_it_in_headers() {
    let by = CacheBy::Headers { key: "x-session-affinity", org: Some("x-prompt-cache-isolation-key") };
    let cache = PromptCache { org: Some("acme".to_owned()), ..PromptCache::default() };
    let asked = Asked { key: Some("k".to_owned()), org: Some("team".to_owned()), ..Asked::default() };
    let body = r#"{"messages":[]}"#;
    let (out, headers) = marked(body, Dialect::Chat, by, &cache, &asked);
    let headers: Vec<_> = headers.iter().map(|header| (header.name, header.value.as_str(), header.always)).collect();
    let want = [("x-session-affinity", "acme/team:k", false), ("x-prompt-cache-isolation-key", "acme/team", true)];
    assert_eq!((out.as_str(), headers.as_slice()), (body, &want[..]));
}

#[test]
fn requests_say_what_they_want() {
    let headers: HeaderMap = [("cache-control", "max-age=0, No-Cache"), ("x-cache-key", "k"), ("x-org-id", "")]
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .into_iter()
        .collect();
    assert_eq!(Asked::read(&headers), Asked { off: true, key: Some("k".to_owned()), org: None });
}
