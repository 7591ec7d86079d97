use super::*;
use crate::config::{Source, load};

/// All providers configured, a custom one too; `caller` lets callers bring keys to Anthropic and Groq.
fn config(extra: &str) -> Config {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tollgate-route-{}-{count}.yaml", std::process::id()));
    std::fs::write(&path, extra).unwrap();
    let config = load(&Source::File(path.clone()), &|name| variable(name));
    std::fs::remove_file(&path).unwrap();
    config.unwrap_or_else(|list| panic!("{list:?}"))
}

fn variable(name: &str) -> Option<String> {
    let value = match name {
        "AWS_REGION" => "us-east-1",
        "GOOGLE_CLOUD_PROJECT" => "p",
        "GOOGLE_CLOUD_LOCATION" => "global",
        "AZURE_OPENAI_RESOURCE" => "res",
        "AWS_BEARER_TOKEN_BEDROCK" | "VERTEX_ACCESS_TOKEN" => "key",
        name if name.ends_with("_API_KEY") => "key",
        _ => return None,
    };
    Some(value.to_owned())
}

const OWN: &str = "providers: {own: {base_url: 'http://h:1/v1', models: ['llama-*']}}\naliases: {fast: openai/gpt-5-mini}";

fn go(config: &Config, path: &str, headers: &[(&str, &str)], body: &str) -> Result<String, Error> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap())).collect();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let head = Head { method: &Method::POST, path, query, headers: &headers };
    let destination = destination(&head, config)?;
    let (route, _) = routes(&head, destination, &RequestFields::read(body.as_bytes(), None)?, config, 0, None)?;
    let query = route.query.map(|(name, value)| format!("?{name}={value}")).unwrap_or_default();
    Ok(format!("{} {}{query} {}", config.upstreams[route.upstream].name, route.path, route.model))
}

#[test]
fn the_first_rule_that_matches_wins() {
    let config = config(OWN);
    let chat = "/v1/chat/completions";
    for (path, headers, body, want) in [
        (chat, &[("x-provider", "groq")][..], r#"{"model":"gpt-5"}"#, "groq /openai/v1/chat/completions gpt-5"),
        (chat, &[("x-provider", "OpenAI")], r#"{"model":"openai/gpt-5"}"#, "openai /v1/chat/completions gpt-5"),
        (
            "/groq/openai/v1/chat/completions",
            &[],
            r#"{"model":"openai/gpt-oss-120b"}"#,
            "groq /openai/v1/chat/completions openai/gpt-oss-120b",
        ),
        ("/perplexity/chat/completions", &[], r#"{"model":"x"}"#, "perplexity /chat/completions x"),
        ("/openrouter/v1/chat/completions", &[], r#"{"model":"openrouter/auto"}"#, "openrouter /api/v1/chat/completions openrouter/auto"),
        (chat, &[], r#"{"model":"fast"}"#, "openai /v1/chat/completions gpt-5-mini"),
        (chat, &[], r#"{"model":"own/anything"}"#, "own /v1/chat/completions anything"),
        (chat, &[], r#"{"model":"openrouter/openai/gpt-5"}"#, "openrouter /api/v1/chat/completions openai/gpt-5"),
        (chat, &[], r#"{"model":"openrouter/auto"}"#, "openrouter /api/v1/chat/completions openrouter/auto"),
        ("/perplexity/chat/completions", &[], r#"{"model":"perplexity/sonar"}"#, "perplexity /chat/completions sonar"),
        (
            chat,
            &[("x-provider", "fireworks")],
            r#"{"model":"fireworks/accounts/x"}"#,
            "fireworks /inference/v1/chat/completions accounts/x",
        ),
        (chat, &[], r#"{"model":"llama-3.3"}"#, "own /v1/chat/completions llama-3.3"),
        (chat, &[], r#"{"model":"accounts/fireworks/models/x"}"#, "fireworks /inference/v1/chat/completions accounts/fireworks/models/x"),
        ("/v1/responses", &[], r#"{"model":"o3"}"#, "openai /v1/responses o3"),
        ("/v1/messages", &[], r#"{"model":"claude-sonnet-4-5"}"#, "anthropic /v1/messages claude-sonnet-4-5"),
        ("/v1/messages/count_tokens", &[], r#"{"model":"claude-sonnet-4-5"}"#, "anthropic /v1/messages/count_tokens claude-sonnet-4-5"),
        (chat, &[], r#"{"model":"claude-sonnet-4-5"}"#, "anthropic /v1/chat/completions claude-sonnet-4-5"),
        (chat, &[], r#"{"model":"grok-4"}"#, "xai /v1/chat/completions grok-4"),
        (
            chat,
            &[],
            r#"{"model":"meta-llama/Llama-3.3-70B-Instruct-Turbo"}"#,
            "together /v1/chat/completions meta-llama/Llama-3.3-70B-Instruct-Turbo",
        ),
        ("/", &[], r#"{"model":"gpt-5","messages":[]}"#, "openai /v1/chat/completions gpt-5"),
        ("/", &[], r#"{"model":"gpt-5","input":"x"}"#, "openai /v1/responses gpt-5"),
        ("/", &[], r#"{"model":"davinci-002","prompt":"x"}"#, "openai /v1/completions davinci-002"),
        ("/", &[], r#"{"model":"claude-x","messages":[]}"#, "anthropic /v1/messages claude-x"),
        ("/openai", &[], r#"{"input":"x"}"#, "openai /v1/responses "),
        ("/v1/moderations", &[], r#"{"input":"x"}"#, "openai /v1/moderations "),
    ] {
        assert_eq!(go(&config, path, headers, body).as_deref(), Ok(want), "{path} {body}");
    }
}

#[test]
fn models_of_anthropic_at_vertex_have_paths_of_their_own() {
    let config = config(OWN);
    for (path, body, want) in [
        (
            "/v1/projects/theirs/locations/x/publishers/anthropic/models/claude-x@20260101:rawPredict",
            r#"{"anthropic_version":"vertex-2023-10-16","messages":[]}"#,
            "vertex /v1/projects/p/locations/global/publishers/anthropic/models/claude-x@20260101:rawPredict claude-x@20260101",
        ),
        (
            "/vertex/v1/publishers/anthropic/models/claude-x:streamRawPredict",
            "{}",
            "vertex /v1/projects/p/locations/global/publishers/anthropic/models/claude-x:streamRawPredict claude-x",
        ),
        (
            "/v1/projects/theirs/locations/x/publishers/anthropic/models/count-tokens:rawPredict",
            r#"{"model":"claude-x","messages":[]}"#,
            "vertex /v1/projects/p/locations/global/publishers/anthropic/models/count-tokens:rawPredict claude-x",
        ),
    ] {
        assert_eq!(go(&config, path, &[], body).as_deref(), Ok(want), "{path}");
    }
}

#[test]
fn paths_that_name_a_model_lead_to_whom_they_belong() {
    let config = config(OWN);
    let google = "/v1beta/models/gemini-2.5-pro:generateContent";
    let vertex = "/v1beta1/projects/theirs/locations/x/publishers/google/models/gemini-2.5-pro:streamGenerateContent";
    for (path, body, want) in [
        (google, "{}", "googleai /v1beta/models/gemini-2.5-pro:generateContent gemini-2.5-pro"),
        ("/v1/models/gemini-x:countTokens", r#"{"model":"other"}"#, "googleai /v1/models/gemini-x:countTokens gemini-x"),
        ("/googleai/v1beta/models/x:embedContent", "{}", "googleai /v1beta/models/x:embedContent x"),
        (
            vertex,
            "{}",
            "vertex /v1beta1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:streamGenerateContent gemini-2.5-pro",
        ),
        ("/v1beta/models/mock-small:generateContent", "{}", "mock /v1beta/models/mock-small:generateContent mock-small"),
        (
            "/model/us.anthropic.claude-x-v1%3A0/converse",
            "{}",
            "bedrock /model/us.anthropic.claude-x-v1%3A0/converse us.anthropic.claude-x-v1:0",
        ),
        ("/model/us.anthropic.claude-x-v1:0/invoke", "{}", "bedrock /model/us.anthropic.claude-x-v1%3A0/invoke us.anthropic.claude-x-v1:0"),
        (
            "/model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2Fx/converse-stream",
            "{}",
            "bedrock /model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2Fx/converse-stream arn:aws:bedrock:r:1:inference-profile/x",
        ),
        (
            "/openai/deployments/my-gpt/chat/completions",
            "{}",
            "azure /openai/deployments/my-gpt/chat/completions?api-version=2024-02-15-preview my-gpt",
        ),
        ("/openai/deployments/my-gpt/embeddings?api-version=2024-10-21", "{}", "azure /openai/deployments/my-gpt/embeddings my-gpt"),
        // Azure's SDK asks for these without a deployment in the path.
        ("/openai/responses?api-version=2025-03-01-preview", r#"{"model":"my-gpt"}"#, "azure /openai/responses my-gpt"),
        ("/azure/openai/v1/responses?api-version=preview", r#"{"model":"my-gpt"}"#, "azure /openai/v1/responses my-gpt"),
        (
            "/azure/chat/completions?api-version=2024-10-21",
            r#"{"model":"my-gpt"}"#,
            "azure /openai/deployments/my-gpt/chat/completions my-gpt",
        ),
        // A version that a provider has not is not asked of it.
        (
            "/vertex/v1beta/models/gemini-x:generateContent",
            "{}",
            "vertex /v1/projects/p/locations/global/publishers/google/models/gemini-x:generateContent gemini-x",
        ),
        (
            "/",
            r#"{"model":"arn:aws:bedrock:us-east-1:1:inference-profile/us.x","messages":[]}"#,
            "bedrock /model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse arn:aws:bedrock:us-east-1:1:inference-profile/us.x",
        ),
        ("/azure/openai/v1/responses", r#"{"model":"my-gpt"}"#, "azure /openai/v1/responses my-gpt"),
        ("/", r#"{"model":"gemini-x","contents":[]}"#, "googleai /v1beta/models/gemini-x:generateContent gemini-x"),
        (
            "/",
            r#"{"model":"gemini-x","contents":[],"stream":true}"#,
            "googleai /v1beta/models/gemini-x:streamGenerateContent?alt=sse gemini-x",
        ),
        (
            "/",
            r#"{"model":"vertex/gemini-x","contents":[]}"#,
            "vertex /v1/projects/p/locations/global/publishers/google/models/gemini-x:generateContent gemini-x",
        ),
        (
            "/",
            r#"{"model":"amazon.nova-lite-v1:0","messages":[],"stream":true}"#,
            "bedrock /model/amazon.nova-lite-v1%3A0/converse-stream amazon.nova-lite-v1:0",
        ),
        ("/v1/chat/completions", r#"{"model":"bedrock/openai.gpt-oss-20b"}"#, "bedrock /openai/v1/chat/completions openai.gpt-oss-20b"),
        ("/v1/chat/completions", r#"{"model":"gemini-2.5-pro"}"#, "googleai /v1beta/openai/chat/completions gemini-2.5-pro"),
        ("/v2/chat", r#"{"model":"command-a"}"#, "cohere /v2/chat command-a"),
    ] {
        assert_eq!(go(&config, path, &[], body).as_deref(), Ok(want), "{path} {body}");
    }
}

#[test]
fn says_why_there_is_no_route() {
    let bare = config("environment_providers: false");
    let all = config(OWN);
    let chat = "/v1/chat/completions";
    for (config, path, headers, body, code) in [
        (&all, chat, &[][..], r#"{"model":"nobody-knows"}"#, "model_not_found"),
        (&all, chat, &[], "{}", "missing_model"),
        (&all, chat, &[("x-provider", "nobody")], "{}", "unknown_provider"),
        (&all, "/v1/messages", &[], r#"{"model":"gpt-5"}"#, "endpoint_not_supported"),
        (&all, "/", &[], r#"{"model":"gpt-5","contents":[]}"#, "endpoint_not_supported"),
        (&all, "/", &[], r#"{"model":"gpt-5"}"#, "unknown_format"),
        (&all, "/v1beta/tunedModels/abc:generateContent", &[], "{}", "not_found"),
        (&all, "/v1/projects/p/locations/l/endpoints/1:generateContent", &[], "{}", "not_found"),
        (&all, "/v1/projects/p/locations/l/publishers/meta/models/x:generateContent", &[], "{}", "not_found"),
        (&bare, "/openai/deployments/x/chat/completions", &[], "{}", "provider_not_configured"),
        (&all, "/bedrock/model/%2E/converse", &[], "{}", "invalid_path"),
        (&all, "/bedrock", &[], r#"{"messages":[]}"#, "missing_model"),
        (&all, "/", &[], r#"{"model":"bedrock/..","messages":[]}"#, "invalid_path"),
        (&all, "/v2/else", &[], "{}", "not_found"),
        (&all, "/openai/v1/files", &[], "{}", "path_not_allowed"),
        (&all, "/openai/../x", &[], "{}", "invalid_path"),
        (&bare, chat, &[], r#"{"model":"openai/gpt-5"}"#, "provider_not_configured"),
        (&bare, chat, &[], r#"{"model":"claude-sonnet-4-5"}"#, "provider_not_configured"),
        (&bare, "/groq/v1/chat/completions", &[], "{}", "provider_not_configured"),
    ] {
        assert_eq!(go(config, path, headers, body).map_err(|error| error.code()), Err(code), "{path} {body}");
    }
}

#[test]
fn a_providers_own_shape_of_key_leads_to_it_only_where_callers_bring_keys() {
    let config = config("providers: {anthropic: {credentials: caller}, groq: {credentials: caller}}");
    let chat = "/v1/chat/completions";
    let groq = go(&config, chat, &[("authorization", "Bearer gsk_1")], r#"{"model":"nobody-knows"}"#);
    assert_eq!(groq.as_deref(), Ok("groq /openai/v1/chat/completions nobody-knows"));
    let openai = go(&config, chat, &[("authorization", "Bearer sk-proj-1")], r#"{"model":"nobody-knows"}"#);
    assert_eq!(openai.map_err(|error| error.code()), Err("model_not_found"));
}

#[test]
fn other_paths_pass_by_the_list_alone() {
    // A pattern for everything hides no endpoint.
    let open = config(
        "providers: {googleai: {allow: ['POST /*']}, azure: {allow: ['POST /*']}, bedrock: {allow: ['POST /*']}, cohere: {allow: ['POST /*']}}",
    );
    for (path, want) in [
        ("/googleai/v1beta/models/gemini-x:generateContent", Some(Endpoint::GenerateContent)),
        ("/googleai/v1beta/openai/chat/completions", Some(Endpoint::ChatCompletions)),
        ("/googleai/v1beta/interactions", None),
        ("/azure/openai/deployments/d/chat/completions", Some(Endpoint::ChatCompletions)),
        ("/bedrock/model/m/converse", Some(Endpoint::Converse)),
        ("/bedrock/guardrail/g/apply", None),
        ("/cohere/v2/chat", Some(Endpoint::CohereChat)),
    ] {
        let headers = HeaderMap::new();
        let found = destination(&Head { method: &Method::POST, path, query: None, headers: &headers }, &open).unwrap();
        if path == "/googleai/v1beta/interactions" {
            assert!(matches!(&found, Destination::Pass { path, .. } if path == "/v1beta/interactions"), "{found:?}");
        }
        let endpoint = if let Destination::Endpoint { endpoint, .. } = found { endpoint } else { None };
        assert_eq!(endpoint, want, "{path}");
    }
    for spelled in ["gemini-x%3AgenerateContent", "gemini-x:g%65nerateContent", "gemini-x%3AstreamGenerateContent"] {
        let (path, headers) = (format!("/googleai/v1beta/models/{spelled}"), HeaderMap::new());
        let found = destination(&Head { method: &Method::POST, path: &path, query: None, headers: &headers }, &open);
        assert!(found.is_err(), "{spelled}: {found:?}");
    }
    let config = config("providers: {openai: {allow: ['POST /uploads', 'POST /threads/*', 'POST /chat/*']}}");
    let headers = HeaderMap::new();
    let at = |method: &Method, path: &str| destination(&Head { method, path, query: None, headers: &headers }, &config);
    assert!(matches!(at(&Method::GET, "/openai/v1/models/gpt-5"), Ok(Destination::Pass { path, .. }) if path == "/v1/models/gpt-5"));
    assert!(matches!(at(&Method::POST, "/openai/uploads"), Ok(Destination::Pass { path, .. }) if path == "/v1/uploads"));
    assert!(
        matches!(at(&Method::POST, "/openai/v1/threads/t/messages"), Ok(Destination::Pass { path, .. }) if path == "/v1/threads/t/messages")
    );
    assert!(matches!(at(&Method::POST, "/openai/v1/chat/completions"), Ok(Destination::Endpoint { .. })));
    assert!(matches!(at(&Method::DELETE, "/openai/v1/models/x"), Err(Error::NotAllowed { .. })));
    assert!(matches!(at(&Method::GET, "/openai/v1/responses/resp_1"), Ok(Destination::Stored { .. })));
    for spelled in [
        "/openai/v1/responses/resp%5F1",
        "/openai/v1/Responses/resp_1",
        "/openai/v1/responses/resp_1//",
        "/openai/v1/threads/%72esponses/r",
    ] {
        assert!(matches!(at(&Method::POST, spelled), Err(Error::NotAllowed { .. })), "{spelled}");
    }
    assert!(matches!(at(&Method::PUT, "/openai/v1/responses/resp_1"), Err(Error::NotAllowed { .. })));
    assert_eq!(at(&Method::GET, "/v1/models"), Ok(Destination::Models));
    assert_eq!(at(&Method::GET, "/v1/chat/completions"), Err(Error::MethodNotAllowed));
}
