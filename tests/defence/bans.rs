//! Who fails again and again has to wait, and the people of the house never do.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use doorward::model::rejection::Reason;
use rcgen::{BasicConstraints, IsCa};
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use crate::client::{Client, End, client, connect, plain_end, refused_plainly};
use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::{House, Watch};
use crate::{NAS, admitted_from, loopback};

/// As by default, but for the rate of connections.
const DEFAULT: &str = "connection_rate_per_source = \"off\"\npenalties = \"on\"";

const HERE: IpAddr = loopback(0, 1);
const STRANGER: IpAddr = loopback(9, 1);

fn rejected(gate: &Gate, reason: Reason) -> f64 {
    let labels = [("stage", reason.stage().label()), ("reason", reason.label())];
    gate.metrics().sum("doorward_connections_rejected_total", &labels)
}

/// Speaks HTTP, which is two seconds of penalty. From a banned address, a reset may be faster than anything here.
fn fail(source: IpAddr, gate: &Gate) {
    if let Ok(mut stream) = open_from(source, gate) {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| stream.read_to_end(&mut Vec::new()));
    }
}

/// Connects and says nothing. How does it end?
fn silent_end(source: IpAddr, gate: &Gate) -> End {
    open_from(source, gate).map_or_else(End::from, |stream| plain_end(&stream))
}

fn open_from(source: IpAddr, gate: &Gate) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&gate.address().into())?;
    Ok(socket.into())
}

/// Fails until the address is banned, and says how many seconds it has to wait.
#[track_caller]
fn fail_until_banned(source: IpAddr, gate: &Gate) -> u64 {
    for _ in 0..1000 {
        fail(source, gate);
        if let Some(seconds) = last_ban(gate) {
            return seconds;
        }
    }
    panic!("{source} is not banned");
}

/// What the latest connection refused for a ban received.
fn last_ban(gate: &Gate) -> Option<u64> {
    let lines = gate.lines();
    let line = lines.iter().rfind(|line| line["reason"] == Reason::SourceBanned.label())?;
    let detail = line["detail"].as_str().unwrap().strip_suffix(" s left to wait").unwrap();
    Some(detail.rsplit(' ').next().unwrap().parse().unwrap())
}

/// At five seconds each, the twelfth try banned a household for a certificate that its owner had made as a tutorial says.
#[test]
fn row_47_unusual_certificates_do_not_ban_a_household() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).limits(DEFAULT).route("nas", backend.address()).open();
    let mut authority = Certified::for_clients("alice-phone");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let unusual = client(&pki, Some(&pki.clients.issue(authority)));
    for _ in 0..40 {
        drop(Client::admitted(gate.address(), &unusual, NAS));
    }
    gate.wait_rejected("certificate", Reason::CertificateInvalid.label(), 40);
    let good = client(&pki, Some(&pki.client("alice-phone")));
    Client::admitted(gate.address(), &good, NAS).expect("not banned");
}

/// From an address that is banned, nothing but a valid certificate counts, and nothing makes the ban longer; others are
/// served.
#[test]
fn banned_address_is_refused_at_once_and_others_are_not() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .limits(DEFAULT)
        .timeouts("client_hello = \"5m\"\nhandshake = \"5m\"")
        .route("nas", backend.address())
        .open();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let begun = Instant::now();
    let wait = fail_until_banned(STRANGER, &gate);
    // Of the minute that it takes, each failure is two seconds, and the time of the test has passed.
    let failures = rejected(&gate, Reason::NotTls);
    let passed = u32::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((30.0..=32.0 + f64::from(passed)).contains(&failures), "{failures} failures");
    assert!((55..=60).contains(&wait), "{wait} s to wait");

    let silent: Vec<_> = (0..300).map(|_| open_from(STRANGER, &gate)).collect();
    for stream in silent {
        let end = stream.map_or_else(End::from, |stream| plain_end(&stream));
        assert!(matches!(end, End::Truncated | End::Reset), "{end:?}");
    }
    gate.settled();
    let left = last_ban(&gate).unwrap();
    assert!(left <= wait, "{left} s left of {wait}");
    assert_eq!(rejected(&gate, Reason::NotTls), failures, "what it said was listened to");

    for neighbour in [HERE, loopback(9, 2)] {
        admitted_from(neighbour, &gate, &alice).unwrap();
    }
}

/// What strangers do behind the address of the house (a carrier's, a school's) is not the house's fault.
#[test]
fn owner_behind_an_abused_address_is_admitted() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).limits(DEFAULT).route("nas", backend.address()).open();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let mallory = Authority::new("Another house").issue(Certified::for_clients("alice-phone"));
    let mallory = client(&pki, Some(&mallory));
    admitted_from(HERE, &gate, &alice).unwrap();
    gate.wait_closed("nas", 1);
    for _ in 0..100 {
        fail(HERE, &gate);
        assert!(admitted_from(HERE, &gate, &mallory).is_err());
    }
    admitted_from(HERE, &gate, &alice).unwrap();
    gate.wait_rejected("client_hello", Reason::NotTls.label(), 100);
    gate.wait_rejected("certificate", Reason::UnknownCa.label(), 100);
    assert_eq!(rejected(&gate, Reason::SourceBanned), 0.0);
    // No client showed a certificate from there.
    fail_until_banned(STRANGER, &gate);
}

/// An unverified identity is no valid certificate.
#[test]
fn admission_without_a_valid_certificate_is_no_voucher() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let keys = "allow = [\"any\", \"unverified\"]\n[route.client_auth]\nmode = \"verify_if_given\"";
    let gate = House::new(&pki).limits(DEFAULT).route_with("nas", &[&backend.address().to_string()], keys).open();
    admitted_from(HERE, &gate, &client(&pki, None)).unwrap();
    fail_until_banned(HERE, &gate);
}

#[test]
fn browser_that_reconnects_to_ask_is_not_penalised() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).limits(DEFAULT).route("nas", backend.address()).open();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let hello = crate::client::Hello { version: 0x0303, suites: &[0x1301], server_name: NAS }.record();
    for _ in 0..100 {
        let mut stream = connect(gate.address());
        stream.write_all(&hello[..40]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        plain_end(&stream);
        let browser = Client::on(connect(gate.address()), &alice, NAS);
        browser.flush().unwrap();
        browser.receive_some().unwrap();
        browser.shut_tcp();
        // Whatever of the gate's flight is still to come, then the end.
        let _ = browser.read_to_end();
    }
    gate.wait_rejected("client_hello", Reason::ClientHelloClosedEarly.label(), 100);
    gate.wait_rejected("handshake", Reason::HandshakeClosedEarly.label(), 100);
    admitted_from(HERE, &gate, &alice).unwrap();
}

/// An app that tries again and again with a certificate that has expired, at the address of those who have good ones.
#[test]
fn expired_phone_does_not_ban_its_household() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).limits(DEFAULT).route("nas", backend.address()).open();
    let mut params = Certified::for_clients("bob-phone");
    params.not_after = days_from_now(-1);
    let bob = client(&pki, Some(&pki.clients.issue(params)));
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    for _ in 0..50 {
        assert!(admitted_from(HERE, &gate, &bob).is_err());
    }
    gate.wait_rejected("certificate", Reason::Expired.label(), 50);
    admitted_from(HERE, &gate, &alice).unwrap();
    for _ in 0..100 {
        assert!(admitted_from(HERE, &gate, &bob).is_err());
    }
    gate.wait_rejected("certificate", Reason::Expired.label(), 150);
    admitted_from(HERE, &gate, &alice).unwrap();
}

#[test]
fn banned_address_is_closed_or_reset_as_configured() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    for (word, end) in [("close", End::Truncated), ("drop", End::Reset)] {
        let limits = format!("{DEFAULT}\nbanned = \"{word}\"");
        let gate = House::new(&pki).limits(&limits).route("nas", backend.address()).open();
        fail_until_banned(HERE, &gate);
        let watch = Watch::begin(&gate);
        // It says nothing: a close with unread bytes would be a reset anyway.
        assert_eq!(silent_end(HERE, &gate), end, "{word}");
        watch.rejected(Reason::SourceBanned, &end);
    }
}

#[test]
fn prefixes_define_one_source() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let limits = format!("{DEFAULT}\nsource_prefix_v4 = 24\nconnections_per_source = 2");
    let gate = House::new(&pki).limits(&limits).route("nas", backend.address()).open();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    // They are counted together...
    let held = [1, 2].map(|host| admitted_from(loopback(0, host), &gate, &alice).unwrap());
    let watch = Watch::begin(&gate);
    let end = silent_end(loopback(0, 3), &gate);
    watch.rejected(Reason::SourceLimit, &end);
    drop(held);
    // ...and wait together.
    fail_until_banned(loopback(9, 1), &gate);
    let watch = Watch::begin(&gate);
    let end = silent_end(loopback(9, 200), &gate);
    watch.rejected(Reason::SourceBanned, &end);
    admitted_from(loopback(10, 1), &gate, &alice).unwrap();
}

/// `why`, the page and the log group sources as the limits do.
#[test]
fn prefixes_define_one_source_in_why_page_and_log() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = House::new(&pki)
        .limits("connection_rate_per_source = \"off\"\nsource_prefix_v4 = 24\nsource_prefix_v6 = 48")
        .listener("proxy_protocol_from = [\"127.0.0.1\"]")
        .route("nas", backend.address());
    let config = house.config().replace("sampling = \"off\"", "sampling = \"on\"");
    let mut gate = Gate::start_with_control(&config);
    // Of one source and reason, the log has ten.
    const REFUSED: usize = 12;
    for host in 1..=REFUSED {
        for header in [
            format!("PROXY TCP4 203.0.113.{host} 192.0.2.1 4711 443\r\n"),
            format!("PROXY TCP6 2001:db8:1:{host}::1 2001:db8::1 4711 443\r\n"),
        ] {
            let mut stream = connect(gate.address());
            stream.write_all(header.as_bytes()).unwrap();
            refused_plainly(&stream, b"GET / HTTP/1.1\r\n\r\n");
        }
    }
    gate.wait_metric("doorward_connections_rejected_total", &[("reason", "not_tls")], 2.0 * REFUSED as f64);

    for (neighbour, stranger) in [("203.0.113.200", "203.0.112.1"), ("2001:db8:1:ffff::9", "2001:db8:2:1::1")] {
        for (who, known) in [(neighbour, REFUSED), (stranger, 0)] {
            let why = gate.ask(&["why", who, "--format", "json"]).success();
            let why: serde_json::Value = serde_json::from_slice(&why.stdout).unwrap();
            assert_eq!(why["known"], known, "{who}: {why}");
        }
    }
    let (_, page) = gate.get("/");
    for source in ["203.0.113.0/24", "2001:db8:1::/48"] {
        let row = format!("{REFUSED} times</span></td><td><code>{source}</code></td>");
        assert!(page.contains(&row), "{source}: {page}");
    }
    gate.settled();
    gate.signal(rustix::process::Signal::TERM);
    assert!(gate.wait_for_end().success());
    let lines = gate.lines();
    let mut left_out: Vec<_> = lines.iter().filter(|line| line["event"] == "left_out").collect();
    left_out.sort_by_key(|line| line["source"].to_string());
    let left_out: Vec<_> = left_out.iter().map(|line| (&line["source"], &line["lines"], &line["reason"])).collect();
    let expected = ["2001:db8:1::/48", "203.0.113.0/24"].map(|source| (source.into(), 2.into(), "not_tls".into()));
    assert_eq!(left_out, expected.each_ref().map(|(source, lines, reason)| (source, lines, reason)));
}

/// Behind a proxy, its clients are banned, and not the proxy.
#[test]
fn proxy_is_not_penalised_for_its_clients() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .limits(DEFAULT)
        .listener("proxy_protocol_from = [\"127.0.0.1\"]")
        .route("nas", backend.address())
        .open();
    let through = |client: &str| {
        let mut stream = connect(gate.address());
        stream.write_all(format!("PROXY TCP4 {client} 192.0.2.1 4711 443\r\n").as_bytes()).unwrap();
        stream
    };
    while last_ban(&gate).is_none() {
        refused_plainly(&through("203.0.113.5"), b"GET / HTTP/1.1\r\n\r\n");
    }
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let neighbour = Client::on(through("203.0.113.6"), &alice, NAS);
    neighbour.ping().unwrap();
    // Not even for what is wrong with its headers.
    for _ in 0..100 {
        refused_plainly(&connect(gate.address()), b"PROXY TCP4 1.2.3.4 1.2.3 1 1\r\n");
    }
    gate.wait_rejected("admission", Reason::ProxyHeaderInvalid.label(), 100);
    Client::on(through("203.0.113.7"), &alice, NAS).ping().unwrap();
}
