//! Reference gates as child processes: the floors, which only move bytes, and the plain combination of tokio and
//! tokio-rustls.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ResolvesServerCertUsingSni, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::Result;
use crate::backend::CHUNK;
use crate::pki::{PASSTHROUGH, TERMINATED};

/// How many steps one direction takes before other connections get their turn.
const TURNS: usize = 16;

/// Runs a child. Its arguments are its kind and pairs of an address to listen on and one to connect to.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (kind, rest) = arguments.split_first().ok_or("which child?")?;
    match kind.as_str() {
        "copy" => {
            let (size, rest) = rest.split_first().ok_or("how large a buffer?")?;
            relay(Mover::Copy(vec![0; size.parse()?]), &pairs(rest)?)
        }
        "splice" => relay(Mover::Splice, &pairs(rest)?),
        "tls" => {
            let [folder, cores, rest @ ..] = rest else { return Err("which folder, how many cores?".into()) };
            let pairs = pairs(rest)?;
            let [terminated, passthrough] = pairs.as_slice() else { return Err("where to listen?".into()) };
            naive(Path::new(folder), cores.parse()?, *terminated, *passthrough)
        }
        other => Err(format!("no such child: {other}").into()),
    }
}

fn pairs(arguments: &[String]) -> Result<Vec<(SocketAddr, SocketAddr)>> {
    arguments
        .chunks(2)
        .map(|pair| match pair {
            [listen, connect] => Ok((listen.parse()?, connect.parse()?)),
            _ => Err("addresses come in pairs".into()),
        })
        .collect()
}

/// How bytes are moved between sockets.
enum Mover {
    /// `recv(2)` and `send(2)` through one buffer.
    Copy(Vec<u8>),
    /// `splice(2)` through a pipe.
    Splice,
}

/// One connection: its two sockets and the bytes in each direction.
struct Pair {
    sockets: [TcpStream; 2],
    ways: [Way; 2],
}

#[derive(Default)]
struct Way {
    /// Bytes that were read and not yet written.
    stuck: Vec<u8>,
    pipe: Option<(OwnedFd, OwnedFd)>,
    in_pipe: usize,
    /// The end is already in the queue, so no event will report it.
    end_is_near: bool,
    ended: bool,
}

/// One thread and one epoll, edge-triggered.
fn relay(mut mover: Mover, pairs: &[(SocketAddr, SocketAddr)]) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut listeners = HashMap::new();
    for (index, (listen, connect)) in (0u64..).zip(pairs) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&(*listen).into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        epoll::add(&poll, &listener, EventData::new_u64(index), EventFlags::IN)?;
        listeners.insert(index, (listener, *connect));
    }
    let mut open: HashMap<u64, Pair> = HashMap::new();
    // A connection has an even number, which is the key of its client's socket; the next number is that of its backend's.
    let mut next = 1 << 16;
    // Connections that have used up their steps.
    let mut again: Vec<u64> = Vec::new();
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if again.is_empty() { None } else { Some(&at_once) };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut turns = std::mem::take(&mut again);
        for event in &events {
            let number = event.data.u64();
            let Some((listener, connect)) = listeners.get(&number) else {
                let flags = event.flags;
                let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                let [up, down] = match open.get_mut(&(number & !1)) {
                    Some(pair) => &mut pair.ways,
                    None => continue,
                };
                if number & 1 == 0 { up } else { down }.end_is_near |= ends;
                turns.push(number & !1);
                continue;
            };
            while let Ok((client, _)) = listener.accept() {
                let Ok(pair) = Pair::open(client, *connect) else { continue };
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                for (socket, data) in pair.sockets.iter().zip(next..) {
                    epoll::add(&poll, socket, EventData::new_u64(data), flags)?;
                }
                open.insert(next, pair);
                next += 2;
            }
        }
        turns.sort_unstable();
        turns.dedup();
        for number in turns {
            let Some(pair) = open.get_mut(&number) else { continue };
            match pair.advance(&mut mover) {
                Ok(Progress::Waiting) => {}
                Ok(Progress::More) => again.push(number),
                Ok(Progress::Over) | Err(_) => {
                    open.remove(&number);
                }
            }
        }
    }
}

enum Progress {
    Waiting,
    More,
    Over,
}

impl Pair {
    fn open(client: TcpStream, connect: SocketAddr) -> io::Result<Self> {
        let backend = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        backend.set_nonblocking(true)?;
        match backend.connect(&connect.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
            _ => {}
        }
        let backend = TcpStream::from(backend);
        client.set_nonblocking(true)?;
        for socket in [&client, &backend] {
            socket.set_nodelay(true)?;
        }
        Ok(Self { sockets: [client, backend], ways: [Way::default(), Way::default()] })
    }

    fn advance(&mut self, mover: &mut Mover) -> io::Result<Progress> {
        let [client, backend] = &self.sockets;
        let [up, down] = &mut self.ways;
        let mut more = false;
        for (way, from, to) in [(&mut *up, client, backend), (&mut *down, backend, client)] {
            more |= match mover {
                Mover::Copy(buffer) => way.copy(from, to, buffer)?,
                Mover::Splice => way.splice(from, to)?,
            };
        }
        Ok(match (up.ended && down.ended, more) {
            (true, _) => Progress::Over,
            (false, true) => Progress::More,
            (false, false) => Progress::Waiting,
        })
    }
}

fn is_not_ready(error: Errno) -> bool {
    // A socket that is still connecting accepts nothing (ENOTCONN for splice, EAGAIN otherwise).
    matches!(error, Errno::AGAIN | Errno::NOTCONN)
}

impl Way {
    /// True if more can be moved.
    fn copy(&mut self, from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..TURNS {
            if !self.stuck.is_empty() {
                match rustix::net::send(to, &self.stuck, SendFlags::NOSIGNAL) {
                    Ok(sent) => {
                        self.stuck.drain(..sent);
                    }
                    Err(error) if is_not_ready(error) => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            if self.ended {
                return Ok(false);
            }
            let size = buffer.len();
            let taken = match rustix::net::recv(from, &mut *buffer, RecvFlags::empty()) {
                Ok((_, taken)) => taken,
                Err(error) if is_not_ready(error) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if taken == 0 {
                self.ended = true;
                let _ = to.shutdown(Shutdown::Write);
                return Ok(false);
            }
            let filled = buffer.get(..taken).unwrap_or_default();
            let sent = match rustix::net::send(to, filled, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(error) if is_not_ready(error) => 0,
                Err(error) => return Err(error.into()),
            };
            self.stuck.extend_from_slice(filled.get(sent..).unwrap_or_default());
            // The queue is empty: the next byte causes a new event, and so does the end, unless it has already arrived.
            if taken < size && sent == taken && !self.end_is_near {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn splice(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<bool> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..TURNS {
            if self.in_pipe == 0 && self.ended {
                return Ok(false);
            }
            if self.pipe.is_none() {
                let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // The kernel refuses beyond fs.pipe-user-pages-soft; a small pipe works with more calls.
                let _ = rustix::pipe::fcntl_setpipe_size(&writer, CHUNK);
                self.pipe = Some((reader, writer));
            }
            let Some((reader, writer)) = &self.pipe else { return Ok(false) };
            if self.in_pipe == 0 {
                match splice(from.as_fd(), writer.as_fd(), CHUNK, flags) {
                    Ok(0) => {
                        self.ended = true;
                        let _ = to.shutdown(Shutdown::Write);
                        return Ok(false);
                    }
                    Ok(taken) => self.in_pipe = taken,
                    Err(error) if is_not_ready(error) => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
            }
            match splice(reader.as_fd(), to.as_fd(), self.in_pipe, flags) {
                Ok(given) => self.in_pipe -= given,
                Err(error) if is_not_ready(error) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize, flags: SpliceFlags) -> rustix::io::Result<usize> {
    rustix::pipe::splice(from, None, to, None, most, flags)
}

/// `accept`, `connect`, `copy_bidirectional`; for passthrough without the TLS.
fn naive(
    folder: &Path,
    cores: usize,
    terminated: (SocketAddr, SocketAddr),
    passthrough: (SocketAddr, SocketAddr),
) -> Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(folder.join("clients.pem"))? {
        roots.add(certificate?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let chain =
        CertificateDer::pem_file_iter(folder.join("server.pem"))?.collect::<std::result::Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("server-key.pem"))?;
    let mut names = ResolvesServerCertUsingSni::new();
    names.add(TERMINATED, CertifiedKey::from_der(chain, key, &provider)?)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(names));
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = match cores {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build()?,
    };
    runtime.block_on(async {
        let listener = |(address, _)| {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(address)?;
            socket.listen(4096)
        };
        let (secure, raw) = (listener(terminated)?, listener(passthrough)?);
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = raw.accept().await else { continue };
                tokio::spawn(pass(client, passthrough.1));
            }
        });
        loop {
            let (client, _) = secure.accept().await?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                client.set_nodelay(true)?;
                let mut client = acceptor.accept(client).await?;
                let mut backend = tokio::net::TcpStream::connect(terminated.1).await?;
                backend.set_nodelay(true)?;
                tokio::io::copy_bidirectional(&mut client, &mut backend).await
            });
        }
    })
}

/// Reads the ClientHello with rustls, and passes everything on if it has the right name.
async fn pass(mut client: tokio::net::TcpStream, connect: SocketAddr) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    client.set_nodelay(true)?;
    let mut acceptor = rustls::server::Acceptor::default();
    let mut read = Vec::with_capacity(4096);
    let accepted = loop {
        let known = read.len();
        if client.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        acceptor.read_tls(&mut read.get(known..).unwrap_or_default())?;
        if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error)? {
            break accepted;
        }
    };
    if accepted.client_hello().server_name() != Some(PASSTHROUGH) {
        return Ok(());
    }
    let mut backend = tokio::net::TcpStream::connect(connect).await?;
    backend.set_nodelay(true)?;
    backend.write_all(&read).await?;
    tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
    Ok(())
}
