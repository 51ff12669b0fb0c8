//! Imports point down only. An import that the table below does not allow needs another line there, with its reason.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod imports;
mod portable;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::IMPORTS;
use source::{Source, files, named_behind, siblings, sources};

#[test]
fn imports_are_those_of_the_table() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    assert_eq!(table.len(), IMPORTS.len(), "a module has two lines");
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for source in files() {
        let top = source.top();
        if top == "lib" {
            continue;
        }
        let allowed = table.get(top).unwrap_or_else(|| panic!("the table has no line for {top}"));
        let uses = used.entry(top.to_owned()).or_default();
        for path in named_behind(&source.code, if top == "main" { "doorward::" } else { "crate::" }) {
            let Some(import) = path.first() else {
                panic!("{}: write one module of the crate a line, so that this test can read it", source.path.display())
            };
            if import != top && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", source.path.display()));
            }
            uses.insert(import.clone());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (module, imports) in IMPORTS {
        let uses = used.get(*module).unwrap_or_else(|| panic!("the table names {module}, which does not exist"));
        for import in *imports {
            assert!(uses.contains(*import), "{module} may import {import} and does not: take it out of the table");
        }
    }
}

#[test]
fn table_points_down_only() {
    let mut above = BTreeSet::new();
    for (module, imports) in IMPORTS {
        for import in *imports {
            assert!(above.contains(import), "{module} imports {import}, which has a later line");
        }
        above.insert(module);
    }
}

#[test]
fn modules_of_one_folder_do_not_import_each_other_in_a_circle() {
    let sources = files();
    let folders: BTreeSet<Vec<String>> =
        sources.iter().flat_map(|source| (1..source.module.len()).map(|n| source.module[..n].to_vec())).collect();
    let mut circles = Vec::new();
    for folder in folders {
        let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in &sources {
            let Some(entry) = source.module.strip_prefix(folder.as_slice()).and_then(|below| below.first()) else {
                continue;
            };
            if source.is_test() {
                continue; // Tests look at what they like.
            }
            imports.entry(entry.clone()).or_default().extend(siblings(source, &folder));
        }
        for (entry, named) in &mut imports {
            named.remove(entry);
        }
        // What imports only what is settled is settled; a circle never is.
        let mut settled: BTreeSet<String> = BTreeSet::new();
        loop {
            let more: Vec<String> = imports
                .iter()
                .filter(|(entry, named)| {
                    !settled.contains(*entry)
                        && named.iter().all(|name| settled.contains(name) || !imports.contains_key(name))
                })
                .map(|(entry, _)| entry.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            settled.extend(more);
        }
        let rest: Vec<String> = imports
            .iter()
            .filter(|(entry, _)| !settled.contains(*entry))
            .map(|(entry, named)| {
                let unsettled: Vec<_> =
                    named.iter().filter(|name| imports.contains_key(*name) && !settled.contains(*name)).collect();
                format!("{entry} -> {unsettled:?}")
            })
            .collect();
        if !rest.is_empty() {
            circles.push(format!("in {}: {}", folder.join("/"), rest.join(", ")));
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// The most lines of a file: one that grows longer is divided by subject.
const LINES: usize = 450;

#[test]
fn files_are_short_enough_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches"] {
        let before = found.len();
        sources(&root.join(folder), &mut found);
        assert!(found.len() > before + 10, "only {} files in {folder}", found.len() - before);
    }
    // What `tests/fuzz/run` builds.
    found.retain(|path| !path.starts_with(root.join("tests/fuzz/target")));
    let long: Vec<String> = found
        .iter()
        .map(|path| (path, fs::read_to_string(path).expect("a source file").lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .map(|(path, lines)| format!("{} has {lines} lines, {LINES} are the most", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_only() {
    for source in files() {
        let (path, module, code) = (&source.path, source.top(), &source.code);
        let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let has = words.clone().any(|word| word == "unsafe");
        assert!(!has || module == "sys", "{} has unsafe code", path.display());
    }
}

#[test]
fn permits_are_made_in_one_place() {
    for source in files() {
        let (path, module, code) = (&source.path, source.top(), &source.code);
        if module != "authorize" {
            assert!(!code.contains("Authorized {"), "{} makes a permit", path.display());
        }
        if !["authorize", "snapshot"].contains(&module) {
            assert!(
                !code.contains("PassthroughPolicy::configured"),
                "{} decides that a route requires no certificate",
                path.display()
            );
        }
    }
}

#[test]
fn certificates_are_accepted_in_one_place_each() {
    // What accepts a certificate for rustls, what accepts every certificate, and what uses a verifier of the gate's own.
    for (text, places) in [
        ("ClientCertVerified::assertion()", &["handshake/verifier.rs"][..]),
        ("ServerCertVerified::assertion()", &["backend_tls/verifier.rs"]),
        ("accepting_all(", &["backend_tls/mod.rs", "backend_tls/mod.rs", "backend_tls/verifier.rs"]),
        ("any_certificate(", &["backend_tls/mod.rs", "backends/probe.rs"]),
        // The last one only remembers what the verifier that it asks has refused.
        (".dangerous()", &["backend_tls/mod.rs", "backends/probe.rs", "connector/tls.rs"]),
    ] {
        let found = files().into_iter().filter(|source| !source.is_test());
        let found = found.flat_map(|source| vec![source.path.clone(); source.code.matches(text).count()]);
        let mut found: Vec<PathBuf> = found.collect();
        found.sort();
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert_eq!(found, places.iter().map(|place| src.join(place)).collect::<Vec<_>>(), "{text}");
    }
}

/// Whether code looks into the text of a refusal: compares it, searches it or takes it apart.
fn reads_a_detail(code: &str) -> bool {
    let code: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let compared =
        ["==", "!=", ".contains(", ".starts_with(", ".ends_with(", ".strip_prefix(", ".strip_suffix(", ".find("];
    let is_word = |at: usize| {
        let within = |c: char| c.is_alphanumeric() || c == '_';
        !code[..at].ends_with(within) && !code[at + "detail".len()..].starts_with(within)
    };
    code.match_indices("detail").filter(|(at, _)| is_word(*at)).any(|(at, _)| {
        let before = code[..at].trim_end();
        // Behind it the rest of a call or a field's conversions: `detail(&cause)`, `detail.as_deref()`, `*detail`.
        let mut rest = &code[at + "detail".len()..];
        if rest.starts_with('(') {
            rest = rest.split_once(')').map_or("", |(_, rest)| rest);
        }
        for conversion in [".as_str()", ".as_deref()", ".as_ref()", ".to_string()"] {
            rest = rest.strip_prefix(conversion).unwrap_or(rest);
        }
        compared.iter().any(|operator| rest.trim_start().starts_with(operator))
            || before.trim_end_matches(['&', '*']).trim_end().ends_with("==")
            || before.trim_end_matches(['&', '*']).trim_end().ends_with("!=")
            || before.ends_with("match")
    })
}

#[test]
fn no_code_reads_the_text_of_a_refusal() {
    for compares in
        ["refusal.detail == UNVERIFIED", "if *detail != other", "detail(&cause).contains(\"x\")", "match detail {"]
    {
        assert!(reads_a_detail(compares), "{compares}");
    }
    for fine in ["detail: detail(&cause),", "let detail = 1;", "details == 3"] {
        assert!(!reads_a_detail(fine), "{fine}");
    }
    for Source { path, code, .. } in files().iter().filter(|source| !source.is_test()) {
        assert!(!reads_a_detail(code), "{} compares a detail: match on the Cause", path.display());
    }
}

/// rustls' and webpki's errors are told apart by their variants.
#[test]
fn no_code_matches_the_text_of_a_tls_error() {
    for source in files() {
        let path = &source.path;
        if !["handshake", "client_hello", "pki"].contains(&source.top()) {
            continue;
        }
        let code: String = source.code.split_whitespace().collect::<Vec<_>>().join(" ");
        for reads in ["General(message)", "error.to_string().", "error.to_string() ==", "== error.to_string()"] {
            assert!(!code.contains(reads), "{} has {reads}", path.display());
        }
    }
}

/// Words about refusals are made by one module; the vocabulary below it has none.
#[test]
fn text_about_a_cause_is_made_in_explanation_only() {
    for source in files() {
        let (path, module, code) = (&source.path, source.top(), &source.code);
        let makes = code.contains("for Cause {") && code.contains("Display");
        assert!(!makes || module == "explain", "{} makes text of a cause", path.display());
    }
}

/// rustls' types for a connection and its keys: other ones in each of its versions.
const CONNECTION_TYPES: &[&str] = &[
    "AcceptedAlert",
    "Acceptor",
    "ClientConnection",
    "ConnectionState",
    "ConnectionTrafficSecrets",
    "ExtractedSecrets",
    "KernelConnection",
    "ServerConnection",
    "ServerConnectionData",
    "UnbufferedServerConnection",
    "UnbufferedStatus",
    "unbuffered",
];

/// Where they may be named. The demonstration and `check --connect` are clients of rustls' like any other program.
const CONNECTION_FILES: &[&str] = &["cli/check/connect.rs", "cli/demo.rs", "tls/driver.rs", "tls/record/keys.rs"];

#[test]
fn rustls_connection_types_are_in_two_files() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut naming = BTreeSet::new();
    for source in files() {
        let Source { path, code, .. } = &source;
        let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if !source.is_test() && words.any(|word| CONNECTION_TYPES.contains(&word)) {
            naming.insert(path.strip_prefix(&src).expect("below src").display().to_string());
        }
    }
    assert_eq!(naming, CONNECTION_FILES.iter().map(|file| (*file).to_owned()).collect());
}

/// `sys::cpu` asks the library that encrypts what it uses; another copy of it would be asked otherwise.
#[test]
fn aws_lc_is_linked_once() {
    let lock = fs::read_to_string("Cargo.lock").expect("the lock file");
    assert_eq!(
        lock.matches("\nname = \"aws-lc-sys\"\n").count(),
        1,
        "Cargo.toml asks for another version than aws-lc-rs"
    );
}
