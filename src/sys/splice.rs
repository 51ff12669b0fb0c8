//! `splice(2)`: moves bytes from one socket to another through a pipe, without a copy to user memory. A buffer replaces the
//! pipe when no more pipes may be opened.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// The capacity requested for a pipe. Linux allows 1 MiB but counts pipes against `fs.pipe-user-pages-soft`; 256 KiB is as
/// fast (see the benches).
pub const CAPACITY: usize = 256 * 1024;

/// The size of a buffer: one TLS record.
const BUFFER: usize = 16 * 1024;

/// How many pipes are open and how many may be; each takes two descriptors.
static OPEN: AtomicUsize = AtomicUsize::new(0);
static OPEN_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Sets how many pipes may be open. Pipes that are already open stay.
pub fn allow_pipes(count: usize) {
    OPEN_MAX.store(count, Ordering::Relaxed);
}

/// Holds bytes on their way between two sockets: a pipe, or a buffer when no more pipes may be opened.
#[derive(Debug)]
pub struct Pipe {
    storage: Storage,
    /// How many bytes it holds.
    held: usize,
}

#[derive(Debug)]
enum Storage {
    Pipe {
        reader: OwnedFd,
        writer: OwnedFd,
        _open: OpenGuard,
    },
    /// The bytes start at `begin`; those before it have been sent.
    Buffer {
        bytes: Box<[u8]>,
        begin: usize,
    },
}

/// Counts one open pipe.
#[derive(Debug)]
struct OpenGuard;

impl OpenGuard {
    fn new() -> Option<Self> {
        // Counted before the limit is checked, so that two threads cannot both take the last one.
        let open = Self;
        (OPEN.fetch_add(1, Ordering::Relaxed) < OPEN_MAX.load(Ordering::Relaxed)).then_some(open)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Storage {
    /// A pipe as large as the kernel grants. For a user with many pipes the kernel refuses to enlarge them (`EPERM`,
    /// pipe(7)); a small one works with more calls.
    fn pipe() -> Option<Self> {
        let open = OpenGuard::new()?;
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, CAPACITY);
        Some(Self::Pipe { reader, writer, _open: open })
    }

    fn buffer() -> Self {
        Self::Buffer { bytes: vec![0; BUFFER].into_boxed_slice(), begin: 0 }
    }
}

impl Pipe {
    /// A new, empty pipe.
    #[expect(clippy::new_without_default, reason = "it takes descriptors")]
    pub fn new() -> Self {
        Self { storage: Storage::pipe().unwrap_or_else(Storage::buffer), held: 0 }
    }

    /// Whether it is a pipe, which is worth keeping for another connection, and not a buffer.
    pub const fn is_pipe(&self) -> bool {
        matches!(self.storage, Storage::Pipe { .. })
    }

    /// Whether it holds no bytes.
    pub const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves bytes from `socket` into the pipe. 0 is the end of the stream.
    ///
    /// `WouldBlock` concerns the socket only if the pipe is empty: a full pipe returns it too. `EINVAL` means that the next
    /// record of a TLS socket is not data.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = match &mut self.storage {
            Storage::Pipe { writer, .. } => {
                rustix::pipe::splice(socket, None, writer, None, CAPACITY, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?
            }
            Storage::Buffer { bytes, begin } => {
                if self.held == 0 {
                    *begin = 0;
                }
                let room = bytes.get_mut(*begin + self.held..).filter(|room| !room.is_empty());
                let room = room.ok_or(io::ErrorKind::WouldBlock)?;
                let received = rustix::net::recv(socket, room, RecvFlags::DONTWAIT);
                // For a record that is not data recv(2) returns EIO where splice(2) returns EINVAL (net/tls/tls_sw.c).
                let of_other_type =
                    |error| if error == rustix::io::Errno::IO { rustix::io::Errno::INVAL } else { error };
                received.map_err(of_other_type)?.1
            }
        };
        self.held += moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe to `socket`. Returns how many it accepted.
    ///
    /// Without `SPLICE_F_MORE`, which would let the kernel hold back the tail until more follows.
    pub fn empty(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = match &mut self.storage {
            Storage::Pipe { reader, .. } => {
                rustix::pipe::splice(reader, None, socket, None, self.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?
            }
            Storage::Buffer { bytes, begin } => {
                let held = bytes.get(*begin..*begin + self.held).unwrap_or_default();
                let sent = rustix::net::send(socket, held, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
                *begin += sent;
                sent
            }
        };
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().expect("sockets");
        near.set_nonblocking(true).expect("an option");
        (near, far)
    }

    #[test]
    fn buffer_and_pipe_move_bytes_in_order() {
        for storage in [Storage::pipe().expect("a pipe"), Storage::buffer()] {
            let mut pipe = Pipe { storage, held: 0 };
            let ((from, mut source), (to, mut sink)) = (pair(), pair());
            let nothing = pipe.fill(&from).expect_err("there is nothing yet");
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
            let (writing, expected) = (sent.clone(), sent.len());
            let writer = std::thread::spawn(move || source.write_all(&writing).expect("it is read"));
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                sink.read_to_end(&mut got).expect("it ends");
                got
            });
            let (mut taken, mut given) = (0, 0);
            while given < expected {
                taken += pipe.fill(&from).unwrap_or(0);
                given += if pipe.is_empty() { 0 } else { pipe.empty(&to).unwrap_or(0) };
            }
            assert_eq!((taken, pipe.is_empty()), (expected, true));
            writer.join().expect("it has written");
            assert_eq!(pipe.fill(&from).expect("the end"), 0);
            drop(to);
            assert_eq!(reader.join().expect("it has read"), sent);
        }
    }

    #[test]
    fn full_buffer_blocks_and_loses_nothing() {
        let mut pipe = Pipe { storage: Storage::buffer(), held: 0 };
        let ((from, mut source), (to, mut sink)) = (pair(), pair());
        source.write_all(&[7; BUFFER + 1]).expect("there is room");
        assert_eq!(pipe.fill(&from).expect("bytes"), BUFFER);
        assert_eq!(pipe.fill(&from).expect_err("it is full").kind(), io::ErrorKind::WouldBlock);
        assert_eq!(pipe.empty(&to).expect("there is room"), BUFFER);
        assert_eq!(pipe.fill(&from).expect("the last one"), 1);
        assert_eq!(pipe.empty(&to).expect("there is room"), 1);
        drop(to);
        let mut got = Vec::new();
        sink.read_to_end(&mut got).expect("it ends");
        assert_eq!(got, [7; BUFFER + 1]);
    }
}
