//! What there is only so much of: handshakes in progress, descriptors, and the gate's time.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustls::StreamOwned;
use socket2::SockRef;
use tokio::time::Instant;

use crate::client::{Client, client, connect, connect_from};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::hello::Hello;
use crate::home::{House, verdicts};
use crate::scene::{NAS, Scene, read_to_end};

/// The defaults of `[limits]`.
const HANDSHAKES: usize = 512;
const CONNECTIONS_PER_SOURCE: usize = 256;

/// Far less than the silent connections of these tests may last, and enough for a slow machine.
const SOON: Duration = Duration::from_secs(10);

/// Many connections from one address that say nothing. Whichever of them the gate ends is replaced at once.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    fn begin(source: Ipv4Addr, count: usize, gate: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let connect = move || {
            let stream = connect_from(IpAddr::V4(source), gate);
            stream.set_nonblocking(true).unwrap();
            stream
        };
        let thread = thread::spawn(move || {
            let mut held: Vec<TcpStream> = std::iter::repeat_with(connect).take(count).collect();
            while !stopped.load(Ordering::Relaxed) {
                for stream in &mut held {
                    let still_open =
                        matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
                    if !still_open {
                        *stream = connect();
                    }
                }
                // A machine of few cores has the gate to run as well.
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the flood ran dry");
    }
}

/// Lets this process have as many sockets as these tests take.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Waits until all places for handshakes are taken.
fn wait_full(gate: &Gate) {
    wait_until("all places for handshakes are taken", || {
        (gate.metrics().sum("doorward_handshakes_in_progress", &[]) >= HANDSHAKES as f64).then_some(())
    });
}

/// A house whose silent callers may stay for longer than any of these tests takes, with the default limits but for
/// `limits`.
fn patient_house<'a>(pki: &'a TestPki, backend: &Backend, limits: &str) -> House<'a> {
    House::new(pki)
        .limits(&format!("connection_rate_per_source = \"off\"\n{limits}"))
        .timeouts("client_hello = \"5m\"\nhandshake = \"5m\"\n")
        .route("nas", backend.address())
}

/// How many connections had to give up their place, by the address that they came from.
fn evicted_from(gate: &Gate, source: Ipv4Addr) -> usize {
    let of_source = |line: &serde_json::Value| {
        let from = line["source"].as_str().and_then(|source| source.parse::<SocketAddr>().ok());
        from.is_some_and(|from| from.ip() == source)
    };
    verdicts(gate).iter().filter(|line| line["reason"] == "handshake_limit" && of_source(line)).count()
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const FLOODING: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];

/// Two sources with 256 silent connections each held all handshake slots, and no client got in for as long
/// as they liked.
#[test]
fn two_silent_sources_locked_everybody_out() {
    raise_descriptor_limit();
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = patient_house(&pki, &backend, "").open();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let floods = FLOODING.map(|source| Flood::begin(source, CONNECTIONS_PER_SOURCE, gate.address()));
    wait_full(&gate);
    for count in 0..50 {
        let begun = Instant::now();
        let admitted = Client::admitted(gate.address(), &alice, NAS);
        let took = begun.elapsed();
        let admitted = admitted.unwrap_or_else(|end| panic!("client {count} was turned away: {end:?}"));
        assert!(took < SOON, "client {count} waited for {took:?}");
        admitted.close_notify();
        admitted.end();
        // The flood stands as it stood.
        wait_full(&gate);
    }
    gate.wait_closed("nas", 50);
    assert_eq!(evicted_from(&gate, HERE), 0, "a client that goes on is never the one that has to go");
    // Each client took the place of at least one of them.
    wait_until("the log tells who had to go", || {
        (FLOODING.iter().map(|&source| evicted_from(&gate, source)).sum::<usize>() >= 50).then_some(())
    });
    let rejected = |reason| gate.metrics().sum("doorward_connections_rejected_total", &[("reason", reason)]);
    assert!(rejected("handshake_limit") >= 50.0);
    drop(floods);
    gate.settled();
}

/// The same from behind one address (a carrier's, a school's), which others share.
#[test]
fn silent_connections_locked_out_their_whole_address() {
    raise_descriptor_limit();
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    // As many from here as leave one connection to this address, and as many from elsewhere as there are places.
    let most = CONNECTIONS_PER_SOURCE - 1;
    for (limits, counts) in
        [("", [most, most, HANDSHAKES - 2 * most]), ("connections_per_source = \"off\"\n", [HANDSHAKES, 0, 0])]
    {
        let gate = patient_house(&pki, &backend, limits).open();
        let hold = |source: Ipv4Addr, count: usize| {
            let connect = || connect_from(IpAddr::V4(source), gate.address());
            std::iter::repeat_with(connect).take(count).collect::<Vec<_>>()
        };
        let mut held: Vec<Vec<TcpStream>> = [HERE, FLOODING[0], FLOODING[1]]
            .into_iter()
            .zip(counts)
            .map(|(source, count)| hold(source, count))
            .collect();
        for count in 1..=10 {
            wait_full(&gate);
            let begun = Instant::now();
            let admitted = Client::admitted(gate.address(), &alice, NAS)
                .unwrap_or_else(|end| panic!("client {count} was turned away with {counts:?} silent ones: {end:?}"));
            assert!(begun.elapsed() < SOON, "client {count} waited for {:?}", begun.elapsed());
            admitted.close_notify();
            admitted.end();
            gate.wait_closed("nas", count);
            // One had to go, and comes again.
            gate.wait_rejected("admission", "handshake_limit", count);
            held.push(hold(FLOODING[1], 1));
        }
        drop(held);
        gate.settled();
    }
}

/// Time on a processor that a process has used (proc(5), `/proc/PID/stat`; Linux counts in hundredths of a second).
fn processor_time(gate: &Gate) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gate.pid())).unwrap();
    // The command's name, the second field, may have spaces in it; behind it utime and stime are the 12th and 13th.
    let (_, behind) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = behind.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Lets the gate spend time, and finds that it was idle for nearly all of it.
#[track_caller]
fn assert_idle(gate: &Gate, attack: impl FnOnce()) -> Duration {
    let (used, begun) = (processor_time(gate), Instant::now());
    attack();
    let (used, took) = (processor_time(gate) - used, begun.elapsed());
    assert!(used < took / 20, "{used:?} of work in {took:?}");
    took
}

/// How long a client may take for its hello in the next tests, and what measuring that may add.
const PATIENCE: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_secs(3);

/// Sends `bytes` with one more in the middle that is urgent.
fn send_with_urgent_byte(mut stream: &TcpStream, bytes: &[u8], place: usize) {
    let (before, behind) = bytes.split_at(place);
    stream.write_all(before).unwrap();
    SockRef::from(stream).send_out_of_band(b"!").unwrap();
    stream.write_all(behind).unwrap();
}

/// One urgent byte (`MSG_OOB`, tcp(7)) inside a ClientHello, and a thread of the gate looked at the bytes before it again
/// and again until the deadline: as many connections as there are processors, and the gate stood still.
#[test]
fn urgent_byte_inside_a_hello_made_the_gate_spin() {
    let scene = Scene::with(&format!("[timeouts]\nclient_hello = \"{}s\"\n", PATIENCE.as_secs()));
    let hello = Hello::tls13(NAS).records();
    for place in [1, 3, 5, 100] {
        scene.expect_rejection("client_hello", "timeout", |stream| {
            let took = assert_idle(&scene.gate, || {
                let begun = Instant::now();
                send_with_urgent_byte(stream, &hello, place);
                let heard = read_to_end(stream, begun);
                assert!(heard.bytes.is_empty(), "{heard:02x?}");
            });
            assert!(took < PATIENCE + LATE, "ended after {took:?}");
            assert!(took + Duration::from_millis(100) > PATIENCE, "ended after {took:?}, before its time");
        });
    }
    scene.end();
}

/// The same with a PROXY protocol header, from an address that has to send one.
#[test]
fn urgent_byte_inside_a_proxy_header_made_the_gate_spin() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .listener("proxy_protocol_from = [\"127.0.0.0/8\"]")
        .timeouts(&format!("client_hello = \"{}s\"\n", PATIENCE.as_secs()))
        .route("nas", backend.address())
        .open();
    let v1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n";
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0, 12], &[192, 0, 2, 1, 192, 0, 2, 2, 9, 9, 1, 187]].concat();
    let behind = Hello::tls13(NAS).records();
    for (count, (header, place)) in [(v1, 3), (v1, 17), (&v2[..], 5), (&v2[..], 20)].into_iter().enumerate() {
        let took = assert_idle(&gate, || {
            let stream = connect(gate.address());
            let begun = Instant::now();
            send_with_urgent_byte(&stream, &[header, &behind].concat(), place);
            let heard = read_to_end(&stream, begun);
            assert!(heard.bytes.is_empty(), "{heard:02x?}");
        });
        assert!(took < PATIENCE + LATE, "ended after {took:?}");
        assert!(took + Duration::from_millis(100) > PATIENCE, "ended after {took:?}, before its time");
        gate.wait_rejected("admission", "proxy_header_missing", count + 1);
    }
    assert_eq!(backend.accepted(), 0);
}

/// The descriptors that the gate has open.
fn descriptors(gate: &Gate) -> HashSet<u64> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str().and_then(|name| name.parse().ok())).collect()
}

/// Lets the gate open `more` descriptors, and no others. They are all in use when each number up to the returned one is.
fn leave_descriptors(gate: &Gate, more: usize) -> u64 {
    let open = descriptors(gate);
    // The limit is on the number of a descriptor, and each new one is the lowest that is free (getrlimit(2)).
    let limit = (0..).filter(|number| !open.contains(number)).nth(more).unwrap();
    limit_descriptors(gate, Some(limit));
    limit
}

/// Sets the soft limit, or takes it back.
fn limit_descriptors(gate: &Gate, limit: Option<u64>) {
    // The gate has this process' hard limit, and took all of it for its soft one.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let pid = Pid::from_raw(i32::try_from(gate.pid()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: limit.or(maximum), maximum }).unwrap();
}

/// Out of descriptors, the gate must live on, wait instead of trying again and again, and take connections as soon as it
/// can.
#[test]
fn gate_out_of_descriptors_waits_and_recovers() {
    raise_descriptor_limit();
    let mut scene = Scene::new();
    let limit = leave_descriptors(&scene.gate, 3);
    let held: Vec<TcpStream> = std::iter::repeat_with(|| scene.connect()).take(50).collect();
    wait_until("the gate has as many as it may", || {
        let open = descriptors(&scene.gate);
        (0..limit).all(|number| open.contains(&number)).then_some(())
    });
    // Nothing to wait for: what is asked is that nothing happens.
    assert_idle(&scene.gate, || thread::sleep(Duration::from_secs(2)));
    // It is told, with the remedy, and not again and again.
    let told = scene.gate.wait_for_lines("it is told", 1, |line| line["event"] == "accept_failed");
    assert_eq!(told.len(), 1, "{told:?}");
    let error = told[0]["error"].as_str().unwrap();
    assert!(error.starts_with("Too many open files") && error.contains("LimitNOFILE="), "{error}");
    drop(held);
    // New clients are served, with the descriptors of closed connections.
    let begun = Instant::now();
    scene.assert_alice_served();
    assert!(begun.elapsed() < SOON, "after {:?}", begun.elapsed());
    limit_descriptors(&scene.gate, None);
    scene.gate.wait_rejected("client_hello", "closed_early", 50);
    let failed = |kind| scene.gate.metrics().sum("doorward_accept_errors_total", &[("kind", kind)]);
    let resources = failed("resources");
    // From 5 ms, doubled up to 1 s: some ten in the seconds of this test, on the listener and beside it.
    assert!((1.0..100.0).contains(&resources), "{resources} failures");
    assert_eq!(failed("connection"), 0.0);
    scene.end();
}

/// A dial that failed because the gate had no descriptor left was reported as `backend/unreachable`, and the backend as
/// down, until the next connection to it.
#[test]
fn dial_without_a_descriptor_was_the_backends_fault() {
    raise_descriptor_limit();
    let scene = Scene::new();
    let up = || scene.gate.metrics().sum("doorward_backend_up", &[("route", "nas")]);
    assert_eq!(up(), 1.0);
    let line = scene.expect_rejection("internal", "internal", |stream| {
        wait_until("the gate has the connection", || {
            (scene.gate.metrics().sum("doorward_handshakes_in_progress", &[]) == 1.0).then_some(())
        });
        // What the question above took is given back; the connection itself stays.
        let mut before = HashSet::new();
        wait_until("the gate has closed the others", || {
            thread::sleep(Duration::from_millis(20));
            let now = descriptors(&scene.gate);
            let settled = now == before;
            before = now;
            settled.then_some(())
        });
        leave_descriptors(&scene.gate, 0);
        let mut alice = StreamOwned::new(scene.alice(), stream.try_clone().unwrap());
        let _ = alice.write_all(b"Who is there?");
        let told = alice.read(&mut [0]).unwrap_err();
        assert!(told.to_string().contains("InternalError"), "{told}");
        limit_descriptors(&scene.gate, None);
    });
    assert_eq!([&line["side"], &line["route"], &line["certificate"]["name"]], ["gate", "nas", "alice"]);
    assert_eq!(up(), 1.0, "nothing new is known about the backend");
    let blamed = [("stage", "backend")];
    assert_eq!(scene.gate.metrics().sum("doorward_connections_rejected_total", &blamed), 0.0);
    scene.end();
}

/// Strangers behind the owner's address (a carrier's, a school's) connected as often as that address may, and the owner, who
/// had just shown a valid certificate there, was turned away with them for as long as they liked.
#[test]
fn strangers_used_up_the_connection_rate_of_an_address() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let limits = "penalties = \"on\"\nconnection_rate_per_source = \"20/min\"";
    let gate = House::new(&pki).limits(limits).route("nas", backend.address()).open();
    // Before a client has shown a certificate there, the limit is one for all.
    for _ in 0..30 {
        drop(connect(gate.address()));
    }
    gate.wait_rejected("admission", "source_rate", 10);
    drop(gate);

    let gate = House::new(&pki).limits(limits).route("nas", backend.address()).open();
    let owner = Client::admitted(gate.address(), &alice, NAS).unwrap();
    for count in 1..=10 {
        for _ in 0..20 {
            drop(connect(gate.address()));
        }
        let admitted = Client::admitted(gate.address(), &alice, NAS);
        let admitted = admitted.unwrap_or_else(|end| panic!("client {count} was turned away: {end:?}"));
        admitted.close_notify();
        admitted.end();
    }
    owner.ping().unwrap();
    assert_eq!(gate.metrics().sum("doorward_connections_rejected_total", &[("reason", "source_rate")]), 0.0);
}

/// A passthrough route admits any client, and admitted connections are not evicted: through it strangers held all
/// connections of the owner's address, if they shared it, and from forty addresses all connections of the gate. No other
/// client got in for as long as they liked, certificate or not.
#[test]
fn strangers_held_all_connections_on_passthrough() {
    raise_descriptor_limit();
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let elsewhere: Vec<Ipv4Addr> = (2..82).map(|host| Ipv4Addr::new(127, 0, 0, host)).collect();
    for (limit, sources) in [("connections_per_source = 20", vec![HERE; 40]), ("connections = 40", elsewhere)] {
        let gate = patient_house(&pki, &backend, limit).passthrough("mail", backend.address()).open();
        let owner = Client::admitted(gate.address(), &alice, NAS).unwrap();
        let hello = Hello::tls13("mail.home.example").records();
        let held: Vec<TcpStream> = sources
            .iter()
            .map(|source| {
                let mut stream = connect_from(IpAddr::V4(*source), gate.address());
                stream.write_all(&hello).unwrap();
                stream
            })
            .collect();
        let inside = || gate.metrics().sum("doorward_connections_active", &[("route", "mail")]);
        let rejected = || gate.metrics().sum("doorward_connections_rejected_total", &[]);
        wait_until("all of them are in or turned away", || {
            (inside() + rejected() == held.len() as f64 && inside() > 0.0).then_some(())
        });
        for count in 1..=5 {
            let admitted = Client::admitted(gate.address(), &alice, NAS);
            let admitted = admitted.unwrap_or_else(|end| panic!("{limit}: client {count} was turned away: {end:?}"));
            admitted.close_notify();
            admitted.end();
        }
        owner.ping().unwrap();
        // Half of them are for any client. They are freed.
        assert_eq!(inside(), sources.len() as f64 / 4.0, "{limit}");
        drop(held);
        wait_until("their places are free", || (inside() == 0.0).then_some(()));
        let mut again = connect_from(IpAddr::V4(sources[0]), gate.address());
        again.write_all(&hello).unwrap();
        again.read_exact(&mut vec![0; hello.len()]).unwrap();
        drop((owner, again));
        gate.settled();
    }
}

/// The same with an unverified identity, where a route accepts such ones.
#[test]
fn strangers_held_all_connections_of_an_unverified_route() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let keys = "allow = [\"any\", \"unverified\"]\n[route.client_auth]\nmode = \"verify_if_given\"";
    let house = House::new(&pki).limits("connections_per_source = 20\nconnection_rate_per_source = \"off\"");
    let gate = house.route_with("nas", &[&backend.address().to_string()], keys).open();
    let (alice, stranger) = (client(&pki, Some(&pki.client("alice-phone"))), client(&pki, None));
    let held: Vec<_> = (0..10).map(|_| Client::admitted(gate.address(), &stranger, NAS).unwrap()).collect();
    assert!(Client::admitted(gate.address(), &stranger, NAS).is_err());
    gate.wait_rejected("admission", "source_limit", 1);
    Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
    drop(held);
    gate.settled();
}
