//! A link in the home network that hands a device its certificate: once, for a few minutes, to who knows it.
//!
//! It is plain HTTP. The device does not know the gate's authority yet, so that with TLS it would warn of the very
//! certificate it is to learn to trust, and its owner would learn to wave such warnings through. What goes over the wire
//! is encrypted all the same: archives of which the password stands in the terminal and nowhere else. Nobody can read
//! the key; but who can tamper with the home's own network could hand out an authority of his own. So the terminal shows the
//! authority's fingerprint, to be compared on the device before it is trusted.
//!
//! Looking is free, for previews, scanners and browsers look at links by themselves: only a button of the page, which is a
//! POST, tells where the file is, and only a whole delivery uses the link up: one of which the device's system has
//! acknowledged every byte. A delivery that breaks off can be made again, for phones lose their network, and the owner is
//! told whose it was: who has read everything and resets the connection looks no different.

mod address;
mod answers;
mod ticket;

pub use address::{Candidate, InterfaceKind, Reach, Unsuitable, candidates, check as check_address, is_private};
pub use ticket::Outcome;

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
use crate::pki;
use crate::places::{Places, TIMEOUT, http};
use crate::sys::socket::unacknowledged;
use answers::Answers;
use ticket::{Delivery, Ticket};

/// For the client to hang up when it has everything.
const LINGER: Duration = Duration::from_secs(5);
/// How often a client that has nothing to say any more is looked at, whether it has everything.
const LOOK: Duration = Duration::from_millis(20);
/// So many of each kind of notice there are: a stranger does not fill the owner's terminal.
const NOTICES: usize = 16;

/// What the owner of a link should know while it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody who has not done so before looks at the page.
    Opened(IpAddr),
    /// Somebody began to fetch this and, as far as can be told, does not have all of it.
    BrokenOff(IpAddr, Form),
}

/// A link that is there: [`Link::serve`] answers.
#[derive(Debug)]
pub struct Link {
    listener: TcpListener,
    address: SocketAddr,
    reach: Reach,
    answers: Arc<Answers>,
    ticket: Arc<Ticket>,
    expires: Instant,
}

impl Link {
    /// Listens at `address` (port 0: of the kernel's choice) for `lifetime` from now, to hand over `kit`.
    pub async fn bind(address: SocketAddr, reach: Reach, lifetime: Duration, kit: Kit) -> Result<Self, Error> {
        address::check(address.ip(), reach).map_err(Error::Unsuitable)?;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Bind { address, source })?;
        let ticket = Arc::new(Ticket::new());
        let answers = Arc::new(Answers::new(kit, Arc::clone(&ticket)).map_err(Error::Random)?);
        Ok(Self { listener, address, reach, answers, ticket, expires: Instant::now() + lifetime })
    }

    /// What the device is to open. Whoever knows it can use it: it is for the screen, and for no log.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.answers.path())
    }

    /// Answers until the file was fetched, the time is over, or `stop` is cancelled. `tell` is called meanwhile.
    pub async fn serve(self, stop: CancellationToken, tell: impl Fn(Notice) + Send + Sync + 'static) -> Outcome {
        let Self { listener, reach, answers, ticket, expires, .. } = self;
        let visitors = Arc::new(Visitors { answers, told: Mutex::default(), tell: Box::new(tell) });
        let mut outcome = ticket.outcome();
        let ended = async {
            match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.unwrap_or(Outcome::Stopped(None)),
                // The ticket lives as long as this function.
                Err(_) => Outcome::Stopped(None),
            }
        };
        let expired = async {
            sleep_until(expires).await;
            ticket.close();
            // Who has begun in time may end.
            while ticket.delivering().is_some() {
                sleep(Duration::from_millis(50)).await;
            }
            Outcome::Expired
        };
        tokio::select! {
            biased;
            outcome = ended => outcome,
            () = stop.cancelled() => {
                ticket.close();
                Outcome::Stopped(ticket.delivering())
            }
            outcome = expired => outcome,
            () = take_connections(listener, reach, &visitors) => Outcome::Stopped(None),
        }
    }
}

/// Who answers, and who is told.
struct Visitors {
    answers: Arc<Answers>,
    told: Mutex<Told>,
    tell: Box<dyn Fn(Notice) + Send + Sync>,
}

#[derive(Debug, Default)]
struct Told {
    opened: Vec<IpAddr>,
    broken_off: usize,
}

impl Visitors {
    fn opened(&self, by: IpAddr) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.opened.len() < NOTICES && !told.opened.contains(&by) {
            told.opened.push(by);
            (self.tell)(Notice::Opened(by));
        }
    }

    fn broken_off(&self, by: IpAddr, form: Form) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.broken_off < NOTICES {
            told.broken_off += 1;
            (self.tell)(Notice::BrokenOff(by, form));
        }
    }
}

/// The delivery that one connection is for, once it has asked. Whichever way the connection ends, if the delivery has not
/// been made by then it has broken off.
struct Begun {
    visitors: Arc<Visitors>,
    delivery: Mutex<Option<Delivery>>,
}

impl Begun {
    fn delivery(&self) -> MutexGuard<'_, Option<Delivery>> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let delivery = self.delivery().take();
        if let Some((by, form)) = delivery.as_ref().and_then(Delivery::broken_off) {
            self.visitors.broken_off(by, form);
        }
    }
}

async fn take_connections(listener: TcpListener, reach: Reach, visitors: &Arc<Visitors>) {
    let mut places = Places::default();
    loop {
        // Until there is a place, the others wait in the kernel's queue.
        places.wait().await;
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        // A router that forwards everything it has no rule for ("DMZ host") leads the internet to private addresses.
        if reach == Reach::World || is_private(peer.ip()) {
            places.take(visit(stream, peer.ip().to_canonical(), Arc::clone(visitors)));
        }
    }
}

/// One request and its answer.
async fn visit(stream: TcpStream, by: IpAddr, visitors: Arc<Visitors>) {
    let begun = Arc::new(Begun { visitors, delivery: Mutex::default() });
    let asked = Arc::clone(&begun);
    let respond = service_fn(move |request: Request<Incoming>| {
        let answer = asked.visitors.answers.to(&request, by);
        if answer.opened {
            asked.visitors.opened(by);
        }
        *asked.delivery() = answer.delivery;
        async move { Ok::<_, Infallible>(answer.response) }
    });
    let connection = http().serve_connection(TokioIo::new(stream), respond).without_shutdown();
    // Whoever breaks off a request has nobody to hear about it, and a delivery that was broken off can be tried again.
    let Ok(Ok(parts)) = timeout(TIMEOUT, connection).await else { return };
    if hang_up(parts.io.into_inner()).await.is_ok()
        && let Some(delivery) = begun.delivery().take()
    {
        delivery.made();
    }
}

/// Ends the connection, and says whether the client had everything.
async fn hang_up(mut stream: TcpStream) -> io::Result<()> {
    let arrived = part(&mut stream).await;
    if arrived.is_err() {
        // Or the system would go on sending for a quarter of an hour, and whoever came back in time would have it after all.
        let _ = stream.set_zero_linger();
    }
    arrived
}

/// Waits for the client to hang up. If it has not had everything, it has reset the connection, or is out of reach: then its
/// system does not acknowledge what was sent.
async fn part(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut left = [0; 512];
    let parted = timeout(LINGER, async {
        while stream.read(&mut left).await? > 0 {}
        // Some say at once that they have nothing more to say, and have nothing yet.
        while unacknowledged(&*stream)? > 0 {
            sleep(LOOK).await;
        }
        Ok(())
    })
    .await;
    match parted {
        Ok(Ok(())) => stream.take_error()?.map_or(Ok(()), Err),
        Ok(Err(error)) => Err(error),
        // Who just keeps the connection open has it.
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
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error(transparent)]
    Random(pki::Error),
}
