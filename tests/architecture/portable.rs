//! What a device needs is portable: it knows nothing of the gate, and what one kind of system alone has is in few files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::imports::PORTABLE;
use crate::source::{Source, files, named_behind};

/// The condition of the gate's modules.
const GATE: &str = r#"feature = "gate""#;

/// Where that condition may be named: where modules, commands and errors are listed.
const LISTS: &[&str] = &[
    "cli/corrections.rs",
    "cli/help/generate.rs",
    "cli/help/mod.rs",
    "cli/mod.rs",
    "lib.rs",
    "pki/mod.rs",
    "sys/mod.rs",
];

/// What Unix alone has.
const UNIX: &[&str] = &[
    "std::os::unix",
    "std::os::fd",
    "libc::",
    "rustix::",
    "net::Unix",
    "UnixStream",
    "UnixListener",
    "signal::unix",
    "io::unix",
];

/// Where the portable part may name it.
const UNIX_FILES: &[&str] = &["connector/platform/unix.rs", "sys/inherited.rs", "sys/terminal.rs"];

/// The same for Windows.
const WINDOWS: &[&str] = &["std::os::windows", "windows_sys", "signal::windows"];
const WINDOWS_FILES: &[&str] = &["connector/platform/windows.rs", "sys/standard_output.rs"];

/// Modules of the crate that are compiled under a condition.
struct Conditions(BTreeMap<Vec<String>, String>);

impl Conditions {
    fn of(sources: &[Source]) -> Self {
        let mut conditions = BTreeMap::new();
        for source in sources {
            let above = if source.top() == "lib" { &[][..] } else { source.module.as_slice() };
            let mut condition = None;
            for line in source.code.lines() {
                let line = line.trim();
                if let Some(inner) = line.strip_prefix("#[cfg(").and_then(|rest| rest.strip_suffix(")]")) {
                    condition = Some(inner.to_owned());
                } else if let Some(name) = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")) {
                    if let Some(condition) = condition.take() {
                        conditions.insert([above, &[name.1.to_owned()]].concat(), condition);
                    }
                } else if !line.starts_with("#[") {
                    condition = None;
                }
            }
        }
        Self(conditions)
    }

    /// Whether a path leads into the gate.
    fn are_of_the_gate(&self, path: &[String]) -> bool {
        (1..=path.len()).any(|length| self.0.get(&path[..length]).is_some_and(|condition| condition.contains(GATE)))
    }
}

/// The files of the portable part, with their names below `src`.
fn portable(sources: &[Source]) -> Vec<(String, &Source)> {
    let conditions = Conditions::of(sources);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |source: &Source| source.path.strip_prefix(&src).expect("below src").display().to_string();
    let rest = sources.iter().filter(|source| !source.is_test() && !conditions.are_of_the_gate(&source.module));
    rest.map(|source| (name(source), source)).collect()
}

#[test]
fn modules_without_the_gate_are_those_of_the_table() {
    let sources = files();
    let tops: BTreeSet<&str> = portable(&sources).iter().map(|(_, source)| source.top()).collect();
    let expected: BTreeSet<&str> = PORTABLE.iter().copied().chain(["lib", "main"]).collect();
    assert_eq!(tops, expected);
}

#[test]
fn portable_part_imports_nothing_of_the_gate() {
    let sources = files();
    let conditions = Conditions::of(&sources);
    let portable = portable(&sources);
    assert!(portable.len() > 60, "only {} files: the test looks in the wrong place", portable.len());
    for (name, source) in portable {
        // What only the fuzz targets use is listed there.
        if source.top() == "lib" {
            continue;
        }
        for path in named_behind(&source.code, "crate::") {
            assert!(!conditions.are_of_the_gate(&path), "{name} imports {}, which is of the gate", path.join("::"));
        }
    }
}

#[test]
fn gate_is_left_out_in_few_places() {
    let sources = files();
    let naming: BTreeSet<String> =
        portable(&sources).into_iter().filter(|(_, source)| source.code.contains(GATE)).map(|(name, _)| name).collect();
    assert_eq!(naming, LISTS.iter().map(|&file| file.to_owned()).collect());
    // The gate does not ask what it is built with.
    for source in &sources {
        let is_list = LISTS.iter().any(|file| source.path.ends_with(Path::new("src").join(file)));
        assert!(is_list || !source.code.contains(GATE), "{} names the feature", source.path.display());
    }
}

#[test]
fn what_one_system_alone_has_is_in_few_files() {
    let sources = files();
    for (words, expected) in [(UNIX, UNIX_FILES), (WINDOWS, WINDOWS_FILES)] {
        let names = |source: &Source| words.iter().any(|word| source.code.contains(word));
        let naming: BTreeSet<String> =
            portable(&sources).into_iter().filter(|(_, source)| names(source)).map(|(name, _)| name).collect();
        assert_eq!(naming, expected.iter().map(|&file| file.to_owned()).collect(), "{words:?}");
    }
}
