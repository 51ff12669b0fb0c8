//! Buffers for bytes on the move. A connection holds one only while it has bytes in it.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// How many free buffers of each size are kept.
const KEPT: usize = 64;

/// How large a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// For one record: what a keystroke or a request needs.
    Small,
    /// For sixteen: for transfers, where every call to the kernel should move much.
    Large,
}

impl Size {
    /// Records of the greatest length that fit, with room for what stands around their payload.
    pub(super) const fn records(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Large => 16,
        }
    }

    const fn bytes(self) -> usize {
        self.records() * crate::record::RECORD_MAX
    }

    const fn pool(self) -> &'static Mutex<Vec<Box<[u8]>>> {
        static SMALL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());
        static LARGE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());
        match self {
            Self::Small => &SMALL,
            Self::Large => &LARGE,
        }
    }
}

/// A buffer from the pool; goes back when dropped. It may hold bytes of another connection until it is written over,
/// so what is read from it is bounded by what its holder put in.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    size: Size,
}

impl Buffer {
    pub(super) fn take(size: Size) -> Self {
        let kept = size.pool().lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { bytes: kept.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()), size }
    }

    pub(super) const fn size(&self) -> Size {
        self.size
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = self.size.pool().lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(std::mem::take(&mut self.bytes));
        }
    }
}
