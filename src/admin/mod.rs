//! The listener for those who watch: `/metrics`, `/healthz`, `/readyz`, and a page for people. Read only, and small: whatever it is met with,
//! it takes nothing from the gate. It has a thread of its own, which waits for the gate's where processors are scarce, and a
//! fixed number of places.

mod answers;
mod history;
mod page;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::setpriority_process;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::explain::refusals::Refusals;
use crate::places::{Places, TIMEOUT, http};
use crate::sessions::registry::Sessions;
use crate::telemetry::metrics::Metrics;
use answers::Answers;

/// How many connections wait in the kernel's queue.
const BACKLOG: i32 = 1024;
/// Of the thread (setpriority(2)): beside a gate that needs all processors it gets about a tenth of one.
const NICE: i32 = 10;

/// What there is to be seen of a gate.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) sessions: Arc<Sessions>,
    /// Connections to the listener at once.
    pub(crate) places: usize,
}

/// The bound listener, and the thread that answers there until this is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
    start: Option<oneshot::Sender<CancellationToken>>,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Binds `address`. Who connects waits for [`Admin::start`].
    pub(crate) fn bind(address: SocketAddr, watched: Watched) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(socket.into())?
        };
        let address = listener.local_addr()?;
        let places = Places::new(watched.places);
        let (start, started) = oneshot::channel();
        let end = CancellationToken::new();
        let ended = end.clone();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            // Refused or not, it works.
            let _ = setpriority_process(None, NICE);
            runtime.block_on(ended.run_until_cancelled(async move {
                let Ok(stop) = started.await else { return };
                serve(listener, Arc::new(Answers::new(address, watched, stop)), places).await;
            }));
        })?;
        Ok(Self { address, start: Some(start), end, thread: Some(thread) })
    }

    /// The bound address.
    pub(crate) const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer; `stop` only makes it say that the gate is not ready.
    pub(crate) fn start(&mut self, stop: CancellationToken) {
        if let Some(start) = self.start.take() {
            let _ = start.send(stop);
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.end.cancel();
        // If it panicked, it has said so, and the gate lives on.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, answers: Arc<Answers>, places: Places) {
    tokio::join!(take_connections(listener, &answers, places), answers.remember());
}

async fn take_connections(listener: TcpListener, answers: &Arc<Answers>, mut places: Places) {
    loop {
        // Until there is a place, the others wait in the kernel's queue.
        places.wait().await;
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answers = Arc::clone(answers);
        let crowded = places.crowded();
        places.take(async move {
            // Whoever breaks off a request has nobody to hear about it.
            let _ = timeout(TIMEOUT, answer(stream, answers, crowded)).await;
        });
    }
}

async fn answer(stream: TcpStream, answers: Arc<Answers>, crowded: bool) -> Result<(), hyper::Error> {
    let respond = service_fn(move |request: Request<Incoming>| {
        let response = answers.to(&request, crowded);
        async move { Ok::<_, Infallible>(response) }
    });
    http().serve_connection(TokioIo::new(stream), respond).await
}
