//! `splice(2)`: bytes go from a socket to a pipe and on to another socket without a copy to user memory. Where no pipe may be
//! opened, a buffer takes its place.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// How many bytes a pipe is asked to hold. Linux lets any user have 1 MiB, but counts pipes against
/// `fs.pipe-user-pages-soft`; 256 KiB moves bytes as cheaply (see the benches).
pub const CAPACITY: usize = 256 * 1024;

/// How many bytes a buffer holds: one TLS record.
const BUFFER: usize = 16 * 1024;

/// Pipes that are open, and how many may be: each takes two descriptors.
static OPEN: AtomicUsize = AtomicUsize::new(0);
static ALLOWED: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Lets the process have so many pipes. Those that are open stay.
pub fn allow_pipes(count: usize) {
    ALLOWED.store(count, Ordering::Relaxed);
}

/// What bytes pass through on their way between two sockets: a pipe, or a buffer where no pipe may be opened.
#[derive(Debug)]
pub struct Pipe {
    room: Room,
    /// Bytes that are in it: taken from one socket, not yet given to the other.
    held: usize,
}

#[derive(Debug)]
enum Room {
    Pipe {
        reader: OwnedFd,
        writer: OwnedFd,
        _open: Open,
    },
    /// The bytes begin behind so many that have been passed on.
    Buffer {
        bytes: Box<[u8]>,
        begin: usize,
    },
}

/// One pipe that counts as open.
#[derive(Debug)]
struct Open;

impl Open {
    fn new() -> Option<Self> {
        // Counted first and looked at afterwards: two at once cannot both take the last one.
        let open = Self;
        (OPEN.fetch_add(1, Ordering::Relaxed) < ALLOWED.load(Ordering::Relaxed)).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    /// A pipe as large as the kernel grants: once a user has many pipes, the kernel refuses to enlarge more of them (`EPERM`,
    /// pipe(7)), and a small one does the same work in more calls.
    fn pipe() -> Option<Self> {
        let open = Open::new()?;
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, CAPACITY);
        Some(Self::Pipe { reader, writer, _open: open })
    }

    fn buffer() -> Self {
        Self::Buffer { bytes: vec![0; BUFFER].into_boxed_slice(), begin: 0 }
    }
}

impl Pipe {
    /// A new, empty one.
    #[expect(clippy::new_without_default, reason = "it takes descriptors")]
    pub fn new() -> Self {
        Self { room: Room::pipe().unwrap_or_else(Room::buffer), held: 0 }
    }

    /// Whether it is worth keeping for another connection.
    pub const fn is_pipe(&self) -> bool {
        matches!(self.room, Room::Pipe { .. })
    }

    /// Whether every byte has been passed on.
    pub const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes bytes from `socket`. 0 is the end of the stream.
    ///
    /// `WouldBlock` speaks of the socket only if the pipe is empty: a full pipe gives it too. `EINVAL` says that the next
    /// record of a TLS socket is no data.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = match &mut self.room {
            Room::Pipe { writer, .. } => {
                rustix::pipe::splice(socket, None, writer, None, CAPACITY, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?
            }
            Room::Buffer { bytes, begin } => {
                if self.held == 0 {
                    *begin = 0;
                }
                let room = bytes.get_mut(*begin + self.held..).filter(|room| !room.is_empty());
                let room = room.ok_or(io::ErrorKind::WouldBlock)?;
                let received = rustix::net::recv(socket, room, RecvFlags::DONTWAIT);
                // What recvmsg(2) without room for the record's type says where splice(2) says EINVAL (net/tls/tls_sw.c).
                let of_other_type =
                    |error| if error == rustix::io::Errno::IO { rustix::io::Errno::INVAL } else { error };
                received.map_err(of_other_type)?.1
            }
        };
        self.held += moved;
        Ok(moved)
    }

    /// Gives bytes to `socket`, and says how many it took.
    ///
    /// Never with `SPLICE_F_MORE`: the kernel could then keep the tail back for as long as nothing follows.
    pub fn empty(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = match &mut self.room {
            Room::Pipe { reader, .. } => {
                rustix::pipe::splice(reader, None, socket, None, self.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?
            }
            Room::Buffer { bytes, begin } => {
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
    fn buffer_passes_bytes_on_in_order_as_a_pipe_does() {
        for room in [Room::pipe().expect("a pipe"), Room::buffer()] {
            let mut pipe = Pipe { room, held: 0 };
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
    fn full_buffer_takes_nothing_and_loses_nothing() {
        let mut pipe = Pipe { room: Room::buffer(), held: 0 };
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
