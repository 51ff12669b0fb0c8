//! Handshake messages and alerts after the handshake.

use super::*;

#[test]
fn illegal_handshake_messages_are_rejected() {
    type Case = (CipherSuite, &'static [u8], RecordError);
    let cases: [Case; 18] = [
        (TLS13, &[24, 0, 0, 1, 2], ILLEGAL_PARAMETER),
        (TLS13, &[24, 0, 0, 1, 255], ILLEGAL_PARAMETER),
        // A KeyUpdate of another length than 1 is rejected by its header.
        (TLS13, &[24, 0, 0, 0], DECODE_ERROR),
        (TLS13, &[24, 0, 0, 2, 0, 0], DECODE_ERROR),
        (TLS13, &[24, 0, 0, 2], DECODE_ERROR),
        (TLS13, &[24, 0xff, 0xff, 0xff], DECODE_ERROR),
        // Nothing may follow a KeyUpdate in its record, because the keys change (RFC 8446 section 5.1).
        (TLS13, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], UNEXPECTED_MESSAGE),
        (TLS13, &[24, 0, 0, 1, 0, 0], UNEXPECTED_MESSAGE),
        // Other messages are rejected by their first byte.
        (TLS13, &[1, 0, 0, 0], UNEXPECTED_MESSAGE),
        (TLS13, &[4], UNEXPECTED_MESSAGE),
        (TLS13, &[11, 0, 0, 0], UNEXPECTED_MESSAGE),
        (TLS13, &[], UNEXPECTED_MESSAGE),
        (TLS12, &KEY_UPDATE, UNEXPECTED_MESSAGE),
        (TLS12, &[0, 0, 0, 0], UNEXPECTED_MESSAGE),
        (TLS12, &[20, 0, 0, 12], UNEXPECTED_MESSAGE),
        (TLS12, &[], UNEXPECTED_MESSAGE),
        // A ClientHello that is too long, and one followed by another message.
        (TLS12, &[1, 1, 0, 0], DECODE_ERROR),
        (TLS12, &[1, 0, 0, 1, 0, 1], UNEXPECTED_MESSAGE),
    ];
    for (suite, message, error) in cases {
        let (mut session, mut forger) = forged(suite);
        assert_eq!(session.open(&mut forger.record(22, message)), Err(error), "{suite:?} {message:?}");
    }
    let (mut session, mut forger) = forged(TLS13);
    let opened = session.open(&mut forger.record(22, &KEY_UPDATE_REQUESTED));
    assert!(matches!(opened, Ok(Opened::KeyUpdateRequested { .. })), "a legal one is accepted: {opened:?}");
}

#[test]
fn tls12_fragmented_renegotiation_is_declined() {
    let hello = [&[1, 0, 0x80, 0][..], &[9; 0x8000]].concat();
    for size in [1, 3, 4, 5, 16_384] {
        let (mut session, mut forger) = forged(TLS12);
        let parts: Vec<&[u8]> = hello.chunks(size).collect();
        let (last, parts) = parts.split_last().expect("several");
        for (count, part) in parts.iter().enumerate() {
            let mut record = forger.record(22, part);
            assert_eq!(session.open(&mut record), Ok(Opened::Nothing { consumed: record.len() }), "of {size}");
            if count < 3 {
                // Records of different types may be interleaved (RFC 5246 section 6.2.1).
                let opened = session.open(&mut forger.record(23, b"data"));
                assert!(matches!(opened, Ok(Opened::Data { .. })), "{opened:?}");
            }
        }
        assert!(session.is_inside_message());
        let opened = session.open(&mut forger.record(22, last));
        assert!(matches!(opened, Ok(Opened::Renegotiation { .. })), "of {size}: {opened:?}");
        assert!(!session.is_inside_message());
        assert_eq!(session.open(&mut forger.record(22, &[1])), Err(UNEXPECTED_MESSAGE), "only once");
    }
}

#[test]
fn second_renegotiation_is_rejected() {
    let hello = [&[1, 0, 0, 40, 3, 3][..], &[9; 38]].concat();
    let (mut session, mut forger) = forged(TLS12);
    session.open(&mut forger.record(23, &[])).expect("an empty record before it does not matter");
    let mut record = forger.record(22, &hello);
    assert_eq!(session.open(&mut record), Ok(Opened::Renegotiation { consumed: record.len() }));
    assert_eq!(session.open(&mut forger.record(22, &hello)), Err(UNEXPECTED_MESSAGE));

    let (mut session, mut client) = established(TLS12);
    let mut wire = Vec::new();
    session.no_renegotiation(&mut wire).expect("within the limit");
    wire.extend(seal(&mut session, b"and on"));
    assert_eq!(receive(&mut client, &wire).expect("a warning only"), b"and on");
}

#[test]
fn alerts_of_both_versions_are_interpreted() {
    let consumed = |record: &[u8]| Opened::Nothing { consumed: record.len() };
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        // user_canceled is a warning in TLS 1.3 at any level.
        let level = if is_tls13(suite) { 2 } else { 1 };
        let mut record = forger.record(21, &[level, 90]);
        assert_eq!(session.open(&mut record), Ok(consumed(&record)), "{suite:?}: user_canceled is ignored");
        let mut record = forger.record(21, &[1, 0]);
        assert_eq!(session.open(&mut record), Ok(Opened::Closed { consumed: record.len() }), "{suite:?}");
        let opened = session.open(&mut forger.record(21, &[2, 40]));
        assert_eq!(opened, Ok(Opened::Alert(Alert::HANDSHAKE_FAILURE)), "{suite:?}");
        for broken in [&[2][..], &[2, 40, 0], &[1, 0, 1, 0]] {
            assert_eq!(session.open(&mut forger.record(21, broken)), Err(DECODE_ERROR), "{suite:?} {broken:?}");
        }
    }
    let (mut session, mut forger) = forged(TLS12);
    for _ in 0..EMPTY_MAX {
        let mut record = forger.record(21, &[1, 100]);
        assert_eq!(session.open(&mut record), Ok(consumed(&record)), "a warning of TLS 1.2");
    }
    assert_eq!(session.open(&mut forger.record(21, &[1, 100])), Err(UNEXPECTED_MESSAGE), "too many of them");
    // There are two levels, and a fatal alert ends the connection (RFC 5246 section 7.2).
    for (alert, opened) in
        [([0, 0], Err(ILLEGAL_PARAMETER)), ([3, 100], Err(ILLEGAL_PARAMETER)), ([2, 90], Ok(Opened::Alert(Alert(90))))]
    {
        let (mut session, mut forger) = forged(TLS12);
        assert_eq!(session.open(&mut forger.record(21, &alert)), opened, "{alert:?}");
    }
    // TLS 1.3 has no other warnings, whatever the level is (RFC 8446 section 6).
    for alert in [[1, 100], [7, 40], [1, 255]] {
        let (mut session, mut forger) = forged(TLS13);
        let opened = session.open(&mut forger.record(21, &alert));
        assert_eq!(opened, Ok(Opened::Alert(Alert(alert[1]))), "{alert:?}");
    }
    let (mut session, mut forger) = forged(TLS13);
    assert!(matches!(session.open(&mut forger.record(21, &[7, 0])), Ok(Opened::Closed { .. })));
}

#[test]
fn empty_alert_is_an_unexpected_message() {
    // RFC 8446 section 5.4 requires this alert.
    let (mut session, mut forger) = forged(TLS13);
    assert_eq!(session.open(&mut forger.record(21, &[])), Err(UNEXPECTED_MESSAGE));
}
