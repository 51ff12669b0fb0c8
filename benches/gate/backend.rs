//! The backend of the gates, on the CPU of the generator: one runtime for small messages, a thread for each bulk transfer.
//!
//! The first byte of a connection selects the service: [`ECHO`] echoes everything, including that byte; [`DOWN`], [`UP`]
//! and [`BOTH`] are followed by a length.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread;

use rustix::net::RecvFlags;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::Result;

/// Echoes everything.
pub(crate) const ECHO: u8 = b'e';
/// Sends that many bytes, then ends.
pub(crate) const DOWN: u8 = b'd';
/// Receives that many bytes, then sends one.
pub(crate) const UP: u8 = b'u';
/// [`DOWN`] and [`UP`] at the same time, without the final byte.
pub(crate) const BOTH: u8 = b'b';
/// Sent unencrypted by a backend with TLS after its handshake. From then on both ends use raw bytes, so that only the gate's
/// work is measured.
pub(crate) const RAW: u8 = b'r';

/// The bytes moved by one system call.
pub(crate) const CHUNK: usize = 256 * 1024;

/// A listening backend; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The runtime of all backends, on its own thread, which inherits the CPU of its creator.
pub(crate) fn runtime() -> Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("backends".to_owned()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// What a backend speaks.
#[derive(Clone)]
pub(crate) enum Speaks {
    /// No TLS.
    Plain,
    /// TLS for the handshake, and then raw bytes.
    HandshakeOnly(Arc<ServerConfig>),
    /// TLS.
    Tls(Arc<ServerConfig>),
}

impl Backend {
    /// Starts a backend.
    pub(crate) fn start(runtime: &Handle, speaks: Speaks) -> Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(socket.into())?;
        let address = listener.local_addr()?;
        let accepting = runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                // A failed connection is noticed by the generator, which counts.
                let speaks = speaks.clone();
                tokio::spawn(async move {
                    let _ = match speaks {
                        Speaks::Plain => serve(stream, None).await,
                        Speaks::HandshakeOnly(tls) => serve(stream, Some(tls.into())).await,
                        Speaks::Tls(tls) => serve_inside(stream, tls.into()).await,
                    };
                });
            }
        });
        Ok(Self { address, accepting })
    }
}

async fn serve(mut stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Result<()> {
    stream.set_nodelay(true)?;
    if let Some(acceptor) = acceptor {
        stream = acceptor.accept(stream).await?.into_inner().0;
        stream.write_all(&[RAW]).await?;
    }
    let mut bytes = [0; 4096];
    let length = stream.read(bytes.get_mut(..1).unwrap_or_default()).await?;
    match bytes.first() {
        _ if length == 0 => Ok(()),
        Some(&ECHO) => {
            let mut filled = 1;
            while filled > 0 {
                stream.write_all(bytes.get(..filled).unwrap_or_default()).await?;
                filled = stream.read(&mut bytes).await?;
            }
            Ok(())
        }
        Some(&kind) => {
            let length = stream.read_u64().await?;
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            thread::Builder::new().name("bulk".to_owned()).spawn(move || {
                let _ = bulk(stream, kind, length);
            })?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// The same inside TLS. Its cost is the backend's, on the CPU of the generator.
async fn serve_inside(stream: TcpStream, acceptor: TlsAcceptor) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut from, mut to) = tokio::io::split(acceptor.accept(stream).await?);
    let mut bytes = vec![0; CHUNK];
    let mut kind = [0];
    if from.read(&mut kind).await? == 0 {
        return Ok(());
    }
    match kind {
        [ECHO] => {
            to.write_all(&kind).await?;
            to.flush().await?;
            loop {
                let filled = from.read(&mut bytes).await?;
                if filled == 0 {
                    break;
                }
                to.write_all(bytes.get(..filled).unwrap_or_default()).await?;
                to.flush().await?;
            }
        }
        [kind] => {
            let length = from.read_u64().await?;
            let sending = async {
                let chunk = vec![0x5a; CHUNK];
                let mut left = if kind == UP { 0 } else { usize::try_from(length)? };
                while left > 0 {
                    let part = chunk.get(..left.min(CHUNK)).unwrap_or_default();
                    to.write_all(part).await?;
                    left -= part.len();
                }
                to.flush().await?;
                Result::Ok(())
            };
            let receiving = async {
                let mut left = if kind == DOWN { 0 } else { usize::try_from(length)? };
                while left > 0 {
                    let most = left.min(bytes.len());
                    let taken = from.read(bytes.get_mut(..most).unwrap_or_default()).await?;
                    if taken == 0 {
                        return Err("ended early".into());
                    }
                    left -= taken;
                }
                Result::Ok(())
            };
            tokio::try_join!(sending, receiving)?;
            if kind == UP {
                to.write_all(&[UP]).await?;
            }
        }
    }
    to.shutdown().await?;
    // The client ends first.
    while from.read(&mut bytes).await? > 0 {}
    Ok(())
}

fn bulk(mut stream: std::net::TcpStream, kind: u8, length: u64) -> Result<()> {
    match kind {
        DOWN => {
            send(&stream, length)?;
            stream.shutdown(Shutdown::Write)?;
        }
        UP => {
            discard(&stream, length)?;
            stream.write_all(&[UP])?;
        }
        BOTH => {
            thread::scope(|scope| {
                let sending = scope.spawn(|| send(&stream, length));
                discard(&stream, length)?;
                sending.join().map_err(|_| "a backend's thread panicked")?
            })?;
            stream.shutdown(Shutdown::Write)?;
        }
        other => return Err(format!("an unknown request: {other}").into()),
    }
    // The client ends first.
    while stream.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

fn send(mut stream: &std::net::TcpStream, length: u64) -> Result<()> {
    let chunk = vec![0x5a; CHUNK];
    let mut left = usize::try_from(length)?;
    while left > 0 {
        let part = chunk.get(..left.min(CHUNK)).unwrap_or_default();
        stream.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

/// Takes exactly `length` bytes off a socket without copying them (`MSG_TRUNC`, tcp(7)).
fn discard(stream: &std::net::TcpStream, length: u64) -> Result<()> {
    let mut sink = vec![0; 4 * CHUNK];
    let mut left = usize::try_from(length)?;
    while left > 0 {
        let most = left.min(sink.len());
        let (_, taken) = rustix::net::recv(stream, sink.get_mut(..most).unwrap_or_default(), RecvFlags::TRUNC)?;
        if taken == 0 {
            return Err("ended early".into());
        }
        left -= taken;
    }
    Ok(())
}
