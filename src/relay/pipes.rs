//! A pool of free pipes: creating one costs more than moving a small answer through it. A connection holds a pipe only while
//! there are bytes in it.

use std::sync::{Mutex, PoisonError};

use crate::sys::splice::Pipe;

/// How many free pipes the pool keeps.
const FREE_MAX: usize = 32;
static PIPES: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// Takes an empty pipe from the pool, or creates one.
pub(super) fn take_pipe() -> Pipe {
    let free = PIPES.lock().unwrap_or_else(PoisonError::into_inner).pop();
    free.unwrap_or_else(Pipe::new)
}

/// Returns a pipe to the pool if it is empty. One with bytes in it is closed: its bytes must not reach another connection.
pub(super) fn return_pipe(pipe: &mut Option<Pipe>) {
    let mut pipes = PIPES.lock().unwrap_or_else(PoisonError::into_inner);
    pipes.extend(pipe.take().filter(|pipe| pipe.is_empty() && pipe.is_pipe()));
    pipes.truncate(FREE_MAX);
}

/// Whether every pipe in the pool is empty.
#[cfg(test)]
pub(super) fn are_empty() -> bool {
    PIPES.lock().unwrap_or_else(PoisonError::into_inner).iter().all(Pipe::is_empty)
}
