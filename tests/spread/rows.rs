//! Rows 21 and 22 of attacks.md, with several backends and each strategy: a bad backend before a good one, and payload byte for byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use doorward::model::close::CloseReason;
use doorward::model::rejection::{Alert, Reason};
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::Strategy;
use crate::client::{Client, End, client, reset};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{own_loopback, wait_until};
use crate::home::{House, Watch};

const MIB: usize = 1024 * 1024;

/// A service for any number of connections, each of which is closed when `serve` returns.
fn serving(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn descriptors(gate: &Gate) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count()
}

fn name(route: &str) -> String {
    format!("{route}.home.example")
}

/// A gate whose routes have a bad backend, which is dialled first with each strategy, and a good one behind it.
struct Scene {
    pki: TestPki,
    good: Backend,
    strategy: Strategy,
}

impl Scene {
    fn new(strategy: Strategy) -> Self {
        Self { pki: TestPki::new(), good: Backend::echo(), strategy }
    }

    fn alice(&self) -> Arc<ClientConfig> {
        client(&self.pki, Some(&self.pki.client("alice-phone")))
    }

    fn gate(&self, timeouts: &str, routes: &[(&str, &str)]) -> Gate {
        let good = self.good.address().to_string();
        let mut house = House::new(&self.pki).timeouts(timeouts);
        for (route, bad) in routes {
            house = house.route_with(route, &[bad, &good], &self.strategy.keys());
        }
        house.open()
    }
}

#[test]
fn row_21_dead_backend_leaves_its_clients_to_the_good_one() {
    for strategy in Strategy::ALL {
        let (scene, full) = (Scene::new(strategy), FullBacklog::new());
        let (refuses, silent) = (format!("{}:9", own_loopback()), full.address.to_string());
        let good = scene.good.address().to_string();
        let nowhere = "unix:/nowhere/service.sock";
        let gate = House::new(&scene.pki)
            .timeouts("dial = \"2s\"")
            .route_with("refuses", &[&refuses, &good], &strategy.keys())
            .route_with("silent", &[&silent, &good], &strategy.keys())
            .route_with("nowhere", &[nowhere, &good], &strategy.keys())
            .route_with("gone", &[&refuses, nowhere], &strategy.keys())
            .open();
        let (alice, before) = (scene.alice(), descriptors(&gate));
        for (route, dead) in [("refuses", refuses.as_str()), ("silent", &silent), ("nowhere", nowhere)] {
            let begun = Instant::now();
            for _ in 0..3 {
                Client::admitted(gate.address(), &alice, &name(route)).unwrap().ping().unwrap();
            }
            // The first one finds out, within the share of a backend.
            assert!(begun.elapsed() < Duration::from_secs(6), "{strategy:?}, {route}: {:?}", begun.elapsed());
            let lines = gate.wait_closed(route, 3);
            assert!(lines.iter().all(|line| line["backend"] == good.as_str()), "{strategy:?}: {lines:?}");
            gate.wait_metric("doorward_backend_up", &[("route", route), ("backend", dead)], 0.0);
        }
        assert_eq!(scene.good.accepted(), 9, "{strategy:?}");

        let (watch, begun) = (Watch::begin(&gate), Instant::now());
        let end = Client::admitted(gate.address(), &alice, &name("gone")).map(|_| ()).unwrap_err();
        assert_eq!(end, End::Alert(Alert::INTERNAL_ERROR), "{strategy:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{strategy:?}: {:?}", begun.elapsed());
        let line = watch.rejected_at("backend");
        let told = [Reason::BackendRefused, Reason::BackendUnreachable].map(Reason::label);
        assert!(told.iter().any(|reason| line["reason"] == *reason), "{strategy:?}: {line}");
        gate.settled();
        // A dial in the background has one for a moment.
        wait_until("the descriptors are back", || (descriptors(&gate) <= before + 2).then_some(()));
    }
}

#[test]
fn row_21_reset_is_passed_on_and_no_other_backend_is_dialled() {
    for strategy in Strategy::ALL {
        for before in [0, 5_000] {
            let (arrived, all_there) = mpsc::channel::<()>();
            let all_there = std::sync::Mutex::new(all_there);
            let resets = serving(move |mut stream| {
                let _ = stream.read(&mut [0; 64]);
                if stream.write_all(&vec![7; before]).is_ok() {
                    let _ = all_there.lock().unwrap().recv();
                }
                reset(stream);
            });
            let scene = Scene::new(strategy);
            let gate = scene.gate("", &[("nas", &resets.to_string())]);
            let watch = Watch::begin(&gate);
            let client = Client::handshaken(gate.address(), &scene.alice(), &name("nas")).unwrap();
            client.send(b"please").unwrap();
            client.read_exact(&mut vec![0; before]).unwrap();
            arrived.send(()).unwrap();
            let end = client.end();
            assert!(matches!(end, End::Truncated | End::Reset), "{strategy:?}: {end:?}");
            drop(client);
            let line = watch.closed(CloseReason::BackendReset);
            assert_eq!((&line["bytes_to_client"], &line["backend"]), (&before.into(), &resets.to_string().into()));
            assert_eq!(scene.good.accepted(), 0, "{strategy:?}: what was sent may not be sent twice");
            gate.settled();
        }
    }
}

#[test]
fn row_21_slow_and_mute_backends_hold_up_their_own_clients_only() {
    for strategy in Strategy::ALL {
        let slow = serving(|mut stream| {
            let mut byte = [0];
            stream.set_nodelay(true).unwrap();
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
        let (scene, mute) = (Scene::new(strategy), Backend::mute());
        let gate = scene.gate("idle = \"3s\"", &[("slow", &slow.to_string()), ("mute", &mute.address().to_string())]);
        let alice = scene.alice();
        let silent = Client::handshaken(gate.address(), &alice, &name("mute")).unwrap();
        silent.send(b"is it there?").unwrap();
        let client = Client::handshaken(gate.address(), &alice, &name("slow")).unwrap();
        for byte in 0..50 {
            // Nothing more is sent before this one is back.
            client.send(&[byte]).unwrap();
            let mut one = [0];
            client.read_exact(&mut one).unwrap();
            assert_eq!(one, [byte], "{strategy:?}");
        }
        drop(client);
        assert_eq!(silent.end(), End::of(CloseReason::IdleTimeout), "{strategy:?}");
        drop(silent);
        gate.wait_closed("mute", 1);
        gate.wait_metric("doorward_connections_closed_total", &[("route", "mute"), ("reason", "idle_timeout")], 1.0);
        gate.settled();
    }
}

#[test]
fn row_21_half_closes_are_kept_in_both_directions() {
    for strategy in Strategy::ALL {
        let (told, tell) = mpsc::channel();
        let told = std::sync::Mutex::new(told);
        // One says all it has to say at once, and goes on listening; the other one answers when all was said.
        let first = serving(move |mut stream| {
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() && !all.is_empty() {
                told.lock().unwrap().send(all).unwrap();
            }
        });
        let last = serving(|mut stream| {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(&all);
            }
        });
        let scene = Scene::new(strategy);
        let gate = scene.gate("", &[("first", &first.to_string()), ("last", &last.to_string())]);
        let alice = scene.alice();
        let client = Client::handshaken(gate.address(), &alice, &name("first")).unwrap();
        assert_eq!(client.read_to_end(), (b"hello".to_vec(), End::Orderly), "{strategy:?}");
        for _ in 0..100 {
            client.send(&[7; 1000]).unwrap();
        }
        client.close_notify();
        assert_eq!(tell.recv().unwrap(), vec![7; 100_000], "{strategy:?}");
        drop(client);

        let client = Client::handshaken(gate.address(), &alice, &name("last")).unwrap();
        client.send(&[9; 100_000]).unwrap();
        client.shut_tcp();
        assert_eq!(client.read_to_end(), (vec![9; 100_000], End::Orderly), "{strategy:?}");
        drop(client);
        gate.settled();
    }
}

/// Bytes that look like no others (xorshift64).
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = vec![0; 64 * MIB];
    for chunk in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_be_bytes());
    }
    bytes
});

/// So many of them, other ones for each client.
fn noise(client: usize, length: usize) -> &'static [u8] {
    &NOISE[client * 4 * MIB..][..length]
}

#[test]
fn row_22_twenty_mib_come_back_from_each_backend() {
    for strategy in Strategy::ALL {
        let (scene, other) = (Scene::new(strategy), Backend::echo());
        let gate = scene.gate("", &[("nas", &other.address().to_string())]);
        let alice = scene.alice();
        let clients = [1, 2].map(|seed| {
            let client = Client::admitted(gate.address(), &alice, &name("nas")).unwrap();
            (client, noise(seed, 20 * MIB))
        });
        // At the same time: nothing of one may get into the other.
        thread::scope(|scope| {
            for (client, sent) in &clients {
                scope.spawn(|| {
                    client.send(sent).unwrap();
                    client.close_notify();
                });
                scope.spawn(|| {
                    let (received, end) = client.read_to_end();
                    assert!(received == **sent, "{strategy:?}: {} bytes", received.len());
                    assert_eq!(end, End::Orderly, "{strategy:?}");
                });
            }
        });
        drop(clients);
        let expected = if strategy == Strategy::First { (0, 2) } else { (1, 1) };
        assert_eq!((scene.good.accepted(), other.accepted()), expected, "{strategy:?}");
        gate.settled();
    }
}

#[test]
fn row_22_duplex_ends_in_mid_flight_without_close_notify() {
    for strategy in Strategy::ALL {
        let (up, down) = (noise(1, 10 * MIB), noise(2, 54 * MIB));
        let (keep, got) = mpsc::channel();
        let keep = std::sync::Mutex::new(keep);
        let duplex = serving(move |stream| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = (&stream).write_all(down);
                    let _ = stream.shutdown(Shutdown::Write);
                });
                let mut all = Vec::new();
                if (&stream).read_to_end(&mut all).is_ok() && !all.is_empty() {
                    keep.lock().unwrap().send(all).unwrap();
                }
            });
        });
        let scene = Scene::new(strategy);
        let gate = scene.gate("", &[("nas", &duplex.to_string())]);
        let watch = Watch::begin(&gate);
        let client = Client::handshaken(gate.address(), &scene.alice(), &name("nas")).unwrap();
        let (received, end) = thread::scope(|scope| {
            scope.spawn(|| {
                client.send(up).unwrap();
                client.shut_tcp();
            });
            client.read_to_end()
        });
        assert!(received == down, "{strategy:?}: {} bytes", received.len());
        assert_eq!(end, End::Orderly, "{strategy:?}");
        assert!(got.recv().unwrap() == up, "{strategy:?}");
        drop(client);
        let line = watch.closed_as(&[CloseReason::ClientClosed, CloseReason::BackendClosed]);
        assert_eq!(line["bytes_to_backend"], up.len(), "{strategy:?}: {line}");
        assert_eq!(line["bytes_to_client"], down.len(), "{strategy:?}: {line}");
    }
}
