//! The visits of memory and of the files together.

use std::io;
use std::path::Path;

use time::OffsetDateTime;

use super::folder::{Folder, day};
use super::lines::{self, Line};
use super::load::load;
use super::overview::Visit;

/// The visits of memory, and those before them that the files of days that are over have.
pub(super) fn all(folder: Option<&Folder>, mut found: Vec<Visit>, since: OffsetDateTime) -> io::Result<Vec<Visit>> {
    let oldest = found.iter().map(|visit| visit.until).min();
    if let Some(folder) = folder {
        let to = oldest.map_or(i64::MAX, day);
        let earlier = of_days(folder, day(since), to)?;
        found.extend(earlier.into_iter().filter(|visit| oldest.is_none_or(|oldest| visit.until < oldest)));
    }
    found.retain(|visit| visit.open > 0 || visit.until >= since);
    found.sort_by_key(|visit| std::cmp::Reverse(visit.until));
    Ok(found)
}

/// Reads the visits since then from the folder of a gate that does not run.
///
/// # Errors
/// Why that is not possible.
pub fn visits_of_folder(folder: &Path, since: OffsetDateTime, now: OffsetDateTime) -> io::Result<Vec<Visit>> {
    let folder = Folder::new(folder);
    let loaded = load(&folder, now).map_err(io::Error::other)?;
    all(Some(&folder), loaded.state.now.visits, since)
}

/// The visits that ended between these days, both included, of days that are over.
fn of_days(folder: &Folder, from: i64, to: i64) -> io::Result<Vec<Visit>> {
    let mut found = Vec::new();
    for (day, _) in folder.days()?.into_iter().filter(|(day, _)| (from..=to).contains(day)) {
        let Ok((_, text)) = folder.read(day, 0, u64::MAX) else { continue };
        for line in lines::read(&text).lines {
            if let Line::Visits(visits) = line {
                found.extend(visits);
            }
        }
    }
    Ok(found)
}
