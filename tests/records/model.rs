//! Sequences of records, alerts, KeyUpdates and closes of a client: the gate's session must do what rustls' server does,
//! except for the known differences.

use std::collections::{BTreeMap, BTreeSet};

use rustls::CipherSuite;

use crate::differences::{self, Action, difference, perform};
use crate::forger::{ALERT, APPLICATION_DATA, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_REQUESTED};
use crate::pair::{GateSide, RustlsSide, Setting, Side as _, State};

#[derive(Debug)]
struct Symbol {
    name: &'static str,
    action: Action<'static>,
}

const fn symbol(name: &'static str, action: Action<'static>) -> Symbol {
    Symbol { name, action }
}

/// Actions in both versions.
const BOTH: &[Symbol] = &[
    symbol("data", Action::Record(APPLICATION_DATA, b"data")),
    symbol("empty data", Action::Record(APPLICATION_DATA, b"")),
    symbol("reply", Action::Reply),
    symbol("close_notify", Action::Record(ALERT, &[1, 0])),
    symbol("user_canceled", Action::Record(ALERT, &[1, 90])),
    symbol("fatal user_canceled", Action::Record(ALERT, &[2, 90])),
    symbol("fatal close_notify", Action::Record(ALERT, &[2, 0])),
    symbol("fatal alert", Action::Record(ALERT, &[2, 80])),
    symbol("unknown fatal alert", Action::Record(ALERT, &[2, 251])),
    symbol("warning", Action::Record(ALERT, &[1, 100])),
    symbol("unknown level", Action::Record(ALERT, &[7, 80])),
    symbol("close_notify of unknown level", Action::Record(ALERT, &[0, 0])),
    symbol("half alert", Action::Record(ALERT, &[2])),
    symbol("two alerts", Action::Record(ALERT, &[1, 0, 1, 0])),
    symbol("empty alert", Action::Record(ALERT, &[])),
    symbol("empty handshake", Action::Record(HANDSHAKE, &[])),
    symbol("finished", Action::Record(HANDSHAKE, &[20, 0, 0, 1, 0])),
    symbol("finished begun", Action::Record(HANDSHAKE, &[20, 0])),
    symbol("hello request", Action::Record(HANDSHAKE, &[0, 0, 0, 0])),
    symbol("client hello", Action::Record(HANDSHAKE, HELLO)),
    symbol("client hello begun", Action::Record(HANDSHAKE, HELLO_PARTS.0)),
    symbol("client hello ended", Action::Record(HANDSHAKE, HELLO_PARTS.1)),
    symbol("malformed client hello", Action::Record(HANDSHAKE, &[1, 0, 0, 1, 0])),
    symbol("two client hellos", Action::Record(HANDSHAKE, TWO_HELLOS)),
    symbol("oversized client hello", Action::Record(HANDSHAKE, &[1, 1, 0, 0])),
    symbol("key update", Action::Record(HANDSHAKE, KEY_UPDATE)),
    symbol("protected change_cipher_spec", Action::Record(20, &[1])),
    symbol("unknown type", Action::Record(99, &[1])),
    symbol("tampered", Action::Tampered),
    symbol("largest", Action::Sized(16_384, 0)),
    symbol("too large", Action::Sized(16_385, 0)),
    symbol("plain change_cipher_spec", Action::Plain(&[20, 3, 3, 0, 1, 1])),
    symbol("plain alert", Action::Plain(&[21, 3, 3, 0, 2, 2, 40])),
    symbol("plain handshake", Action::Plain(&[22, 3, 3, 0, 5, 24, 0, 0, 1, 0])),
    symbol("plain data of no length", Action::Plain(&[23, 3, 3, 0, 0])),
    symbol("garbage", Action::Plain(b"GET / HTTP/1.1\r\n\r\n")),
    symbol("unknown plain type", Action::Plain(&[99, 3, 3, 0, 1, 1])),
    symbol(
        "other version",
        Action::Plain(&[23, 3, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ),
    symbol("record overflow", Action::Plain(&[23, 3, 3, 0x48, 1])),
];

/// Actions in TLS 1.3 only.
const TLS13: &[Symbol] = &[
    symbol("key update requested", Action::Record(HANDSHAKE, KEY_UPDATE_REQUESTED)),
    symbol("key update begun", Action::Record(HANDSHAKE, &[24, 0])),
    symbol("key update begun with its length", Action::Record(HANDSHAKE, &[24, 0, 0, 1])),
    symbol("key update amidst", Action::Record(HANDSHAKE, &[0])),
    symbol("key update ended", Action::Record(HANDSHAKE, &[0, 1, 1])),
    symbol("key update ended by 1", Action::Record(HANDSHAKE, &[1])),
    symbol("key update ended by 2", Action::Record(HANDSHAKE, &[2])),
    symbol("empty key update", Action::Record(HANDSHAKE, &[24, 0, 0, 0])),
    symbol("long key update", Action::Record(HANDSHAKE, &[24, 0, 0, 2, 0, 0])),
    symbol("long key update begun", Action::Record(HANDSHAKE, &[24, 0, 0, 2, 0])),
    symbol("endless key update", Action::Record(HANDSHAKE, &[24, 255, 255, 255])),
    symbol("key update of 2", Action::Record(HANDSHAKE, &[24, 0, 0, 1, 2])),
    symbol("two key updates", Action::Record(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])),
    symbol("key update and a half", Action::Record(HANDSHAKE, &[24, 0, 0, 1, 0, 24])),
    symbol("ticket", Action::Record(HANDSHAKE, &[4, 0, 0, 1, 0])),
    symbol("certificate", Action::Record(HANDSHAKE, &[11, 0, 0, 4, 0, 0, 0, 0])),
    symbol("certificate begun", Action::Record(HANDSHAKE, &[11, 0, 0, 4, 0])),
    symbol("end of early data", Action::Record(HANDSHAKE, &[5, 0, 0, 0])),
    symbol("unknown message", Action::Record(HANDSHAKE, &[77, 0, 0, 0])),
    symbol("no content type", Action::Inner(&[0, 0, 0])),
    symbol("no content at all", Action::Inner(&[])),
    symbol("padded", Action::Sized(100, 16_284)),
    symbol("padded too far", Action::Sized(100, 16_285)),
];

/// A minimal ClientHello: one suite, no extensions.
const HELLO: &[u8] = &[
    1, 0, 0, 41, 3, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9,
    0, 0, 2, 0xc0, 0x2b, 1, 0,
];
const HELLO_PARTS: (&[u8], &[u8]) = HELLO.split_at(3);
const TWO_HELLOS: &[u8] = &{
    let mut both = [0; 2 * HELLO.len()];
    let mut at = 0;
    while at < both.len() {
        both[at] = HELLO[at % HELLO.len()];
        at += 1;
    }
    both
};

/// The model of one TLS version: its actions and the differences found.
struct Model {
    setting: Setting,
    tls13: bool,
    symbols: Vec<&'static Symbol>,
    found: BTreeSet<&'static str>,
    unexplained: BTreeMap<String, String>,
    /// The gate's answer to each action as the first one of a connection.
    first_state: BTreeMap<&'static str, State>,
    cases: usize,
}

impl Model {
    fn new(suite: CipherSuite, tls13: bool) -> Self {
        let symbols = BOTH.iter().chain(TLS13.iter().filter(|_| tls13)).collect();
        let setting = Setting::new(suite, tls13);
        let symbols: Vec<&'static Symbol> = symbols;
        let first_state = symbols
            .iter()
            .map(|symbol| (symbol.name, perform(&mut GateSide::new(&setting), symbol.action, &mut Vec::new()).0))
            .collect();
        Self { setting, tls13, symbols, found: BTreeSet::new(), unexplained: BTreeMap::new(), first_state, cases: 0 }
    }

    fn only(&self, names: &[&str]) -> Vec<&'static Symbol> {
        let symbols: Vec<_> = self.symbols.iter().copied().filter(|symbol| names.contains(&symbol.name)).collect();
        assert_eq!(symbols.len(), names.len(), "{names:?}");
        symbols
    }

    /// Plays a case on both sides. True if the connection stays open on both.
    fn play(&mut self, case: &[&'static Symbol]) -> bool {
        self.cases += 1;
        let (mut ours, mut rustls_side) = (GateSide::new(&self.setting), RustlsSide::new(&self.setting));
        let (mut received, mut rustls_sent) = (Vec::new(), Vec::new());
        for symbol in case {
            let inside = ours.forger().is_inside_message();
            let (gate_state, data) = perform(&mut ours, symbol.action, &mut received);
            let (rustls_state, rustls_data) = perform(&mut rustls_side, symbol.action, &mut rustls_sent);
            if gate_state != rustls_state {
                match difference(
                    self.tls13,
                    inside,
                    symbol.action,
                    self.first_state[symbol.name],
                    gate_state,
                    rustls_state,
                ) {
                    Some(reason) => {
                        self.found.insert(reason);
                    }
                    None => {
                        let names: Vec<_> = case.iter().map(|symbol| symbol.name).collect();
                        let key = format!("{:?}: ours {gate_state:?}, rustls {rustls_state:?}", symbol.name);
                        self.unexplained.entry(key).or_insert_with(|| format!("{names:?}"));
                    }
                }
                return false;
            }
            assert_eq!(data, rustls_data, "{case:?}: delivered data");
            match gate_state {
                State::Open => assert!(ours.buffered() < 256, "{case:?}: {} bytes kept", ours.buffered()),
                // The other direction stays open.
                State::Closed => break,
                State::PeerAlert(_) | State::Broken(_) => return false,
            }
        }
        received.extend(ours.send(b"last"));
        rustls_sent.extend(rustls_side.send(b"last"));
        assert_eq!(received, rustls_sent, "{case:?}: sent records");
        true
    }

    /// Plays every sequence of `depth` of these actions, shorter where the connection ends before.
    fn play_every_sequence(&mut self, symbols: &[&'static Symbol], depth: usize) {
        let mut case = Vec::new();
        self.extend(&mut case, symbols, depth);
    }

    fn extend(&mut self, case: &mut Vec<&'static Symbol>, symbols: &[&'static Symbol], depth: usize) {
        for symbol in symbols {
            case.push(symbol);
            if self.play(case) && depth > 1 && !symbol.name.contains("close_notify") {
                self.extend(case, symbols, depth - 1);
            }
            case.pop();
        }
    }

    /// Plays longer random sequences, the same in every run.
    fn random(&mut self, cases: usize, seed: u64) {
        let mut random = seed;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 33).unwrap() % bound
        };
        let continuing: Vec<&'static Symbol> =
            self.symbols.clone().into_iter().filter(|symbol| self.play(&[symbol])).collect();
        for _ in 0..cases {
            let length = 2 + below(60);
            let mut case: Vec<&'static Symbol> = (0..length).map(|_| continuing[below(continuing.len())]).collect();
            case.retain(|symbol| !symbol.name.contains("close_notify"));
            case.push(self.symbols[below(self.symbols.len())]);
            self.play(&case);
        }
    }

    /// Asserts that the differences found are exactly these.
    #[track_caller]
    fn end(self, differences: &[&'static str]) {
        assert!(self.unexplained.is_empty(), "{:#?}", self.unexplained);
        assert_eq!(self.found, differences.iter().copied().collect());
        assert!(self.cases > 2000, "{} cases", self.cases);
    }
}

#[test]
fn tls13_records_in_any_order_end_as_in_rustls() {
    let mut model = Model::new(CipherSuite::TLS13_AES_128_GCM_SHA256, true);
    let all = model.symbols.clone();
    model.play_every_sequence(&all, 2);
    let core = model.only(CORE_13);
    model.play_every_sequence(&core, 4);
    model.random(500, 0x5eed);
    model.end(differences::TLS13);
}

#[test]
fn tls12_records_in_any_order_end_as_in_rustls() {
    let mut model = Model::new(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, false);
    let all = model.symbols.clone();
    model.play_every_sequence(&all, 2);
    let core = model.only(CORE_12);
    model.play_every_sequence(&core, 4);
    model.random(500, 0x5eed);
    model.end(differences::TLS12);
}

/// Actions that affect each other, played in longer sequences.
const CORE_13: &[&str] = &[
    "data",
    "reply",
    "key update requested",
    "key update",
    "key update begun",
    "key update amidst",
    "key update ended",
    "close_notify",
    "fatal alert",
    "tampered",
];
const CORE_12: &[&str] = &[
    "data",
    "empty data",
    "reply",
    "client hello",
    "client hello begun",
    "client hello ended",
    "warning",
    "close_notify",
    "fatal alert",
    "tampered",
];
