//! Whether the log's output takes lines; if it does not, that is said on stderr, in `doorward status` and in the metrics.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use time::OffsetDateTime;
use tokio::time::Instant;

/// How long nothing more is said on stderr about a log that fails, recovers, and fails again.
const QUIET: Duration = Duration::from_secs(60);

/// How often it is said again that the log still fails.
const AGAIN: Duration = Duration::from_secs(600);

/// What a pipe takes without waiting if it takes anything (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// The metrics of the log.
#[derive(Clone)]
pub struct LogSeries {
    /// 1 unless the output fails.
    pub writable: Gauge,
    /// Lines that were not written.
    pub lost: Counter,
}

/// Why the output fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// Since when.
    pub since: OffsetDateTime,
    /// What is wrong, and what to do.
    pub what: String,
}

/// What is known of the output.
#[derive(Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Default)]
struct State {
    error: Option<LogError>,
    series: Option<LogSeries>,
    lost: u64,
    /// What was said on stderr for the last time, and when.
    said: Option<(String, Instant)>,
    /// Something was said since the output worked.
    is_said: bool,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("error", &self.error()).finish_non_exhaustive()
    }
}

impl Health {
    pub(super) fn error(&self) -> Option<LogError> {
        self.lock().error.clone()
    }

    /// From now on these metrics follow.
    pub(super) fn report_to(&self, series: LogSeries) {
        let mut state = self.lock();
        series.lost.increment(state.lost);
        series.writable.set(if state.error.is_some() { 0 } else { 1 });
        state.series = Some(series);
    }

    /// Lines were not written.
    pub(super) fn lost(&self, lines: u64) {
        let mut state = self.lock();
        state.lost = state.lost.saturating_add(lines);
        if let Some(series) = &state.series {
            series.lost.increment(lines);
        }
    }

    /// The output fails, for this reason; if there was another one, it is replaced.
    pub(super) fn failed(&self, what: String) {
        let mut state = self.lock();
        let changed = state.error.as_ref().is_none_or(|error| error.what != what);
        if changed {
            let since = state.error.as_ref().map_or_else(OffsetDateTime::now_utc, |error| error.since);
            state.error = Some(LogError { since, what: what.clone() });
            if let Some(series) = &state.series {
                series.writable.set(0);
            }
        }
        let say = state.said.as_ref().is_none_or(|(said, at)| {
            let quiet = if state.is_said && *said == what { AGAIN } else { QUIET };
            at.elapsed() >= quiet
        });
        if say {
            state.said = Some((what.clone(), Instant::now()));
            state.is_said = true;
        }
        drop(state);
        if say {
            to_stderr(format!("warning: {what}\n").as_bytes());
        }
    }

    /// The output does not take lines as fast as they come. What else is wrong with it goes before.
    pub(super) fn overflowed(&self) {
        if self.lock().error.is_none() {
            self.failed("the log's output is too slow for the lines that are written; some are left out".to_owned());
        }
    }

    /// The output takes lines.
    pub(super) fn works(&self) {
        let mut state = self.lock();
        let Some(_) = state.error.take() else { return };
        if let Some(series) = &state.series {
            series.writable.set(1);
        }
        let was_said = std::mem::take(&mut state.is_said);
        drop(state);
        if was_said {
            to_stderr(b"the log is written again; a line in it says how many lines are missing\n");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to stderr as much as it takes without waiting: the log must not stand still because stderr does.
pub(super) fn to_stderr(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    for chunk in bytes.chunks(CHUNK) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_ready = |ready: PollFlags| ready.contains(PollFlags::OUT) && !ready.contains(PollFlags::ERR);
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        let polled = poll(&mut ready, Some(&now));
        if polled.is_err() || !ready.iter().any(|stderr| is_ready(stderr.revents())) {
            return;
        }
        if stderr.write_all(chunk).is_err() {
            return;
        }
    }
}
