//! A connection to a backend, for `check --connect`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::checked::Route;
use crate::proxy_protocol;
use crate::sys::stream::Stream;

/// How long a backend has to answer a question.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

/// A connection to a backend.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read(buffer)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read(buffer)
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_write_timeout(Some(ANSWER))?;
                stream.write_all(bytes)
            }
            Self::Unix(stream) => {
                stream.set_write_timeout(Some(ANSWER))?;
                stream.write_all(bytes)
            }
        }
    }

    /// The PROXY protocol header of the route, from this machine.
    pub(super) fn header(&self, route: &Route) -> io::Result<Vec<u8>> {
        let unspecified = SocketAddr::from(([127, 0, 0, 1], 0));
        let (own, other) = match self {
            Self::Tcp(stream) => (stream.local_addr()?, stream.peer_addr()?),
            Self::Unix(_) => (unspecified, unspecified),
        };
        Ok(proxy_protocol::header(route.send_proxy_protocol, own, || other, None))
    }
}

impl Socket {
    /// For the functions of the gate.
    pub(super) fn into_stream(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                tokio::net::TcpStream::from_std(stream).map(Stream::Tcp)
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                tokio::net::UnixStream::from_std(stream).map(Stream::Unix)
            }
        }
    }
}
