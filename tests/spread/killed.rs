//! Thousands of sessions on two backends, one of which is killed and brought back ten times: no byte is wrong, the sessions are
//! spread as the strategy says, and the counters add up.
//!
//! `DOORWARD_SPREAD_SESSIONS=10000 cargo test --release --test spread killed -- --nocapture` runs more of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::ClientConfig;
use tokio::time::Instant;

use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{own_loopback, wait_until};
use crate::home::House;
use crate::{NAS, Strategy};

/// How often the victim is killed.
const KILLS: usize = 10;
/// Sessions that are open while it is.
const HELD: usize = 8;
/// Clients that connect at the same time.
const WORKERS: usize = 8;

/// A service that sends its letter, then what it receives.
struct Service {
    letter: u8,
    address: SocketAddr,
    running: Mutex<Option<Backend>>,
    /// Connections that sent something. The gate dials one that is down without sending anything.
    sessions: Arc<AtomicU64>,
    /// Payload, over all of its lives.
    received: Arc<AtomicU64>,
}

impl Service {
    fn start(letter: u8, address: SocketAddr) -> Self {
        let (sessions, received) = Default::default();
        let service = Self { letter, address, running: Mutex::default(), sessions, received };
        service.revive();
        service
    }

    fn revive(&self) {
        let (letter, sessions, received) = (self.letter, Arc::clone(&self.sessions), Arc::clone(&self.received));
        let backend = Backend::serve(self.address, move |mut stream, state| {
            let mut is_first = true;
            state.each_read(stream, |bytes| {
                received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                let mut answer = Vec::with_capacity(bytes.len() + 1);
                if std::mem::take(&mut is_first) {
                    sessions.fetch_add(1, Ordering::SeqCst);
                    answer.push(letter);
                }
                answer.extend_from_slice(bytes);
                std::io::Write::write_all(&mut stream, &answer).is_ok()
            });
            let _ = stream.shutdown(std::net::Shutdown::Write);
        });
        *self.running.lock().unwrap() = Some(backend);
    }

    fn kill(&self) {
        let backend = self.running.lock().unwrap().take();
        drop(backend.unwrap());
    }
}

/// The payload of a session: bytes that no other one sends, 1 to 16 KiB of them.
fn payload(session: u64) -> Vec<u8> {
    let mut state = session.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = 128 + next() % (2048 - 128);
    (0..words).flat_map(|_| next().to_be_bytes()).collect()
}

/// A session that has sent the first half of its payload, and received something.
struct Open {
    payload: Vec<u8>,
    client: Client,
    /// Which service answers; `None` if it was killed before it could.
    letter: Option<u8>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    letter: Option<u8>,
    /// Everything came back.
    whole: bool,
}

impl Open {
    fn begin(gate: SocketAddr, config: &Arc<ClientConfig>, session: u64) -> Self {
        let payload = payload(session);
        let client = Client::handshaken(gate, config, NAS).unwrap();
        let _ = client.send(&payload[..payload.len() / 2]);
        let mut letter = [0];
        let letter = client.read_exact(&mut letter).is_ok().then_some(letter[0]);
        Self { payload, client, letter }
    }

    fn finish(self) -> Ended {
        let Self { payload, client, letter } = self;
        let _ = client.send(&payload[payload.len() / 2..]);
        client.close_notify();
        let (echo, end) = client.read_to_end();
        assert!(payload.starts_with(&echo), "{} wrong bytes of {}", echo.len(), payload.len());
        Ended { letter, whole: echo.len() == payload.len() && end == End::Orderly }
    }
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    begun: AtomicU64,
    by_letter: Mutex<HashMap<u8, u64>>,
    short: AtomicU64,
}

impl Seen {
    fn next(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst)
    }

    fn of(&self, letter: u8) -> u64 {
        self.by_letter.lock().unwrap().get(&letter).copied().unwrap_or_default()
    }

    /// A session has ended; it may have ended early if `victim` could be killed meanwhile.
    fn ended(&self, ended: Ended, victim: Option<u8>) {
        if let Some(letter) = ended.letter {
            *self.by_letter.lock().unwrap().entry(letter).or_default() += 1;
        }
        if !ended.whole {
            self.short.fetch_add(1, Ordering::SeqCst);
            assert!(victim.is_some(), "{ended:?} ended early, and no service was killed");
            assert!(ended.letter.is_none() || ended.letter == victim, "{ended:?} ended early, but not by the kill");
        }
    }
}

/// One strategy's gate, services and clients.
struct Scene {
    strategy: Strategy,
    gate: Gate,
    config: Arc<ClientConfig>,
    /// Whichever is killed.
    victim: Service,
    other: Service,
    seen: Seen,
}

impl Scene {
    /// Runs `count` sessions, some at a time. `killed` is called when a quarter of them have ended.
    fn sessions(&self, count: usize, victim: Option<u8>, kill: &(dyn Fn() + Sync)) {
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while begun.fetch_add(1, Ordering::SeqCst) < count {
                        let open = Open::begin(self.gate.address(), &self.config, self.seen.next());
                        self.seen.ended(open.finish(), victim);
                        if ended.fetch_add(1, Ordering::SeqCst) + 1 == count / 4 {
                            kill();
                        }
                    }
                });
            }
        });
    }

    /// The sessions that each service had since `before`: of the victim, and of the other one.
    fn since(&self, before: [u64; 2]) -> [u64; 2] {
        let now = self.counts();
        [now[0] - before[0], now[1] - before[1]]
    }

    fn counts(&self) -> [u64; 2] {
        [self.seen.of(self.victim.letter), self.seen.of(self.other.letter)]
    }

    fn is_up(&self) -> f64 {
        self.gate.metrics().sum("doorward_backend_up", &[("backend", &self.victim.address.to_string())])
    }

    /// One life of the victim: `count` sessions in all.
    fn life(&self, count: usize) {
        // Both are up.
        let before = self.counts();
        let (quiet, busy) = ((count - HELD) / 2, count - HELD - (count - HELD) / 2);
        self.sessions(quiet, None, &|| ());
        let (spread, total) = (self.since(before), quiet as u64);
        assert_eq!(spread[0] + spread[1], total);
        match self.strategy {
            Strategy::First => assert_eq!(spread, [total, 0]),
            Strategy::RoundRobin => assert!(spread[0].abs_diff(spread[1]) <= 1, "{spread:?}"),
            // Which of the two has fewer at a moment depends on how long sessions last; exact figures follow.
            Strategy::LeastConnections => assert!(spread.iter().all(|part| *part >= total / 4), "{spread:?}"),
        }

        // One after the other on an idle gate. Of counts that did not return to 0, the difference would be seen here.
        self.gate.settled();
        let begin = || Open::begin(self.gate.address(), &self.config, self.seen.next());
        let held: Vec<Open> = (0..HELD).map(|_| begin()).collect();
        let of_victim = held.iter().filter(|open| open.letter == Some(self.victim.letter)).count();
        assert_eq!(of_victim, if self.strategy == Strategy::First { HELD } else { HELD / 2 });

        // It is killed in the midst of others.
        let before = self.counts();
        self.sessions(busy, Some(self.victim.letter), &|| self.victim.kill());
        let spread = self.since(before);
        assert!(spread[1] >= (busy - busy / 4 - 2 * WORKERS) as u64, "{spread:?} of {busy}");
        for open in held {
            let (letter, ended) = (open.letter, open.finish());
            assert_eq!(ended.whole, letter == Some(self.other.letter), "{ended:?}");
            self.seen.ended(ended, Some(self.victim.letter));
        }

        // No client is needed to find that it is back.
        assert_eq!(self.is_up(), 0.0);
        self.victim.revive();
        wait_until("the victim is up again", || (self.is_up() == 1.0).then_some(()));
    }
}

/// As many sessions as the test is to have.
fn sessions() -> usize {
    std::env::var("DOORWARD_SPREAD_SESSIONS").map_or(1_000, |text| text.parse().unwrap())
}

fn test(strategy: Strategy) {
    let (pki, count, begun) = (TestPki::new(), sessions(), Instant::now());
    let ip = own_loopback();
    let victim = Service::start(b'V', (ip, 7001).into());
    let other = Service::start(b'O', (ip, 7002).into());
    let backends = [victim.address.to_string(), other.address.to_string()];
    let gate = House::new(&pki)
        .limits("connection_rate_per_source = \"off\"\nconnections_per_source = \"off\"")
        .route_with("nas", &[&backends[0], &backends[1]], &strategy.keys())
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let scene = Scene { strategy, gate, config, victim, other, seen: Seen::default() };
    for _ in 0..KILLS {
        scene.life(count / KILLS);
    }

    // The gate's account, the services' and the clients'.
    let Scene { gate, victim, other, seen, .. } = &scene;
    let metrics = gate.settled();
    let total = (count / KILLS * KILLS) as f64;
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(seen.begun.load(Ordering::SeqCst) as f64, total);
    assert_eq!(sum("doorward_connections_accepted_total", &[]), total);
    assert_eq!(sum("doorward_connections_closed_total", &[("route", "nas")]), total);
    assert_eq!(sum("doorward_connections_rejected_total", &[]), 0.0, "the other one was always up");
    for (outcome, dials) in [("ok", total), ("failed", 0.0)] {
        assert_eq!(sum("doorward_backend_dial_duration_seconds_count", &[("outcome", outcome)]), dials, "{outcome}");
    }
    let lines = gate.wait_for_lines("a line for each session", seen.begun.load(Ordering::SeqCst) as usize, |line| {
        line["event"] == "closed"
    });
    let of = |service: &Service, field: &str| -> u64 {
        let address = service.address.to_string();
        let lines = lines.iter().filter(|line| line["backend"] == address.as_str());
        lines.map(|line| if field.is_empty() { 1 } else { line[field].as_u64().unwrap() }).sum()
    };
    let short = seen.short.load(Ordering::SeqCst);
    let table = [victim, other].map(|service| {
        let [clients, sessions] = [seen.of(service.letter), service.sessions.load(Ordering::SeqCst)];
        [clients, sessions, of(service, "")]
    });
    assert_eq!(table[0][2] + table[1][2], total as u64, "each line names its backend");
    assert!(table[1].iter().all(|count| *count == table[1][0]), "{table:?}");
    // Of a session that the kill ended, not all of the three may know.
    assert!(table[0].is_sorted() && table[0][2] - table[0][0] <= short, "{table:?}, {short} ended early");
    assert_eq!(of(other, "bytes_to_backend"), other.received.load(Ordering::SeqCst));
    let bytes = ["client_to_backend", "backend_to_client"]
        .map(|direction| sum("doorward_relay_bytes_total", &[("direction", direction)]));
    let logged = ["bytes_to_backend", "bytes_to_client"].map(|field| of(victim, field) + of(other, field));
    assert_eq!(bytes, logged.map(|bytes| bytes as f64));
    println!(
        "{}: {total} sessions, {KILLS} kills; {} on the one that was killed, {} on the other; {short} ended early by a kill; {} MB each \
         way; {:.1} s",
        strategy.word(),
        table[0][2],
        table[1][2],
        logged[0] / 1_000_000,
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn killed_backend_with_first_loses_its_own_sessions_only() {
    test(Strategy::First);
}

#[test]
fn killed_backend_with_round_robin_loses_its_own_sessions_only() {
    test(Strategy::RoundRobin);
}

#[test]
fn killed_backend_with_least_connections_loses_its_own_sessions_only() {
    test(Strategy::LeastConnections);
}
