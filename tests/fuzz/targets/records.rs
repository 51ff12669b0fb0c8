//! Records behind the handshake, from a client that holds its keys: the session never panics, keeps next to nothing of them,
//! and takes nothing that rustls refuses, but for the differences that the model test names.
#![no_main]

#[expect(dead_code, reason = "shared with the model test")]
#[path = "../../records/differences.rs"]
mod differences;
#[path = "../../records/forger.rs"]
mod forger;
#[path = "../../records/pair.rs"]
mod pair;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rustls::CipherSuite;

use self::differences::{Act, act, difference};
use self::pair::{Oracle, Ours, Setting, Side, State};

/// TLS 1.2 and TLS 1.3.
static SETTINGS: LazyLock<[Setting; 2]> = LazyLock::new(|| {
    [
        Setting::new(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, false),
        Setting::new(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, true),
    ]
});

/// The longest content, which no record may have.
const CONTENT_MAX: usize = (1 << 14) + 100;

/// The next thing to do: what it is, two bytes for a length, and as many for content.
fn next<'a>(input: &mut &'a [u8]) -> Option<Act<'a>> {
    let (&[kind, high, low], rest) = input.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len()).min(CONTENT_MAX);
    let (content, rest) = rest.split_at(length);
    *input = rest;
    Some(match kind {
        0 => Act::Reply,
        1 => Act::Tampered,
        // One that names a type is a record like others.
        2 if content.iter().all(|&byte| byte == 0) => Act::Inner(content),
        3 => Act::Plain(content),
        // Each content type there is, and one that there is not.
        _ => Act::Record(20 + kind % 5, content),
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((version, mut input)) = input.split_first() else { return };
    let tls13 = version % 2 == 1;
    let setting = &SETTINGS[usize::from(tls13)];
    let (mut ours, mut oracle) = (Ours::new(setting), Oracle::new(setting));
    let (mut heard, mut told) = (Vec::new(), Vec::new());
    while let Some(next) = next(&mut input) {
        let inside = ours.forger().is_inside_message();
        let (mine, data) = act(&mut ours, next, &mut heard);
        let (theirs, wanted) = act(&mut oracle, next, &mut told);
        if mine != theirs {
            // Of a record that is not whole the gate says nothing; rustls looks at its first bytes.
            let waits = mine == State::Open && matches!(next, Act::Plain(_));
            if matches!(mine, State::Open | State::Closed) && !waits {
                let alone = act(&mut Ours::new(setting), next, &mut Vec::new()).0;
                let because = difference(tls13, inside, next, alone, mine, theirs);
                assert!(because.is_some(), "{next:?}: {mine:?} and not {theirs:?}");
            }
            return;
        }
        assert_eq!(data, wanted);
        assert!(ours.kept() <= doorward::tls::record::RECORD_MAX, "{} bytes kept", ours.kept());
        // Behind a part of a record nothing that follows is what it was meant to be.
        if mine != State::Open || matches!(next, Act::Plain(_)) {
            return;
        }
    }
    heard.extend(ours.send(b"last"));
    told.extend(oracle.send(b"last"));
    assert_eq!(heard, told);
});
