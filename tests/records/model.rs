//! Every order of a client's records, alerts, KeyUpdates and closes: the gate's session must do what rustls' server does,
//! but for the differences that are named here.

use std::collections::{BTreeMap, BTreeSet};

use rustls::CipherSuite;

use crate::differences::{self, Act, act, difference};
use crate::forger::{ALERT, APPLICATION_DATA, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_REQUESTED};
use crate::pair::{Oracle, Ours, Setting, Side as _, State};

#[derive(Debug)]
struct Letter {
    name: &'static str,
    act: Act<'static>,
}

const fn letter(name: &'static str, act: Act<'static>) -> Letter {
    Letter { name, act }
}

/// What both versions have.
const BOTH: &[Letter] = &[
    letter("data", Act::Record(APPLICATION_DATA, b"data")),
    letter("empty data", Act::Record(APPLICATION_DATA, b"")),
    letter("reply", Act::Reply),
    letter("close_notify", Act::Record(ALERT, &[1, 0])),
    letter("user_canceled", Act::Record(ALERT, &[1, 90])),
    letter("fatal user_canceled", Act::Record(ALERT, &[2, 90])),
    letter("fatal close_notify", Act::Record(ALERT, &[2, 0])),
    letter("fatal alert", Act::Record(ALERT, &[2, 80])),
    letter("unknown fatal alert", Act::Record(ALERT, &[2, 251])),
    letter("warning", Act::Record(ALERT, &[1, 100])),
    letter("unknown level", Act::Record(ALERT, &[7, 80])),
    letter("close_notify of unknown level", Act::Record(ALERT, &[0, 0])),
    letter("half alert", Act::Record(ALERT, &[2])),
    letter("two alerts", Act::Record(ALERT, &[1, 0, 1, 0])),
    letter("empty alert", Act::Record(ALERT, &[])),
    letter("empty handshake", Act::Record(HANDSHAKE, &[])),
    letter("finished", Act::Record(HANDSHAKE, &[20, 0, 0, 1, 0])),
    letter("finished begun", Act::Record(HANDSHAKE, &[20, 0])),
    letter("hello request", Act::Record(HANDSHAKE, &[0, 0, 0, 0])),
    letter("client hello", Act::Record(HANDSHAKE, HELLO)),
    letter("client hello begun", Act::Record(HANDSHAKE, HELLO_PARTS.0)),
    letter("client hello ended", Act::Record(HANDSHAKE, HELLO_PARTS.1)),
    letter("malformed client hello", Act::Record(HANDSHAKE, &[1, 0, 0, 1, 0])),
    letter("two client hellos", Act::Record(HANDSHAKE, TWO_HELLOS)),
    letter("oversized client hello", Act::Record(HANDSHAKE, &[1, 1, 0, 0])),
    letter("key update", Act::Record(HANDSHAKE, KEY_UPDATE)),
    letter("protected change_cipher_spec", Act::Record(20, &[1])),
    letter("unknown type", Act::Record(99, &[1])),
    letter("tampered", Act::Tampered),
    letter("largest", Act::Sized(16_384, 0)),
    letter("too large", Act::Sized(16_385, 0)),
    letter("plain change_cipher_spec", Act::Plain(&[20, 3, 3, 0, 1, 1])),
    letter("plain alert", Act::Plain(&[21, 3, 3, 0, 2, 2, 40])),
    letter("plain handshake", Act::Plain(&[22, 3, 3, 0, 5, 24, 0, 0, 1, 0])),
    letter("plain data of no length", Act::Plain(&[23, 3, 3, 0, 0])),
    letter("garbage", Act::Plain(b"GET / HTTP/1.1\r\n\r\n")),
    letter("unknown plain type", Act::Plain(&[99, 3, 3, 0, 1, 1])),
    letter("other version", Act::Plain(&[23, 3, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    letter("record overflow", Act::Plain(&[23, 3, 3, 0x48, 1])),
];

/// What is legal in TLS 1.3 alone, or wrong there alone.
const TLS13: &[Letter] = &[
    letter("key update requested", Act::Record(HANDSHAKE, KEY_UPDATE_REQUESTED)),
    letter("key update begun", Act::Record(HANDSHAKE, &[24, 0])),
    letter("key update begun with its length", Act::Record(HANDSHAKE, &[24, 0, 0, 1])),
    letter("key update amidst", Act::Record(HANDSHAKE, &[0])),
    letter("key update ended", Act::Record(HANDSHAKE, &[0, 1, 1])),
    letter("key update ended by 1", Act::Record(HANDSHAKE, &[1])),
    letter("key update ended by 2", Act::Record(HANDSHAKE, &[2])),
    letter("empty key update", Act::Record(HANDSHAKE, &[24, 0, 0, 0])),
    letter("long key update", Act::Record(HANDSHAKE, &[24, 0, 0, 2, 0, 0])),
    letter("long key update begun", Act::Record(HANDSHAKE, &[24, 0, 0, 2, 0])),
    letter("endless key update", Act::Record(HANDSHAKE, &[24, 255, 255, 255])),
    letter("key update of 2", Act::Record(HANDSHAKE, &[24, 0, 0, 1, 2])),
    letter("two key updates", Act::Record(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])),
    letter("key update and a half", Act::Record(HANDSHAKE, &[24, 0, 0, 1, 0, 24])),
    letter("ticket", Act::Record(HANDSHAKE, &[4, 0, 0, 1, 0])),
    letter("certificate", Act::Record(HANDSHAKE, &[11, 0, 0, 4, 0, 0, 0, 0])),
    letter("certificate begun", Act::Record(HANDSHAKE, &[11, 0, 0, 4, 0])),
    letter("end of early data", Act::Record(HANDSHAKE, &[5, 0, 0, 0])),
    letter("unknown message", Act::Record(HANDSHAKE, &[77, 0, 0, 0])),
    letter("no content type", Act::Inner(&[0, 0, 0])),
    letter("no content at all", Act::Inner(&[])),
    letter("padded", Act::Sized(100, 16_284)),
    letter("padded too far", Act::Sized(100, 16_285)),
];

/// A ClientHello as small as they come: one suite, no extensions.
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

/// One version of TLS, with what may be done, and which differences have been seen.
struct Model {
    setting: Setting,
    tls13: bool,
    letters: Vec<&'static Letter>,
    seen: BTreeSet<&'static str>,
    unexplained: BTreeMap<String, String>,
    /// What the gate makes of each letter by itself.
    alone: BTreeMap<&'static str, State>,
    cases: usize,
}

impl Model {
    fn new(suite: CipherSuite, tls13: bool) -> Self {
        let letters = BOTH.iter().chain(TLS13.iter().filter(|_| tls13)).collect();
        let setting = Setting::new(suite, tls13);
        let letters: Vec<&'static Letter> = letters;
        let alone = letters
            .iter()
            .map(|letter| (letter.name, act(&mut Ours::new(&setting), letter.act, &mut Vec::new()).0))
            .collect();
        Self { setting, tls13, letters, seen: BTreeSet::new(), unexplained: BTreeMap::new(), alone, cases: 0 }
    }

    fn only(&self, names: &[&str]) -> Vec<&'static Letter> {
        let letters: Vec<_> = self.letters.iter().copied().filter(|letter| names.contains(&letter.name)).collect();
        assert_eq!(letters.len(), names.len(), "{names:?}");
        letters
    }

    /// Plays a case on both sides. True if the connection goes on behind it, on both.
    fn play(&mut self, case: &[&'static Letter]) -> bool {
        self.cases += 1;
        let (mut ours, mut oracle) = (Ours::new(&self.setting), Oracle::new(&self.setting));
        let (mut heard, mut told) = (Vec::new(), Vec::new());
        for letter in case {
            let inside = ours.forger().is_inside_message();
            let (mine, data) = act(&mut ours, letter.act, &mut heard);
            let (theirs, wanted) = act(&mut oracle, letter.act, &mut told);
            if mine != theirs {
                match difference(self.tls13, inside, letter.act, self.alone[letter.name], mine, theirs) {
                    Some(because) => {
                        self.seen.insert(because);
                    }
                    None => {
                        let names: Vec<_> = case.iter().map(|letter| letter.name).collect();
                        let key = format!("{:?}: ours {mine:?}, rustls {theirs:?}", letter.name);
                        self.unexplained.entry(key).or_insert_with(|| format!("{names:?}"));
                    }
                }
                return false;
            }
            assert_eq!(data, wanted, "{case:?}: what is delivered");
            match mine {
                State::Open => assert!(ours.kept() < 256, "{case:?}: {} bytes kept", ours.kept()),
                // The other direction goes on.
                State::Closed => break,
                State::GaveUp(_) | State::Broken(_) => return false,
            }
        }
        heard.extend(ours.send(b"last"));
        told.extend(oracle.send(b"last"));
        assert_eq!(heard, told, "{case:?}: what is sent");
        true
    }

    /// Every sequence of so many of these letters, and of fewer where the connection ends before.
    fn every(&mut self, letters: &[&'static Letter], depth: usize) {
        let mut case = Vec::new();
        self.extend(&mut case, letters, depth);
    }

    fn extend(&mut self, case: &mut Vec<&'static Letter>, letters: &[&'static Letter], depth: usize) {
        for letter in letters {
            case.push(letter);
            if self.play(case) && depth > 1 && !letter.name.contains("close_notify") {
                self.extend(case, letters, depth - 1);
            }
            case.pop();
        }
    }

    /// Longer sequences, the same in every run.
    fn random(&mut self, cases: usize, seed: u64) {
        let mut random = seed;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 33).unwrap() % bound
        };
        let goes_on: Vec<&'static Letter> =
            self.letters.clone().into_iter().filter(|letter| self.play(&[letter])).collect();
        for _ in 0..cases {
            let length = 2 + below(60);
            let mut case: Vec<&'static Letter> = (0..length).map(|_| goes_on[below(goes_on.len())]).collect();
            case.retain(|letter| !letter.name.contains("close_notify"));
            case.push(self.letters[below(self.letters.len())]);
            self.play(&case);
        }
    }

    /// Every difference must be one of these, and each of these one that there is.
    #[track_caller]
    fn end(self, differences: &[&'static str]) {
        assert!(self.unexplained.is_empty(), "{:#?}", self.unexplained);
        assert_eq!(self.seen, differences.iter().copied().collect());
        assert!(self.cases > 2000, "{} cases", self.cases);
    }
}

#[test]
fn every_order_of_records_ends_as_in_rustls_tls_1_3() {
    let mut model = Model::new(CipherSuite::TLS13_AES_128_GCM_SHA256, true);
    let all = model.letters.clone();
    model.every(&all, 2);
    let core = model.only(CORE_13);
    model.every(&core, 4);
    model.random(500, 0x5eed);
    model.end(differences::TLS13);
}

#[test]
fn every_order_of_records_ends_as_in_rustls_tls_1_2() {
    let mut model = Model::new(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, false);
    let all = model.letters.clone();
    model.every(&all, 2);
    let core = model.only(CORE_12);
    model.every(&core, 4);
    model.random(500, 0x5eed);
    model.end(differences::TLS12);
}

/// What has the most to do with each other: played in longer sequences.
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
