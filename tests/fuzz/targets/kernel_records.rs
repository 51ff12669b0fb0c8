//! Records as the kernel delivers them (kTLS): data without its bytes, other records in parts of a bounded size. The verdict
//! must be that of the gate's own record layer on the same records.
#![no_main]

#[expect(dead_code, reason = "shared with the model test")]
#[path = "../../records/forger.rs"]
mod forger;
#[expect(dead_code, reason = "shared with the model test")]
#[path = "../../records/pair.rs"]
mod pair;

use std::sync::LazyLock;

use doorward::model::rejection::Alert;
use doorward::tls::record::{Inbound, InboundState, RecordError, content};
use libfuzzer_sys::fuzz_target;
use rustls::CipherSuite;

use self::pair::{GateSide, Setting, Side, State};

/// As in src/relay/kernel: the most that is read of a record that is not data.
const MESSAGE_MAX: usize = 4096;

/// The longest content of a record.
const CONTENT_MAX: usize = 1 << 14;

/// TLS 1.2 and TLS 1.3.
static SETTINGS: LazyLock<[Setting; 2]> = LazyLock::new(|| {
    [
        Setting::new(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, false),
        Setting::new(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, true),
    ]
});

/// What the relay does with a record.
fn deliver(kernel: &mut InboundState, kind: u8, record: &[u8]) -> State {
    let parts: Vec<&[u8]> = match (kind, record) {
        // Spliced: only its length is known.
        (content::APPLICATION_DATA, [_, ..]) => {
            return match kernel.accept_data() {
                Ok(()) => State::Open,
                Err(RecordError(alert)) => State::Broken(Some(alert.0)),
            };
        }
        (_, []) => vec![record],
        _ => record.chunks(MESSAGE_MAX).collect(),
    };
    for part in parts {
        match kernel.accept(kind, part) {
            Ok(Inbound::Data) => panic!("data that was not data"),
            Ok(Inbound::Nothing | Inbound::KeyUpdate { .. } | Inbound::Renegotiation) => {}
            Ok(Inbound::Closed) => return State::Closed,
            Ok(Inbound::Alert(Alert(description))) => return State::PeerAlert(description),
            Err(RecordError(alert)) => return State::Broken(Some(alert.0)),
        }
    }
    State::Open
}

fuzz_target!(|input: &[u8]| {
    let Some((version, mut input)) = input.split_first() else { return };
    let tls13 = version % 2 == 1;
    let mut session = GateSide::new(&SETTINGS[usize::from(tls13)]);
    let mut kernel = InboundState::new(tls13);
    while let Some((&[kind, high, low], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len()).min(CONTENT_MAX);
        let (record, rest) = rest.split_at(length);
        input = rest;
        // Each content type, and an unknown one. The kernel opens no change_cipher_spec after the handshake.
        let kind = [content::ALERT, content::HANDSHAKE, content::APPLICATION_DATA, 24][usize::from(kind % 4)];
        let inside = kernel.is_inside_message();
        let delivered = deliver(&mut kernel, kind, record);
        let wire = session.forger().record(kind, record);
        let (opened, _) = session.take(&wire);
        assert_eq!(delivered, opened, "{kind} of {length} bytes, inside a message: {inside}");
        if delivered != State::Open {
            return;
        }
    }
});
