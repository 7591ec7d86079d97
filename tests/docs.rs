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
    let made = metrics(&["mod", "attempts"].map(|file| read(&format!("src/metrics/{file}.rs"))).concat());
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

/// Whole configurations in documents are read, and pieces are those of one.
#[test]
fn configurations_in_documents_are_understood() {
    let variables = |name: &str| Some(format!("{name}-of-the-test-and-long-enough-for-a-secret"));
    for path in documents().iter().filter(|path| !path.starts_with("conf/")) {
        for block in read(path).split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()) {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("tollgate.yaml");
            std::fs::write(&file, &block).unwrap();
            let problems = tollgate::config::load(&tollgate::config::Source::File(file), &variables).err().unwrap_or_default();
            // What is elsewhere (certificates, providers) need not be here.
            let wrong: Vec<_> = problems.iter().filter(|problem| problem.message.contains("unknown key")).collect();
            assert!(wrong.is_empty(), "{path}: {wrong:?}\n{block}");
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
