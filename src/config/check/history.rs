//! `[history]`: what is kept of connections across restarts.

use super::{own_folder, scalar};
use crate::config::checked::{History, HistoryFolder};
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
    let auto = |report: &Report| HistoryFolder::Auto(own_folder::absolute(HistoryFolder::NAME, report));
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(auto(report)),
        Given::Value(text) => text,
    };
    match text.value.as_str() {
        "auto" => return Some(auto(report)),
        "off" => return Some(HistoryFolder::Off),
        _ => {}
    }
    let remedy =
        "write folder = \"auto\", or the path of a folder for it alone, or \"off\" for no history across restarts";
    own_folder::check(text, "a history has a folder of its own", remedy, report).map(HistoryFolder::At)
}

fn days(scalar: &Scalar) -> Result<u16, Problem> {
    let count = values::count(scalar)?;
    let days = u16::try_from(count).ok().filter(|days| *days <= DAYS_MAX);
    days.ok_or_else(|| {
        Problem::new(format!("{count} days are more than a history has"), format!("write at most {DAYS_MAX}"))
    })
}
