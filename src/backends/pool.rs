//! What a gate knows of its backends: which answer, and how many connections each has. It outlives configurations.
//!
//! A backend that does not answer is dialled last, and in the background, so that no client pays for finding out that it is back.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::health::Checked;
use crate::backend_tls::BackendTls;
use crate::config::checked::{Backend, Strategy};
use crate::model::rejection::{Cause, FailedCheck, Health, Text};

/// How long after a failure a backend is dialled again; twice as long after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// No pause is longer.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long a backend has to answer then.
pub(super) const RETRY_TIMEOUT: Duration = Duration::from_secs(5);
/// A backend that no client was sent to for so long is not dialled any longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// The backends of a route.
#[derive(Debug)]
pub struct Backends {
    list: Vec<Backend>,
    /// TLS to them, if they speak it.
    tls: Option<BackendTls>,
    strategy: Strategy,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// What their checks say, in the order of the list; none if they are not checked.
    checks: Vec<Arc<Checked>>,
    /// The most connections that each may have.
    limit: Option<usize>,
}

/// A backend has as many connections as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) limit: usize,
}

impl Backends {
    /// These, chosen by this strategy.
    pub fn new(list: impl Into<Vec<Backend>>, strategy: Strategy) -> Self {
        Self { list: list.into(), tls: None, strategy, turn: AtomicUsize::new(0), checks: Vec::new(), limit: None }
    }

    /// With a check for each of them, or none.
    #[must_use]
    pub fn checked(self, checks: Vec<Arc<Checked>>) -> Self {
        Self { checks, ..self }
    }

    /// With at most so many connections for each of them.
    #[must_use]
    pub fn limited(self, limit: Option<usize>) -> Self {
        Self { limit, ..self }
    }

    /// Their checks, in the order of the list; none if they are not checked.
    pub fn checks(&self) -> &[Arc<Checked>] {
        &self.checks
    }

    /// Those of `order` that may have connections. If none may, a client is refused at once: the checks go on and find the
    /// first one that is back, while a dial would cost the client its whole time limit, or connect it to a service that is
    /// known to hang.
    pub(super) fn healthy(&self, mut order: Vec<usize>) -> Result<Vec<usize>, Cause> {
        if self.checks.is_empty() {
            return Ok(order);
        }
        let mut failed = Vec::new();
        order.retain(|index| {
            let Some(checked) = self.checks.get(*index).filter(|checked| !checked.is_healthy()) else { return true };
            let Health::Unhealthy { failure, .. } = checked.health() else { return true };
            failed.push(FailedCheck { backend: Text::new(&checked.check().backend), failure });
            false
        });
        if order.is_empty() { Err(Cause::Unhealthy(failed.into())) } else { Ok(order) }
    }

    /// These, which speak TLS.
    #[must_use]
    pub fn with_tls(self, tls: Option<BackendTls>) -> Self {
        Self { tls, ..self }
    }

    /// Whether the same TLS is spoken with these backends as with those of `other`, or with both none.
    pub fn has_tls_of(&self, other: &Self) -> bool {
        match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some(one), Some(other)) => one.has_settings_of(other),
            _ => false,
        }
    }

    /// TLS to them, if they speak it.
    pub fn tls(&self) -> Option<&BackendTls> {
        self.tls.as_ref()
    }
}

impl Deref for Backends {
    type Target = [Backend];

    fn deref(&self) -> &[Backend] {
        &self.list
    }
}

/// What is known of one backend.
#[derive(Debug, Default)]
struct Known {
    /// It did not answer the last time.
    down: AtomicBool,
    /// The connections that it has.
    open: AtomicUsize,
    /// When a client was last sent there in vain; `None` while it is not dialled in the background. Held while `down` is decided on.
    wanted: Mutex<Option<Instant>>,
}

impl Known {
    /// It is not dialled in the background any longer if `ends` says so. In one step: a client that fails at the same moment
    /// begins it again.
    fn end_retries_if(&self, ends: impl FnOnce(Instant) -> bool) -> bool {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.take_if(|since| ends(*since));
        wanted.is_none()
    }
}

/// Told when a backend that did not answer does so in the background.
type CameBack = dyn Fn(&Backend) + Send + Sync;

/// All that is known.
#[derive(Clone, Default)]
pub struct Pool(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: Mutex<HashMap<Backend, Arc<Known>>>,
    came_back: Mutex<Option<Box<CameBack>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// A place among the connections of a backend.
#[derive(Debug)]
pub struct Slot(Arc<Known>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Calls `came_back` when a backend that did not answer does so in the background.
    pub fn report_to(&self, came_back: impl Fn(&Backend) + Send + Sync + 'static) {
        *self.0.came_back.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(came_back));
    }

    /// The indices of the backends in the order in which they are to be dialled: by the strategy, but those that did not answer the
    /// last time come last.
    pub(super) fn order(&self, backends: &Backends) -> Vec<usize> {
        let count = backends.list.len();
        let mut order: Vec<usize> = (0..count).collect();
        if count < 2 {
            return order;
        }
        let known: Vec<Option<Arc<Known>>> = {
            let all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            backends.list.iter().map(|backend| all.get(backend).cloned()).collect()
        };
        let known = |index: &usize| known.get(*index).and_then(Option::as_ref);
        if backends.strategy != Strategy::First {
            order.rotate_left(backends.turn.fetch_add(1, Ordering::Relaxed) % count);
        }
        if backends.strategy == Strategy::LeastConnections {
            // Stable: of those with as few, the one whose turn it is.
            order.sort_by_key(|index| known(index).map_or(0, |known| known.open.load(Ordering::Relaxed)));
        }
        order.sort_by_key(|index| known(index).is_some_and(|known| known.down.load(Ordering::Relaxed)));
        order
    }

    /// A place for a connection that is about to be made, if there is a limit.
    ///
    /// Clients do not wait for one, as HAProxy's do: its requests are over in milliseconds, while a connection here may be of
    /// a shell or a browser, and lasts for hours.
    pub(super) fn reserve(&self, backends: &Backends, index: usize) -> Result<Option<Slot>, Full> {
        let Some((limit, backend)) = backends.limit.zip(backends.list.get(index)) else { return Ok(None) };
        let known = self.known(backend);
        let taken =
            known.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < limit).then_some(open + 1));
        taken.map(|_| Some(Slot(known))).map_err(|_| Full { limit })
    }

    /// A client was connected, with the place that was reserved, if one was. Returns its place, if connections are counted.
    pub(super) fn connected(&self, backends: &Backends, index: usize, reserved: Option<Slot>) -> Option<Slot> {
        if let Some(slot) = reserved {
            slot.0.down.store(false, Ordering::Relaxed);
            return Some(slot);
        }
        if backends.list.len() < 2 {
            return None;
        }
        let counts = backends.strategy == Strategy::LeastConnections;
        let backend = backends.list.get(index)?;
        let known = if counts { Some(self.known(backend)) } else { self.if_known(backend) }?;
        known.down.store(false, Ordering::Relaxed);
        counts.then(|| {
            known.open.fetch_add(1, Ordering::Relaxed);
            Slot(known)
        })
    }

    /// A backend did not answer a client. If there are others, it is to be dialled in the background from now on, unless it is
    /// already.
    pub(super) fn failed(&self, backends: &Backends, index: usize) -> Option<Retry> {
        let backend = backends.list.get(index).filter(|_| backends.list.len() > 1)?;
        let known = self.known(backend);
        if !backends.checks.is_empty() {
            // The next check that passes finds it.
            known.down.store(true, Ordering::Relaxed);
            return None;
        }
        let before = {
            let mut wanted = known.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            known.down.store(true, Ordering::Relaxed);
            wanted.replace(Instant::now())
        };
        before.is_none().then(|| Retry { pool: self.clone(), known, backend: backend.clone() })
    }

    /// A health check has passed: the backend is dialled in its turn again.
    pub fn passed(&self, backend: &Backend) {
        if let Some(known) = self.if_known(backend) {
            known.down.store(false, Ordering::Relaxed);
        }
    }

    /// Forgets backends that no configuration names, but for the number of their connections.
    pub fn keep(&self, mut is_named: impl FnMut(&Backend) -> bool) {
        let mut all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|backend, known| {
            let named = is_named(backend);
            if !named {
                // Not dialled in the background any longer.
                known.down.store(false, Ordering::Relaxed);
            }
            named || known.open.load(Ordering::Relaxed) > 0
        });
    }

    fn is_kept(&self, backend: &Backend, known: &Arc<Known>) -> bool {
        self.if_known(backend).is_some_and(|kept| Arc::ptr_eq(&kept, known))
    }

    fn if_known(&self, backend: &Backend) -> Option<Arc<Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).get(backend).cloned()
    }

    fn known(&self, backend: &Backend) -> Arc<Known> {
        let mut all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(backend.clone()).or_default())
    }
}

/// A backend that is to be dialled in the background.
#[derive(Debug)]
pub(super) struct Retry {
    pool: Pool,
    known: Arc<Known>,
    /// The backend.
    pub(super) backend: Backend,
}

impl Retry {
    /// Dials it with `reaches` until it answers, or a client has been connected to it, or none wants it any longer.
    pub(super) async fn run<F: Future<Output = bool>>(self, reaches: impl Fn(Backend) -> F) {
        let Self { pool, known, backend } = self;
        let mut pause = FIRST_RETRY;
        loop {
            sleep(pause).await;
            pause = (2 * pause).min(LAST_RETRY);
            let is_kept = pool.is_kept(&backend, &known);
            let ends =
                |wanted: Instant| !known.down.load(Ordering::Relaxed) || wanted.elapsed() > FORGOTTEN_AFTER || !is_kept;
            if known.end_retries_if(ends) {
                return;
            }
            let answers = reaches(backend.clone()).await;
            debug!(%backend, answers, "dialled in the background");
            if answers {
                known.end_retries_if(|_| {
                    known.down.store(false, Ordering::Relaxed);
                    true
                });
                if let Some(came_back) = &*pool.0.came_back.lock().unwrap_or_else(PoisonError::into_inner) {
                    came_back(&backend);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn backends(strategy: Strategy) -> Backends {
        let backend = |port| Backend::Address(([192, 0, 2, 1], port).into());
        Backends::new([backend(1), backend(2), backend(3)], strategy)
    }

    fn down(pool: &Pool, backends: &Backends, index: usize) {
        pool.known(&backends[index]).down.store(true, Ordering::Relaxed);
    }

    #[test]
    fn first_backend_is_first_until_it_does_not_answer() {
        let (pool, backends) = (Pool::default(), backends(Strategy::First));
        assert_eq!(pool.order(&backends), [0, 1, 2]);
        down(&pool, &backends, 0);
        assert_eq!(pool.order(&backends), [1, 2, 0], "still dialled if no other answers");
        down(&pool, &backends, 1);
        down(&pool, &backends, 2);
        assert_eq!(pool.order(&backends), [0, 1, 2]);
        assert!(pool.connected(&backends, 0, None).is_none());
        assert_eq!(pool.order(&backends), [0, 1, 2]);
        assert!(pool.connected(&backends, 2, None).is_none());
        assert_eq!(pool.order(&backends), [0, 2, 1]);
    }

    #[test]
    fn round_robin_takes_turns_among_those_that_answer() {
        let (pool, backends) = (Pool::default(), backends(Strategy::RoundRobin));
        let firsts = |pool: &Pool| (0..6).map(|_| pool.order(&backends)[0]).collect::<Vec<_>>();
        assert_eq!(firsts(&pool), [0, 1, 2, 0, 1, 2]);
        down(&pool, &backends, 1);
        let firsts = firsts(&pool);
        assert!(!firsts.contains(&1) && firsts.contains(&0) && firsts.contains(&2), "{firsts:?}");
    }

    #[test]
    fn least_connections_counts_places_until_they_are_dropped() {
        let (pool, backends) = (Pool::default(), backends(Strategy::LeastConnections));
        let mut taken: Vec<(usize, Slot)> = Vec::new();
        for _ in 0..30 {
            let index = pool.order(&backends)[0];
            taken.push((index, pool.connected(&backends, index, None).expect("a place")));
        }
        let count = |index| taken.iter().filter(|(of, _)| *of == index).count();
        assert_eq!([0, 1, 2].map(count), [10, 10, 10]);
        taken.retain(|(index, _)| *index != 1);
        for _ in 0..10 {
            let index = pool.order(&backends)[0];
            assert_eq!(index, 1);
            taken.push((index, pool.connected(&backends, index, None).expect("a place")));
        }
    }

    #[test]
    fn limit_holds_from_the_beginning_of_a_dial_to_the_end_of_the_connection() {
        let (pool, backends) = (Pool::default(), backends(Strategy::First).limited(Some(2)));
        let one = pool.reserve(&backends, 0).expect("a place").expect("it is counted");
        let two = pool.reserve(&backends, 0).expect("a place");
        let full = || pool.reserve(&backends, 0).map(|_| ()).expect_err("it is full");
        assert_eq!(full(), Full { limit: 2 });
        assert!(pool.reserve(&backends, 1).is_ok(), "another one");
        // A dial that failed, and a connection that has ended.
        drop(two);
        let one = pool.connected(&backends, 0, Some(one)).expect("its place");
        let two = pool.reserve(&backends, 0).expect("a place");
        assert_eq!(full(), Full { limit: 2 });
        // A reload that does not name it does not forget what it has.
        pool.keep(|_| false);
        assert_eq!(full(), Full { limit: 2 });
        drop((one, two));
        pool.keep(|_| false);
        assert!(pool.if_known(&backends[0]).is_none());
    }

    #[test]
    fn backends_of_former_configurations_are_forgotten() {
        let (pool, backends) = (Pool::default(), backends(Strategy::First));
        down(&pool, &backends, 0);
        pool.keep(|backend| *backend != backends[0]);
        assert_eq!(pool.order(&backends), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_while_the_retries_end_begins_them_again() {
        let (pool, backends) = (Pool::default(), Arc::new(backends(Strategy::First)));
        let (tell, told) = std::sync::mpsc::channel();
        let (again, same) = (pool.clone(), Arc::clone(&backends));
        // It answers, and a client that comes at once is sent there in vain.
        pool.report_to(move |_| drop(tell.send(again.failed(&same, 0))));
        pool.failed(&backends, 0).expect("it is to be dialled").run(|_| async { true }).await;
        let retry = told.try_recv().expect("it came back").expect("it is to be dialled again");
        retry.run(|_| async { true }).await;
        told.try_recv().expect("it came back").expect("and again");
    }

    #[tokio::test]
    async fn backend_that_is_back_is_found_in_the_background() {
        let port = crate::sys::test_port::kept();
        let other = Backend::Address(([192, 0, 2, 1], 1).into());
        let backends = Backends::new([Backend::Address(port), other], Strategy::First);
        let pool = Pool::default();
        let (tell, told) = std::sync::mpsc::channel();
        pool.report_to(move |backend| drop(tell.send(backend.clone())));
        let retry = pool.failed(&backends, 0).expect("it is to be dialled");
        assert!(pool.failed(&backends, 0).is_none(), "it is dialled already");
        tokio::spawn(retry.run(move |_| async move { tokio::net::TcpStream::connect(port).await.is_ok() }));
        assert_eq!(pool.order(&backends), [1, 0]);
        let _listener = TcpListener::bind(port).expect("the port of before");
        let back = tokio::task::spawn_blocking(move || told.recv_timeout(Duration::from_secs(30))).await;
        assert_eq!(back.expect("a task"), Ok(backends[0].clone()));
        assert_eq!(pool.order(&backends), [0, 1]);
        while pool.known(&backends[0]).wanted.lock().expect("a lock").is_some() {
            tokio::task::yield_now().await;
        }
    }
}
