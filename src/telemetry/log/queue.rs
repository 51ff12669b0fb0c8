//! The queue between connections and the thread that writes the log. Connections do not wait for the log.

use std::cell::RefCell;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::fields::Event;
use super::form::Form;
use super::health::{Health, to_stderr};
use super::priority::Line;

/// How many bytes wait for a slow reader. Further lines are left out and counted: a gate that waits for its log could be
/// stopped by filling it.
pub(super) const WAITING_MAX: usize = 4 * 1024 * 1024;

/// How long lines are collected before they are written together. Waking the writer for each line costs more than writing
/// it. A line that comes after a pause is written at once; while lines keep coming, the time is doubled up to the second one.
const COLLECTING: Duration = Duration::from_millis(2);
const COLLECTING_MAX: Duration = Duration::from_millis(16);

/// How many bytes are written without collecting more.
const PLENTY: usize = 64 * 1024;

/// How often the output is checked, with or without lines.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What lines are written to.
pub(in crate::telemetry) trait Output: io::Write {
    /// Checks that lines still reach their file, and reopens it if not. An error says what is wrong and what to do.
    fn look(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// What it is, as in "cannot write the log to …".
    fn name(&self) -> String;
}

impl Output for Box<dyn Output + Send> {
    fn look(&mut self) -> Result<(), String> {
        (**self).look()
    }

    fn name(&self) -> String {
        (**self).name()
    }
}

/// How long the gate waits at its end for the last lines to be written. Their reader may have stopped reading.
const FINISHING: Duration = Duration::from_secs(5);

/// Lines that are to be written.
#[derive(Debug)]
pub(super) struct Queue {
    form: Form,
    pub(super) health: Health,
    waiting: Mutex<Waiting>,
    /// There are lines to write, or the log ends.
    changed: Condvar,
    /// The last line has been written.
    ended: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) lines: Vec<u8>,
    pub(super) left_out: u64,
    /// Of the lines that tell of others that were left out: where each ends, and of how many.
    told: Vec<(usize, u64)>,
    /// How many bytes the writer waits for. Waking it when it does not is a system call for nothing.
    awaited: Option<usize>,
    finished: bool,
    ended: bool,
}

thread_local! {
    /// Where a line is made, so that it takes no allocation.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How much room is kept for the next line. Few are longer.
const LINE_ROOM: usize = 4096;

impl Queue {
    /// Nothing is to be written at first.
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            health: Health::default(),
            waiting: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    /// Puts a line in, if there is room.
    pub(super) fn send(&self, content: &impl Line) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.form.append(line, content);
            self.put(line);
            line.shrink_to(LINE_ROOM);
        });
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > WAITING_MAX {
            waiting.left_out += 1;
            drop(waiting);
            self.health.lost(1);
            self.health.overflowed();
            return;
        }
        self.tell_missing(&mut waiting);
        waiting.lines.extend_from_slice(line);
        let length = waiting.lines.len();
        let awaited = waiting.awaited.take_if(|bytes| length >= *bytes);
        drop(waiting);
        if awaited.is_some() {
            self.changed.notify_one();
        }
    }

    /// Nothing more is put in. Waits until what there is has been written, and says whether it was in [`FINISHING`].
    pub(super) fn finish(&self) -> bool {
        let mut waiting = self.lock();
        self.tell_missing(&mut waiting);
        waiting.finished = true;
        self.changed.notify_one();
        let written = self.ended.wait_timeout_while(waiting, FINISHING, |waiting| !waiting.ended);
        let (waiting, _) = written.unwrap_or_else(PoisonError::into_inner);
        waiting.ended
    }

    /// Tells how many lines the output did not take, if it is any.
    fn tell_missing(&self, waiting: &mut Waiting) {
        let missing = std::mem::take(&mut waiting.left_out);
        if missing > 0 {
            self.form.append(&mut waiting.lines, &Event::not_taken(missing));
            let end = waiting.lines.len();
            waiting.told.push((end, missing));
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines as they come, until nothing comes any more.
    pub(super) fn write_to(&self, mut out: impl Output) {
        let mut lines = Vec::new();
        let mut torn = false;
        let mut collecting = COLLECTING;
        let (mut looked, mut misplaced) = (Instant::now(), None);
        loop {
            let Taken { waited, finished, told } = self.take(&mut lines);
            collecting = if waited { COLLECTING } else { COLLECTING_MAX.min(2 * collecting) };
            if looked.elapsed() >= CHECK_INTERVAL {
                looked = Instant::now();
                misplaced = out.look().err();
            }
            // The gate goes on all the same, and tells how many are missing once it can.
            let (written, error) = write_lines(&mut out, &lines, &mut torn);
            let unwritten = lines.get(written..).unwrap_or_default();
            let missing = self.form.count(unwritten);
            if missing > 0 {
                let untold = told.iter().filter(|(end, _)| *end > written);
                let (tellings, untold) = untold.fold((0, 0), |(lines, sum), (_, count)| (lines + 1, sum + count));
                let lost = missing.saturating_sub(tellings);
                self.lock().left_out += lost + untold;
                self.health.lost(lost);
            }
            let instead = match (&misplaced, error) {
                (Some(what), _) => {
                    self.health.failed(what.clone());
                    &lines
                }
                (None, Some(error)) => {
                    self.health.failed(super::explained(&error, &format!("cannot write the log to {}", out.name())));
                    unwritten
                }
                (None, None) => {
                    // Where nothing was tried, an output that failed may do so still.
                    if !lines.is_empty() || self.lock().left_out == 0 {
                        self.health.works();
                    }
                    &[]
                }
            };
            // What only tells of other lines is tried every second.
            if !instead.is_empty() && self.form.count(&lines) > told.len() as u64 {
                to_stderr(instead);
            }
            // A burst needs room once; it is not kept for the next one.
            lines.clear();
            lines.shrink_to(64 * 1024);
            if finished {
                self.lock().ended = true;
                self.ended.notify_all();
                return;
            }
            drop(self.wait(collecting, PLENTY));
        }
    }

    /// Waits until so many bytes are to be written, or the log ends. Says whether there was anything to wait for.
    fn wait(&self, most: Duration, bytes: usize) -> (bool, MutexGuard<'_, Waiting>) {
        let missing = |waiting: &mut Waiting| {
            let missing = waiting.lines.len() < bytes && !waiting.finished;
            waiting.awaited = missing.then_some(bytes);
            missing
        };
        let mut waiting = self.lock();
        let waits = missing(&mut waiting);
        let waited = self.changed.wait_timeout_while(waiting, most, missing);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.awaited = None;
        (waits, waiting)
    }

    /// Waits for lines, no longer than until the output is to be looked at, and takes them.
    fn take(&self, lines: &mut Vec<u8>) -> Taken {
        let (waited, mut waiting) = self.wait(CHECK_INTERVAL, 1);
        // The output may work again without a new line to show it.
        self.tell_missing(&mut waiting);
        std::mem::swap(&mut waiting.lines, lines);
        Taken { waited, finished: waiting.finished, told: std::mem::take(&mut waiting.told) }
    }
}

/// Lines that are taken to be written.
struct Taken {
    /// There were none at first.
    waited: bool,
    /// There will be no more.
    finished: bool,
    /// See [`Waiting::told`].
    told: Vec<(usize, u64)>,
}

/// Writes as much as possible; returns how much that was and the error, if any. If it ends within a line, `torn` is set, and
/// the next write ends that line first.
fn write_lines(out: &mut impl io::Write, lines: &[u8], torn: &mut bool) -> (usize, Option<io::Error>) {
    if *torn && !lines.is_empty() {
        if let Err(error) = out.write_all(b"\n") {
            return (0, Some(error));
        }
        *torn = false;
    }
    let (mut written, mut failed) = (0, None);
    while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => {
                failed = Some(io::ErrorKind::WriteZero.into());
                break;
            }
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    // An output that holds bytes back tries them again.
    let _ = out.flush();
    *torn |= lines.get(..written).and_then(<[u8]>::last).is_some_and(|last| *last != b'\n');
    (written, failed)
}
