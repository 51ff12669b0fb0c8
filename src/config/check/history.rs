//! `[history]`: what is kept of connections across restarts.

use super::{own_folder, scalar};
use crate::config::checked::{History, StateFolder};
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

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn folder(given: &Given<String>, report: &mut Report) -> Option<Option<StateFolder>> {
    if let Given::Value(text) = given
        && text.value == "off"
    {
        return Some(None);
    }
    let remedy =
        "write folder = \"auto\", or the path of a folder for it alone, or \"off\" for no history across restarts";
    own_folder::folder(given, History::FOLDER, "a history has a folder of its own", remedy, report).map(Some)
}

fn days(scalar: &Scalar) -> Result<u16, Problem> {
    let count = values::count(scalar)?;
    let days = u16::try_from(count).ok().filter(|days| *days <= DAYS_MAX);
    days.ok_or_else(|| {
        Problem::new(format!("{count} days are more than a history has"), format!("write at most {DAYS_MAX}"))
    })
}
