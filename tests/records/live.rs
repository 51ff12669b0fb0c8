//! Illegal records sent to a running gate: what the client receives, how its connection ends, and what is logged.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use doorward::model::rejection::Alert;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::forger::{ALERT, APPLICATION_DATA, Forger, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_REQUESTED, Plain};
use crate::home::House;

const NAME: &str = "nas.home.example";

/// A gate with TLS in user space, with an echo service as its backend.
struct LiveGate {
    pki: TestPki,
    gate: Gate,
    _backend: Backend,
}

impl LiveGate {
    fn new() -> Self {
        let (pki, backend) = (TestPki::new(), Backend::echo());
        let house = House::new(&pki).route("nas", backend.address());
        // The kernel path is tested in src/relay.
        let gate = Gate::start(&format!("kernel_tls = \"off\"\n{}", house.config()));
        Self { pki, gate, _backend: backend }
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> Client {
        let mut stream = TcpStream::connect_timeout(&self.gate.address(), DEADLINE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let config = self.pki.client_config(Some(&self.pki.client("alice")), &[version]);
        let forger = Forger::handshake(config, NAME, |bytes, waits| {
            stream.write_all(bytes).unwrap();
            if !waits {
                return Vec::new();
            }
            let mut received = vec![0; 16_384];
            let length = stream.read(&mut received).unwrap();
            assert!(length > 0, "the gate closed the connection");
            received.truncate(length);
            received
        });
        Client { stream, forger, received: Vec::new() }
    }

    /// The log line of the `count`th closed connection.
    #[track_caller]
    fn line(&self, count: usize) -> Value {
        self.gate.wait_closed("nas", count).pop().unwrap()
    }
}

struct Client {
    stream: TcpStream,
    forger: Forger,
    received: Vec<Plain>,
}

impl Client {
    #[track_caller]
    fn send(&mut self, kind: u8, content: &[u8]) {
        let record = self.forger.record(kind, content);
        self.stream.write_all(&record).unwrap();
    }

    /// Waits for `count` records of the gate.
    #[track_caller]
    fn wait(&mut self, count: usize) -> &[Plain] {
        while self.received.len() < count {
            let mut part = [0; 4096];
            let length = self.stream.read(&mut part).unwrap();
            assert!(length > 0, "the gate closed the connection after {:?}", self.received);
            self.received.extend(self.forger.open_records(&part[..length]));
        }
        &self.received
    }

    /// All records of the gate up to its orderly end.
    #[track_caller]
    fn end(mut self) -> Vec<Plain> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an orderly end: a reset could overtake an alert");
        self.received.extend(self.forger.open_records(&rest));
        self.received
    }
}

fn data(content: &[u8]) -> Plain {
    (APPLICATION_DATA, content.to_vec())
}

#[test]
fn row_46_key_update_in_any_fragments_is_followed() {
    let live = LiveGate::new();
    // Each bit says whether a record ends after that byte.
    for cuts in 0..16_usize {
        let mut client = live.client(&TLS13);
        let mut begin = 0;
        for end in 1..=KEY_UPDATE_REQUESTED.len() {
            if end == KEY_UPDATE_REQUESTED.len() || cuts & (1 << (end - 1)) > 0 {
                client.send(HANDSHAKE, &KEY_UPDATE_REQUESTED[begin..end]);
                begin = end;
            }
        }
        // Sealed under the new key. The answer follows the gate's own KeyUpdate.
        client.send(APPLICATION_DATA, b"under the next key");
        let answer = [(HANDSHAKE, KEY_UPDATE.to_vec()), data(b"under the next key")];
        assert_eq!(client.wait(2), answer, "{cuts:04b}");
        client.send(ALERT, &[1, 0]);
        assert_eq!(client.end()[2..], [(ALERT, vec![1, 0])], "{cuts:04b}");
        let line = live.line(cuts + 1);
        assert_eq!(line["reason"], "client_closed", "{cuts:04b}: {line}");
    }
}

/// A name, the records sent, and the alert received.
type Case = (&'static str, &'static [(u8, &'static [u8])], Alert);

const ILLEGAL_PARAMETER: Alert = Alert(47);

/// Protocol errors in TLS 1.3.
const WRONG_13: &[Case] = &[
    ("an empty KeyUpdate", &[(22, &[24, 0, 0, 0])], Alert::DECODE_ERROR),
    ("an empty KeyUpdate in fragments", &[(22, &[24, 0]), (22, &[0, 0])], Alert::DECODE_ERROR),
    ("a KeyUpdate of two bytes", &[(22, &[24, 0, 0, 2, 0, 0])], Alert::DECODE_ERROR),
    ("a KeyUpdate of 16 MiB", &[(22, &[24, 0xff, 0xff, 0xff])], Alert::DECODE_ERROR),
    ("a KeyUpdate that asks for 2", &[(22, &[24, 0, 0, 1, 2])], ILLEGAL_PARAMETER),
    ("the same in fragments", &[(22, &[24, 0, 0, 1]), (22, &[2])], ILLEGAL_PARAMETER),
    ("two KeyUpdates in a record", &[(22, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a KeyUpdate followed by a byte", &[(22, &[24, 0, 0, 1, 0, 24])], Alert::UNEXPECTED_MESSAGE),
    ("data between fragments", &[(22, &[24, 0]), (23, b"data"), (22, &[0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("empty data between fragments", &[(22, &[24, 0]), (23, b"")], Alert::UNEXPECTED_MESSAGE),
    ("a close_notify between fragments", &[(22, &[24, 0]), (21, &[1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("an empty fragment", &[(22, &[24, 0]), (22, &[])], Alert::UNEXPECTED_MESSAGE),
    ("an empty message", &[(22, &[])], Alert::UNEXPECTED_MESSAGE),
    ("a ClientHello", &[(22, &[1, 0, 0, 2, 3, 3])], Alert::UNEXPECTED_MESSAGE),
    ("a NewSessionTicket", &[(22, &[4, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("an EndOfEarlyData", &[(22, &[5, 0, 0, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a Certificate that was not requested", &[(22, &[11, 0, 0, 4, 0, 0, 0, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a CertificateRequest", &[(22, &[13, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a Finished", &[(22, &[20, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a message of unknown type", &[(22, &[99, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a record of unknown type", &[(99, &[1])], Alert::UNEXPECTED_MESSAGE),
    ("a ChangeCipherSpec", &[(20, &[1])], Alert::UNEXPECTED_MESSAGE),
    ("an empty alert", &[(21, &[])], Alert::UNEXPECTED_MESSAGE),
    ("an alert in fragments", &[(21, &[1]), (21, &[0])], Alert::DECODE_ERROR),
    ("two alerts in a record", &[(21, &[1, 0, 1, 0])], Alert::DECODE_ERROR),
    ("a record of 16 KiB and a byte", &[(23, &[7; (1 << 14) + 1])], Alert(22)),
];

/// Protocol errors in TLS 1.2.
const WRONG_12: &[Case] = &[
    ("a KeyUpdate", &[(22, &[24, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a HelloRequest", &[(22, &[0, 0, 0, 0])], Alert::UNEXPECTED_MESSAGE),
    ("an empty message", &[(22, &[])], Alert::UNEXPECTED_MESSAGE),
    ("a ClientHello of 16 MiB", &[(22, &[1, 0xff, 0xff, 0xff])], Alert::DECODE_ERROR),
    ("two ClientHellos in a record", &[(22, &[1, 0, 0, 1, 0, 1, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a record of unknown type", &[(99, &[1])], Alert::UNEXPECTED_MESSAGE),
    ("a ChangeCipherSpec", &[(20, &[1])], Alert::UNEXPECTED_MESSAGE),
    ("an alert of an unknown level", &[(21, &[3, 40])], ILLEGAL_PARAMETER),
    ("half an alert", &[(21, &[2])], Alert::DECODE_ERROR),
    ("a record of 16 KiB and a byte", &[(23, &[7; (1 << 14) + 1])], Alert(22)),
];

#[test]
fn row_46_protocol_errors_get_their_alert() {
    for (version, cases) in [(&TLS13, WRONG_13), (&TLS12, WRONG_12)] {
        let live = LiveGate::new();
        for (count, (what, records, alert)) in cases.iter().enumerate() {
            let mut client = live.client(version);
            client.send(APPLICATION_DATA, b"fine");
            client.wait(1);
            let wire: Vec<u8> =
                records.iter().flat_map(|(kind, content)| client.forger.record(*kind, content)).collect();
            client.stream.write_all(&wire).unwrap();
            assert_eq!(client.end(), [data(b"fine"), (ALERT, vec![2, alert.0])], "{what}");
            let line = live.line(count + 1);
            assert_eq!([&line["reason"], &line["bytes_to_backend"]], [&Value::from("tls_error"), &4.into()], "{line}");
            assert!(line["detail"].as_str().unwrap().contains(&alert.to_string()), "{what}: {line}");
        }
    }
}

#[test]
fn row_46_only_warning_alerts_keep_the_connection_open() {
    // Version, level, description, and whether the connection continues.
    let cases = [
        (&TLS13, 1, 90, true),
        (&TLS13, 2, 90, true),
        (&TLS13, 1, 100, false),
        (&TLS13, 1, 255, false),
        (&TLS13, 7, 40, false),
        (&TLS13, 2, 80, false),
        (&TLS12, 1, 90, true),
        (&TLS12, 1, 100, true),
        (&TLS12, 2, 90, false),
        (&TLS12, 2, 80, false),
    ];
    let live = LiveGate::new();
    for (count, (version, level, description, continues)) in cases.into_iter().enumerate() {
        let mut client = live.client(version);
        client.send(ALERT, &[level, description]);
        if continues {
            client.send(APPLICATION_DATA, b"more");
            assert_eq!(client.wait(1), [data(b"more")], "{level} {description}");
            client.send(ALERT, &[1, 0]);
            assert_eq!(client.end()[1..], [(ALERT, vec![1, 0])], "{level} {description}");
        } else {
            // Nothing may be sent after an error alert (RFC 8446 section 6).
            assert_eq!(client.end(), [], "{level} {description}");
        }
        let line = live.line(count + 1);
        let reason = if continues { "client_closed" } else { "client_reset" };
        assert_eq!(line["reason"], reason, "{level} {description}: {line}");
        if !continues {
            let named = Alert(description).to_string();
            assert!(line["detail"].as_str().unwrap().contains(&named), "{line}");
        }
    }
}

#[test]
fn row_46_data_after_close_notify_is_ignored() {
    let live = LiveGate::new();
    for (count, version) in [&TLS13, &TLS12].into_iter().enumerate() {
        let mut client = live.client(version);
        let mut wire = client.forger.record(APPLICATION_DATA, b"all there is");
        wire.extend(client.forger.record(ALERT, &[1, 0]));
        for _ in 0..40 {
            wire.extend(client.forger.record(APPLICATION_DATA, &[b'x'; 1000]));
        }
        wire.extend(client.forger.record(HANDSHAKE, &[99, 1, 2, 3]));
        wire.extend(b"no record at all");
        client.stream.write_all(&wire).unwrap();
        client.wait(2);
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.end(), [data(b"all there is"), (ALERT, vec![1, 0])]);
        let line = live.line(count + 1);
        assert_eq!([&line["reason"], &line["bytes_to_backend"]], [&Value::from("client_closed"), &12.into()], "{line}");
    }
}

#[test]
fn row_46_end_inside_a_message_is_not_orderly() {
    let live = LiveGate::new();
    let mut client = live.client(&TLS13);
    client.send(HANDSHAKE, &KEY_UPDATE[..3]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    let _ = client.stream.read_to_end(&mut Vec::new());
    let line = live.line(1);
    assert_eq!([&line["reason"], &line["detail"]], ["client_reset", "ended inside a handshake message"], "{line}");
}

#[test]
fn row_46_renegotiation_in_fragments_is_declined_once() {
    let live = LiveGate::new();
    let mut client = live.client(&TLS12);
    let hello = [&[1, 0, 0, 60][..], &[9; 60]].concat();
    for part in hello.chunks(7) {
        client.send(HANDSHAKE, part);
    }
    client.send(APPLICATION_DATA, b"and on");
    assert_eq!(client.wait(2), [(ALERT, vec![1, 100]), data(b"and on")]);
    client.send(HANDSHAKE, &hello);
    assert_eq!(client.end()[2..], [(ALERT, vec![2, 10])]);
    assert_eq!(live.line(1)["reason"], "tls_error");
}

#[test]
fn row_17_endless_key_updates_are_rejected() {
    let live = LiveGate::new();
    // A few in a row get one answer, or one for each read of the gate.
    let mut client = live.client(&TLS13);
    let wire: Vec<u8> = (0..32).flat_map(|_| client.forger.record(HANDSHAKE, KEY_UPDATE_REQUESTED)).collect();
    client.stream.write_all(&wire).unwrap();
    client.send(APPLICATION_DATA, b"here");
    while client.received.last() != Some(&data(b"here")) {
        client.wait(client.received.len() + 1);
    }
    assert!(client.received.len() <= 1 + 32, "{:?}", client.received);
    client.send(ALERT, &[1, 0]);
    client.end();
    assert_eq!(live.line(1)["reason"], "client_closed");
    // More are an error, and answers do not accumulate for a client that does not read.
    let mut client = live.client(&TLS13);
    let wire: Vec<u8> = (0..2000).flat_map(|_| client.forger.record(HANDSHAKE, KEY_UPDATE_REQUESTED)).collect();
    // The gate may close before everything is sent.
    let _ = client.stream.write_all(&wire);
    let received = client.end();
    assert!(received.len() <= 33, "{} records", received.len());
    assert_eq!(received.last(), Some(&(ALERT, vec![2, 10])));
    assert_eq!(live.line(2)["reason"], "tls_error");
}
