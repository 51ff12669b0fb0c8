//! What a process is handed that was started to replace a gate.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use socket2::Socket;

use super::channel::{Channel, wait_for};
use super::child::channel_at_stdin;
use super::messages::{ToPredecessor, ToSuccessor};

/// Set for a process that is started to replace a gate: its stdin is the channel to that one.
pub(super) const VARIABLE: &str = "DOORWARD_HANDOVER";

/// The end of a hand-over in the process that was started for it.
#[derive(Debug)]
pub struct HandOver(OwnedFd);

/// The sockets of the gate that this process replaces.
#[derive(Debug)]
pub struct Taken {
    pub(crate) predecessor: Predecessor,
    pub(crate) listeners: Vec<TakenListener>,
    /// The socket of the metrics, with its address in the configuration.
    pub(crate) metrics: Option<(SocketAddr, Socket)>,
    pub(crate) control: Option<(PathBuf, Socket)>,
}

/// The gate that this process replaces.
#[derive(Debug)]
pub(crate) struct Predecessor {
    end: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// The socket of a listener.
#[derive(Debug)]
pub struct TakenListener {
    /// The listener's name.
    pub name: String,
    /// Its address in the configuration.
    pub address: SocketAddr,
    /// systemd has opened it.
    pub passed: bool,
    /// It listens.
    pub socket: Socket,
}

impl HandOver {
    /// If this process was started to replace a gate. To be called before there are threads: stdin is replaced.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn of_this_process() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        Ok(channel_at_stdin()?.map(Self))
    }

    /// Takes the sockets. Starts no thread: this process is to enter its sandbox afterwards. Blocks until it has them all; the
    /// running gate ends a process for which that takes too long.
    ///
    /// # Errors
    /// If the gate does not send them.
    pub fn take(self) -> io::Result<Taken> {
        let predecessor = Predecessor { end: self.0, stderr: None };
        let mut taken = Taken { predecessor, listeners: Vec::new(), metrics: None, control: None };
        loop {
            match wait_for::<ToSuccessor>(taken.predecessor.end.as_fd())? {
                Some((ToSuccessor::Listener { name, address, passed }, Some(socket))) => {
                    taken.listeners.push(TakenListener { name, address, passed, socket: socket.into() });
                }
                Some((ToSuccessor::Metrics { address }, Some(socket))) => {
                    taken.metrics = Some((address, socket.into()));
                }
                Some((ToSuccessor::Control { path }, Some(socket))) => taken.control = Some((path, socket.into())),
                Some((ToSuccessor::Stderr, stderr)) => taken.predecessor.stderr = stderr,
                Some((ToSuccessor::Offered, _)) => return Ok(taken),
                Some(_) => return Err(io::Error::other("the running gate sends another message than expected")),
                None => return Err(io::Error::other("the running gate has ended the upgrade")),
            }
        }
    }
}

impl Predecessor {
    /// Tells the running gate that everything is built, and returns the channel to it. From now on errors go where that one
    /// writes its own: the process that has read those before ends with the hand-over. Must be called within a tokio runtime.
    pub(crate) async fn ready(self) -> io::Result<Channel> {
        if let Some(stderr) = self.stderr {
            rustix::stdio::dup2_stderr(stderr)?;
        }
        let channel = Channel::new(self.end)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        channel.send(&ToPredecessor::Ready { version }, None).await?;
        Ok(channel)
    }
}
