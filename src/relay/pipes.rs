//! A pool of free pipes and buffers: creating one costs more than moving a small answer through it. A connection holds one only
//! while there are bytes in it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sys::splice::Pipe;

/// How many free pipes the pool keeps, and how many buffers.
const FREE_MAX: usize = 32;
static PIPES: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
static BUFFERS: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

/// Takes an empty pipe from the pool, or opens one; a buffer when no more pipes may be opened.
pub(super) fn take_pipe() -> Pipe {
    let free = lock(&PIPES).pop();
    free.or_else(Pipe::open).unwrap_or_else(take_buffer)
}

/// Takes an empty buffer from the pool, or creates one.
pub(super) fn take_buffer() -> Pipe {
    let free = lock(&BUFFERS).pop();
    free.unwrap_or_else(Pipe::buffer)
}

/// Returns a pipe or buffer to the pool if it is empty. One with bytes in it is closed: its bytes must not reach another
/// connection.
pub(super) fn return_pipe(pipe: &mut Option<Pipe>) {
    let Some(pipe) = pipe.take().filter(Pipe::is_empty) else { return };
    let mut free = lock(if pipe.is_pipe() { &PIPES } else { &BUFFERS });
    if free.len() < FREE_MAX {
        free.push(pipe);
    }
}

fn lock(pool: &'static Mutex<Vec<Pipe>>) -> MutexGuard<'static, Vec<Pipe>> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether every pipe and buffer in the pool is empty.
#[cfg(test)]
pub(super) fn are_empty() -> bool {
    [&PIPES, &BUFFERS].into_iter().all(|pool| lock(pool).iter().all(Pipe::is_empty))
}
