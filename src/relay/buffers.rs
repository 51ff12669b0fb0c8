//! A pool of buffers for payload. A connection holds a buffer only while there are bytes in it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many large buffers may be in use at once; further connections get small ones. A connection whose peer reads nothing
/// keeps its buffer, and 10,000 of them must not exhaust the machine's memory.
const LARGE_MAX: usize = 64;

static LARGE_IN_USE: AtomicUsize = AtomicUsize::new(0);

/// How large a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// One record: enough for a keystroke or a request.
    Small,
    /// 48 records, three quarters of a MiB: for transfers, where each system call should move much. Measured with `cargo
    /// bench --bench gate -- --only bulk`, in seconds of CPU for a GB down and up: 1.01 and 1.00 with 4 records, 1.00 and
    /// 0.97 with 8, 0.92 and 0.93 with 16, 0.87 and 0.86 with 24, 0.87 and 0.88 with 32, 0.81 and 0.78 with 48, 0.85 and
    /// 0.81 with 64.
    Large,
}

impl Size {
    /// How many records of the maximum length fit, with header and tag.
    pub(super) const fn records(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Large => 48,
        }
    }

    const fn bytes(self) -> usize {
        self.records() * crate::tls::record::RECORD_MAX
    }

    /// How many free buffers the pool keeps.
    const fn free_max(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Large => 8,
        }
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

/// A buffer from the pool; returns to it when dropped. It may still hold bytes of another connection, so its holder reads
/// only what it has written to it.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    size: Size,
}

impl Buffer {
    /// A buffer of this size, or a small one if [`LARGE_MAX`] large ones are in use.
    pub(super) fn take(size: Size) -> Self {
        let increment = |count| (count < LARGE_MAX).then_some(count + 1);
        match size {
            Size::Large if LARGE_IN_USE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment).is_err() => {
                Self::of(Size::Small)
            }
            size => Self::of(size),
        }
    }

    /// A buffer with a copy of `bytes`, as many as the large size holds, and how many it holds.
    pub(super) fn holding(bytes: &[u8]) -> (Self, usize) {
        let size = if bytes.len() <= Size::Small.bytes() { Size::Small } else { Size::Large };
        if size == Size::Large {
            LARGE_IN_USE.fetch_add(1, Ordering::Relaxed);
        }
        let mut buffer = Self::of(size);
        let length = bytes.len().min(buffer.len());
        for (slot, byte) in buffer.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        (buffer, length)
    }

    fn of(size: Size) -> Self {
        let free = size.pool().lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { bytes: free.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()), size }
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
        if self.size == Size::Large {
            LARGE_IN_USE.fetch_sub(1, Ordering::Relaxed);
        }
        let mut pool = self.size.pool().lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < self.size.free_max() {
            pool.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds are loose: other tests of this process use large buffers at the same time.
    #[test]
    fn large_buffers_are_bounded_and_reused() {
        let mut held: Vec<Buffer> = (0..10 * LARGE_MAX).map(|_| Buffer::take(Size::Large)).collect();
        let large = |held: &[Buffer]| held.iter().filter(|buffer| buffer.size() == Size::Large).count();
        let count = large(&held);
        assert!((1..=LARGE_MAX).contains(&count), "{count}");
        assert!(held.iter().all(|buffer| buffer.len() == buffer.size().bytes()));
        held.retain(|buffer| buffer.size() == Size::Small);
        held.extend((0..count).map(|_| Buffer::take(Size::Large)));
        assert!(large(&held) >= 1, "a returned buffer can be taken again");
    }

    #[test]
    fn bytes_after_the_handshake_are_copied_whole() {
        let bytes: Vec<u8> = (0..3 * crate::tls::record::RECORD_MAX).map(|at| at.to_le_bytes()[0]).collect();
        for length in [1, 5000, crate::tls::record::RECORD_MAX, crate::tls::record::RECORD_MAX + 1, bytes.len()] {
            let bytes = &bytes[..length];
            let (buffer, filled) = Buffer::holding(bytes);
            assert_eq!(&buffer[..filled], bytes);
            assert_eq!(buffer.size() == Size::Small, length <= crate::tls::record::RECORD_MAX);
        }
    }
}
