//! A link in the home network that hands a device its certificate: for a few minutes, to the first client that has its URL.
//!
//! It is plain HTTP. The device does not know the gate's authority yet: with TLS it would warn of the very certificate that it
//! is to learn to trust, and its owner would learn to dismiss such warnings. What is sent is encrypted all the same: archives
//! whose password is shown in the terminal and nowhere else. The key cannot be read on the way. An attacker in the home
//! network could hand out another authority; so the terminal shows the fingerprint of the right one, to be compared on the
//! device before it is trusted.
//!
//! Reading the page changes nothing, because previews, scanners and browsers open links unasked. Only a button of the page,
//! which is a POST, gives the URL of the file, and only a complete delivery binds the link: one of which the device's system
//! has acknowledged every byte. An interrupted delivery can be repeated, because phones lose their network; the owner is told
//! its address, because a client that has read everything and resets the connection looks the same.
//!
//! A complete delivery binds the link to its source address. The same device can fetch again until the link expires: browsers
//! discard downloads over HTTP unless the user chooses "Keep", and the first file may be the wrong one for the system. No other
//! address gets a file. The address is not what keeps strangers out, so that it can be one that several devices share behind a
//! router: a client also needs the random path, and the password to use the file. A cookie would tell such devices apart, but
//! the download managers of some phones send none.

mod address;
mod download;
mod responder;

pub use address::{Candidate, InterfaceKind, Reach, Unsuitable, candidates, check as check_address, is_private};
pub use download::Outcome;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Form, Kit};
use crate::http::{TIMEOUT, serve_connections, server};
use crate::pki;
use crate::sys::socket::unacknowledged;
use download::{Delivery, Download};
use responder::Responder;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// For the client to close the connection when it has everything.
const LINGER: Duration = Duration::from_secs(5);
/// How often the kernel is asked whether the client has acknowledged everything.
const POLL: Duration = Duration::from_millis(20);
/// Notices of each kind: strangers cannot fill the owner's terminal.
const NOTICES_MAX: usize = 16;

/// What the owner of a link is told while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The page was opened from this address for the first time.
    Opened(IpAddr),
    /// A delivery of this file to this address began and, as far as can be known, is incomplete.
    Interrupted(IpAddr, Form),
    /// This address has received this file. The link is now for this address only.
    Fetched(IpAddr, Form),
}

/// A link that is bound: [`Link::serve`] answers.
#[derive(Debug)]
pub struct Link {
    listener: TcpListener,
    address: SocketAddr,
    reach: Reach,
    responder: Arc<Responder>,
    download: Arc<Download>,
    expires: Instant,
}

impl Link {
    /// Listens at `address` (port 0: the kernel chooses) for `lifetime` from now, to hand over `kit`.
    pub async fn bind(address: SocketAddr, reach: Reach, lifetime: Duration, kit: Kit) -> Result<Self, Error> {
        address::check(address.ip(), reach).map_err(Error::Unsuitable)?;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Bind { address, source })?;
        let download = Arc::new(Download::new());
        let responder = Arc::new(Responder::new(kit, Arc::clone(&download)).map_err(Error::Random)?);
        Ok(Self { listener, address, reach, responder, download, expires: Instant::now() + lifetime })
    }

    /// What the device is to open. It is all that a client needs, so it is for the screen and never for a log.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.responder.path())
    }

    /// Answers until the link has expired or `stop` is cancelled. `notify` is called meanwhile.
    pub async fn serve(self, stop: CancellationToken, notify: impl Fn(Notice) + Send + Sync + 'static) -> Outcome {
        let Self { listener, reach, responder, download, expires, .. } = self;
        let service = Arc::new(Service { responder, noticed: Mutex::default(), notify: Box::new(notify) });
        let mut outcome = download.outcome();
        let ended = async {
            match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.unwrap_or(Outcome::Stopped(None)),
                // Never: the sender lives as long as this function.
                Err(_) => Outcome::Stopped(None),
            }
        };
        let expired = async {
            sleep_until(expires).await;
            download.close();
            // A delivery that began in time may end.
            while download.client().is_some() {
                sleep(Duration::from_millis(50)).await;
            }
            Outcome::Expired
        };
        // The connections end when the first of these does, before select! runs what is behind its arrow: who was fetching is
        // found out here.
        let stopped = async {
            stop.cancelled().await;
            download.close();
            Outcome::Stopped(download.client())
        };
        let connections = serve_connections(listener, CONNECTIONS, &stop, |stream, peer, _| {
            // A router that forwards all else to one host ("DMZ host") makes a private address public.
            let allowed = reach == Reach::Any || is_private(peer.ip());
            allowed.then(|| serve_one(stream, peer.ip().to_canonical(), Arc::clone(&service)))
        });
        tokio::select! {
            biased;
            outcome = ended => outcome,
            outcome = stopped => outcome,
            outcome = expired => outcome,
            () = connections => Outcome::Stopped(download.client()),
        }
    }
}

/// The replies, and the notices that come of them.
struct Service {
    responder: Arc<Responder>,
    noticed: Mutex<Noticed>,
    notify: Box<dyn Fn(Notice) + Send + Sync>,
}

/// The notices so far.
#[derive(Debug, Default)]
struct Noticed {
    opened: Vec<IpAddr>,
    interrupted: usize,
    fetched: usize,
}

impl Service {
    fn opened(&self, by: IpAddr) {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        if noticed.opened.len() < NOTICES_MAX && !noticed.opened.contains(&by) {
            noticed.opened.push(by);
            (self.notify)(Notice::Opened(by));
        }
    }

    fn interrupted(&self, by: IpAddr, form: Form) {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        if noticed.interrupted < NOTICES_MAX {
            noticed.interrupted += 1;
            (self.notify)(Notice::Interrupted(by, form));
        }
    }

    fn fetched(&self, by: IpAddr, form: Form) {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        if noticed.fetched < NOTICES_MAX {
            noticed.fetched += 1;
            (self.notify)(Notice::Fetched(by, form));
        }
    }
}

/// The delivery over one connection, once it is requested. If the connection ends in any way before it is complete, the owner
/// is told that it was interrupted.
struct PendingDelivery {
    service: Arc<Service>,
    delivery: Mutex<Option<Delivery>>,
}

impl PendingDelivery {
    fn delivery(&self) -> MutexGuard<'_, Option<Delivery>> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingDelivery {
    fn drop(&mut self) {
        let delivery = self.delivery().take();
        if let Some((by, form)) = delivery.as_ref().and_then(Delivery::interrupted) {
            self.service.interrupted(by, form);
        }
    }
}

/// One request and its reply.
async fn serve_one(stream: TcpStream, by: IpAddr, service: Arc<Service>) {
    let pending = Arc::new(PendingDelivery { service, delivery: Mutex::default() });
    let requested = Arc::clone(&pending);
    let respond = service_fn(move |request: Request<Incoming>| {
        let response = requested.service.responder.respond(&request, by);
        if response.opened {
            requested.service.opened(by);
        }
        *requested.delivery() = response.delivery;
        async move { Ok::<_, Infallible>(response.reply) }
    });
    let connection = server().serve_connection(TokioIo::new(stream), respond).without_shutdown();
    // An interrupted request needs no report, and an interrupted delivery can be repeated.
    let Ok(Ok(parts)) = timeout(TIMEOUT, connection).await else { return };
    if close(parts.io.into_inner()).await.is_ok()
        && let Some(delivery) = pending.delivery().take()
    {
        // The delivery ends after the notice: an expired link waits for it.
        let (by, form) = delivery.complete();
        pending.service.fetched(by, form);
    }
}

/// Ends the connection. An error means that the client has not received everything.
async fn close(mut stream: TcpStream) -> io::Result<()> {
    let received = wait_until_received(&mut stream).await;
    if received.is_err() {
        // Or the kernel would send for another quarter of an hour, and a client that came back would get the rest.
        let _ = stream.set_zero_linger();
    }
    received
}

/// Waits for the client to close the connection. A client that has not received everything has reset it, or is out of reach
/// and acknowledges nothing.
async fn wait_until_received(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 512];
    let closed = timeout(LINGER, async {
        while stream.read(&mut rest).await? > 0 {}
        // A client may shut down its side before it has received anything.
        while unacknowledged(&*stream)? > 0 {
            sleep(POLL).await;
        }
        Ok(())
    })
    .await;
    match closed {
        Ok(Ok(())) => stream.take_error()?.map_or(Ok(()), Err),
        Ok(Err(error)) => Err(error),
        // A client that only keeps the connection open has received it.
        Err(_) if unacknowledged(&*stream)? == 0 => Ok(()),
        Err(late) => Err(late.into()),
    }
}

/// A link could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not at this address.
    #[error(transparent)]
    Unsuitable(Unsuitable),
    /// The system refuses to listen there.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error(transparent)]
    Random(pki::Error),
}
