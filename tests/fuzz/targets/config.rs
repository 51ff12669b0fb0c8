//! A configuration: any text is either accepted or rejected with error messages.
#![no_main]

#[path = "../../config/pki.rs"]
mod pki;
#[path = "../../config/reprint.rs"]
mod reprint;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;

use doorward::config::checked::RouteMode;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// The folder with the files that the configurations of tests/config name.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    pki::make(&folder.path().join("pki"));
    folder
});

fuzz_target!(|text: &str| {
    // Paths out of the folder are another machine's business: a device file, for example, would be read for long.
    if text.contains("/dev") || text.contains("/proc") || text.contains("/sys") || text.contains("..") {
        return;
    }
    let file: PathBuf = FOLDER.path().join("doorward.toml");
    let config = match reprint::parse_twice(text, &file) {
        Ok(config) => config,
        Err(errors) => {
            let shown = errors.to_string();
            assert!(!shown.is_empty() && !shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            return;
        }
    };
    // What every later stage takes for granted.
    assert!(!config.listeners.is_empty() && !config.routes.is_empty());
    let mut names = BTreeSet::new();
    for route in &config.routes {
        for pattern in &route.server_names {
            assert!(names.insert(pattern.to_string()), "two routes have {pattern}");
        }
        if let RouteMode::Terminate(terminate) = &route.mode {
            let auth = &terminate.client_auth;
            assert!(!auth.mode.verifies() || !auth.trust.is_empty(), "verified by nothing");
        }
    }
});
