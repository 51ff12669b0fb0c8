//! The services behind the gate: they check what arrives, can be closed for a while, and count their connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::random::Random;

/// The length of a checksum.
pub(super) const DIGEST: usize = 32;

/// The first byte of a connection says what is wanted of the service.
pub(super) const ECHO: u8 = b'e';
/// Then a length of 8 bytes and as many bytes; the answer is their checksum.
pub(super) const UPLOAD: u8 = b'u';
/// Then a length and a seed of 8 bytes each; the answer is as many bytes of this seed, and their checksum.
pub(super) const DOWNLOAD: u8 = b'd';
/// A TLS record of the type `handshake`: the passthrough route. It is echoed as it is.
const HANDSHAKE: u8 = 22;

const PIECE: usize = 16 << 10;

/// What a service counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Connections open now.
    pub(super) open: AtomicUsize,
    /// Connections that began with a byte that no client of this bench sends.
    pub(super) strange: AtomicU64,
    /// Bytes received.
    pub(super) received: AtomicU64,
}

/// A service at an address that stays the same when it is closed and opened again.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    pub(super) counts: Arc<Counts>,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Service {
    /// Listens at a port that the kernel chooses.
    pub(super) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut service = Self { address, counts: Arc::default(), running: None };
        service.run(listener);
        service
    }

    fn run(&mut self, listener: TcpListener) {
        let (over, counts) = (CancellationToken::new(), Arc::clone(&self.counts));
        let ending = over.clone();
        let acceptor = tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = ending.cancelled() => return,
                };
                let (counts, ending) = (Arc::clone(&counts), ending.clone());
                tokio::spawn(async move {
                    counts.open.fetch_add(1, Ordering::SeqCst);
                    tokio::select! {
                        // A client that broke off is an ordinary end.
                        _ = serve(stream, &counts) => {}
                        () = ending.cancelled() => {}
                    }
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        self.running = Some((acceptor, over));
    }

    /// Refuses new connections and ends the open ones.
    pub(super) async fn close(&mut self) {
        let (acceptor, over) = self.running.take().unwrap();
        over.cancel();
        acceptor.await.unwrap();
    }

    /// Accepts connections again.
    pub(super) fn reopen(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        // Earlier connections are in TIME_WAIT.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.run(socket.listen(1024).unwrap());
    }
}

async fn serve(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let first = stream.read_u8().await?;
    counts.received.fetch_add(1, Ordering::SeqCst);
    match first {
        ECHO => echo(stream, &[], counts).await,
        HANDSHAKE => echo(stream, &[HANDSHAKE], counts).await,
        UPLOAD => take(stream, counts).await,
        DOWNLOAD => give(stream, counts).await,
        _ => {
            counts.strange.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }
}

async fn echo(mut stream: TcpStream, first: &[u8], counts: &Counts) -> io::Result<()> {
    stream.write_all(first).await?;
    let mut buffer = vec![0; PIECE];
    loop {
        let count = stream.read(&mut buffer).await?;
        counts.received.fetch_add(count as u64, Ordering::SeqCst);
        match buffer.get(..count) {
            None | Some([]) => return stream.shutdown().await,
            Some(bytes) => stream.write_all(bytes).await?,
        }
    }
}

async fn take(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut left = usize::try_from(stream.read_u64().await?).unwrap();
    let (mut digest, mut buffer) = (Context::new(&SHA256), vec![0; PIECE]);
    counts.received.fetch_add(8, Ordering::SeqCst);
    while left > 0 {
        let part = buffer.len().min(left);
        let count = stream.read(&mut buffer[..part]).await?;
        if count == 0 {
            return Ok(());
        }
        counts.received.fetch_add(count as u64, Ordering::SeqCst);
        digest.update(&buffer[..count]);
        left -= count;
    }
    stream.write_all(digest.finish().as_ref()).await?;
    stream.shutdown().await
}

async fn give(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut left = usize::try_from(stream.read_u64().await?).unwrap();
    let mut random = Random::new(stream.read_u64().await?);
    counts.received.fetch_add(16, Ordering::SeqCst);
    let (mut digest, mut buffer) = (Context::new(&SHA256), vec![0; PIECE]);
    while left > 0 {
        let part = buffer.len().min(left);
        random.fill(&mut buffer[..part]);
        digest.update(&buffer[..part]);
        stream.write_all(&buffer[..part]).await?;
        left -= part;
    }
    stream.write_all(digest.finish().as_ref()).await?;
    stream.shutdown().await
}
