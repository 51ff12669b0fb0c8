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

/// Lines that are to be written.
#[derive(Debug)]
pub(super) struct Queue {
    form: Form,
    waiting: Mutex<Waiting>,
    /// There is something to be written, or nothing will be any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) lines: Vec<u8>,
    pub(super) left_out: u64,
    /// How many of the lines tell of others that were left out, and of how many.
    told: (u64, u64),
    finished: bool,
}

impl Queue {
    /// Nothing is to be written at first.
    pub(super) fn new(form: Form) -> Self {
        Self { form, waiting: Mutex::default(), changed: Condvar::new() }
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

    /// Nothing more is put in.
    pub(super) fn finish(&self) {
        let mut waiting = self.lock();
        self.tell_missing(&mut waiting);
        waiting.finished = true;
        drop(waiting);
        self.changed.notify_one();
    }

    /// Tells how many lines the output did not take, if it is any.
    fn tell_missing(&self, waiting: &mut Waiting) {
        let missing = std::mem::take(&mut waiting.left_out);
        if missing > 0 {
            waiting.told.0 += 1;
            waiting.told.1 += missing;
            waiting.lines.extend(self.form.line(&Event::not_taken(missing)).as_bytes());
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines as they come, until nothing comes any more.
    pub(super) fn write_to(&self, mut out: impl io::Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.finished {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            let (finished, (tellings, told)) = (waiting.finished, std::mem::take(&mut waiting.told));
            drop(waiting);
            // Nobody may be reading any more, or the disk may be full; the gate goes on all the same, and tells how many are
            // missing once it can.
            if out.write_all(&lines).and_then(|()| out.flush()).is_err() {
                self.lock().left_out += self.form.count(&lines).saturating_sub(tellings) + told;
            }
            // A burst needs room once; it is not kept for the next one.
            lines.clear();
            lines.shrink_to(64 * 1024);
            if finished {
                return;
            }
            std::thread::sleep(COLLECTING);
        }
    }
}
