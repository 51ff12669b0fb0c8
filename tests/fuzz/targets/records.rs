//! Records after the handshake, from a client that holds its keys: the session never panics, buffers little, and accepts
//! nothing that rustls rejects, except for the known differences.
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

use self::differences::{Action, difference, perform};
use self::pair::{GateSide, RustlsSide, Setting, Side, State};

/// TLS 1.2 and TLS 1.3.
static SETTINGS: LazyLock<[Setting; 2]> = LazyLock::new(|| {
    [
        Setting::new(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, false),
        Setting::new(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, true),
    ]
});

/// The longest content, which is over the limit of a record.
const CONTENT_MAX: usize = (1 << 14) + 100;

/// Decodes the next action: its kind, two bytes of length, and its content.
fn next<'a>(input: &mut &'a [u8]) -> Option<Action<'a>> {
    let (&[kind, high, low], rest) = input.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len()).min(CONTENT_MAX);
    let (content, rest) = rest.split_at(length);
    *input = rest;
    Some(match kind {
        0 => Action::Reply,
        1 => Action::Tampered,
        // With a content type it would be an ordinary record.
        2 if content.iter().all(|&byte| byte == 0) => Action::Inner(content),
        3 => Action::Plain(content),
        // Each content type, and an unknown one.
        _ => Action::Record(20 + kind % 5, content),
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((version, mut input)) = input.split_first() else { return };
    let tls13 = version % 2 == 1;
    let setting = &SETTINGS[usize::from(tls13)];
    let (mut ours, mut rustls_side) = (GateSide::new(setting), RustlsSide::new(setting));
    let (mut received, mut rustls_sent) = (Vec::new(), Vec::new());
    while let Some(next) = next(&mut input) {
        let inside = ours.forger().is_inside_message();
        let (gate_state, data) = perform(&mut ours, next, &mut received);
        let (rustls_state, rustls_data) = perform(&mut rustls_side, next, &mut rustls_sent);
        if gate_state != rustls_state {
            // The gate waits for the complete record; rustls checks its first bytes.
            let waits = gate_state == State::Open && matches!(next, Action::Plain(_));
            if matches!(gate_state, State::Open | State::Closed) && !waits {
                let first_state = perform(&mut GateSide::new(setting), next, &mut Vec::new()).0;
                let reason = difference(tls13, inside, next, first_state, gate_state, rustls_state);
                assert!(reason.is_some(), "{next:?}: {gate_state:?} and not {rustls_state:?}");
            }
            return;
        }
        assert_eq!(data, rustls_data);
        assert!(ours.buffered() <= doorward::tls::record::RECORD_MAX, "{} bytes kept", ours.buffered());
        // After a part of a record the following bytes have another meaning.
        if gate_state != State::Open || matches!(next, Action::Plain(_)) {
            return;
        }
    }
    received.extend(ours.send(b"last"));
    rustls_sent.extend(rustls_side.send(b"last"));
    assert_eq!(received, rustls_sent);
});
