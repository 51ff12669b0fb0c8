use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use tokio::net::TcpListener;

use super::*;
use crate::backends::eyeballs::tests::full;
use crate::config::checked::Strategy;
use crate::sys::test_port::kept;

/// A machine of tests: where its backend would be, and what is sent to its network.
struct Scene {
    backends: Backends,
    wake: Wake,
    network: UdpSocket,
    wakes: Wakes,
    directory: Directory,
    ended: Arc<Mutex<Vec<WakeOutcome>>>,
}

impl Scene {
    fn new(timeout: Duration) -> Self {
        let network = UdpSocket::bind("127.0.0.1:0").expect("a port");
        network.set_nonblocking(true).expect("an option");
        let wakes = Wakes::default();
        let ended = Arc::<Mutex<Vec<WakeOutcome>>>::default();
        let told = Arc::clone(&ended);
        wakes.report_to(move |news| lock(&told).extend(news.ended.as_ref().map(|ended| ended.outcome)));
        let broadcast = network.local_addr().expect("an address");
        let wake = Wake { mac: Mac([0x3c, 0xec, 0xef, 0x12, 0x34, 0x56]), broadcast, timeout };
        let backends = Backends::new([Backend::Address(kept())], Strategy::First);
        Self { backends, wake, network, wakes, directory: Directory::new(1), ended }
    }

    fn address(&self) -> SocketAddr {
        match self.backends[0] {
            Backend::Address(address) => address,
            _ => panic!("it is an address"),
        }
    }

    fn machine(&self) -> Arc<Machine> {
        self.wakes.machine(&self.backends[0], &self.wake)
    }

    /// The last connection found it dark.
    fn falls_asleep(&self) {
        self.machine().is_dark.store(true, Ordering::Relaxed);
    }

    async fn dial(&self, authorized: Authorized) -> Result<(), Reason> {
        let route = Name::parse("nas").expect("a name");
        let sleeper = Sleeper { route: &route, wake: Some(&self.wake), wakes: &self.wakes };
        let first = First { header: &[], protocol: None, payload_waits: false };
        let limit = Duration::from_secs(30);
        let dialed =
            dial(authorized, sleeper, &self.backends, first, limit, &self.directory, || Ok(()), |_, _| {}).await;
        dialed.map(|_| ()).map_err(|rejection| rejection.reason())
    }

    fn packets(&self) -> usize {
        std::iter::from_fn(|| self.network.recv(&mut [0; 200]).ok()).inspect(|length| assert_eq!(*length, 102)).count()
    }

    async fn ended(&self, outcomes: &[WakeOutcome]) {
        while lock(&self.ended).len() < outcomes.len() {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(*lock(&self.ended), outcomes);
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn refused_connection_of_a_machine_that_is_awake_wakes_nothing() {
    let scene = Scene::new(LONG);
    assert_eq!(scene.dial(Authorized::of_device()).await, Err(Reason::BackendRefused));
    assert_eq!((scene.packets(), lock(&scene.ended).len()), (0, 0));
}

#[tokio::test]
async fn many_connections_wait_for_one_attempt() {
    let scene = Scene::new(LONG);
    scene.falls_asleep();
    let waiting: Vec<_> = (0..50).map(|_| scene.dial(Authorized::of_device())).collect();
    let comes_up = async {
        while scene.network.peek(&mut [0; 1]).is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        TcpListener::bind(scene.address()).await.expect("the port of before")
    };
    let begun = Instant::now();
    let (answered, _listener) = tokio::join!(futures_all(waiting), comes_up);
    assert_eq!(answered, [Ok(()); 50]);
    scene.ended(&[WakeOutcome::Woken]).await;
    let most = usize::try_from(begun.elapsed().as_secs() / RESEND.as_secs()).expect("few") + 1;
    assert!((1..=most).contains(&scene.packets()), "one packet, and one more for each {RESEND:?}");
    assert!(!scene.machine().is_dark.load(Ordering::Relaxed));
}

/// Waits for all of them at once.
async fn futures_all<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        for (one, result) in all.iter_mut().filter(|(_, result)| result.is_none()) {
            if let std::task::Poll::Ready(ready) = one.as_mut().poll(cx) {
                *result = Some(ready);
            }
        }
        if all.iter().all(|(_, result)| result.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all.into_iter().filter_map(|(_, result)| result).collect()
}

#[tokio::test]
async fn machine_that_stays_dark_ends_all_connections() {
    let mut scene = Scene::new(Duration::from_millis(1500));
    let (silent, _fill) = full(Ipv4Addr::LOCALHOST, 0);
    let silent = silent.local_addr().expect("an address").as_socket().expect("of IP");
    scene.backends = Backends::new([Backend::Address(silent)], Strategy::First);
    let begun = Instant::now();
    scene.falls_asleep();
    let waiting: Vec<_> = (0..5).map(|_| scene.dial(Authorized::of_device())).collect();
    assert_eq!(futures_all(waiting).await, [Err(Reason::BackendWakeTimeout); 5]);
    scene.ended(&[WakeOutcome::Timeout]).await;
    let first = scene.packets();
    // The next attempt begins at once, but its packet is sent when it is due.
    assert_eq!(scene.dial(Authorized::of_device()).await, Err(Reason::BackendWakeTimeout));
    scene.ended(&[WakeOutcome::Timeout; 2]).await;
    let most = usize::try_from(begun.elapsed().as_secs() / RESEND.as_secs()).expect("few") + 1;
    let all = first + scene.packets();
    assert!(first > 0 && all <= most, "{first} packets, then {all}");
}

#[tokio::test]
async fn service_that_stays_down_is_told_as_such() {
    let scene = Scene::new(Duration::from_millis(1500));
    scene.falls_asleep();
    assert_eq!(scene.dial(Authorized::of_device()).await, Err(Reason::BackendRefused));
    scene.ended(&[WakeOutcome::Timeout]).await;
    // Sent before it was known.
    assert_eq!(scene.packets(), 1);
    assert!(!scene.machine().is_dark.load(Ordering::Relaxed));
    // Once it has had its time to start, it is refused at once.
    while scene.wakes.is_starting(&scene.wake) {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(scene.dial(Authorized::of_device()).await, Err(Reason::BackendRefused));
    scene.ended(&[WakeOutcome::Timeout]).await;
    assert_eq!(scene.packets(), 0);
}

#[tokio::test]
async fn attempt_is_given_up_when_no_connection_waits() {
    let scene = Scene::new(LONG);
    scene.falls_asleep();
    let left = tokio::time::timeout(Duration::from_millis(50), scene.dial(Authorized::of_device())).await;
    assert!(left.is_err(), "{left:?}");
    scene.ended(&[WakeOutcome::Abandoned]).await;
    assert!(lock(&scene.machine().attempt).is_none());
}

#[tokio::test]
async fn client_without_a_verified_certificate_wakes_nothing() {
    let scene = Scene::new(LONG);
    scene.falls_asleep();
    assert_eq!(scene.dial(Authorized::testing()).await, Err(Reason::BackendRefused));
    assert_eq!((scene.packets(), lock(&scene.ended).len()), (0, 0));
}

#[tokio::test]
async fn service_that_starts_late_is_waited_for() {
    let scene = Scene::new(LONG);
    scene.falls_asleep();
    let listener = TcpListener::bind(scene.address()).await.expect("the port of before");
    assert_eq!(scene.dial(Authorized::of_device()).await, Ok(()));
    scene.ended(&[WakeOutcome::Woken]).await;
    drop(listener);
    // The machine was woken a moment ago, and this service is not ready yet.
    let late = async {
        while lock(&scene.machine().attempt).as_ref().is_none_or(|attempt| attempt.result.borrow().is_some()) {
            sleep(Duration::from_millis(5)).await;
        }
        TcpListener::bind(scene.address()).await.expect("the port of before")
    };
    let (answered, _listener) = tokio::join!(scene.dial(Authorized::of_device()), late);
    assert_eq!(answered, Ok(()));
    scene.ended(&[WakeOutcome::Woken; 2]).await;
}

#[tokio::test]
async fn packet_that_cannot_be_sent_is_told() {
    let mut scene = Scene::new(LONG);
    // A packet of IPv4 has no way to port 0 (udp(7)).
    scene.wake.broadcast.set_port(0);
    scene.falls_asleep();
    assert_eq!(scene.dial(Authorized::of_device()).await, Err(Reason::BackendWakeTimeout));
    scene.ended(&[WakeOutcome::NotSent]).await;
}

#[test]
fn machines_of_former_configurations_are_forgotten() {
    let scene = Scene::new(LONG);
    scene.falls_asleep();
    scene.wakes.keep(|backend, wake| *backend == scene.backends[0] && *wake == scene.wake);
    assert!(scene.machine().is_dark.load(Ordering::Relaxed));
    scene.wakes.keep(|_, _| false);
    assert!(!scene.machine().is_dark.load(Ordering::Relaxed));
}
