//! `splice(2)`: bytes go from a socket to a pipe and on to another socket without a copy to user memory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

/// How many bytes a pipe is asked to hold. Linux lets any user have 1 MiB, but counts pipes against
/// `fs.pipe-user-pages-soft`; 256 KiB moves bytes as cheaply (see the benches).
pub const CAPACITY: usize = 256 * 1024;

/// A pipe that bytes pass through on their way between two sockets.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Bytes that are in the pipe: taken from one socket, not yet given to the other.
    held: usize,
}

impl Pipe {
    /// A new, empty pipe. It is as large as the kernel grants: once a user has many pipes, the kernel refuses to
    /// enlarge more of them (`EPERM`, pipe(7)), and a small one does the same work in more calls.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, CAPACITY);
        Ok(Self { reader, writer, held: 0 })
    }

    /// Whether every byte has been passed on.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes bytes from `socket`. 0 is the end of the stream.
    ///
    /// `WouldBlock` speaks of the socket only if the pipe is empty: a full pipe gives it too.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = rustix::pipe::splice(
            socket,
            None,
            &self.writer,
            None,
            CAPACITY,
            SpliceFlags::MOVE | SpliceFlags::NONBLOCK,
        )?;
        self.held += moved;
        Ok(moved)
    }

    /// Gives bytes to `socket`, and says how many it took.
    ///
    /// Never with `SPLICE_F_MORE`: the kernel could then keep the tail back for as long as nothing follows.
    pub fn empty(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = rustix::pipe::splice(
            &self.reader,
            None,
            socket,
            None,
            self.held,
            SpliceFlags::MOVE | SpliceFlags::NONBLOCK,
        )?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}
