//! Free pipes: making one costs more than moving a small answer through it. A connection holds one only while there are
//! bytes in it.

use std::sync::{Mutex, PoisonError};

use crate::sys::splice::Pipe;

/// How many free pipes are kept.
const KEPT: usize = 32;
static PIPES: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// An empty pipe.
pub(super) fn take_pipe() -> Pipe {
    let kept = PIPES.lock().unwrap_or_else(PoisonError::into_inner).pop();
    kept.unwrap_or_else(Pipe::new)
}

/// Gives a pipe back, if it is empty: one with bytes in it would give them to somebody else.
pub(super) fn keep_pipe(pipe: &mut Option<Pipe>) {
    let mut pipes = PIPES.lock().unwrap_or_else(PoisonError::into_inner);
    pipes.extend(pipe.take().filter(|pipe| pipe.is_empty() && pipe.is_real()));
    pipes.truncate(KEPT);
}

/// Whether no pipe that is kept has anybody's bytes in it.
#[cfg(test)]
pub(super) fn are_empty() -> bool {
    PIPES.lock().unwrap_or_else(PoisonError::into_inner).iter().all(Pipe::is_empty)
}
