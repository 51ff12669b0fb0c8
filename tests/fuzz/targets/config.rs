//! A configuration: any text is either accepted or rejected with error messages.
#![no_main]

#[path = "../../config/pki.rs"]
mod pki;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;

use doorward::config::checked::{Config, RouteMode};
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
    let config = match doorward::config::parse(text, &file) {
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
    // Written anew by another program, it is the same configuration.
    let table: toml::Table = toml::from_str(text).expect("accepted, and no TOML");
    let Ok(printed) = toml::to_string(&table) else { return };
    let again = doorward::config::parse(&printed, &file).expect("the same configuration, printed anew");
    assert_eq!(facts(&config), facts(&again), "{printed}");
});

/// Everything in it, in an order of its own: sets have none.
fn facts(config: &Config) -> Vec<String> {
    // Warnings name lines of the text, and what was seen names times.
    let config = Config { warnings: Vec::new(), seen: Default::default(), ..config.clone() };
    let mut lines: Vec<String> = format!("{config:#?}").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}
