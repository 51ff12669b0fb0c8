//! Reads the folder.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use time::OffsetDateTime;

use super::batch::{Batch, VisitNote};
use super::counts::{HOUR, HourCounts, Summary};
use super::folder::{Folder, Place, day};
use super::lines::{self, Contents, FORMAT, Header, Line};
use super::state::{DETAILED_DAYS, State};

/// Enough for the first line of a file.
const HEADER_MAX: u64 = 16 << 10;

/// What the folder has.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) state: State,
    /// The last day with a file, and where that is.
    pub(super) current: Option<(i64, Place)>,
    /// Days with a file that is not as this release writes it.
    pub(super) faults: Vec<(i64, Fault)>,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its last line is not complete.
    Torn,
    /// Lines of it cannot be read, or all of it.
    Damaged,
}

/// Why a folder is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{} was written by a later release of doorward\n  to begin a new history: give history.folder another path", .0.display())]
    Later(PathBuf),
}

/// Reads everything that is kept in memory. Files of days that are yet to come stay as they are: the clock is wrong, or was.
pub(super) fn load(folder: &Folder, now: OffsetDateTime) -> Result<Loaded, LoadError> {
    let today = day(now);
    let mut loaded = Loaded::default();
    let days: Vec<i64> = folder.days()?.into_iter().map(|(day, _)| day).filter(|day| *day <= today + 1).collect();
    let with_files: BTreeSet<i64> = days.iter().copied().collect();
    let mut has_state = false;
    for day in days {
        let detailed = day > today - DETAILED_DAYS;
        let most = if detailed { u64::MAX } else { HEADER_MAX };
        let Ok((mut place, text)) = folder.read(day, 0, most) else {
            loaded.faults.push((day, Fault::Damaged));
            continue;
        };
        let header = lines::header(&text);
        if header.as_ref().is_some_and(|header| header.format > FORMAT) {
            return Err(LoadError::Later(folder.path().to_owned()));
        }
        if !detailed {
            match header {
                Some(Header { hours: Some(hours), .. }) => loaded.state.add_older(&hours),
                // The gate did not run when the day was over.
                Some(_) => {
                    if let Ok((_, text)) = folder.read(day, 0, u64::MAX) {
                        loaded.state.add_older(&summaries(lines::read(&text)));
                    }
                }
                None => loaded.faults.push((day, Fault::Damaged)),
            }
            continue;
        }
        let contents = lines::read(&text);
        if contents.damaged > 0 || header.is_none() {
            loaded.faults.push((day, Fault::Damaged));
        } else if contents.torn {
            loaded.faults.push((day, Fault::Torn));
        }
        for line in contents.lines {
            match line {
                Line::State(checkpoint) => {
                    loaded.state.now = checkpoint.checked();
                    has_state = true;
                }
                Line::Add(mut batch) => {
                    // Hours of a day with a file of its own are there.
                    batch.hours.retain(|counts| counts.day() == day || !with_files.contains(&counts.day()));
                    loaded.state.add(&batch);
                }
                Line::Header(_) | Line::Visits(_) => {}
            }
        }
        place.bytes = text.len() as u64;
        loaded.current = Some((day, place));
    }
    if !has_state {
        for hour in loaded.state.hours.clone() {
            loaded.state.now.add(&seen(&hour));
        }
        loaded.state.now.visits.clear();
    }
    // The process that they were open in has ended, or says itself when they end.
    loaded.state.now.visits.iter_mut().for_each(|visit| visit.open = 0);
    Ok(loaded)
}

fn summaries(contents: Contents) -> Vec<Summary> {
    let mut state = State::default();
    for line in contents.lines {
        if let Line::Add(Batch { hours, .. }) = line {
            state.add(&Batch { hours, ..Batch::default() });
        }
    }
    state.hours.iter().map(Summary::from).collect()
}

/// When devices were there, as far as an hour's counts tell.
fn seen(hour: &HourCounts) -> Batch {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(hour.hour.saturating_mul(HOUR)) else { return Batch::default() };
    let visits = hour.admitted.iter().filter_map(|pair| {
        Some(VisitNote {
            device: pair.device.clone()?,
            route: pair.route.clone(),
            address: pair.last.unwrap_or(pair.first),
            since: at,
            until: at,
            began: pair.connections,
            ended: pair.connections,
            to_backend: 0,
            to_client: 0,
        })
    });
    Batch { visits: visits.collect(), ..Batch::default() }
}
