//! The connections that are let in now, kept for those who ask (`doorward sessions`, the status page) and for what ends them:
//! one is here from before its backend is dialled.
//!
//! Each stands here as long as its [`Entered`] lives, so that none is forgotten and none stays.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::config::checked::Backend;
use crate::model::identity::{Chain, Identity};
use crate::model::names::Name;
use crate::relay::{Handle, Order, Path};

/// How often dates are looked at, at least: the clock may have been set.
const LOOKING: Duration = Duration::from_secs(60);

/// A connection that is let in.
#[derive(Debug)]
pub struct Session {
    /// The connection's number, as in the log.
    pub id: u64,
    /// When it was let in.
    pub since: OffsetDateTime,
    /// Who connected.
    pub source: SocketAddr,
    /// Where it arrived.
    pub listener: Name,
    /// Where it leads.
    pub route: Name,
    /// The certificate that was shown; nobody has escaped the names in it.
    pub identity: Option<Arc<Identity>>,
    /// What was shown, to be judged again; all sessions of one device share it.
    pub chain: Option<Arc<Chain>>,
    /// The backend that was reached; none is while they are dialled.
    pub backend: OnceLock<Backend>,
    /// How its bytes are moved.
    pub path: Path,
    /// What its relay has moved, and where it is told to end.
    pub relay: Arc<Handle>,
}

/// Who a session is with.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    /// The certificate that was shown.
    pub identity: Option<Arc<Identity>>,
    /// With what was shown beside it.
    pub chain: Option<Arc<Chain>>,
}

impl Session {
    /// A session that begins now.
    pub fn new(
        id: u64,
        source: SocketAddr,
        listener: Name,
        route: Name,
        Holder { identity, chain }: Holder,
        path: Path,
    ) -> Self {
        let since = OffsetDateTime::now_utc();
        let (relay, backend) = (Arc::default(), OnceLock::new());
        Self { id, since, source, listener, route, identity, chain, backend, path, relay }
    }

    /// The last second, since 1970, in which the certificate is valid; `None` if none was shown.
    fn good_until(&self) -> Option<u64> {
        self.chain.as_ref().map(|chain| chain.good_until).filter(|until| *until < u64::MAX)
    }

    /// Whether it began with a certificate that has expired and whose dates nobody looked at: nothing happens because of it.
    fn came_expired(&self, until: u64) -> bool {
        let vouched = self.identity.as_ref().is_some_and(|identity| identity.verified);
        !vouched && i128::from(until) < i128::from(self.since.unix_timestamp())
    }
}

/// The sessions of now.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<Open>,
    /// A certificate expires sooner than all those that there were.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Open {
    sessions: BTreeMap<u64, Arc<Session>>,
    /// The last second, since 1970, of the certificate that expires next.
    next: Option<u64>,
    /// Whoever comes now has to go at once.
    over: Option<Order>,
}

impl Sessions {
    /// Takes a session in. It is here until what is given back is dropped.
    pub fn enter(sessions: &Arc<Self>, session: Session) -> Entered {
        let session = Arc::new(session);
        let mut open = sessions.lock();
        if let Some(until) = session.good_until()
            && !session.came_expired(until)
            && open.next.is_none_or(|next| until < next)
        {
            open.next = Some(until);
            sessions.sooner.notify_one();
        }
        open.sessions.insert(session.id, Arc::clone(&session));
        if let Some(order) = &open.over {
            session.relay.order(order.clone());
        }
        drop(open);
        Entered { sessions: Arc::clone(sessions), session }
    }

    /// The newest `n`, the newest first, and how many there are.
    pub fn newest(&self, n: usize) -> (Vec<Arc<Session>>, usize) {
        let open = self.lock();
        (open.sessions.values().rev().take(n).cloned().collect(), open.sessions.len())
    }

    /// Waits until it may be time to look for [those that have expired](Self::expired). `now` is in seconds since 1970; the
    /// wait itself does not follow the clock, so it is never long.
    pub async fn wait_for_dates(&self, now: u64) {
        let next = self.lock().next;
        let _ = tokio::time::timeout(pause(next, now), self.sooner.notified()).await;
    }

    /// Those whose certificate has expired `now`, in seconds since 1970.
    pub fn expired(&self, now: u64) -> Vec<Arc<Session>> {
        let mut open = self.lock();
        let dated = || open.sessions.values().filter_map(|session| Some((session.good_until()?, session)));
        let expired = dated().filter(|(until, _)| *until < now).map(|(_, session)| Arc::clone(session)).collect();
        // Those that are kept all the same are waited for no more.
        let next = dated().map(|(until, _)| until).filter(|until| *until >= now).min();
        open.next = next;
        expired
    }

    /// Cuts all that there are and all that are to come.
    pub fn end(&self, order: &Order) {
        let mut open = self.lock();
        open.over = Some(order.clone());
        for session in open.sessions.values() {
            session.relay.order(order.clone());
        }
    }

    /// The devices that are in, each once, the one that came last first.
    pub fn guests(&self) -> Vec<(Arc<Identity>, Arc<Chain>)> {
        let open = self.lock();
        let mut seen = HashSet::new();
        let shown =
            open.sessions.values().rev().filter_map(|session| session.identity.clone().zip(session.chain.clone()));
        shown.filter(|(identity, _)| seen.insert(identity.fingerprint)).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long it is until a certificate expires whose last second is `next`, but never longer than the clock can be trusted.
fn pause(next: Option<u64>, now: u64) -> Duration {
    next.map_or(LOOKING, |next| Duration::from_secs(next.saturating_add(1).saturating_sub(now)).min(LOOKING))
}

/// The place of a session, given back on drop.
#[derive(Debug)]
pub struct Entered {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

impl Entered {
    /// The session whose place it is.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Entered {
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
        Session::new(id, source, name("public"), name("nas"), Holder::default(), Path::Copy)
    }

    #[test]
    fn a_session_takes_little_memory() {
        // The certificate is shared by all connections that show it, and the names are the configuration's.
        let arc = |size| size + 2 * size_of::<usize>();
        let size = arc(size_of::<Session>()) + arc(size_of::<Handle>());
        assert!(size <= 280, "{size} bytes");
    }

    fn dated(id: u64, good_until: u64) -> Session {
        let chain = Some(Arc::new(Chain::new(Vec::new(), Vec::new(), good_until)));
        Session { chain, ..session(id) }
    }

    #[test]
    fn whose_certificate_has_expired_is_found_whichever_way_the_clock_goes() {
        let sessions = Arc::new(Sessions::default());
        let _in = [session(1), dated(2, 100), dated(3, 200), dated(4, u64::MAX)]
            .map(|session| Sessions::enter(&sessions, session));
        let expired = |now| sessions.expired(now).iter().map(|session| session.id).collect::<Vec<_>>();
        // 1970, on time, a second late, a year late, and back again.
        for (now, found, next) in [
            (0, vec![], Some(100)),
            (100, vec![], Some(100)),
            (101, vec![2], Some(200)),
            (31_536_000, vec![2, 3], None),
            (150, vec![2], Some(200)),
        ] {
            assert_eq!((expired(now), sessions.lock().next), (found, next), "at {now}");
        }
    }

    #[test]
    fn dates_are_looked_at_when_the_next_one_is_due_and_every_minute() {
        let seconds = |next, now| pause(next, now).as_secs();
        assert_eq!(seconds(Some(100), 90), 11);
        assert_eq!(seconds(Some(100), 0), 60);
        assert_eq!(seconds(Some(100), 5000), 0);
        assert_eq!(seconds(None, 5000), 60);
        assert_eq!(seconds(Some(u64::MAX), 0), 60);
    }

    /// Each look goes through all sessions, and whoever has such a certificate can come as often as he likes.
    #[test]
    fn nobody_looks_at_dates_because_of_a_certificate_that_was_expired_already() {
        let sessions = Arc::new(Sessions::default());
        let _in = Sessions::enter(&sessions, dated(1, 100));
        assert_eq!(sessions.lock().next, None);
        let later = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).expect("after 1970") + 100;
        let _in = Sessions::enter(&sessions, dated(2, later));
        assert_eq!(sessions.lock().next, Some(later));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_expires_sooner_is_not_waited_past() {
        let sessions = Arc::new(Sessions::default());
        let (waiting, begun) = (Arc::clone(&sessions), tokio::time::Instant::now());
        let wait = tokio::spawn(async move {
            waiting.wait_for_dates(1000).await;
            waiting.wait_for_dates(1000).await;
        });
        tokio::task::yield_now().await;
        let since = OffsetDateTime::UNIX_EPOCH;
        let _in = Sessions::enter(&sessions, Session { since, ..dated(1, 1004) });
        wait.await.expect("both waits are over");
        assert_eq!(begun.elapsed().as_secs(), 5);
    }

    #[test]
    fn whoever_comes_when_all_are_told_to_end_is_told_as_well() {
        let sessions = Arc::new(Sessions::default());
        let here = Sessions::enter(&sessions, session(1));
        sessions.end(&Order { reason: CloseReason::DrainDeadline, cause: None, at: tokio::time::Instant::now() });
        let late = Sessions::enter(&sessions, session(2));
        for entered in [here, late] {
            let told = entered.session().relay.ordered().map(|order| order.reason);
            assert_eq!(told, Some(CloseReason::DrainDeadline), "{}", entered.session().id);
        }
    }

    #[test]
    fn a_session_is_there_as_long_as_its_guard() {
        let sessions = Arc::new(Sessions::default());
        let first = Sessions::enter(&sessions, session(1));
        let second = Sessions::enter(&sessions, session(2));
        let newest = |n| sessions.newest(n).0.iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!((newest(9), newest(1), sessions.count()), (vec![2, 1], vec![2], 2));
        let held = Arc::clone(first.session());
        drop(first);
        // Who still holds it keeps it no place.
        assert_eq!((newest(9), held.id), (vec![2], 1));
        drop(second);
        assert_eq!(sessions.count(), 0);
    }
}
