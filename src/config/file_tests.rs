use super::*;
use crate::config::{LogTo, Secret};
use crate::dialect::{Dialect, Endpoint};
use crate::provider::Auth;

/// What a configuration says, or what is wrong with it by line.
pub(in crate::config) fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tollgate-config-{}-{count}.yaml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let variable = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
    let loaded = load(&Source::File(path.clone()), &variable);
    std::fs::remove_file(&path).unwrap();
    loaded.map_err(|list| list.iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect())
}

#[test]
fn embedded_defaults_run_without_a_key() {
    let config = load(&Source::Embedded, &|_| None).unwrap();
    assert_eq!(config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>(), ["mock"]);
    assert!(config.is_loopback_only());
    assert!(config.answers_for("localhost:8080") && !config.answers_for("evil.example:8080"));
}

#[test]
fn providers_switch_on_by_their_variables() {
    let config = load(&Source::Embedded, &|name| (name == "GROQ_API_KEY").then(|| "gsk_x".to_owned())).unwrap();
    let groq = &config.upstreams[config.upstream("groq").unwrap()];
    assert_eq!((groq.authority().as_str(), groq.key.as_ref().map(Secret::expose)), ("api.groq.com", Some("gsk_x")));
}

#[test]
fn addresses_and_tokens_come_from_the_variables_of_the_providers_own_clients() {
    let endpoint = ("AZURE_OPENAI_ENDPOINT", "https://eu.example/");
    let token = ("AZURE_OPENAI_AD_TOKEN", "t");
    for (text, variables, name, authority, auth) in [
        ("{}", &[endpoint, token][..], "azure", "eu.example", Auth::Bearer),
        ("{}", &[endpoint, ("AZURE_OPENAI_API_KEY", "k"), token], "azure", "eu.example", Auth::Header("api-key")),
        ("providers: {azure: {api_key: k}}", &[endpoint], "azure", "eu.example", Auth::Header("api-key")),
        ("providers: {azure: {resource: r, auth_token: t}}", &[endpoint], "azure", "r.openai.azure.com", Auth::Bearer),
        ("{}", &[("ANTHROPIC_AUTH_TOKEN", "t")], "anthropic", "api.anthropic.com", Auth::Bearer),
        ("{}", &[("ANTHROPIC_AUTH_TOKEN", "t"), ("ANTHROPIC_API_KEY", "k")], "anthropic", "api.anthropic.com", Auth::Header("x-api-key")),
    ] {
        let config = load_text(text, variables).unwrap();
        let upstream = &config.upstreams[config.upstream(name).unwrap()];
        assert_eq!((upstream.authority().as_str(), upstream.auth(Dialect::Chat)), (authority, auth), "{text} {variables:?}");
        let key = if auth == Auth::Bearer { "t" } else { "k" };
        assert_eq!(upstream.key.as_ref().map(Secret::expose), Some(key), "{text} {variables:?}");
        assert!(upstream.path(Endpoint::ChatCompletions, "m", &crate::config::PathStyle::Usual).unwrap().starts_with('/'));
    }
    assert!(load_text("{}", &[endpoint]).unwrap().upstream("azure").is_none());
    for (text, variables, want) in [
        ("{}", &[("AZURE_OPENAI_ENDPOINT", "eu.example"), token][..], "0: AZURE_OPENAI_ENDPOINT must look like https://host"),
        ("providers: {azure: {api_key: k}}", &[("AZURE_OPENAI_ENDPOINT", "https://eu.example/openai")], "1: AZURE_OPENAI_ENDPOINT must"),
        ("providers: {openai: {api_key: k, auth_token: t}}", &[], "1: `api_key` and `auth_token` are two ways"),
        ("providers: {openai: {auth_token: \"a\\nb\"}}", &[], "1: `auth_token` holds a character"),
    ] {
        let told = load_text(text, variables).unwrap_err();
        assert!(told.iter().any(|line| line.starts_with(want)), "{told:?}");
    }
}

#[test]
fn reads_what_operators_write() {
    let text = r#"
listen: [127.0.0.1:1, {address: "127.0.0.1:2"}]
admin: off
workers: 3
providers:
  vllm: {base_url: "http://10.0.0.5:8000/v1/", models: ["llama*"], stream_usage: on_request, prices: openai, allow: ["POST /rerank"]}
  openai: {api_key: "${MY_KEY}"}
aliases: {fast: openai/gpt-5-mini}
fallback: vllm
body: {bytes_max: 1MiB, budget: 10MiB}
timeouts: {connect: 2s}
headers: {response: {deny: [X-Secret], add: {server: tollgate}}}
access_log: off
"#;
    let config = load_text(text, &[("MY_KEY", "sk-1")]).unwrap();
    assert_eq!((config.listen.len(), config.admin, config.workers), (2, None, 3));
    let vllm = &config.upstreams[config.upstream("vllm").unwrap()];
    assert_eq!(
        (vllm.tls, vllm.authority().as_str(), vllm.path(Endpoint::ChatCompletions, "m", &crate::config::PathStyle::Usual).as_deref()),
        (false, "10.0.0.5:8000", Some("/v1/chat/completions"))
    );
    assert!(vllm.serves("llama-3") && vllm.passes(&http::Method::POST, "/rerank") && !vllm.passes(&http::Method::POST, "/files"));
    let target = config.aliases["fast"].targets().next().unwrap();
    assert_eq!((target.upstream, target.model.as_str()), (config.upstream("openai").unwrap(), "gpt-5-mini"));
    assert_eq!((config.bounds.body_bytes_max, config.timeouts.connect.as_secs()), (1 << 20, 2));
    assert_eq!(config.headers.response_deny, ["x-secret"]);
    assert!(!config.headers.request_deny.is_empty());
    assert_eq!(config.access_log.to, LogTo::Off);
}

#[test]
fn tells_every_mistake_at_once() {
    let text = "listen: 0.0.0.0:80\nworkers: many\nprovidrs: {}\nproviders:\n  openai: {}\n  own: {base_urll: x}\n  Bad: {base_url: \"ftp://x\"}\n  far: {base_url: \"http://h:99999\"}\nfallback: nobody\nbody: {bytes_max: big}\nprices: {overlay: /no/such/file}\nhosts: [\"${NOPE}\"]\n";
    let list = load_text(text, &[]).unwrap_err();
    for part in [
        "0: 0.0.0.0:80 can be reached",
        "2: `workers: many`",
        "3: unknown key `providrs`; did you mean `providers`?",
        "5: provider `openai` has no key",
        "6: unknown key `base_urll`; did you mean `base_url`?",
        "6: provider `own` is not a known one",
        "7: `Bad` cannot name a provider",
        "7: `base_url` must look like",
        "8: `base_url` must look like",
        "9: fallback `nobody`",
        "10: `bytes_max: big`",
        "0: cannot be read",
        "variable NOPE is not set",
    ] {
        assert!(list.iter().any(|line| line.contains(part)), "{part} in {list:#?}");
    }
}

#[test]
fn refuses_what_would_fail_later() {
    for (text, part) in [
        ("listen: []", "names no address"),
        ("admin: 0.0.0.0:9090", "give it an `admin_token`"),
        // Whoever may ask may not see everybody's bill.
        ("admin: 0.0.0.0:9090\nanonymous: true\nkeys: {}", "give it an `admin_token`"),
        ("mock: 0.0.0.0:8081\nanonymous: true", "can be reached"),
        ("aliases: [a]", "`aliases` must be a mapping"),
        ("headers: {request: {add: [a]}}", "`add` must be a mapping"),
        ("body: {bytes_max: 2MiB, budget: 1MiB}", "`budget` is smaller"),
        ("timeouts: {drain: 10years}", "is not a duration"),
        ("providers: {openai: {api_key: \"a\\nb\"}}", "no header can carry"),
    ] {
        let list = load_text(text, &[]).unwrap_err();
        assert!(list.iter().any(|line| line.contains(part)), "{part} in {list:#?}");
    }
}

#[test]
fn an_empty_variable_does_not_hide_the_next() {
    let variable = |name: &str| match name {
        "GEMINI_API_KEY" => Some(String::new()),
        "GOOGLE_API_KEY" => Some("g".to_owned()),
        _ => None,
    };
    assert!(load(&Source::Embedded, &variable).unwrap().upstream("googleai").is_some());
}

#[test]
fn an_alias_may_stand_for_several() {
    let text = r#"
environment_providers: false
providers: {a: {base_url: "http://127.0.0.1:1"}, b: {base_url: "http://127.0.0.1:2"}}
aliases:
  best: [a/x, {to: a/y, weight: 3}, {to: b/y, weight: 1}, b/z]
retry: {again: 2, delay: 1s, wait_max: 5s, budget: 50%, eject_after: 2, eject_max: 30s}
"#;
    let config = load_text(text, &[]).unwrap();
    let steps: Vec<Vec<_>> = config.aliases["best"]
        .steps
        .iter()
        .map(|step| step.iter().map(|target| (target.upstream, target.model.as_str(), target.weight)).collect())
        .collect();
    assert_eq!(steps, [vec![(0, "x", 1)], vec![(0, "y", 3), (1, "y", 1)], vec![(1, "z", 1)]]);
    assert_eq!((config.retry.again, config.retry.budget_percent, config.retry.ejection.failures), (2, 50, 2));
    for bad in [
        "aliases: {best: []}",
        "aliases: {best: [a]}",
        "aliases: {best: [{to: a/x, weight: 0}]}",
        "retry: {again: 6}",
        "retry: {budget: 101%}",
    ] {
        let text = format!("environment_providers: false\nproviders: {{a: {{base_url: \"http://127.0.0.1:1\"}}}}\n{bad}");
        assert_eq!(load_text(&text, &[]).unwrap_err().len(), 1, "{bad}");
    }
}
