//! The code's own rules: which module may touch what, and how long a file gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every source file: its path below `src`, and its text before its tests.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = vec![];
    sources(&root, &mut paths);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]\n").next().unwrap().to_owned();
        (path.strip_prefix(&root).unwrap().display().to_string(), code)
    };
    paths.into_iter().map(read).filter(|(path, _)| !path.ends_with("_tests.rs")).collect()
}

/// Lines of code that use `what`, comments left out.
fn uses(code: &str, what: &str) -> bool {
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).any(|line| line.contains(what))
}

fn allowed(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

#[test]
fn only_the_shell_knows_pingora_and_tokio() {
    for (path, code) in files() {
        for name in ["pingora::", "pingora_proxy::"] {
            assert!(!uses(&code, name) || allowed(&path, &["proxy/", "admin/", "main.rs"]), "{path} uses {name}");
        }
        assert!(!uses(&code, "tokio::") || allowed(&path, &["proxy/", "admin/", "sink/", "main.rs"]), "{path} uses tokio");
    }
}

#[test]
fn only_those_that_own_files_touch_them() {
    for (path, code) in files() {
        let touches = ["std::fs", "fs::", "File::"].iter().any(|name| uses(&code, name));
        let owners = ["config/", "price/", "ledger/", "sink/", "access_log/", "proxy/sockets.rs", "proxy/successor.rs", "cli/"];
        assert!(!touches || allowed(&path, &owners), "{path} touches files");
    }
}

#[test]
fn the_core_has_no_clock() {
    for (path, code) in files() {
        let reads = ["Instant::now", "SystemTime::now"].iter().any(|name| uses(&code, name));
        assert!(!reads || allowed(&path, &["proxy/", "sink/", "cli/", "access_log/", "metrics.rs"]), "{path} reads a clock");
    }
}

#[test]
fn data_flows_one_way() {
    let core = ["json/", "stream/", "usage/", "dialect/", "meter/", "price/", "provider/", "rewrite/", "route/", "exchange/", "ledger/"];
    let shell = ["crate::proxy", "crate::admin", "crate::metrics", "crate::access_log", "crate::mock"];
    for (path, code) in files().iter().filter(|(path, _)| allowed(path, &core)) {
        for module in shell {
            assert!(!uses(code, module), "{path} reaches into {module}");
        }
    }
}

#[test]
fn files_say_what_they_own_and_stay_short() {
    for (path, code) in files() {
        assert!(code.starts_with("//!"), "{path} does not say what it is for");
        let lines = code.lines().count();
        assert!(lines <= 400, "{path} has {lines} lines before its tests");
    }
}
