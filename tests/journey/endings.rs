//! How long connections last, and how the gate itself ends: attacks.md row 32.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use doorward::model::close::CloseReason;
use doorward::model::rejection::Reason;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::client::{Client, End, VERSIONS, client, connect, plain_end};
use crate::common::DEADLINE;
use crate::common::backend::{Backend, kept_address};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::{House, Watch, verdicts};

const NAME: &str = "nas.home.example";

#[test]
fn idle_connection_ends_and_a_slow_one_does_not() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).timeouts("idle = \"3s\"").route("nas", echo.address()).open();
    for version in VERSIONS {
        let config = std::sync::Arc::new(pki.client_config(Some(&pki.client("alice-phone")), &[version]));
        let watch = Watch::begin(&gate);
        let client = Client::admitted(gate.address(), &config, NAME).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(4500) {
            thread::sleep(Duration::from_millis(200));
            client.ping().unwrap();
        }
        let last = Instant::now();
        assert_eq!(client.end(), End::of(CloseReason::IdleTimeout));
        let took = last.elapsed();
        assert!((Duration::from_millis(2950)..DEADLINE).contains(&took), "{took:?}");
        watch.closed(CloseReason::IdleTimeout);
    }
}

/// One direction is enough: a download is no idle connection.
#[test]
fn bytes_one_way_keep_a_connection_alive() {
    let pki = TestPki::new();
    let clock = Backend::serve("127.0.0.1:0", |mut stream, _| {
        for _ in 0..12 {
            if std::io::Write::write_all(&mut stream, b".").is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(400));
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    let gate = House::new(&pki).timeouts("idle = \"3s\"").route("nas", clock.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let watch = Watch::begin(&gate);
    let client = Client::handshaken(gate.address(), &config, NAME).unwrap();
    assert_eq!(client.read_to_end(), (vec![b'.'; 12], End::Orderly));
    drop(client);
    watch.closed(CloseReason::BackendClosed);
}

#[test]
fn lifetime_ends_whatever_happens() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki)
        .timeouts("lifetime = \"4s\"")
        .route("nas", echo.address())
        .passthrough("mail", echo.address())
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let watch = Watch::begin(&gate);
    let begun = Instant::now();
    let client = Client::admitted(gate.address(), &config, NAME).unwrap();
    let end = loop {
        if let Err(end) = client.ping() {
            break end;
        }
    };
    // A byte that the client sends later is answered by a reset.
    assert!(matches!(end, End::Truncated | End::Reset), "{end:?}");
    let took = begun.elapsed();
    assert!((Duration::from_millis(3900)..DEADLINE).contains(&took), "{took:?}");
    drop(client);
    watch.closed(CloseReason::LifetimeLimit);

    let watch = Watch::begin(&gate);
    let stream = connect(gate.address());
    let mut stream_ref = &stream;
    std::io::Write::write_all(&mut stream_ref, &mail_hello()).unwrap();
    // The backend sends the hello back; then there is nothing to read but the end, which is none in order.
    let end = std::io::Read::read_to_end(&mut stream_ref, &mut Vec::new()).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    watch.closed(CloseReason::LifetimeLimit);
}

fn mail_hello() -> Vec<u8> {
    crate::client::Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" }.record()
}

/// The backend stays, the client has gone without a word: half closed for as long as `half_close` and no longer; bytes
/// that still come prolong it.
#[test]
fn half_closed_connection_ends_sooner_than_an_idle_one() {
    let pki = TestPki::new();
    let backend = Backend::serve("127.0.0.1:0", |mut stream, state| {
        state.each_read(stream, |bytes| std::io::Write::write_all(&mut stream, bytes).is_ok());
        for _ in 0..4 {
            thread::sleep(Duration::from_secs(1));
            let _ = std::io::Write::write_all(&mut stream, b".");
        }
    });
    let gate = House::new(&pki).timeouts("half_close = \"3s\"\nidle = \"1h\"").route("nas", backend.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for by_alert in [true, false] {
        let watch = Watch::begin(&gate);
        let client = Client::admitted(gate.address(), &config, NAME).unwrap();
        if by_alert {
            client.close_notify();
        } else {
            client.shut_tcp();
        }
        let begun = Instant::now();
        assert_eq!(client.read_to_end(), (b"....".to_vec(), End::of(CloseReason::HalfCloseTimeout)));
        let took = begun.elapsed();
        assert!((Duration::from_millis(6900)..DEADLINE).contains(&took), "{took:?}");
        watch.closed(CloseReason::HalfCloseTimeout);
    }
}

/// A gate that drains, with a relay, a handshake and a silent connection on it.
struct Draining {
    gate: Gate,
    relay: Client,
    handshake: Client,
    silent: TcpStream,
}

impl Draining {
    fn begin(pki: &TestPki, backend: &Backend, timeouts: &str) -> Self {
        let gate = House::new(pki).timeouts(timeouts).route("nas", backend.address()).open();
        let config = client(pki, Some(&pki.client("alice-phone")));
        let relay = Client::admitted(gate.address(), &config, NAME).unwrap();
        let handshake = Client::on(connect(gate.address()), &config, NAME);
        handshake.flush().unwrap();
        handshake.receive_some().unwrap();
        let silent = connect(gate.address());
        gate.wait_metric("doorward_connections_accepted_total", &[], 3.0);
        gate.signal(Signal::TERM);
        gate.wait_for_line("the drain", |line| line["event"] == "draining");
        Self { gate, relay, handshake, silent }
    }
}

#[test]
fn sigterm_lets_relays_end_and_nobody_else_in() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let Draining { mut gate, relay, handshake, silent } = Draining::begin(&pki, &backend, "drain = \"1h\"");

    let refused = gate.wait_rejected("admission", "draining", 2);
    assert!(refused.iter().all(|line| line["side"] == "gate" && line["alert"].is_null()), "{refused:?}");
    assert!(matches!(plain_end(&silent), End::Truncated | End::Reset));
    assert!(handshake.handshake().and_then(|()| handshake.ping()).is_err());
    assert_eq!(gate.get("/readyz").0, 503);
    assert!(TcpStream::connect(gate.address()).is_err(), "the listener is closed");

    for _ in 0..5 {
        relay.ping().unwrap();
    }
    let said = "stopping: 1 connection may end within 1 hour; a second Ctrl-C (or SIGTERM) cuts what is open\n";
    wait_until("it says how long the connection has", || gate.stderr().contains(said).then_some(()));
    relay.close_notify();
    assert_eq!(relay.end(), End::Orderly);
    assert_eq!(gate.wait_for_end().code(), Some(0));
    let verdicts = verdicts(&gate);
    assert_eq!(verdicts.len(), 3, "{verdicts:?}");
    assert_eq!(verdicts[2]["reason"], CloseReason::ClientClosed.label(), "{verdicts:?}");
}

#[test]
fn second_signal_cuts_what_is_left() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    for second in [Signal::TERM, Signal::INT] {
        let Draining { mut gate, relay, handshake: _handshake, silent: _silent } =
            Draining::begin(&pki, &backend, "drain = \"1h\"");
        relay.ping().unwrap();
        gate.wait_rejected("admission", "draining", 2);
        gate.signal(second);
        assert_eq!(relay.end(), End::of(CloseReason::DrainDeadline));
        assert_eq!(gate.wait_for_end().code(), Some(5));
        assert!(gate.stderr().contains("did not end in time"), "{}", gate.stderr());
        let verdicts = verdicts(&gate);
        assert_eq!(verdicts.len(), 3, "{verdicts:?}");
        assert_eq!(verdicts[2]["reason"], CloseReason::DrainDeadline.label(), "{verdicts:?}");
    }
}

#[test]
fn end_of_the_drain_cuts_what_is_left() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let begun = Instant::now();
    let Draining { mut gate, relay, handshake: _handshake, silent: _silent } =
        Draining::begin(&pki, &backend, "drain = \"700ms\"");
    while relay.ping().is_ok() {
        assert!(begun.elapsed() < DEADLINE);
    }
    assert_eq!(gate.wait_for_end().code(), Some(5));
}

#[test]
fn sigint_with_nobody_there_ends_at_once_and_the_port_is_free() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    // Meanwhile no other test is given the port.
    let address = kept_address(([127, 0, 0, 1], 0));
    let house = House::new(&pki).route("nas", backend.address());
    let house = house.config().replacen("127.0.0.1:0", &address.to_string(), 1);
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let mut gate = Gate::start(&house);
    // A connection that the gate closes first stays in TIME_WAIT on its side.
    let nameless = connect(gate.address());
    let hello = crate::client::Hello { version: 0x0303, suites: &[0x1301], server_name: "unknown.example" }.record();
    crate::client::refused_plainly(&nameless, &hello);
    let watch_reason = gate.wait_rejected("route", Reason::ServerNameUnknown.label(), 1);
    assert_eq!(watch_reason.len(), 1);
    let begun = Instant::now();
    gate.signal(Signal::INT);
    assert_eq!(gate.wait_for_end().code(), Some(0));
    let again = Gate::start(&house);
    assert_eq!(again.address(), address);
    Client::admitted(address, &config, NAME).unwrap();
    // The kernel keeps a connection in TIME_WAIT for a minute.
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    // And after a kill.
    let mut again = again;
    let begun = Instant::now();
    again.signal(Signal::KILL);
    again.wait_for_end();
    let third = Gate::start(&house);
    Client::admitted(third.address(), &config, NAME).unwrap();
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}
