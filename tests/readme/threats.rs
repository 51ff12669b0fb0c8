//! Each promise of the threat model names tests, benches or fuzz targets, and all of them exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use doorward::manual::TOPICS;

fn page() -> &'static str {
    TOPICS.iter().find(|topic| topic.name == "threats").unwrap().text
}

/// What is in ticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The source of a test suite: `tests/SUITE.rs`, or every file in `tests/SUITE`.
fn sources(suite: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let (file, folder) = (tests.join(format!("{suite}.rs")), tests.join(suite));
    let mut files = Vec::new();
    if file.is_file() {
        files.push(file);
    } else if folder.join("main.rs").is_file() {
        walk(&folder, &mut files);
    }
    files
}

/// The tests in a file: the functions below an attribute `#[test]` or `#[tokio::test…]`.
fn tests(text: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut marked = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| marked) {
            tests.insert(name.split('(').next().unwrap().to_owned());
            marked = false;
        } else if !line.starts_with(['#', '/']) {
            marked = false;
        }
    }
    tests
}

/// Whether `proof` names something that runs, and which exists.
fn exists(proof: &str) -> Option<bool> {
    let listed = |manifest: &str, section: &str, name: &str| {
        let entry = format!("[[{section}]]\nname = \"{name}\"\n");
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest)).unwrap().contains(&entry)
    };
    if let Some(name) = proof.strip_prefix("bench ") {
        return Some(listed("Cargo.toml", "bench", name));
    }
    if let Some(name) = proof.strip_prefix("fuzz ") {
        return Some(listed("tests/fuzz/Cargo.toml", "bin", name));
    }
    let (suite, test) = proof.split_once("::")?;
    Some(sources(suite).iter().any(|file| tests(&fs::read_to_string(file).unwrap()).contains(test)))
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let proofs: BTreeSet<&str> = code(page()).collect();
    let missing: Vec<&str> = proofs.iter().copied().filter(|proof| exists(proof) == Some(false)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let found = proofs.iter().filter(|proof| exists(proof) == Some(true)).count();
    assert!(found > 60, "the page is not written any more as this test reads it: {found} proofs");
    assert_eq!(exists("journey::no_such_test"), Some(false));
    assert_eq!(exists("bench no_such_bench"), Some(false));
}

#[test]
fn every_promise_of_the_threat_model_names_a_test() {
    let sections: Vec<&str> = page().split("\n## ").skip(1).collect();
    let mut promises = 0;
    for section in sections.iter().filter(|section| section.contains("\nPromised:\n")) {
        let heading = section.lines().next().unwrap();
        let (_, promised) = section.split_once("\nPromised:\n").unwrap();
        let (promised, not) = promised.split_once("\nNot promised:\n").unwrap_or_else(|| panic!("{heading}"));
        assert!(not.contains("\n* "), "{heading}: what is not promised?");
        for promise in promised.split("\n* ").skip(1) {
            assert!(code(promise).any(|proof| exists(proof) == Some(true)), "{heading}: no test shows: {promise}");
            promises += 1;
        }
    }
    assert!(promises > 30, "the page is not written any more as this test reads it: {promises} promises");
}

#[test]
fn security_policy_leads_to_the_threat_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let policy = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    assert!(policy.contains("(src/manual/threats.md)") && root.join("src/manual/threats.md").is_file());
    assert!(policy.contains("`doorward help threats`"));
}
