//! `[history]`: what is kept of connections across restarts.

use std::path::Path;

use super::scalar;
use crate::config::checked::{History, HistoryFolder};
use crate::config::files;
use crate::config::raw::RawHistory;
use crate::config::reader::Scalar;
use crate::config::report::{Given, Problem, Report};
use crate::config::values;

/// The most days. The size of the folder is limited in any case.
const DAYS_MAX: u16 = 1000;

pub(in crate::config) fn check(raw: &RawHistory, report: &mut Report) -> Option<History> {
    let folder = folder(&raw.folder, report);
    let days = scalar(&raw.days, days, History::DAYS, report);
    Some(History { folder: folder?, days: days? })
}

fn folder(given: &Given<String>, report: &mut Report) -> Option<HistoryFolder> {
    let at = |name: &str| {
        let path = files::folder_of(report.file()).join(name);
        // The gate and its commands may run in different folders.
        std::path::absolute(&path).unwrap_or(path)
    };
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(HistoryFolder::Auto(at(HistoryFolder::NAME))),
        Given::Value(text) => text,
    };
    match text.value.as_str() {
        "auto" => return Some(HistoryFolder::Auto(at(HistoryFolder::NAME))),
        "off" => return Some(HistoryFolder::Off),
        _ => {}
    }
    let path = at(&text.value);
    let message = if text.value.is_empty() || text.value.contains('\0') {
        "this is no path".to_owned()
    } else if path.exists() && !path.is_dir() {
        format!("{} is no folder", path.display())
    } else if is_above(&path, report.file()) {
        // In the sandbox the gate may write there, and to what is below.
        format!("{} contains the configuration, and a history has a folder of its own", path.display())
    } else {
        return Some(HistoryFolder::At(path));
    };
    let remedy =
        "write folder = \"auto\", or the path of a folder for it alone, or \"off\" for no history across restarts";
    report.error(&text.place, message, remedy);
    None
}

fn is_above(folder: &Path, file: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(file).starts_with(real(folder))
}

fn days(scalar: &Scalar) -> Result<u16, Problem> {
    let count = values::count(scalar)?;
    let days = u16::try_from(count).ok().filter(|days| *days <= DAYS_MAX);
    days.ok_or_else(|| {
        Problem::new(format!("{count} days are more than a history has"), format!("write at most {DAYS_MAX}"))
    })
}
