//! Holds `docs/configuration.md` against what the code reads.

use super::file::tests::load_text;
use crate::yaml::ASKED;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// Keys that its tables explain: every part of the paths in the first column.
fn explained() -> BTreeSet<String> {
    let first_column = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |")).map(|(first, _)| format!("`{first}"));
    let keys = first_column.flat_map(|column| column.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    keys.flat_map(|key| key.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_reference_explains_every_key_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name).display().to_string());
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    ASKED.with_borrow_mut(BTreeSet::clear);
    let secret = "a secret of more than thirty-two characters";
    let blocks: Vec<_> = PAGE.split("```yaml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    assert!(blocks.len() >= 8);
    for block in blocks {
        let block = block.replace("cert: /etc/tollgate/cert.pem, key: /etc/tollgate/key.pem", &format!("cert: {cert}, key: {key}"));
        let block = block.replace("/var/lib/tollgate", &folder.path().display().to_string());
        let read = load_text(&block, &[("SIGNING_SECRET", secret), ("ADMIN_TOKEN", secret)]);
        assert!(read.is_ok(), "{block}\n{:?}", read.err());
    }
    let asked = ASKED.with_borrow(|asked| asked.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>());
    // Price files, which have a page of their own.
    let prices = [
        "provider",
        "version",
        "sources",
        "also",
        "checked",
        "match",
        "not",
        "regions",
        "max_output",
        "service_tier",
        "batch",
        "from",
        "until",
        "utc",
        "weekdays",
        "except",
        "rates",
        "fees",
        "hours",
        "minimum",
        "tiers",
        "over",
        "inclusive",
    ];
    let asked: BTreeSet<_> = asked.into_iter().filter(|key| !prices.contains(&key.as_str())).collect();
    let explained: BTreeSet<_> = explained().into_iter().filter(|key| !prices.contains(&key.as_str())).collect();
    assert_eq!(asked.difference(&explained).collect::<Vec<_>>(), Vec::<&String>::new(), "not explained");
    assert_eq!(explained.difference(&asked).collect::<Vec<_>>(), Vec::<&String>::new(), "explained, and not there");
}
