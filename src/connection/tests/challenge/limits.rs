//! Limits, bans and floods: they turn no validator of a pending order away, and a pending order lets nothing else in.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use rustls::AlertDescription;

use super::hello::{self, Hello};
use super::live::{End, Live, MAIL, NAS, PHOTOS, read_to_end, wait_for};
use super::validator::{ACME, Client, Seen, go_on};
use super::{BOTH, alpn};

fn validates(live: &Live, stream: TcpStream) {
    let validator = Client::new(BOTH[0], None);
    let outcome = validator.validate(stream, NAS);
    assert_eq!(outcome.end, Seen::CloseNotify, "{outcome:?}, {:?}", live.verdicts().last());
    validator.shown.assert_is_challenge(NAS);
}

/// A handshake for this name that stops behind its ClientHello.
fn stall(mut stream: TcpStream, name: &str) -> TcpStream {
    // The gate may have closed by then.
    let _ = stream.write_all(&Hello::tls13(name).with(hello::ALPN, alpn(&[ACME])).records());
    stream
}

/// The same, when the gate has answered.
fn stalled(live: &Live, stream: TcpStream, name: &str) -> TcpStream {
    let stream = stall(stream, name);
    let mut room = [0; 1];
    assert_eq!(stream.peek(&mut room).expect("an answer"), 1, "{:?}", live.verdicts().last());
    stream
}

/// A session of a device.
fn session(live: &Live) -> (rustls::ClientConnection, TcpStream) {
    let count = || live.gate.sessions.newest(usize::MAX).0.len();
    let before = count();
    let mut tls = Client::new(BOTH[0], Some(&live.alice)).begin(NAS, &[]);
    let mut stream = live.connect();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).expect("a handshake");
    }
    wait_for("the session", || (count() > before).then_some(()));
    (tls, stream)
}

/// All ways in which another client than a validator may begin.
fn others() -> Vec<Vec<u8>> {
    vec![
        Hello::tls13(NAS).with(hello::ALPN, alpn(&[ACME, b"h2"])).records(),
        Hello::tls13(PHOTOS).with(hello::ALPN, alpn(&[ACME])).records(),
        Hello::tls13(MAIL).with(hello::ALPN, alpn(&[ACME])).records(),
        Hello::tls13("other.home.example").with(hello::ALPN, alpn(&[ACME])).records(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![22, 3, 1, 0, 9],
    ]
}

#[test]
fn ban_does_not_turn_a_validator_away() {
    for more in ["", "[limits]\nbanned = \"drop\"\n"] {
        let live = Live::new(more);
        live.ban(1);
        let required = |live: &Live| {
            // It has its turn on a strict route, as any client of a banned source.
            let outcome = Client::new(BOTH[0], None).validate(live.connect(), NAS);
            assert_eq!(outcome.end, Seen::Alert(AlertDescription::CertificateRequired));
            assert_eq!(live.verdict().reason, "required");
        };
        required(&live);
        live.order(NAS);
        for version in BOTH {
            let outcome = Client::new(version, None).validate(live.connect(), NAS);
            assert_eq!(outcome.end, Seen::CloseNotify);
            assert_eq!(live.verdict().reason, "acme_challenge");
        }
        // The verdict of its handshake is its own.
        let hello = Hello::tls12(NAS).with(hello::ALPN, alpn(&[ACME])).records();
        let mut stream = live.connect();
        stream.write_all(&hello.repeat(2)).expect("a connection");
        read_to_end(&mut stream);
        assert_eq!(live.verdict().reason, "misbehaved");
        // Its ClientHello may take longer than that of others who are banned.
        let mut tls = Client::new(BOTH[0], None).begin(NAS, &[ACME]);
        let (mut stream, mut first) = (live.connect(), Vec::new());
        tls.write_tls(&mut first).expect("memory");
        std::thread::sleep(Duration::from_millis(700));
        stream.write_all(&first).expect("a connection");
        assert_eq!(go_on(tls, stream, b"").end, Seen::CloseNotify);
        assert_eq!(live.verdict().reason, "acme_challenge");
        live.gate.challenges.withdraw_all();
        required(&live);
        assert_eq!(live.penalties(), 1);
    }
}

#[test]
fn banned_client_is_refused_as_without_an_order() {
    for (more, end) in [("", None), ("[limits]\nbanned = \"drop\"\n", Some(End::Reset))] {
        let live = Live::new(more);
        live.order(NAS);
        live.ban(1);
        let before = live.gate.admission.penalties();
        for bytes in others() {
            // The valid certificate that it might show belongs to another test; this one leaves.
            let mut stream = live.connect();
            let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            let (answer, seen) = read_to_end(&mut stream);
            let told = live.verdict();
            if told.stage.as_deref() == Some("admission") {
                assert_eq!(
                    (told.reason.as_str(), answer.len(), told.alert),
                    ("source_banned", 0, None),
                    "{}",
                    told.line
                );
                assert_eq!(end.unwrap_or(seen), seen);
            } else {
                // On the strict route it has its turn to show a certificate, as without an order.
                assert_eq!((told.stage.as_deref(), &told.line["route"]), (Some("handshake"), &"nas".into()));
            }
        }
        let after = live.gate.admission.penalties();
        let bans = |penalties: &[crate::admission::penalties::Penalty]| {
            penalties.iter().map(|one| (one.source, one.bans)).collect::<Vec<_>>()
        };
        assert_eq!(bans(&after), bans(&before));
        assert_eq!(live.reached(), 0);
        // The certificate of a device ends the ban, as ever.
        let alice = Client::new(BOTH[0], Some(&live.alice));
        assert_eq!(alice.run(live.connect(), NAS, &[], b"hello").payload, b"hello");
    }
}

#[test]
fn limits_of_a_source_do_not_turn_a_validator_away() {
    for (limits, reason) in
        [("connections_per_source = 1", "source_limit"), ("connection_rate_per_source = \"1/h\"", "source_rate")]
    {
        let live = Live::new(&format!("[limits]\n{limits}\n"));
        let _held = stalled(&live, live.connect(), PHOTOS);
        live.order(NAS);
        for _ in 0..3 {
            validates(&live, live.connect());
            assert_eq!(live.verdict().reason, "acme_challenge");
        }
        let mut other = live.connect();
        other.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("a connection");
        assert!(read_to_end(&mut other).0.is_empty());
        assert_eq!(live.verdict().reason, reason);
        live.gate.challenges.withdraw_all();
        // Its turn is the one that any client gets who may show a certificate.
        let outcome = Client::new(BOTH[0], None).validate(live.connect(), NAS);
        assert_eq!(outcome.end, Seen::Alert(AlertDescription::CertificateRequired));
        assert_eq!(live.verdict().reason, "required");
    }
}

/// A gate all of whose connections are taken by devices.
fn full(more: &str) -> (Live, Vec<(rustls::ClientConnection, TcpStream)>) {
    let live = Live::new(&format!("{more}[limits]\nconnections = 2\n"));
    let held = (0..2).map(|_| session(&live)).collect();
    (live, held)
}

#[test]
fn connections_of_a_trusted_source_do_not_turn_a_validator_away() {
    let live = Live::new("[limits]\nconnections_per_source = 1\n");
    let held = session(&live);
    for order in [false, true] {
        if order {
            live.order(NAS);
            validates(&live, live.connect());
            assert_eq!(live.verdict().reason, "acme_challenge");
        }
        // As before: no certificate helps where all connections are those of devices.
        let outcome = Client::new(BOTH[0], Some(&live.alice)).run(live.connect(), NAS, &[], b"hello");
        assert!(matches!(outcome.end, Seen::End | Seen::Reset) && outcome.payload.is_empty(), "{outcome:?}");
        assert_eq!(live.verdict().reason, "source_limit");
    }
    drop(held);
    live.counted();
    assert_eq!(live.reached(), 1);
}

#[test]
fn limit_of_all_connections_does_not_turn_a_validator_away() {
    let (live, held) = full("");
    assert!(read_to_end(&mut stall(live.connect(), NAS)).0.is_empty());
    assert_eq!(live.verdict().reason, "connection_limit");
    live.order(NAS);
    for version in BOTH {
        assert_eq!(Client::new(version, None).validate(live.connect(), NAS).end, Seen::CloseNotify);
        assert_eq!(live.verdict().reason, "acme_challenge");
    }
    // Whatever else comes is refused for the limit: a device with its certificate as well.
    for bytes in others() {
        let mut stream = live.connect();
        let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        assert!(read_to_end(&mut stream).0.is_empty());
        let told = live.verdict();
        assert_eq!((told.reason.as_str(), told.alert), ("connection_limit", None), "{}", told.line);
        assert!(told.line.get("route").is_none(), "{}", told.line);
    }
    let outcome = Client::new(BOTH[0], Some(&live.alice)).run(live.connect(), NAS, &[], b"hello");
    assert!(matches!(outcome.end, Seen::End | Seen::Reset) && outcome.payload.is_empty(), "{outcome:?}");
    assert_eq!(live.verdict().reason, "connection_limit");
    // A silent one is refused for it too, when another one needs its place.
    let silent: Vec<TcpStream> = (0..40).map(|_| live.connect_from(9)).collect();
    for _ in 0..36 {
        assert_eq!(live.verdict().reason, "connection_limit");
    }
    validates(&live, live.connect_from(9));
    drop((held, silent));
    live.counted();
    assert_eq!(live.reached(), 2);
    assert_eq!(live.penalties(), 0);
    // All places are free again.
    let alice = Client::new(BOTH[0], Some(&live.alice));
    assert_eq!(alice.run(live.connect(), NAS, &[], b"hello").payload, b"hello");
}

#[test]
fn list_of_addresses_holds_for_validators() {
    let listener = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\ndeny_sources = [\"127.0.0.9\"]\n";
    for (live, _held, reason) in [(Live::new(listener), Vec::new(), "source_denied")]
        .into_iter()
        .chain([full(listener)].map(|(live, held)| (live, held, "connection_limit")))
    {
        live.order(NAS);
        assert!(read_to_end(&mut stall(live.connect_from(9), NAS)).0.is_empty());
        assert_eq!(live.verdict().reason, reason);
        validates(&live, live.connect_from(8));
    }
}

#[test]
fn proxied_validator_is_known_by_its_own_address() {
    let listener =
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.7\"]\n";
    let (live, _held) = full(listener);
    let proxied = |live: &Live| {
        let mut stream = live.connect_from(7);
        stream.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n").expect("a connection");
        stream
    };
    live.order(NAS);
    validates(&live, proxied(&live));
    let told = live.verdict();
    assert_eq!((told.reason.as_str(), &told.line["source"]), ("acme_challenge", &"192.0.2.1:1234".into()));
    // A proxy that sends no header at once is refused as without an order.
    let mut silent = live.connect_from(7);
    assert!(read_to_end(&mut silent).0.is_empty());
    assert_eq!(live.verdict().reason, "connection_limit");
    live.gate.challenges.withdraw_all();
    assert!(read_to_end(&mut stall(proxied(&live), NAS)).0.is_empty());
    assert_eq!(live.verdict().reason, "connection_limit");
}

#[test]
fn flood_of_handshakes_evicts_no_validator() {
    let live = Live::new("[limits]\nhandshakes = 8\n");
    live.order(NAS);
    let validator = Client::new(BOTH[0], None);
    let mut tls = validator.begin(NAS, &[ACME]);
    let (mut stream, mut first) = (live.connect_from(9), Vec::new());
    tls.write_tls(&mut first).expect("memory");
    stream.write_all(&first).expect("a connection");
    // It has its place when the gate has answered.
    let mut room = [0; 1];
    assert_eq!(stream.peek(&mut room).expect("an answer"), 1);
    let strangers: Vec<TcpStream> = (0..40).map(|_| live.connect_from(9)).collect();
    for _ in 0..32 {
        assert_eq!(live.verdict().reason, "handshake_limit");
    }
    assert_eq!(go_on(tls, stream, b"").end, Seen::CloseNotify);
    assert_eq!(live.verdict().reason, "acme_challenge");
    drop(strangers);
    live.counted();
}

#[test]
fn stalled_validators_are_bounded_and_stand_in_no_ones_way() {
    let live = Live::new("[limits]\nhandshakes = 64\nconnections = 100\n");
    live.order(NAS);
    // Sixteen for the name, four for each source.
    let flood: Vec<TcpStream> = (0..100).map(|n| stall(live.connect_from(10 + n % 8), NAS)).collect();
    wait_for("those that are evicted", || (live.verdicts().len() == 84).then_some(()));
    let reasons = |live: &Live| {
        let all = live.verdicts();
        all.iter().map(|line| line["reason"].as_str().expect("a reason").to_owned()).collect::<Vec<_>>()
    };
    assert!(reasons(&live).iter().all(|reason| reason == "handshake_limit"), "{:?}", reasons(&live));
    let alice = Client::new(BOTH[0], Some(&live.alice));
    // From the address of the flood as well.
    for host in [1, 10] {
        assert_eq!(alice.run(live.connect_from(host), NAS, &[], b"hello").payload, b"hello");
        validates(&live, live.connect_from(host));
    }
    drop(flood);
    live.counted();
    assert_eq!(live.penalties(), 0);
    // The flood, and twice a device and a validator: the log is written later.
    wait_for("all verdicts", || (live.verdicts().len() == 104).then_some(()));
    let counted = reasons(&live);
    let ended = |reason: &str| counted.iter().filter(|other| *other == reason).count();
    assert_eq!(ended("closed_early") + ended("handshake_limit"), 100, "{counted:?}");
    assert!(ended("closed_early") >= 14, "each validator has evicted one at most: {counted:?}");
    // Places are free again: none is evicted for so many as there are.
    let again: Vec<TcpStream> = (0..16).map(|n| stalled(&live, live.connect_from(10 + n % 8), NAS)).collect();
    assert_eq!(reasons(&live).len(), counted.len(), "{} connections", again.len());
}

#[test]
fn silent_clients_of_banned_sources_stand_in_no_ones_way() {
    let live = Live::new("[limits]\nhandshakes = 16\n");
    live.order(NAS);
    for host in 10..18 {
        live.ban(host);
    }
    let silent: Vec<TcpStream> = (0..100).map(|n| live.connect_from(10 + n % 8)).collect();
    let alice = Client::new(BOTH[0], Some(&live.alice));
    for host in [1, 10] {
        assert_eq!(alice.run(live.connect_from(host), NAS, &[], b"hello").payload, b"hello");
    }
    validates(&live, live.connect_from(11));
    drop(silent);
    live.counted();
}

#[test]
fn validator_is_ended_when_the_gate_drains() {
    let live = Live::new("");
    live.order(NAS);
    let mut stream = stalled(&live, live.connect(), NAS);
    live.gate.draining.cancel();
    read_to_end(&mut stream);
    assert_eq!(live.verdict().reason, "draining");
}
