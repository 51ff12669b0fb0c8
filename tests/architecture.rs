//! Imports point down only. Whoever needs another one changes the table here, and says why.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What imports nothing of the crate.
const VOCABULARY: &[&str] = &["close", "html", "identity", "names", "rejection", "source"];

/// What each other module of the crate may import beside itself and the vocabulary.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // The foundations.
    // The inventory is in the form of those who write it.
    ("config", &["pki"]),
    // Pages of text, and how they are shown.
    ("manual", &[]),
    ("penalties", &[]),
    // Root acts as the owner of the folder of the authorities.
    ("pki", &["sys"]),
    // Who may be connected to a listener for a few.
    ("places", &[]),
    ("record", &[]),
    ("sys", &[]),
    // Devices are set up without a gate.
    ("enrolment", &["pki", "places", "sys"]),
    // The stages: the output of the one before, never telemetry. proxy_protocol is no stage but a format; what stands in
    // the socket before a ClientHello is admission's to take off and the ClientHello's to recognise.
    ("listener", &["config", "sys"]),
    ("proxy_protocol", &["config", "sys"]),
    ("admission", &["config", "listener", "penalties", "proxy_protocol", "sys"]),
    // Made where the hello is seen and handed to the verdict; no stage that decides anything may look at it.
    ("ja4", &[]),
    ("client_hello", &["admission", "ja4", "proxy_protocol", "sys"]),
    ("route", &[]),
    ("authorize", &["config"]),
    // The verifier asks authorize's pure function: after the handshake nobody could tell the client any more.
    // X.509 as such is pki's: the parts of a certificate, whether a key signed it, and what is wrong with it.
    ("handshake", &["admission", "authorize", "client_hello", "config", "pki", "record", "sys"]),
    // How the descriptors of the process are shared out: it only counts.
    ("descriptors", &["config", "sys"]),
    // What is known of backends, whoever asks: addresses of names.
    ("backends", &[]),
    ("dial", &["authorize", "backends", "config", "sys"]),
    ("relay", &["record", "sys"]),
    // Who may go where, in words: it asks those who decide.
    ("access", &["authorize", "config", "snapshot"]),
    // What they are built from and reported to.
    ("snapshot", &["authorize", "config", "handshake", "route"]),
    // Who is one source is admission's to say.
    ("telemetry", &["admission", "config", "listener", "relay"]),
    // A refusal in words: for the command line, the control socket and the status page alike.
    ("explanation", &["authorize", "telemetry"]),
    ("admin", &["explanation", "places", "telemetry"]),
    // What is remembered of the devices that vouch for a source is for it to judge.
    ("gate", &["admission", "backends", "descriptors", "penalties", "relay", "snapshot", "telemetry"]),
    // It puts another snapshot there; connections only find it.
    ("reload", &["access", "config", "gate", "listener", "snapshot", "sys", "telemetry"]),
    ("watch", &["config", "reload", "sys"]),
    // It only asks: no stage knows of it.
    ("control", &["access", "config", "explanation", "gate", "reload", "telemetry"]),
    (
        "verdict",
        &[
            "admission",
            "client_hello",
            "config",
            "dial",
            "gate",
            "handshake",
            "ja4",
            "listener",
            "relay",
            "snapshot",
            "telemetry",
        ],
    ),
    // The one that knows the order.
    (
        "connection",
        &[
            "admission",
            "authorize",
            "client_hello",
            "config",
            "dial",
            "gate",
            "handshake",
            "listener",
            "proxy_protocol",
            "record",
            "relay",
            "snapshot",
            "verdict",
        ],
    ),
    (
        "server",
        &[
            "admin",
            "admission",
            "config",
            "connection",
            "backends",
            "control",
            "descriptors",
            "gate",
            "listener",
            "relay",
            "reload",
            "snapshot",
            "sys",
            "telemetry",
            "watch",
        ],
    ),
    (
        "cli",
        &[
            "access",
            "authorize",
            "config",
            "control",
            "descriptors",
            "enrolment",
            "explanation",
            "handshake",
            "manual",
            "pki",
            "reload",
            "server",
            "snapshot",
            "telemetry",
        ],
    ),
    ("main", &["cli"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file below `src`, with the top-level module it belongs to and its code without comments and tests.
fn files() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    assert!(found.len() > 30, "only {} files: the test looks in the wrong place", found.len());
    found
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&src).expect("below src");
            let module = below.iter().next().and_then(|part| part.to_str()).expect("a name").trim_end_matches(".rs");
            let text = fs::read_to_string(&path).expect("a source file");
            let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let code: String = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .fold(String::new(), |all, line| all + line + "\n");
            (path.clone(), module.to_owned(), code)
        })
        .collect()
}

/// The modules named behind `prefix`, as in `use crate::names::Name` or `use crate::{names, route}`.
fn named_behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        assert!(!rest.starts_with('{'), "write one crate module a line, so that this test can read it");
        named.insert(name);
    }
    named
}

#[test]
fn imports_point_down_only() {
    let allowed: BTreeMap<&str, &[&str]> =
        MAY_IMPORT.iter().copied().chain(VOCABULARY.iter().map(|module| (*module, &[][..]))).collect();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, module, code) in files() {
        if module == "lib" {
            continue;
        }
        let Some(may) = allowed.get(module.as_str()) else {
            panic!("{module} stands in no line of the table");
        };
        let prefix = if module == "main" { "doorward::" } else { "crate::" };
        for import in named_behind(&code, prefix) {
            let fine = import == module
                || may.contains(&import.as_str())
                || VOCABULARY.contains(&import.as_str()) && !VOCABULARY.contains(&module.as_str());
            if !fine {
                wrong.push(format!("{} imports {import}", path.display()));
            }
        }
        seen.insert(module);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for module in allowed.keys() {
        assert!(seen.contains(*module), "the table names {module}, which does not exist");
    }
}

#[test]
fn the_table_itself_has_no_circles() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut settled: BTreeSet<&str> = VOCABULARY.iter().copied().collect();
    loop {
        let before = settled.len();
        for (module, imports) in &allowed {
            if imports.iter().all(|import| settled.contains(import)) {
                settled.insert(module);
            }
        }
        if settled.len() == before {
            break;
        }
    }
    let circular: Vec<_> = allowed.keys().filter(|module| !settled.contains(*module)).collect();
    assert!(circular.is_empty(), "{circular:?} import each other");
}

#[test]
fn unsafe_code_is_in_sys_only() {
    for (path, module, code) in files() {
        let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let has = words.clone().any(|word| word == "unsafe");
        assert!(!has || module == "sys", "{} has unsafe code", path.display());
    }
}

#[test]
fn permits_are_made_in_one_place() {
    for (path, module, code) in files() {
        if module != "authorize" {
            assert!(!code.contains("Authorized {"), "{} makes a permit", path.display());
        }
        if !["authorize", "snapshot"].contains(&module.as_str()) {
            assert!(
                !code.contains("PassthroughPolicy::configured"),
                "{} decides that a route asks nobody for a certificate",
                path.display()
            );
        }
    }
}
