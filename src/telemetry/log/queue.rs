//! The lines between those who have something to say and the thread that writes it: nobody waits for the log.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fields::{Event, Line};
use super::form::Form;

/// How many bytes wait for a slow reader. Further lines are left out, and their number is told: a gate that waits
/// for its log could be stopped by filling it.
pub(super) const WAITING_MAX: usize = 4 * 1024 * 1024;

/// How long lines are collected before they are written together. To wake the writer for each of them would cost more than
/// writing it does.
const COLLECTING: Duration = Duration::from_millis(2);

/// How long the end of the gate waits for its last lines to be written. Whoever reads them may have stopped reading.
const FINISHING: Duration = Duration::from_secs(5);

/// Lines that are to be written.
#[derive(Debug)]
pub(super) struct Queue {
    form: Form,
    waiting: Mutex<Waiting>,
    /// There is something to be written, or nothing will be any more.
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
    finished: bool,
    ended: bool,
}

impl Queue {
    /// Nothing is to be written at first.
    pub(super) fn new(form: Form) -> Self {
        Self { form, waiting: Mutex::default(), changed: Condvar::new(), ended: Condvar::new() }
    }

    /// Puts a line in, if there is room.
    pub(super) fn send(&self, content: &impl Line) {
        let line = self.form.line(content);
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > WAITING_MAX {
            waiting.left_out += 1;
            return;
        }
        let was_empty = waiting.lines.is_empty();
        self.tell_missing(&mut waiting);
        waiting.lines.extend(line.as_bytes());
        drop(waiting);
        if was_empty {
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
            waiting.lines.extend(self.form.line(&Event::not_taken(missing)).as_bytes());
            let end = waiting.lines.len();
            waiting.told.push((end, missing));
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines as they come, until nothing comes any more.
    pub(super) fn write_to(&self, mut out: impl io::Write) {
        let mut lines = Vec::new();
        let mut torn = false;
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.finished {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            let (finished, told) = (waiting.finished, std::mem::take(&mut waiting.told));
            drop(waiting);
            // Nobody may be reading any more, or the disk may be full; the gate goes on all the same, and tells how many are
            // missing once it can.
            let written = write_lines(&mut out, &lines, &mut torn);
            let missing = self.form.count(lines.get(written..).unwrap_or_default());
            if missing > 0 {
                let untold = told.iter().filter(|(end, _)| *end > written);
                let (tellings, untold) = untold.fold((0, 0), |(lines, sum), (_, count)| (lines + 1, sum + count));
                self.lock().left_out += missing.saturating_sub(tellings) + untold;
            }
            // A burst needs room once; it is not kept for the next one.
            lines.clear();
            lines.shrink_to(64 * 1024);
            if finished {
                self.lock().ended = true;
                self.ended.notify_all();
                return;
            }
            std::thread::sleep(COLLECTING);
        }
    }
}

/// Writes as much as can be written, and says how much that was. If it ends within a line, that is remembered in `torn`, and
/// what comes next does not become a part of that line.
fn write_lines(out: &mut impl io::Write, lines: &[u8], torn: &mut bool) -> usize {
    if *torn && !lines.is_empty() {
        if out.write_all(b"\n").is_err() {
            return 0;
        }
        *torn = false;
    }
    let mut written = 0;
    while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Whatever an output holds back, it tries again by itself.
    let _ = out.flush();
    *torn |= lines.get(..written).and_then(<[u8]>::last).is_some_and(|last| *last != b'\n');
    written
}
