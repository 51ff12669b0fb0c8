//! `splice(2)`: moves bytes from one socket to another through a pipe, without a copy to user memory. A buffer replaces the
//! pipe when no more pipes may be opened.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// The capacity requested for a pipe. On loopback, moving a GB costs a third less than with 256 KiB: most of the time is spent
/// on waking the peers, and a larger move wakes them less often.
const LARGE: usize = 1024 * 1024;
/// How many pipes are [`LARGE`]. The bytes in a pipe count for no socket's limit, so clients that stop reading hold this many
/// MiB at most. Linux allows a user 64 MiB of pipes (`fs.pipe-user-pages-soft`).
const LARGE_MAX: usize = 32;
/// The capacity of the others.
const SMALL: usize = 256 * 1024;

/// The size of a buffer: about one TLS record.
pub const BUFFER: usize = 16 * 1024;

/// How many pipes are open, how many may be (each takes two descriptors), and how many of them are [`LARGE`].
static OPEN: AtomicUsize = AtomicUsize::new(0);
static OPEN_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);
static OPEN_LARGE: AtomicUsize = AtomicUsize::new(0);

/// Sets how many pipes may be open. Pipes that are already open stay.
pub fn allow_pipes(count: usize) {
    OPEN_MAX.store(count, Ordering::Relaxed);
}

/// Holds bytes on their way between two sockets: a pipe; or a buffer, for few bytes or when no more pipes may be opened.
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
        _open: Counted,
        _large: Option<Counted>,
    },
    /// The bytes start at `begin`; those before it have been sent.
    Buffer {
        bytes: Box<[u8]>,
        begin: usize,
    },
}

/// Counts one pipe as long as it is open.
#[derive(Debug)]
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(counter: &'static AtomicUsize, most: usize) -> Option<Self> {
        // Counted before the limit is checked, so that two threads cannot both take the last one.
        let counted = Self(counter);
        (counter.fetch_add(1, Ordering::Relaxed) < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Storage {
    /// A pipe as large as the kernel grants. For a user with many pipes the kernel refuses to enlarge them (`EPERM`,
    /// pipe(7)); a small one works with more calls.
    fn pipe() -> Option<Self> {
        let open = Counted::new(&OPEN, OPEN_MAX.load(Ordering::Relaxed))?;
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let large =
            Counted::new(&OPEN_LARGE, LARGE_MAX).filter(|_| rustix::pipe::fcntl_setpipe_size(&writer, LARGE).is_ok());
        if large.is_none() {
            let _ = rustix::pipe::fcntl_setpipe_size(&writer, SMALL);
        }
        Some(Self::Pipe { reader, writer, _open: open, _large: large })
    }

    fn buffer() -> Self {
        Self::Buffer { bytes: vec![0; BUFFER].into_boxed_slice(), begin: 0 }
    }
}

impl Pipe {
    /// A new, empty pipe. `None` when no more pipes may be opened.
    pub fn open() -> Option<Self> {
        Some(Self { storage: Storage::pipe()?, held: 0 })
    }

    /// A new, empty buffer. A message costs less through it than through a pipe.
    pub fn buffer() -> Self {
        Self { storage: Storage::buffer(), held: 0 }
    }

    /// Whether it is a pipe and not a buffer.
    pub const fn is_pipe(&self) -> bool {
        matches!(self.storage, Storage::Pipe { .. })
    }

    /// Whether it holds no bytes.
    pub const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves bytes from `socket` into the pipe, `most` at most. 0 is the end of the stream.
    ///
    /// `WouldBlock` concerns the socket only if the pipe is empty: a full pipe returns it too. `EINVAL` means that the next
    /// record of a TLS socket is not data.
    pub fn fill(&mut self, socket: impl AsFd, most: usize) -> io::Result<usize> {
        let moved = match &mut self.storage {
            Storage::Pipe { writer, .. } => rustix::pipe::splice(
                socket,
                None,
                writer,
                None,
                most.min(LARGE),
                SpliceFlags::MOVE | SpliceFlags::NONBLOCK,
            )?,
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

    /// The bounds are loose: other tests of this process open pipes at the same time.
    #[test]
    fn large_pipes_are_bounded_and_others_work() {
        let sizes = |pipes: &[Storage]| -> Vec<usize> {
            let size = |storage: &Storage| match storage {
                Storage::Pipe { reader, .. } => rustix::pipe::fcntl_getpipe_size(reader).expect("a size"),
                Storage::Buffer { .. } => 0,
            };
            pipes.iter().map(size).collect()
        };
        let mut pipes: Vec<Storage> = (0..LARGE_MAX + 8).filter_map(|_| Storage::pipe()).collect();
        let large = sizes(&pipes).iter().filter(|size| **size >= LARGE).count();
        assert!((1..=LARGE_MAX).contains(&large), "{:?}", sizes(&pipes));
        assert!(sizes(&pipes).iter().all(|size| *size > 0), "{:?}", sizes(&pipes));
        pipes.clear();
        pipes.extend((0..4).filter_map(|_| Storage::pipe()));
        assert!(sizes(&pipes).contains(&LARGE), "a closed one makes room: {:?}", sizes(&pipes));
    }

    #[test]
    fn buffer_and_pipe_move_bytes_in_order() {
        for storage in [Storage::pipe().expect("a pipe"), Storage::buffer()] {
            let mut pipe = Pipe { storage, held: 0 };
            let ((from, mut source), (to, mut sink)) = (pair(), pair());
            let nothing = pipe.fill(&from, usize::MAX).expect_err("there is nothing yet");
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
                taken += pipe.fill(&from, usize::MAX).unwrap_or(0);
                given += if pipe.is_empty() { 0 } else { pipe.empty(&to).unwrap_or(0) };
            }
            assert_eq!((taken, pipe.is_empty()), (expected, true));
            writer.join().expect("it has written");
            assert_eq!(pipe.fill(&from, usize::MAX).expect("the end"), 0);
            drop(to);
            assert_eq!(reader.join().expect("it has read"), sent);
        }
    }

    #[test]
    fn full_buffer_blocks_and_loses_nothing() {
        let mut pipe = Pipe { storage: Storage::buffer(), held: 0 };
        let ((from, mut source), (to, mut sink)) = (pair(), pair());
        source.write_all(&[7; BUFFER + 1]).expect("there is room");
        assert_eq!(pipe.fill(&from, usize::MAX).expect("bytes"), BUFFER);
        assert_eq!(pipe.fill(&from, usize::MAX).expect_err("it is full").kind(), io::ErrorKind::WouldBlock);
        assert_eq!(pipe.empty(&to).expect("there is room"), BUFFER);
        assert_eq!(pipe.fill(&from, usize::MAX).expect("the last one"), 1);
        assert_eq!(pipe.empty(&to).expect("there is room"), 1);
        drop(to);
        let mut got = Vec::new();
        sink.read_to_end(&mut got).expect("it ends");
        assert_eq!(got, [7; BUFFER + 1]);
    }
}
