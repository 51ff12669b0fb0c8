//! The registry of open sessions, for `doorward sessions`, the status page, and whatever ends sessions. A session is in it
//! from before its backend is dialled until its [`SessionGuard`] is dropped.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::config::checked::Backend;
use crate::model::identity::{Chain, Identity};
use crate::model::names::Name;
use crate::relay::{Handle, Moved, Order, Path};

/// The longest wait for an expiry: the clock may have been set meanwhile.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// An admitted connection.
#[derive(Debug)]
pub struct Session {
    /// The connection's id, as in the log.
    pub id: u64,
    /// When it was admitted.
    pub since: OffsetDateTime,
    /// The client's address.
    pub source: SocketAddr,
    /// The listener that accepted it.
    pub listener: Name,
    /// Its route.
    pub route: Name,
    /// The client's certificate. The names in it are not escaped.
    pub identity: Option<Arc<Identity>>,
    /// The client's verified chain, for reviews. All sessions of one device share it.
    pub chain: Option<Arc<Chain>>,
    /// The backend, once one has answered.
    pub backend: OnceLock<Backend>,
    /// How its bytes are moved.
    pub path: Path,
    /// What its relay has moved, and where it is ordered to end.
    pub relay: Arc<Handle>,
    noted: Noted,
}

/// What the history has of a session's payload.
#[derive(Debug, Default)]
struct Noted {
    to_backend: AtomicU64,
    to_client: AtomicU64,
}

/// The certificate of a session's client.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificate {
    /// What it says.
    pub identity: Option<Arc<Identity>>,
    /// The verified chain it is the end entity of.
    pub chain: Option<Arc<Chain>>,
}

impl Session {
    /// A session that begins now.
    pub fn new(
        id: u64,
        source: SocketAddr,
        listener: Name,
        route: Name,
        PeerCertificate { identity, chain }: PeerCertificate,
        path: Path,
        relay: Arc<Handle>,
    ) -> Self {
        let since = OffsetDateTime::now_utc();
        Self {
            id,
            since,
            source,
            listener,
            route,
            identity,
            chain,
            backend: OnceLock::new(),
            path,
            relay,
            noted: Noted::default(),
        }
    }

    /// Whether it has moved at least so many bytes that were not noted.
    pub fn has_to_note(&self, bytes: u64) -> bool {
        let (moved, noted) = (self.relay.moved(), self.noted());
        let more = |moved: u64, noted: u64| moved.saturating_sub(noted);
        more(moved.to_backend, noted.to_backend).saturating_add(more(moved.to_client, noted.to_client)) >= bytes
    }

    /// Notes that it has moved so much by now. Returns what was not noted before.
    pub fn note(&self, moved: Moved) -> Moved {
        let add = |noted: &AtomicU64, total: u64| total.saturating_sub(noted.fetch_max(total, Ordering::Relaxed));
        Moved {
            to_backend: add(&self.noted.to_backend, moved.to_backend),
            to_client: add(&self.noted.to_client, moved.to_client),
        }
    }

    /// What was noted.
    pub fn noted(&self) -> Moved {
        let read = |noted: &AtomicU64| noted.load(Ordering::Relaxed);
        Moved { to_backend: read(&self.noted.to_backend), to_client: read(&self.noted.to_client) }
    }

    /// The last second, since 1970, in which the certificate is valid; `None` if there is none, or no end.
    fn valid_until(&self) -> Option<u64> {
        self.chain.as_ref().map(|chain| chain.good_until).filter(|until| *until < u64::MAX)
    }

    /// Whether its certificate had expired before it began, on a route that does not verify dates: such an expiry ends
    /// nothing.
    fn began_expired(&self, until: u64) -> bool {
        let verified = self.identity.as_ref().is_some_and(|identity| identity.verified);
        !verified && i128::from(until) < i128::from(self.since.unix_timestamp())
    }
}

/// The open sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<Open>,
    /// A session was added whose certificate expires before all others.
    earlier_expiry: Notify,
}

#[derive(Debug, Default)]
struct Open {
    sessions: BTreeMap<u64, Arc<Session>>,
    /// The last second, since 1970, of the certificate that expires next.
    next_expiry: Option<u64>,
    /// The order for every session, later ones included.
    closing: Option<Order>,
}

impl Sessions {
    /// Adds a session. It stays until the guard is dropped.
    pub fn register(sessions: &Arc<Self>, session: Session) -> SessionGuard {
        let session = Arc::new(session);
        let mut open = sessions.lock();
        if let Some(until) = session.valid_until()
            && !session.began_expired(until)
            && open.next_expiry.is_none_or(|next| until < next)
        {
            open.next_expiry = Some(until);
            sessions.earlier_expiry.notify_one();
        }
        open.sessions.insert(session.id, Arc::clone(&session));
        if let Some(order) = &open.closing {
            session.relay.order(order.clone());
        }
        drop(open);
        SessionGuard { sessions: Arc::clone(sessions), session }
    }

    /// The newest `n`, the newest first, and how many are open.
    pub fn newest(&self, n: usize) -> (Vec<Arc<Session>>, usize) {
        let open = self.lock();
        (open.sessions.values().rev().take(n).cloned().collect(), open.sessions.len())
    }

    /// Waits until a certificate may have [expired](Self::expired). `now` is in seconds since 1970. The wait does not follow
    /// the clock if that is set, so it is never long.
    pub async fn wait_for_expiry(&self, now: u64) {
        let next = self.lock().next_expiry;
        let _ = tokio::time::timeout(expiry_wait(next, now), self.earlier_expiry.notified()).await;
    }

    /// The sessions whose certificate has expired `now`, in seconds since 1970.
    pub fn expired(&self, now: u64) -> Vec<Arc<Session>> {
        let mut open = self.lock();
        let dated = || open.sessions.values().filter_map(|session| Some((session.valid_until()?, session)));
        let expired = dated().filter(|(until, _)| *until < now).map(|(_, session)| Arc::clone(session)).collect();
        // An expired session that its route keeps is not waited for again.
        let next = dated().map(|(until, _)| until).filter(|until| *until >= now).min();
        open.next_expiry = next;
        expired
    }

    /// Orders every session to end, and every one that is added later.
    pub fn end_all(&self, order: &Order) {
        let mut open = self.lock();
        open.closing = Some(order.clone());
        for session in open.sessions.values() {
            session.relay.order(order.clone());
        }
    }

    /// The connected devices, each once, the latest first.
    pub fn devices(&self) -> Vec<(Arc<Identity>, Arc<Chain>)> {
        let open = self.lock();
        let mut seen = HashSet::new();
        let shown =
            open.sessions.values().rev().filter_map(|session| session.identity.clone().zip(session.chain.clone()));
        shown.filter(|(identity, _)| seen.insert(identity.fingerprint)).collect()
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait for the expiry of a certificate whose last second is `next`.
fn expiry_wait(next: Option<u64>, now: u64) -> Duration {
    let interval = EXPIRY_CHECK_INTERVAL;
    next.map_or(interval, |next| Duration::from_secs(next.saturating_add(1).saturating_sub(now)).min(interval))
}

/// A session's entry in the registry, removed on drop.
#[derive(Debug)]
pub struct SessionGuard {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

impl SessionGuard {
    /// The session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.sessions.lock().sessions.remove(&self.session.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::close::CloseReason;

    fn session(id: u64) -> Session {
        let name = |text| Name::parse(text).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 4711));
        Session::new(id, source, name("public"), name("nas"), PeerCertificate::default(), Path::Copy, Arc::default())
    }

    #[test]
    fn session_takes_little_memory() {
        // The certificate is shared by all sessions of its device, and the names by all of the configuration.
        let arc = |size| size + 2 * size_of::<usize>();
        let size = arc(size_of::<Session>()) + arc(size_of::<Handle>());
        assert!(size <= 280, "{size} bytes");
    }

    fn dated(id: u64, good_until: u64) -> Session {
        let chain = Some(Arc::new(Chain::new(Vec::new(), Vec::new(), good_until)));
        Session { chain, ..session(id) }
    }

    #[test]
    fn expired_sessions_are_found_when_the_clock_jumps_either_way() {
        let sessions = Arc::new(Sessions::default());
        let _in = [session(1), dated(2, 100), dated(3, 200), dated(4, u64::MAX)]
            .map(|session| Sessions::register(&sessions, session));
        let expired = |now| sessions.expired(now).iter().map(|session| session.id).collect::<Vec<_>>();
        // 1970, on time, a second late, a year late, and back again.
        for (now, found, next) in [
            (0, vec![], Some(100)),
            (100, vec![], Some(100)),
            (101, vec![2], Some(200)),
            (31_536_000, vec![2, 3], None),
            (150, vec![2], Some(200)),
        ] {
            assert_eq!((expired(now), sessions.lock().next_expiry), (found, next), "at {now}");
        }
    }

    #[test]
    fn wait_ends_at_the_next_expiry_or_after_a_minute() {
        let seconds = |next, now| expiry_wait(next, now).as_secs();
        assert_eq!(seconds(Some(100), 90), 11);
        assert_eq!(seconds(Some(100), 0), 60);
        assert_eq!(seconds(Some(100), 5000), 0);
        assert_eq!(seconds(None, 5000), 60);
        assert_eq!(seconds(Some(u64::MAX), 0), 60);
    }

    /// Each check goes through all sessions, and a client may reconnect with an expired certificate as often as it likes.
    #[test]
    fn certificate_expired_before_its_session_causes_no_check() {
        let sessions = Arc::new(Sessions::default());
        let _in = Sessions::register(&sessions, dated(1, 100));
        assert_eq!(sessions.lock().next_expiry, None);
        let later = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).expect("after 1970") + 100;
        let _in = Sessions::register(&sessions, dated(2, later));
        assert_eq!(sessions.lock().next_expiry, Some(later));
    }

    #[tokio::test(start_paused = true)]
    async fn earlier_expiry_shortens_the_wait() {
        let sessions = Arc::new(Sessions::default());
        let (waiting, begun) = (Arc::clone(&sessions), tokio::time::Instant::now());
        let wait = tokio::spawn(async move {
            waiting.wait_for_expiry(1000).await;
            waiting.wait_for_expiry(1000).await;
        });
        tokio::task::yield_now().await;
        let since = OffsetDateTime::UNIX_EPOCH;
        let _in = Sessions::register(&sessions, Session { since, ..dated(1, 1004) });
        wait.await.expect("both waits are over");
        assert_eq!(begun.elapsed().as_secs(), 5);
    }

    #[test]
    fn session_added_after_end_all_is_ordered_to_end() {
        let sessions = Arc::new(Sessions::default());
        let early = Sessions::register(&sessions, session(1));
        sessions.end_all(&Order { reason: CloseReason::DrainDeadline, cause: None, at: tokio::time::Instant::now() });
        let late = Sessions::register(&sessions, session(2));
        for guard in [early, late] {
            let ordered = guard.session().relay.ordered().map(|order| order.reason);
            assert_eq!(ordered, Some(CloseReason::DrainDeadline), "{}", guard.session().id);
        }
    }

    #[test]
    fn session_is_registered_as_long_as_its_guard_lives() {
        let sessions = Arc::new(Sessions::default());
        let first = Sessions::register(&sessions, session(1));
        let second = Sessions::register(&sessions, session(2));
        let newest = |n| sessions.newest(n).0.iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!((newest(9), newest(1), sessions.count()), (vec![2, 1], vec![2], 2));
        let held = Arc::clone(first.session());
        drop(first);
        // Another reference does not keep it registered.
        assert_eq!((newest(9), held.id), (vec![2], 1));
        drop(second);
        assert_eq!(sessions.count(), 0);
    }
}
