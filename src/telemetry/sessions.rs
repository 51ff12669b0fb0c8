//! The connections that are let in now, kept for those who ask: `doorward sessions`, the status page.
//!
//! Each stands here as long as its [`Entered`] lives, so that none is forgotten and none stays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, CounterFn};
use time::OffsetDateTime;

use crate::config::checked::Backend;
use crate::identity::Identity;
use crate::names::Name;
use crate::relay::{Meter, Path};

/// A connection that is let in.
#[derive(Debug)]
pub struct Session {
    /// The connection's number, as in the log.
    pub id: u64,
    /// When its payload began to move.
    pub since: OffsetDateTime,
    /// Who connected.
    pub source: SocketAddr,
    /// Where it arrived.
    pub listener: Name,
    /// Where it leads.
    pub route: Name,
    /// The certificate that was shown; nobody has escaped the names in it.
    pub identity: Option<Arc<Identity>>,
    /// The backend that was reached.
    pub backend: Option<Backend>,
    /// How its bytes are moved.
    pub path: Path,
    to_backend: AtomicU64,
    to_client: AtomicU64,
}

impl Session {
    /// A session that begins now.
    pub fn new(
        id: u64,
        source: SocketAddr,
        listener: Name,
        route: Name,
        identity: Option<Arc<Identity>>,
        backend: Option<Backend>,
        path: Path,
    ) -> Self {
        let (to_backend, to_client) = (AtomicU64::new(0), AtomicU64::new(0));
        let since = OffsetDateTime::now_utc();
        Self { id, since, source, listener, route, identity, backend, path, to_backend, to_client }
    }

    /// Payload passed on to the backend so far, in bytes.
    pub fn to_backend(&self) -> u64 {
        self.to_backend.load(Ordering::Relaxed)
    }

    /// Payload passed on to the client so far, in bytes.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }
}

/// The sessions of now.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<BTreeMap<u64, Arc<Session>>>,
}

impl Sessions {
    /// Takes a session in. It is here until what is given back is dropped.
    pub fn enter(sessions: &Arc<Self>, session: Session) -> Entered {
        let session = Arc::new(session);
        sessions.lock().insert(session.id, Arc::clone(&session));
        Entered { sessions: Arc::clone(sessions), session }
    }

    /// The newest `n`, the newest first, and how many there are.
    pub fn newest(&self, n: usize) -> (Vec<Arc<Session>>, usize) {
        let open = self.lock();
        (open.values().rev().take(n).cloned().collect(), open.len())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a session, given back on drop.
#[derive(Debug)]
pub struct Entered {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

impl Entered {
    /// A meter that counts for this session and for all of `meter`.
    pub fn metered(&self, meter: Meter) -> Meter {
        let session = || Arc::clone(&self.session);
        Meter {
            to_backend: Counter::from_arc(Arc::new(ToBackend { session: session(), all: meter.to_backend })),
            to_client: Counter::from_arc(Arc::new(ToClient { session: session(), all: meter.to_client })),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.session.id);
    }
}

struct ToBackend {
    session: Arc<Session>,
    all: Counter,
}

impl CounterFn for ToBackend {
    fn increment(&self, value: u64) {
        self.session.to_backend.fetch_add(value, Ordering::Relaxed);
        self.all.increment(value);
    }

    fn absolute(&self, value: u64) {
        self.session.to_backend.fetch_max(value, Ordering::Relaxed);
        self.all.absolute(value);
    }
}

struct ToClient {
    session: Arc<Session>,
    all: Counter,
}

impl CounterFn for ToClient {
    fn increment(&self, value: u64) {
        self.session.to_client.fetch_add(value, Ordering::Relaxed);
        self.all.increment(value);
    }

    fn absolute(&self, value: u64) {
        self.session.to_client.fetch_max(value, Ordering::Relaxed);
        self.all.absolute(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u64) -> Session {
        let name = |text| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        Session::new(id, source, name("public"), name("nas"), None, None, Path::Copy)
    }

    #[test]
    fn a_session_takes_little_memory() {
        // Two counters of Arc each; the certificate is the connection's own, and the names are the configuration's.
        let arc = |size| size + 2 * size_of::<usize>();
        let size = arc(size_of::<Session>()) + arc(size_of::<ToBackend>()) + arc(size_of::<ToClient>());
        assert!(size < 320, "{size} bytes");
    }

    #[test]
    fn a_session_is_there_as_long_as_its_guard_and_counts_its_own_bytes() {
        let sessions = Arc::new(Sessions::default());
        let first = Sessions::enter(&sessions, session(1));
        let second = Sessions::enter(&sessions, session(2));
        let none = || Meter { to_backend: Counter::noop(), to_client: Counter::noop() };
        let meter = first.metered(none());
        meter.to_backend.increment(3);
        meter.to_client.increment(5);
        meter.to_client.increment(5);
        second.metered(none()).to_client.increment(1);
        let (open, count) = sessions.newest(9);
        let bytes: Vec<_> = open.iter().map(|one| (one.id, one.to_backend(), one.to_client())).collect();
        assert_eq!((bytes, count), (vec![(2, 0, 1), (1, 3, 10)], 2));
        assert_eq!(sessions.newest(1).0.len(), 1);
        drop(first);
        assert_eq!(sessions.newest(9).0.iter().map(|one| one.id).collect::<Vec<_>>(), [2]);
        // What still holds a meter keeps no place.
        meter.to_client.increment(1);
        drop(second);
        assert_eq!(sessions.count(), 0);
    }
}
