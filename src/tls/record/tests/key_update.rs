//! KeyUpdates in both directions (RFC 8446 section 4.6.3).

use super::*;

/// Opens the fragments of a handshake message. Returns the result for the last one.
fn open_fragments(session: &mut Session, forger: &mut Forger, fragments: &[&[u8]]) -> Result<Opened, RecordError> {
    let (last, parts) = fragments.split_last().expect("fragments");
    for part in parts {
        let mut record = forger.record(22, part);
        assert_eq!(session.open(&mut record), Ok(Opened::Nothing { consumed: record.len() }), "{fragments:?}");
        assert!(session.is_inside_message());
    }
    session.open(&mut forger.record(22, last))
}

#[test]
fn key_near_its_limit_is_changed() {
    for suite in &SUITES[..3] {
        let (mut session, mut client) = established(*suite);
        session.limit_records(RESERVED_RECORDS + 16);
        let mut changes = 0;
        for round in 0..200_u8 {
            let mut wire = Vec::new();
            if session.is_near_limit(4) {
                session.update_key(&mut wire).expect("a reserved record");
                changes += 1;
                assert!(!session.is_near_limit(4));
            }
            wire.extend((0..4).flat_map(|_| seal(&mut session, &[round])));
            assert_eq!(receive(&mut client, &wire).expect("records"), [round; 4], "{suite:?}");
        }
        assert!(changes >= 40, "{changes} changes");
    }
}

#[test]
fn key_update_is_followed_and_answered() {
    for suite in &SUITES[..3] {
        let (mut session, mut client) = established(*suite);
        for round in 0..40_u8 {
            client.writer().write_all(b"old").expect("memory");
            client.refresh_traffic_keys().expect("TLS 1.3");
            client.writer().write_all(b"new").expect("memory");
            let (data, others) = open_all(&mut session, sent(&mut client));
            assert_eq!(data, b"oldnew", "{suite:?}, round {round}");
            assert!(matches!(others[..], [Opened::KeyUpdateRequested { .. }]), "{others:?}");
            assert_eq!(session.open.sequence, 1, "a new key counts from 0");

            let mut wire = seal(&mut session, b"before");
            session.update_key(&mut wire).expect("TLS 1.3");
            assert_eq!(session.seal.sequence, 0);
            wire.extend(seal(&mut session, b"behind"));
            assert_eq!(receive(&mut client, &wire).expect("records"), b"beforebehind", "{suite:?}, round {round}");
        }
    }
}

#[test]
fn consecutive_key_updates_are_limited() {
    let (mut session, mut client) = established(TLS13);
    for _ in 0..KEY_UPDATES_MAX {
        client.refresh_traffic_keys().expect("TLS 1.3");
        open_all(&mut session, sent(&mut client));
    }
    client.writer().write_all(b"x").expect("memory");
    assert_eq!(open_all(&mut session, sent(&mut client)).0, b"x", "data starts a new count");
    for _ in 0..KEY_UPDATES_MAX {
        client.refresh_traffic_keys().expect("TLS 1.3");
        open_all(&mut session, sent(&mut client));
    }
    client.refresh_traffic_keys().expect("TLS 1.3");
    assert_eq!(session.open(&mut sent(&mut client)), Err(UNEXPECTED_MESSAGE));
}

#[test]
fn old_key_opens_nothing_after_a_key_update() {
    let (mut session, mut forger) = forged(TLS13);
    assert!(matches!(session.open(&mut forger.record(22, &KEY_UPDATE)), Ok(Opened::Nothing { .. })));
    assert_eq!(session.open(&mut forger.record(23, b"old")), Err(BAD_RECORD_MAC));
}

#[test]
fn fragmented_key_update_is_followed() {
    // Each bit says whether the record ends after that byte.
    for cuts in 0..16 {
        let mut fragments: Vec<Vec<u8>> = vec![vec![]];
        for (place, byte) in KEY_UPDATE_REQUESTED.into_iter().enumerate() {
            fragments.last_mut().expect("one").push(byte);
            if cuts & (1 << place) > 0 {
                fragments.push(vec![]);
            }
        }
        let fragments: Vec<&[u8]> = fragments.iter().map(Vec::as_slice).collect();
        let (mut session, mut forger) = forged(TLS13);
        let opened = open_fragments(&mut session, &mut forger, &fragments);
        assert!(matches!(opened, Ok(Opened::KeyUpdateRequested { .. })), "{fragments:?}: {opened:?}");
        assert!(!session.is_inside_message(), "{fragments:?}");
        assert_eq!(session.open(&mut forger.record(23, b"old")), Err(BAD_RECORD_MAC), "the key has changed");
    }
}

#[test]
fn fragmented_invalid_key_update_gets_its_alert() {
    for (fragments, error) in [
        (&[&[24, 0][..], &[0, 0]][..], DECODE_ERROR),
        (&[&[24, 0, 0], &[2]], DECODE_ERROR),
        (&[&[24], &[1]], DECODE_ERROR),
        (&[&[24, 0, 0, 1], &[2]], ILLEGAL_PARAMETER),
        (&[&[24, 0, 0, 1], &[0, 24]], UNEXPECTED_MESSAGE),
        (&[&[24, 0, 0, 1], &[]], UNEXPECTED_MESSAGE),
    ] {
        let (mut session, mut forger) = forged(TLS13);
        let opened = open_fragments(&mut session, &mut forger, fragments);
        assert_eq!(opened, Err(error), "{fragments:?}");
    }
}

#[test]
fn tls13_fragments_must_not_be_interleaved() {
    for (kind, content) in [(23, &b"data"[..]), (23, b""), (21, &[1, 0]), (21, &[1, 90]), (20, &[1])] {
        let (mut session, mut forger) = forged(TLS13);
        session.open(&mut forger.record(22, &KEY_UPDATE[..3])).expect("a part of a message");
        assert_eq!(session.open(&mut forger.record(kind, content)), Err(UNEXPECTED_MESSAGE), "{kind} {content:?}");
    }
    // Nothing may be sent after an error alert, so it is accepted even here.
    let (mut session, mut forger) = forged(TLS13);
    session.open(&mut forger.record(22, &KEY_UPDATE[..3])).expect("a part of a message");
    let opened = session.open(&mut forger.record(21, &[2, 80]));
    assert_eq!(opened, Ok(Opened::Alert(Alert::INTERNAL_ERROR)));
}
