//! What documents and the files of operators say of the product must hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;
use tollgate::provider::{CacheBy, OnDisconnect, REGISTRY};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Names of metrics in a text; series of histograms go by their metric.
fn metrics(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("tollgate_") {
        let name: String = text[at..].chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect();
        let before = text[..at].chars().last();
        if before.is_none_or(|letter| !letter.is_ascii_alphanumeric()) {
            found.insert(name.strip_suffix("_bucket").unwrap_or(&name).to_owned());
        }
    }
    found
}

#[test]
fn every_metric_is_documented_and_no_other_is_asked_for() {
    let made = metrics(&["mod", "attempts", "requests"].map(|file| read(&format!("src/metrics/{file}.rs"))).concat());
    assert!(made.len() > 20);
    assert_eq!(metrics(&read("docs/metrics.md")), made);
    for path in ["conf/alerts.yaml", "conf/grafana.json"] {
        let asked = metrics(&read(path));
        assert!(asked.is_subset(&made), "{path}: {:?}", asked.difference(&made));
    }
}

fn documents() -> Vec<String> {
    let mut paths = vec!["README.md".to_owned(), "SECURITY.md".to_owned(), "CHANGELOG.md".to_owned(), "conf/prices/README.md".to_owned()];
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap() {
        paths.push(format!("docs/{}", entry.unwrap().file_name().to_string_lossy()));
    }
    paths.retain(|path| path.ends_with(".md"));
    paths
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in &documents() {
        let text = read(path);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(root.join(path).parent().unwrap().join(file).exists(), "{path}: {link}");
        }
    }
}

/// Blocks of a document, by what they are of.
fn blocks(path: &str, kind: &str) -> Vec<String> {
    let (text, fence) = (read(path), format!("```{kind}\n"));
    let fences = text.split(&fence).skip(1);
    fences.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn problems(config: &str) -> Vec<String> {
    let named = |name: &str| config.contains(&format!("${{{name}}}"));
    let variables = |name: &str| named(name).then(|| format!("{name}-of-the-test-and-long-enough-for-a-secret"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.yaml");
    std::fs::write(&file, config).unwrap();
    let found = tollgate::config::load(&tollgate::config::Source::File(file), &variables).err().unwrap_or_default();
    found.into_iter().map(|problem| problem.message).collect()
}

/// Whole configurations in documents are read, and pieces are those of one: nothing is wrong with them but that the
/// machine of the test has not the files they name.
#[test]
fn configurations_in_documents_hold() {
    let elsewhere = |problem: &String| problem.contains("/etc/tollgate/") && problem.contains("No such file");
    let mut read = 0;
    for path in documents().iter().filter(|path| !path.starts_with("conf/")) {
        for block in blocks(path, "yaml") {
            let wrong: Vec<_> = problems(&block).into_iter().filter(|problem| !elsewhere(problem)).collect();
            assert!(wrong.is_empty(), "{path}: {wrong:?}\n{block}");
            read += 1;
        }
    }
    assert!(read > 15, "{read}");
}

#[test]
fn prices_in_documents_hold() {
    for block in blocks("conf/prices/README.md", "yaml") {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.yaml");
        std::fs::write(&file, &block).unwrap();
        let wrong = problems(&format!("prices: {{overlay: [{}]}}", file.display()));
        assert!(wrong.is_empty(), "{wrong:?}\n{block}");
    }
}

mod acme {
    use tollgate::provider::{CHAT_COMPATIBLE, Provider, StreamUsage};

    pub const ACME: Provider = Provider {
        id: "acme",
        host: "api.acme.example",
        key_variables: &["ACME_API_KEY"],
        models: &["acme-*"],
        // "Usage is sent when stream_options.include_usage is true": https://docs.acme.example/streaming
        stream_usage: StreamUsage::OnRequest,
        ..CHAT_COMPATIBLE
    };
}

/// Code in documents stands somewhere where it is compiled.
#[test]
fn code_in_documents_compiles() {
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).map(str::to_owned).collect::<Vec<_>>()
    };
    let own = lines(&read("tests/docs.rs"));
    let [provider] = &blocks("docs/adding-a-provider.md", "rust")[..] else { panic!() };
    let shown: Vec<_> = lines(provider).into_iter().filter(|line| !line.starts_with("use ")).collect();
    assert!(own.windows(shown.len()).any(|window| window == shown), "{shown:?}");
    assert_eq!(acme::ACME.id, "acme");
    let [sink] = &blocks("docs/adding-a-sink.md", "rust")[..] else { panic!() };
    let (own, shown) = (lines(&read("src/sink/mod.rs")), lines(sink));
    assert!(own.windows(shown.len()).any(|window| window == shown), "{shown:?}");
}

/// Every block of a document is of a kind that some test runs or reads: those here, tests/readme.sh and
/// tests/sdk/test_docs.py. Exempt are a drawing and a command of somebody else's.
#[test]
fn every_block_is_tried() {
    const KINDS: &[&str] = &["yaml", "yaml prometheus", "rust", "sh", "sh docker", "console", "python", "sql", "text fixture", "text"];
    for path in documents() {
        let text = read(&path);
        assert!(!text.contains("stack backtrace"), "{path}");
        for kind in text.lines().filter_map(|line| line.strip_prefix("```")).step_by(2) {
            let known = KINDS.contains(&kind) || kind.starts_with("json --");
            assert!(known, "{path}: {kind}");
        }
    }
}

/// `docs/billing.md` shows answers and what `tollgate replay` makes of them.
#[test]
fn worked_examples_come_out_as_they_say() {
    let text = read("docs/billing.md");
    let mut examples = 0;
    for block in text.split("```json ").skip(1) {
        let (options, rest) = block.split_once('\n').unwrap();
        let (answer, rest) = rest.split_once("\n```").unwrap();
        let want = rest.split("```text\n").nth(1).unwrap().split("\n```").next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("answer.json");
        std::fs::write(&file, answer).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let done = command.arg("replay").args(options.split(' ')).arg(&file).output().unwrap();
        let told: Vec<&str> = std::str::from_utf8(&done.stdout).unwrap().lines().map(str::trim_end).collect();
        assert_eq!(told.join("\n"), want, "{options}");
        examples += 1;
    }
    assert_eq!(examples, 4);
}

/// The table of `docs/providers.md`, as the registry has it.
fn providers() -> String {
    let code = |text: &str| format!("`{text}`");
    let list = |texts: Vec<String>| if texts.is_empty() { "–".to_owned() } else { texts.join(", ") };
    let mut table = String::from(
        "| name | address | switched on by | endpoints | models | left callers | prompts found by |\n|---|---|---|---|---|---|---|\n",
    );
    for provider in REGISTRY.iter().filter(|provider| provider.id != "mock") {
        let variables = provider.places.iter().flat_map(|place| place.variables).chain(provider.url_variables);
        let variables = variables.chain(provider.key_variables).chain(provider.token_variables).map(|name| code(name));
        let cache = match provider.cache_by {
            None => "–".to_owned(),
            Some(CacheBy::Control) => code("cache_control"),
            Some(CacheBy::Point) => code("cachePoint"),
            Some(CacheBy::Key) => code("prompt_cache_key"),
            Some(CacheBy::Headers { key, .. }) => code(key),
        };
        let left = if provider.on_disconnect == OnDisconnect::Drain { "read on" } else { "cancelled" };
        let row = [
            code(provider.id),
            code(&format!("{}{}", provider.host, provider.base_path)),
            list(variables.collect()),
            list(provider.endpoints.iter().map(|endpoint| code(endpoint.name())).collect()),
            list(provider.models.iter().map(|model| code(model)).collect()),
            left.to_owned(),
            cache,
        ];
        table += &format!("| {} |\n", row.join(" | "));
    }
    table
}

#[test]
fn every_provider_is_told_as_it_is() {
    let made = providers();
    assert!(read("docs/providers.md").contains(&made), "docs/providers.md should have this table:\n{made}");
}
