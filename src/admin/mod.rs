//! The listener for monitoring: `/metrics`, `/healthz`, `/readyz`, and the status page. It is read-only and takes little from
//! the gate, whatever clients send: a thread of its own with a low priority, and a bounded number of connections.

mod page;
mod responder;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::setpriority_process;
use socket2::{Domain, Protocol, Socket, Type};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::checked::{Config, LogFormat};
use crate::http::{Load, TIMEOUT, serve_connections, server};
use crate::overview::Overview;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use responder::Responder;

/// How many connections wait in the kernel's queue.
const BACKLOG: i32 = 1024;
/// Of the thread (setpriority(2)): beside a gate that needs all processors it gets about a tenth of one.
const NICE: i32 = 10;

/// The bound listener, and the thread that answers there until this is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
    socket: Option<OwnedFd>,
    start: Option<oneshot::Sender<CancellationToken>>,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Binds `address`. Connections wait in the kernel's queue until [`Admin::start`].
    pub(crate) fn open(address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    }

    /// Starts the thread of a socket that listens, for at most `connections` at once.
    pub(crate) fn new(socket: Socket, gate: Arc<Overview>, connections: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let duplicate = socket.try_clone()?.into();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(socket.into())?
        };
        let address = listener.local_addr()?;
        let (start, started) = oneshot::channel();
        let end = CancellationToken::new();
        let ended = end.clone();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            // A lower priority is no condition for answering.
            let _ = setpriority_process(None, NICE);
            runtime.block_on(async move {
                let Some(Ok(stop)) = ended.run_until_cancelled(started).await else { return };
                serve(listener, connections, Arc::new(Responder::new(address, gate, stop)), ended).await;
            });
        })?;
        Ok(Self { address, socket: Some(duplicate), start: Some(start), end, thread: Some(thread) })
    }

    /// Another descriptor of its socket, for a process that answers there as well. It can be taken once.
    pub(crate) const fn take_socket(&mut self) -> Option<OwnedFd> {
        self.socket.take()
    }

    /// The bound address.
    pub(crate) const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer. Once `stop` is cancelled, `/readyz` says that the gate is draining.
    pub(crate) fn start(&mut self, stop: CancellationToken) {
        if let Some(start) = self.start.take() {
            let _ = start.send(stop);
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.end.cancel();
        // A panic of the thread has been printed, and is no reason for the gate to end.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, connections: usize, responder: Arc<Responder>, ended: CancellationToken) {
    serve_connections(listener, connections, &ended, |stream, _, load| {
        let responder = Arc::clone(&responder);
        Some(async move {
            // An interrupted request is the client's business.
            let _ = timeout(TIMEOUT, serve_one(stream, responder, load)).await;
        })
    })
    .await;
}

async fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    responder: Arc<Responder>,
    load: Load,
) -> Result<(), hyper::Error> {
    let respond = service_fn(move |request: Request<Incoming>| {
        let reply = responder.respond(&request, load);
        async move { Ok::<_, Infallible>(reply) }
    });
    server().serve_connection(TokioIo::new(stream), respond).await
}

/// A listener without a socket, for the fuzzer.
#[doc(hidden)]
#[derive(Debug)]
pub struct FuzzedListener(Arc<Responder>);

impl FuzzedListener {
    /// At this address, of a gate that has accepted nothing.
    pub fn new(address: SocketAddr, config: &Config) -> Option<Self> {
        let gate = Overview {
            metrics: Arc::new(Metrics::new(config).ok()?),
            refusals: Arc::default(),
            history: Arc::default(),
            sessions: Arc::default(),
            log: Arc::new(Log::new(LogFormat::Json, io::sink()).ok()?),
            notices: Arc::default(),
            issuance: watch::Sender::default().subscribe(),
            resolver: Default::default(),
            sandbox: Vec::new(),
            started: OffsetDateTime::now_utc(),
        };
        Some(Self(Arc::new(Responder::new(address, Arc::new(gate), CancellationToken::new()))))
    }

    /// What a client receives that sends these bytes and ends.
    pub async fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let served = serve_one(server, Arc::clone(&self.0), Load::High);
        let asked = async {
            let mut answer = Vec::new();
            // The listener may close before it has read everything.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut answer).await;
            answer
        };
        tokio::join!(served, asked).1
    }
}
