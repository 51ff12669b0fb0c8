//! The files of the crate, and the modules that each of them names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file below `src`.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// The path of its module in the crate, as in `["config", "check", "route"]`. A `mod.rs` is its folder.
    pub(crate) module: Vec<String>,
    /// Its text without comments and without the tests in it.
    pub(crate) code: String,
}

impl Source {
    /// Whether it is test code in a file or folder of its own, which looks at what it is about.
    pub(crate) fn is_test(&self) -> bool {
        self.module.iter().any(|part| part.contains("test"))
    }

    /// The top-level module it belongs to.
    pub(crate) fn top(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }
}

pub(crate) fn files() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    assert!(found.len() > 30, "only {} files: the test looks in the wrong place", found.len());
    found
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&src).expect("below src").with_extension("");
            let mut module: Vec<String> = below.iter().map(|part| part.to_str().expect("a name").to_owned()).collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            let text = fs::read_to_string(&path).expect("a source file");
            let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let code: String = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .fold(String::new(), |all, line| all + line + "\n");
            Source { path, module, code }
        })
        .collect()
}

/// The paths named behind `prefix`, as `["names", "Name"]` in `use crate::names::Name`, also those in braces.
pub(crate) fn named_behind(code: &str, prefix: &str) -> BTreeSet<Vec<String>> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        paths(&code[at + prefix.len()..], &[], &mut named);
    }
    named
}

/// Adds the paths at the start of `code` below `above`; returns what follows them.
fn paths<'a>(code: &'a str, above: &[String], named: &mut BTreeSet<Vec<String>>) -> &'a str {
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(code.len());
    let parts = code[..end].split("::").filter(|part| !part.is_empty() && *part != "self").map(str::to_owned);
    let path: Vec<String> = above.iter().cloned().chain(parts).collect();
    let Some(mut rest) = code[end..].strip_prefix('{').filter(|_| end == 0 || code[..end].ends_with("::")) else {
        named.insert(path);
        return &code[end..];
    };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        match rest.strip_prefix('}') {
            Some(behind) => return behind,
            None if rest.is_empty() => return rest,
            None => rest = alias(paths(rest, &path, named)),
        }
    }
}

/// What follows `as NAME`.
fn alias(code: &str) -> &str {
    let trimmed = code.trim_start();
    match trimmed.strip_prefix("as ") {
        Some(name) => name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
        // Nothing else stands between two names: a character that belongs to no path is passed over.
        None => trimmed.strip_prefix(|c: char| c != ',' && c != '}').unwrap_or(trimmed),
    }
}

/// The modules of one folder that a file of it names, by their path in the crate or from `super`, in whatever place the file is.
pub(crate) fn siblings(source: &Source, folder: &[String]) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let crate_paths = named_behind(&source.code, "crate::");
    named.extend(crate_paths.iter().filter_map(|path| path.strip_prefix(folder)?.first().cloned()));
    // `super` of a module below an entry of the folder leads up to the folder once it is repeated often enough.
    let above = source.module.len() - folder.len();
    let super_paths = named_behind(&source.code, &"super::".repeat(above));
    named.extend(super_paths.iter().filter_map(|path| path.first().cloned()));
    named
}

#[test]
fn names_in_braces_are_found() {
    let named = |code, prefix| named_behind(code, prefix).into_iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(named("use super::{a, b::{C as D, self, e::*}, f};", "super::"), ["a", "b", "b::C", "b::e", "f"]);
    assert_eq!(named("use crate::x::y;\nlet z = crate::v::w(1);", "crate::"), ["v::w", "x::y"]);
    assert_eq!(named("use super::super::{g};", "super::super::"), ["g"]);
}
