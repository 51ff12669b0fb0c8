//! A name server that does not answer, and strangers who make the gate ask it: they filled the threads that reloads need.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use doorward::model::close::CloseReason;
use rcgen::SerialNumber;
use tokio::time::Instant;

use crate::client::{Client, End, client, connect_from};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{after_script, mounting, wait_until};
use crate::hello::Hello;
use crate::home::House;
use crate::scene::NAS;

/// A name server on an address of this machine, which the gates of this test alone use.
struct NameServer {
    socket: UdpSocket,
}

impl NameServer {
    fn bind() -> Self {
        let candidate = || {
            let mut bytes = [0; 3];
            rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).unwrap();
            UdpSocket::bind((Ipv4Addr::new(127, bytes[0], bytes[1], bytes[2].clamp(1, 254)), 53)).ok()
        };
        Self { socket: std::iter::repeat_with(candidate).take(20).flatten().next().expect("port 53") }
    }

    /// What mounts a configuration of the resolver that has this server only.
    fn script(&self, folder: &Path) -> String {
        let file = folder.join("resolv.conf");
        // One look-up of one name takes ten seconds if nothing comes back, as by default.
        std::fs::write(&file, format!("nameserver {}\n", self.socket.local_addr().unwrap().ip())).unwrap();
        format!("mount --bind '{}' /etc/resolv.conf", file.display())
    }

    /// How many questions have come so far.
    fn questions(&self) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| self.socket.recv(&mut [0; 512]).ok()).count()
    }
}

/// Threads of a gate.
fn threads(gate: &Gate) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", gate.pid())).unwrap().count()
}

/// Strangers who connect to a passthrough route again and again, some fifty a second, until they are told to stop.
fn strangers(gate: &Gate, stop: &AtomicBool) {
    let hello = Hello::tls13("mail.home.example").records();
    let mut held: Vec<TcpStream> = Vec::new();
    for number in (0..100_u8).cycle() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let mut stream = connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 4, number + 1)), gate.address());
        let _ = stream.write_all(&hello);
        held.push(stream);
        if held.len() > 1000 {
            held.remove(0);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn row_35_mute_name_server_delays_no_revocation() {
    let pki = TestPki::new();
    let (backend, server) = (Backend::echo(), NameServer::bind());
    let list = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let lists = format!("revocation_lists = [{:?}]", list(&[]));
    let house = House::new(&pki)
        .client_auth(&lists)
        .limits("connection_rate_per_source = \"off\"\nconnections_per_source = \"off\"")
        .timeouts("dial = \"2s\"")
        .route("nas", backend.address())
        .passthrough("mail", "mailbox.lan:993");
    let config = format!("watch = \"off\"\n{}\n[control]\nsocket = \"control.sock\"\n", house.config());
    let script = server.script(&pki.path(""));
    let gate = Gate::start_with(&config, |command| *command = after_script(mounting(), &script, command));
    let device = |name: &str, serial: u64| {
        let mut params = Certified::for_clients(name);
        params.serial_number = Some(SerialNumber::from(serial));
        client(&pki, Some(&pki.clients.issue(params)))
    };
    let (alice, bob) = (device("alice-phone", 77), device("bob-laptop", 78));
    let session = Client::admitted(gate.address(), &alice, NAS).unwrap();
    let before = threads(&gate);
    let stop = Arc::<AtomicBool>::default();
    let unresolved = || gate.metrics().sum("doorward_connections_rejected_total", &[("reason", "unresolved")]);
    thread::scope(|scope| {
        scope.spawn(|| strangers(&gate, &stop));
        wait_until("strangers wait for the name server, and some have given up", || {
            (unresolved() >= 100.0).then_some(())
        });
        let now = threads(&gate);
        assert!(now <= before + 4, "{before} threads before, {now} threads now");
        // Other routes.
        let second = Client::admitted(gate.address(), &bob, NAS).unwrap();
        second.ping().unwrap();
        list(&[SerialNumber::from(77)]);
        gate.ask(&["reload"]).success();
        assert_eq!(session.end(), End::of(CloseReason::Revoked));
        second.ping().unwrap();
        stop.store(true, Ordering::SeqCst);
    });
    // A question for each kind of address, some of them twice: one look-up at a time, however many wait.
    let questions = server.questions();
    assert!((1..100).contains(&questions), "{questions} questions");
    gate.settled();
    let late =
        gate.metrics().sum("doorward_connections_rejected_total", &[("reason", "timeout"), ("stage", "backend")]);
    assert_eq!(late, 0.0, "a name server that is late is no backend that is late");
    // The gate is stopped while a look-up hangs: it must end all the same, which dropping it checks.
}

#[test]
fn row_35_name_from_the_hosts_file_needs_no_name_server() {
    let pki = TestPki::new();
    let (backend, server) = (Backend::echo(), NameServer::bind());
    let hosts = pki.write("hosts", "127.0.0.1 mailbox.lan\n");
    let house = House::new(&pki).route("nas", format!("mailbox.lan:{}", backend.address().port()));
    let script = format!("{}\nmount --bind '{}' /etc/hosts", server.script(&pki.path("")), hosts.display());
    let gate = Gate::start_with(&house.config(), |command| *command = after_script(mounting(), &script, command));
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
    assert_eq!(server.questions(), 0);
}

/// The middle one, and the one that 1 % are slower than.
fn figures(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[(times.len() * 99).div_ceil(100) - 1])
}

/// How often something is measured; `DOORWARD_MUTE_ROUNDS=50` for figures.
fn rounds() -> u64 {
    std::env::var("DOORWARD_MUTE_ROUNDS").map_or(2, |text| text.parse().unwrap())
}

/// The same with limits as they are by default, and quiet in turn with loaded.
#[test]
fn row_35_default_limits_and_a_mute_name_server_delay_no_one_else() {
    const HANDSHAKES: usize = 10;
    let pki = TestPki::new();
    let (backend, server) = (Backend::echo(), NameServer::bind());
    let list = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let lists = format!("revocation_lists = [{:?}]", list(&[]));
    let house = House::new(&pki)
        .client_auth(&lists)
        .limits("")
        .route("nas", backend.address())
        .passthrough("mail", "mailbox.lan:993");
    let config = house.config().replace("penalties = \"off\"\n", "");
    assert!(config.contains("[limits]\n\n"), "{config}");
    let config = format!("watch = \"off\"\n{config}\n[control]\nsocket = \"control.sock\"\n");
    let script = server.script(&pki.path(""));
    let gate = Gate::start_with(&config, |command| *command = after_script(mounting(), &script, command));
    let device = |name: &str, serial: u64| {
        let mut params = Certified::for_clients(name);
        params.serial_number = Some(SerialNumber::from(serial));
        client(&pki, Some(&pki.clients.issue(params)))
    };
    let bob = device("bob-laptop", 999);
    let handshakes = || {
        let once = |_| {
            let begun = Instant::now();
            let session = Client::handshaken(gate.address(), &bob, NAS).unwrap();
            let took = begun.elapsed();
            session.ping().unwrap();
            took
        };
        (0..HANDSHAKES).map(once).collect::<Vec<_>>()
    };
    let waiting = || gate.metrics().sum("doorward_connections_active", &[("route", "mail")]);
    let (mut quiet, mut loaded, mut revocations, mut revoked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for serial in 1..=rounds() {
        let session = Client::admitted(gate.address(), &device("alice-phone", serial), NAS).unwrap();
        quiet.extend(handshakes());
        let stop = Arc::<AtomicBool>::default();
        thread::scope(|scope| {
            scope.spawn(|| strangers(&gate, &stop));
            wait_until("strangers wait for the name server", || (waiting() >= 100.0).then_some(()));
            loaded.extend(handshakes());
            revoked.push(SerialNumber::from(serial));
            list(&revoked);
            let begun = Instant::now();
            gate.ask(&["reload"]).success();
            assert_eq!(session.end(), End::of(CloseReason::Revoked));
            revocations.push(begun.elapsed());
            stop.store(true, Ordering::SeqCst);
        });
        wait_until("they have given up", || (waiting() == 0.0).then_some(()));
    }
    let slowest = *revocations.iter().max().unwrap();
    // Long enough for any machine, and shorter than one look-up.
    assert!(slowest < Duration::from_secs(8), "{slowest:?}");
    let (quiet, loaded) = (figures(quiet), figures(loaded));
    println!(
        "handshakes: {quiet:?} quiet, {loaded:?} loaded; revocations: {:?}, {slowest:?} at most",
        figures(revocations)
    );
    let metrics = gate.settled();
    let rejected = |reason| {
        metrics
            .sum("doorward_connections_rejected_total", &[("route", "mail"), ("stage", "backend"), ("reason", reason)])
    };
    assert!(rejected("unresolved") >= 100.0 && rejected("timeout") == 0.0);
    assert_eq!(metrics.sum("doorward_connections_rejected_total", &[("route", "nas")]), 0.0);
}
