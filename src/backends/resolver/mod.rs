//! Resolves host names of backends by the system's resolver, so that `/etc/hosts`, mDNS and `nsswitch.conf` apply.
//!
//! `getaddrinfo` blocks while a name server is silent and cannot be cancelled. So look-ups run on their own, bounded
//! threads, one look-up per name however many connections wait for it. Names of the configuration are looked up again in the
//! background (`refresh`). A connection waits no longer than its dial timeout, and uses a stale answer if there is one. Names
//! come from the configuration only, so clients control neither the number of look-ups nor of threads.

mod refresh;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use self::refresh::Schedule;
use crate::model::look_up::{FailedLookUp, HostName};

/// How long an answer is used without a new look-up. `getaddrinfo` does not return the TTL.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// The age from which a name in use is looked up again, while its answer is still used.
const REFRESH_AFTER: Duration = Duration::from_secs(20);
/// How long the last good answer is used if look-ups fail or time out.
const STALE_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a connection waits for a look-up before it uses a stale answer. It does not wait if the last look-up failed.
const STALE_AFTER_WAIT: Duration = Duration::from_millis(500);
/// How long a failure is cached.
const FAILURE_FOR: Duration = Duration::from_secs(1);
/// The most addresses used of one name.
const ADDRESSES_MAX: usize = 16;

/// The addresses of a name; the port is 0.
pub type Addresses = Arc<[SocketAddr]>;

/// Why a name has no address.
#[derive(Clone, Debug)]
pub enum Unresolved {
    /// The resolver returned an error.
    Failed(Arc<io::Error>),
    /// No answer in time, and no stale one.
    NoAnswer,
}

type LookUpFn = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Told what is known of a name of the configuration after each look-up of it.
type Told = dyn Fn(&HostName) + Send + Sync;

/// A caching resolver. Lives as long as the gate; clones share the cache.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    look_up: Box<LookUpFn>,
    /// The most threads at the same time. A look-up that no server answers occupies one for about half a minute.
    threads: usize,
    state: Mutex<State>,
    told: Mutex<Option<Box<Told>>>,
    /// Notified when a name has to be looked up sooner than was planned.
    planned: Notify,
}

#[derive(Default)]
struct State {
    names: HashMap<Arc<str>, Entry>,
    /// Names waiting for a thread, without duplicates.
    queue: VecDeque<Arc<str>>,
    threads: usize,
}

/// The cache entry of one name.
#[derive(Default)]
struct Entry {
    answer: Option<Answer>,
    /// Why the last look-up failed, if it did.
    failure: Option<Failure>,
    /// The address that accepted last, and is tried first.
    preferred: Option<IpAddr>,
    lookup: Option<Lookup>,
    /// When it is looked up in the background; `None` if no configuration names it.
    schedule: Option<Schedule>,
}

/// The last good answer.
struct Answer {
    addresses: Addresses,
    since: Instant,
    at: OffsetDateTime,
}

struct Failure {
    error: Arc<io::Error>,
    since: Instant,
    at: OffsetDateTime,
}

/// A look-up that is running or waiting for a thread.
struct Lookup {
    since: Instant,
    /// Dropped when the look-up ends, which wakes the waiting connections.
    end: watch::Sender<()>,
}

/// The state of a name in the cache.
enum Cached {
    Addresses(Addresses),
    Failed(Arc<io::Error>),
    /// A look-up is running. If it has not ended by the given time, the stale addresses are used.
    Wait(watch::Receiver<()>, Option<(Addresses, Instant)>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::system(1)
    }
}

impl Resolver {
    /// The system's resolver, with at most `threads` look-ups at the same time.
    pub fn system(threads: usize) -> Self {
        Self::new(threads, |name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn new(threads: usize, look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            look_up: Box::new(look_up),
            threads,
            state: Mutex::default(),
            told: Mutex::default(),
            planned: Notify::new(),
        }))
    }

    /// What is known of the names of the configuration, sorted by name.
    pub fn names(&self) -> Vec<HostName> {
        let state = self.state();
        let of_config = state.names.iter().filter(|(_, entry)| entry.schedule.is_some());
        let mut names: Vec<HostName> = of_config.map(|(name, entry)| entry.host_name(name)).collect();
        names.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        names
    }

    /// The addresses of `name`, by `deadline`. Cancel-safe; a look-up that has started continues.
    pub async fn resolve(&self, name: &str, deadline: Instant) -> Result<Addresses, Unresolved> {
        loop {
            let (mut end, earlier) = match self.cached(name, Instant::now()) {
                Cached::Addresses(addresses) => return Ok(addresses),
                Cached::Failed(error) => return Err(Unresolved::Failed(error)),
                Cached::Wait(end, earlier) => (end, earlier),
            };
            let until = earlier.as_ref().map_or(deadline, |(_, use_stale_at)| deadline.min(*use_stale_at));
            // The sender is dropped, never used to send.
            if timeout_at(until, end.changed()).await.is_err() {
                return earlier.map(|(addresses, _)| addresses).ok_or(Unresolved::NoAnswer);
            }
        }
    }

    /// Puts this address of `name` before the others from now on, as long as the name has it: it has just accepted a connection
    /// (RFC 8305 section 4 lets a client use what it knows of former connections).
    pub(super) fn prefer(&self, name: &str, address: IpAddr) {
        let mut state = self.state();
        let Some(entry) = state.names.get_mut(name) else { return };
        if entry.preferred.replace(address) != Some(address)
            && let Some(answer) = &mut entry.answer
        {
            answer.addresses = preferring(&answer.addresses, Some(address)).into();
        }
    }

    /// The state of a name in the cache. Queues a look-up if the entry is not fresh.
    fn cached(&self, name: &str, now: Instant) -> Cached {
        let mut state = self.state();
        let (name, mut entry) = match state.names.remove_entry(name) {
            Some(cached) => cached,
            None => {
                // Entries of former configurations.
                state.names.retain(|_, entry| entry.is_of_use(now));
                (Arc::from(name), Entry::default())
            }
        };
        let age = entry.answer.as_ref().map(|answer| now.saturating_duration_since(answer.since));
        let has_failed =
            entry.failure.as_ref().is_some_and(|failure| now.saturating_duration_since(failure.since) < FAILURE_FOR);
        if entry.lookup.is_none() && !has_failed && age.is_none_or(|age| age >= REFRESH_AFTER) {
            entry.begin_look_up(&name, &mut state.queue, now);
        }
        if entry.is_wanted(now) {
            self.0.planned.notify_one();
        }
        self.start_thread(&mut state);
        let usable = entry.answer.as_ref().map(|answer| &answer.addresses);
        let usable = usable.filter(|_| age.is_some_and(|age| age < STALE_FOR));
        let cached = match (&entry.lookup, &entry.failure, usable) {
            // A name server that failed the last time is not waited for.
            (_, failure, Some(addresses)) if failure.is_some() || age.is_some_and(|age| age < FRESH_FOR) => {
                Cached::Addresses(Arc::clone(addresses))
            }
            (Some(lookup), _, usable) => {
                let usable = usable.map(|addresses| (Arc::clone(addresses), lookup.since + STALE_AFTER_WAIT));
                Cached::Wait(lookup.end.subscribe(), usable)
            }
            (None, Some(failure), _) => Cached::Failed(Arc::clone(&failure.error)),
            // Unreachable: without a failure there is a look-up.
            (None, None, _) => Cached::Failed(Arc::new(io::ErrorKind::NotFound.into())),
        };
        state.names.insert(name, entry);
        cached
    }

    /// Starts a thread for waiting names, unless the limit is reached.
    fn start_thread(&self, state: &mut State) {
        if state.queue.is_empty() || state.threads >= self.0.threads {
            return;
        }
        let resolver = self.clone();
        // Never joined: it may block, and must not delay the end of the process.
        if thread::Builder::new().name("resolver".to_owned()).spawn(move || resolver.work()).is_ok() {
            state.threads += 1;
        }
        // On a failure the next request tries again.
    }

    /// Looks up the waiting names, then ends.
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
            self.store(&name, found, Instant::now());
        }
    }

    fn store(&self, name: &str, found: io::Result<Vec<SocketAddr>>, now: Instant) {
        let found = found.and_then(|mut addresses| {
            addresses.truncate(ADDRESSES_MAX);
            if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
        });
        let at = OffsetDateTime::now_utc();
        let mut state = self.state();
        let Some(entry) = state.names.get_mut(name) else { return };
        match found {
            Ok(addresses) => {
                let addresses = preferring(&addresses, entry.preferred).into();
                (entry.answer, entry.failure) = (Some(Answer { addresses, since: now, at }), None);
            }
            Err(error) => entry.failure = Some(Failure { error: Arc::new(error), since: now, at }),
        }
        entry.plan(name, now);
        let known = entry.schedule.is_some().then(|| entry.host_name(name));
        // Wakes those that wait, when what was found is there.
        let ended = entry.lookup.take();
        drop(state);
        if let Some(known) = &known {
            self.0.planned.notify_one();
            self.tell([known]);
        }
        drop(ended);
    }

    fn tell<'a>(&self, names: impl IntoIterator<Item = &'a HostName>) {
        if let Some(told) = &*self.0.told.lock().unwrap_or_else(PoisonError::into_inner) {
            names.into_iter().for_each(told);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The addresses in their order, but for this one, which is the first.
fn preferring(addresses: &[SocketAddr], first: Option<IpAddr>) -> Vec<SocketAddr> {
    let mut ordered = addresses.to_vec();
    ordered.sort_by_key(|address| Some(address.ip()) != first);
    ordered
}

impl Entry {
    fn is_of_use(&self, now: Instant) -> bool {
        let is_new = |answer: &Answer| now.saturating_duration_since(answer.since) < STALE_FOR;
        self.schedule.is_some() || self.lookup.is_some() || self.answer.as_ref().is_some_and(is_new)
    }

    /// Queues a look-up.
    fn begin_look_up(&mut self, name: &Arc<str>, queue: &mut VecDeque<Arc<str>>, now: Instant) {
        self.lookup = Some(Lookup { since: now, end: watch::Sender::new(()) });
        queue.push_back(Arc::clone(name));
    }

    fn host_name(&self, name: &str) -> HostName {
        HostName {
            name: name.to_owned(),
            addresses: self.answer.iter().flat_map(|answer| answer.addresses.iter().map(SocketAddr::ip)).collect(),
            answered: self.answer.as_ref().map(|answer| answer.at),
            failed: self
                .failure
                .as_ref()
                .map(|failure| FailedLookUp { at: failure.at, error: failure.error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests;
