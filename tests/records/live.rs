//! The same records to a gate as it runs: what a client hears, how its connection ends, and what is logged of it.

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

/// A gate that seals and opens records itself, with an echo service behind it.
struct Live {
    pki: TestPki,
    gate: Gate,
    _backend: Backend,
}

impl Live {
    fn new() -> Self {
        let (pki, backend) = (TestPki::new(), Backend::echo());
        let house = House::new(&pki).route("nas", backend.address());
        // What the kernel makes of the same records is the tests' of src/relay.
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
            assert!(length > 0, "the gate has hung up");
            received.truncate(length);
            received
        });
        Client { stream, forger, heard: Vec::new() }
    }

    /// The line of the `count`th connection that is over.
    #[track_caller]
    fn line(&self, count: usize) -> Value {
        self.gate.wait_closed("nas", count).pop().unwrap()
    }
}

struct Client {
    stream: TcpStream,
    forger: Forger,
    heard: Vec<Plain>,
}

impl Client {
    #[track_caller]
    fn send(&mut self, kind: u8, content: &[u8]) {
        let record = self.forger.record(kind, content);
        self.stream.write_all(&record).unwrap();
    }

    /// Waits for so many records of the gate's.
    #[track_caller]
    fn wait(&mut self, count: usize) -> &[Plain] {
        while self.heard.len() < count {
            let mut part = [0; 4096];
            let length = self.stream.read(&mut part).unwrap();
            assert!(length > 0, "the gate has ended behind {:?}", self.heard);
            self.heard.extend(self.forger.hear(&part[..length]));
        }
        &self.heard
    }

    /// What the gate sends until it ends in order.
    #[track_caller]
    fn end(mut self) -> Vec<Plain> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an orderly end: a reset could overtake an alert");
        self.heard.extend(self.forger.hear(&rest));
        self.heard
    }
}

fn data(content: &[u8]) -> Plain {
    (APPLICATION_DATA, content.to_vec())
}

#[test]
fn row_46_key_update_in_any_fragments_is_followed() {
    let live = Live::new();
    // Each bit says whether a record ends behind that byte.
    for cuts in 0..16_usize {
        let mut client = live.client(&TLS13);
        let mut begin = 0;
        for end in 1..=KEY_UPDATE_REQUESTED.len() {
            if end == KEY_UPDATE_REQUESTED.len() || cuts & (1 << (end - 1)) > 0 {
                client.send(HANDSHAKE, &KEY_UPDATE_REQUESTED[begin..end]);
                begin = end;
            }
        }
        // Under the new key, and the answer behind the gate's own KeyUpdate is, too.
        client.send(APPLICATION_DATA, b"under the next key");
        let answer = [(HANDSHAKE, KEY_UPDATE.to_vec()), data(b"under the next key")];
        assert_eq!(client.wait(2), answer, "{cuts:04b}");
        client.send(ALERT, &[1, 0]);
        assert_eq!(client.end()[2..], [(ALERT, vec![1, 0])], "{cuts:04b}");
        let line = live.line(cuts + 1);
        assert_eq!(line["reason"], "client_closed", "{cuts:04b}: {line}");
    }
}

/// What a client sends, and the alert that it is told then.
type Case = (&'static str, &'static [(u8, &'static [u8])], Alert);

const ILLEGAL_PARAMETER: Alert = Alert(47);

/// What breaks the rules of TLS 1.3.
const WRONG_13: &[Case] = &[
    ("an empty KeyUpdate", &[(22, &[24, 0, 0, 0])], Alert::DECODE_ERROR),
    ("an empty KeyUpdate in fragments", &[(22, &[24, 0]), (22, &[0, 0])], Alert::DECODE_ERROR),
    ("a KeyUpdate of two bytes", &[(22, &[24, 0, 0, 2, 0, 0])], Alert::DECODE_ERROR),
    ("a KeyUpdate of 16 MiB", &[(22, &[24, 0xff, 0xff, 0xff])], Alert::DECODE_ERROR),
    ("a KeyUpdate that asks for 2", &[(22, &[24, 0, 0, 1, 2])], ILLEGAL_PARAMETER),
    ("the same in fragments", &[(22, &[24, 0, 0, 1]), (22, &[2])], ILLEGAL_PARAMETER),
    ("two KeyUpdates in a record", &[(22, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a KeyUpdate with a byte behind it", &[(22, &[24, 0, 0, 1, 0, 24])], Alert::UNEXPECTED_MESSAGE),
    ("data between fragments", &[(22, &[24, 0]), (23, b"data"), (22, &[0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("empty data between fragments", &[(22, &[24, 0]), (23, b"")], Alert::UNEXPECTED_MESSAGE),
    ("a close_notify between fragments", &[(22, &[24, 0]), (21, &[1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("an empty fragment", &[(22, &[24, 0]), (22, &[])], Alert::UNEXPECTED_MESSAGE),
    ("an empty message", &[(22, &[])], Alert::UNEXPECTED_MESSAGE),
    ("a ClientHello", &[(22, &[1, 0, 0, 2, 3, 3])], Alert::UNEXPECTED_MESSAGE),
    ("a NewSessionTicket", &[(22, &[4, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("an EndOfEarlyData", &[(22, &[5, 0, 0, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a Certificate that was not asked for", &[(22, &[11, 0, 0, 4, 0, 0, 0, 0])], Alert::UNEXPECTED_MESSAGE),
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

/// What breaks the rules of TLS 1.2.
const WRONG_12: &[Case] = &[
    ("a KeyUpdate", &[(22, &[24, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a HelloRequest", &[(22, &[0, 0, 0, 0])], Alert::UNEXPECTED_MESSAGE),
    ("an empty message", &[(22, &[])], Alert::UNEXPECTED_MESSAGE),
    ("a ClientHello of 16 MiB", &[(22, &[1, 0xff, 0xff, 0xff])], Alert::DECODE_ERROR),
    ("two ClientHellos in a record", &[(22, &[1, 0, 0, 1, 0, 1, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ("a record of unknown type", &[(99, &[1])], Alert::UNEXPECTED_MESSAGE),
    ("a ChangeCipherSpec", &[(20, &[1])], Alert::UNEXPECTED_MESSAGE),
    ("an alert of a level there is not", &[(21, &[3, 40])], ILLEGAL_PARAMETER),
    ("half an alert", &[(21, &[2])], Alert::DECODE_ERROR),
    ("a record of 16 KiB and a byte", &[(23, &[7; (1 << 14) + 1])], Alert(22)),
];

#[test]
fn row_46_each_broken_rule_gets_its_own_alert() {
    for (version, cases) in [(&TLS13, WRONG_13), (&TLS12, WRONG_12)] {
        let live = Live::new();
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
fn row_46_alerts_of_a_client_end_its_connection_or_not() {
    // Version, level, description, and whether the connection goes on.
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
    let live = Live::new();
    for (count, (version, level, description, goes_on)) in cases.into_iter().enumerate() {
        let mut client = live.client(version);
        client.send(ALERT, &[level, description]);
        if goes_on {
            client.send(APPLICATION_DATA, b"more");
            assert_eq!(client.wait(1), [data(b"more")], "{level} {description}");
            client.send(ALERT, &[1, 0]);
            assert_eq!(client.end()[1..], [(ALERT, vec![1, 0])], "{level} {description}");
        } else {
            // An error alert is not answered: nothing may be sent any more (RFC 8446 section 6).
            assert_eq!(client.end(), [], "{level} {description}");
        }
        let line = live.line(count + 1);
        let reason = if goes_on { "client_closed" } else { "client_reset" };
        assert_eq!(line["reason"], reason, "{level} {description}: {line}");
        if !goes_on {
            let named = Alert(description).to_string();
            assert!(line["detail"].as_str().unwrap().contains(&named), "{line}");
        }
    }
}

#[test]
fn row_46_data_after_close_notify_is_ignored() {
    let live = Live::new();
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
    let live = Live::new();
    let mut client = live.client(&TLS13);
    client.send(HANDSHAKE, &KEY_UPDATE[..3]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    let _ = client.stream.read_to_end(&mut Vec::new());
    let line = live.line(1);
    assert_eq!([&line["reason"], &line["detail"]], ["client_reset", "ended inside a handshake message"], "{line}");
}

#[test]
fn row_46_renegotiation_in_fragments_is_declined_once() {
    let live = Live::new();
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
fn row_17_key_updates_without_end_are_cut_short() {
    let live = Live::new();
    // A few with nothing between them get one answer, or one for each time that the gate came round.
    let mut client = live.client(&TLS13);
    let wire: Vec<u8> = (0..32).flat_map(|_| client.forger.record(HANDSHAKE, KEY_UPDATE_REQUESTED)).collect();
    client.stream.write_all(&wire).unwrap();
    client.send(APPLICATION_DATA, b"here");
    while client.heard.last() != Some(&data(b"here")) {
        client.wait(client.heard.len() + 1);
    }
    assert!(client.heard.len() <= 1 + 32, "{:?}", client.heard);
    client.send(ALERT, &[1, 0]);
    client.end();
    assert_eq!(live.line(1)["reason"], "client_closed");
    // Without end they are refused, and nothing piles up for a client that does not read.
    let mut client = live.client(&TLS13);
    let wire: Vec<u8> = (0..2000).flat_map(|_| client.forger.record(HANDSHAKE, KEY_UPDATE_REQUESTED)).collect();
    // The gate may have heard enough before all of it is sent.
    let _ = client.stream.write_all(&wire);
    let heard = client.end();
    assert!(heard.len() <= 33, "{} records", heard.len());
    assert_eq!(heard.last(), Some(&(ALERT, vec![2, 10])));
    assert_eq!(live.line(2)["reason"], "tls_error");
}
