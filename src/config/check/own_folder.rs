//! Folders that the gate, or a process beside it, writes to: each is for one thing alone.

use std::path::{Path, PathBuf};

use crate::config::checked::StateFolder;
use crate::config::files;
use crate::config::report::{Given, Report, Text};

/// The folder that a key names, "auto" if it names none; or a report of why it cannot be one. `name` is the default one, `own` says
/// whose it is, `remedy` what to write.
pub(super) fn folder(
    given: &Given<String>,
    name: &'static str,
    own: &str,
    remedy: &str,
    report: &mut Report,
) -> Option<StateFolder> {
    match given {
        Given::Refused => None,
        Given::Value(text) if text.value != "auto" => check(text, own, remedy, report).map(StateFolder::At),
        Given::Absent | Given::Value(_) => Some(StateFolder::Auto { name, beside: absolute(name, report) }),
    }
}

/// A path as the configuration gives it, or the default one. The gate and its commands may run in different folders.
fn absolute(name: &str, report: &Report) -> PathBuf {
    let path = files::folder_of(report.file()).join(name);
    std::path::absolute(&path).unwrap_or(path)
}

fn check(text: &Text, own: &str, remedy: &str, report: &mut Report) -> Option<PathBuf> {
    let path = absolute(&text.value, report);
    let message = if text.value.is_empty() || text.value.contains('\0') {
        "this is no path".to_owned()
    } else if path.exists() && !path.is_dir() {
        format!("{} is no folder", path.display())
    } else if is_above(&path, report.file()) {
        // In the sandbox the process may write there, and to what is below.
        format!("{} contains the configuration, and {own}", path.display())
    } else {
        return Some(path);
    };
    report.error(&text.place, message, remedy);
    None
}

/// Whether the file is in the folder or below it.
fn is_above(folder: &Path, file: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(file).starts_with(real(folder))
}
