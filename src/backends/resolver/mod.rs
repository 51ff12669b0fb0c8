//! Host names of backends to addresses, by the system's resolver, so that `/etc/hosts`, mDNS and `nsswitch.conf` count.
//!
//! `getaddrinfo` blocks for as long as a name server is silent, and cannot be cancelled. So look-ups have threads of their
//! own: one look-up for each distinct name, however many connections wait for it, and a bound for all. A connection waits no
//! longer than it may take to dial; an answer that is known already is used meanwhile. Names come from the configuration
//! only, so clients decide neither how many look-ups there are nor how many threads.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// An answer is good for so long; the resolver does not say what the DNS says about that.
const FRESH: Duration = Duration::from_secs(30);
/// From this age on a name in use is looked up again, while the answer is still good.
const REFRESH: Duration = Duration::from_secs(20);
/// The last good answer is used for so long if no newer one can be had.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a look-up may take before the last good answer is used instead.
const PATIENCE: Duration = Duration::from_millis(500);
/// A failure is remembered for so long.
const FAILED: Duration = Duration::from_secs(1);
/// The most addresses of one name that are used.
const ADDRESSES: usize = 16;

/// The addresses of a name; the port is 0.
pub type Addresses = Arc<[SocketAddr]>;

/// Why a name has no address.
#[derive(Clone, Debug)]
pub enum Unresolved {
    /// The resolver says no.
    Failed(Arc<io::Error>),
    /// The resolver has not answered in time, and there is no earlier answer.
    NoAnswer,
}

type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks names up and remembers the answers. Lasts as long as the gate; clones are the same one.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    look_up: Box<LookUp>,
    /// Threads at once. A look-up of a name that no server answers takes one for half a minute or so.
    threads: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: HashMap<Arc<str>, Entry>,
    /// Names that wait for a thread, each once.
    queue: VecDeque<Arc<str>>,
    threads: usize,
}

/// What is known of one name.
#[derive(Default)]
struct Entry {
    answer: Option<(Addresses, Instant)>,
    failure: Option<(Arc<io::Error>, Instant)>,
    flight: Option<Flight>,
}

/// A look-up that is under way or waits for a thread.
struct Flight {
    since: Instant,
    /// Dropped at its end.
    end: watch::Sender<()>,
}

/// What a caller gets at once.
enum Known {
    Addresses(Addresses),
    Failed(Arc<io::Error>),
    /// Not before this look-up has ended; or these, if it has not ended by then.
    Wait(watch::Receiver<()>, Option<(Addresses, Instant)>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// The system's resolver, asked by so many threads at once.
    pub fn system(threads: usize) -> Self {
        Self::new(threads, |name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn new(threads: usize, look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { look_up: Box::new(look_up), threads, state: Mutex::default() }))
    }

    /// The addresses of `name`, at the latest by `deadline`. Cancel-safe; a look-up that was begun goes on.
    pub async fn resolve(&self, name: &str, deadline: Instant) -> Result<Addresses, Unresolved> {
        loop {
            let (mut end, earlier) = match self.known(name, Instant::now()) {
                Known::Addresses(addresses) => return Ok(addresses),
                Known::Failed(error) => return Err(Unresolved::Failed(error)),
                Known::Wait(end, earlier) => (end, earlier),
            };
            let until = earlier.as_ref().map_or(deadline, |(_, patience)| deadline.min(*patience));
            // The sender is dropped, never used.
            if timeout_at(until, end.changed()).await.is_err() {
                return earlier.map(|(addresses, _)| addresses).ok_or(Unresolved::NoAnswer);
            }
        }
    }

    /// What is known of a name; what is not fresh is looked up again.
    fn known(&self, name: &str, now: Instant) -> Known {
        let mut state = self.state();
        let (name, mut entry) = match state.names.remove_entry(name) {
            Some(known) => known,
            None => {
                // Names of former configurations.
                state.names.retain(|_, entry| entry.is_of_use(now));
                (Arc::from(name), Entry::default())
            }
        };
        let age = entry.answer.as_ref().map(|(_, since)| now.saturating_duration_since(*since));
        let has_failed = entry.failure.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) < FAILED);
        if entry.flight.is_none() && !has_failed && age.is_none_or(|age| age >= REFRESH) {
            entry.flight = Some(Flight { since: now, end: watch::Sender::new(()) });
            state.queue.push_back(Arc::clone(&name));
        }
        self.staff(&mut state);
        let usable =
            entry.answer.as_ref().map(|(addresses, _)| addresses).filter(|_| age.is_some_and(|age| age < STALE));
        let known = match (&entry.flight, &entry.failure, usable) {
            (_, _, Some(addresses)) if has_failed || age.is_some_and(|age| age < FRESH) => {
                Known::Addresses(Arc::clone(addresses))
            }
            (Some(flight), _, usable) => {
                let usable = usable.map(|addresses| (Arc::clone(addresses), flight.since + PATIENCE));
                Known::Wait(flight.end.subscribe(), usable)
            }
            (None, Some((error, _)), _) => Known::Failed(Arc::clone(error)),
            // Cannot be: without a failure there is a look-up.
            (None, None, _) => Known::Failed(Arc::new(io::ErrorKind::NotFound.into())),
        };
        state.names.insert(name, entry);
        known
    }

    /// Starts a thread for what waits, unless there are enough.
    fn staff(&self, state: &mut State) {
        if state.queue.is_empty() || state.threads >= self.0.threads {
            return;
        }
        let resolver = self.clone();
        // Never joined: it may hang, and must not hold up the end of the process.
        if thread::Builder::new().name("resolver".to_owned()).spawn(move || resolver.work()).is_ok() {
            state.threads += 1;
        }
        // Otherwise the next request tries again.
    }

    /// Looks up what waits, then ends.
    fn work(&self) {
        loop {
            let mut state = self.state();
            let Some(name) = state.queue.pop_front() else {
                state.threads -= 1;
                return;
            };
            drop(state);
            let started = Instant::now();
            let found = catch_unwind(AssertUnwindSafe(|| (self.0.look_up)(&name)));
            let found = found.unwrap_or_else(|_| Err(io::Error::other("the look-up failed by a fault of the gate")));
            let took = started.elapsed();
            match &found {
                Ok(addresses) => debug!(%name, ?addresses, ?took, "looked up"),
                Err(error) => debug!(%name, %error, ?took, "look-up failed"),
            }
            self.found(&name, found, Instant::now());
        }
    }

    fn found(&self, name: &str, found: io::Result<Vec<SocketAddr>>, now: Instant) {
        let found = found.and_then(|mut addresses| {
            addresses.truncate(ADDRESSES);
            if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
        });
        if let Some(entry) = self.state().names.get_mut(name) {
            match found {
                Ok(addresses) => (entry.answer, entry.failure) = (Some((addresses.into(), now)), None),
                Err(error) => entry.failure = Some((Arc::new(error), now)),
            }
            entry.flight = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_of_use(&self, now: Instant) -> bool {
        let is_new = |at: Instant| now.saturating_duration_since(at) < STALE;
        self.flight.is_some() || self.answer.as_ref().is_some_and(|(_, at)| is_new(*at))
    }
}

#[cfg(test)]
mod tests;
