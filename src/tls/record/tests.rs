use std::io::{Read, Write};

use rustls::client::ClientConnection;
use rustls::{AlertDescription, CipherSuite};

use super::inbound::{EMPTY_MAX, KEY_UPDATES_MAX};
use super::testing::{Forger, Random, SUITES, TLS12, TLS13, established, forged, is_tls13};
use super::*;

const UNEXPECTED_MESSAGE: RecordError = RecordError(Alert::UNEXPECTED_MESSAGE);
const DECODE_ERROR: RecordError = RecordError(Alert::DECODE_ERROR);
const BAD_RECORD_MAC: RecordError = RecordError(Alert(20));
const RECORD_OVERFLOW: RecordError = RecordError(Alert(22));
const ILLEGAL_PARAMETER: RecordError = RecordError(Alert(47));

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// Everything the client has to send, sealed.
fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).expect("memory");
    }
    wire
}

/// Opens records until none is left, and gives the application data in them and what else they were.
fn open_all(session: &mut Session, mut wire: Vec<u8>) -> (Vec<u8>, Vec<Opened>) {
    let (mut data, mut others) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < wire.len() {
        let opened = session.open(&mut wire[at..]).expect("an honest record");
        match opened {
            Opened::Data { consumed, plaintext } => {
                data.extend_from_slice(&wire[at + plaintext.start..at + plaintext.end]);
                at += consumed;
            }
            Opened::Nothing { consumed }
            | Opened::KeyUpdateRequested { consumed }
            | Opened::Renegotiation { consumed }
            | Opened::Closed { consumed } => {
                others.push(opened);
                at += consumed;
            }
            Opened::Incomplete(_) | Opened::Alert(_) => panic!("{opened:?}"),
        }
    }
    (data, others)
}

/// Seals one record of application data.
fn seal(session: &mut Session, payload: &[u8]) -> Vec<u8> {
    // What stands where the record will be must not matter.
    let mut record = vec![0xaa; session.before() + payload.len() + session.behind()];
    let start = session.before();
    record[start..start + payload.len()].copy_from_slice(payload);
    session.seal_data(&mut record).expect("within the limit");
    record
}

/// What the client makes of these records.
fn receive(client: &mut ClientConnection, mut wire: &[u8]) -> Result<Vec<u8>, Error> {
    let mut data = Vec::new();
    while !wire.is_empty() {
        client.read_tls(&mut wire).expect("memory");
        client.process_new_packets()?;
        let mut part = vec![0; 1 << 16];
        while let Ok(length @ 1..) = client.reader().read(&mut part) {
            data.extend_from_slice(&part[..length]);
        }
    }
    Ok(data)
}

#[test]
fn both_directions_agree_with_rustls_for_every_suite_and_size() {
    for suite in SUITES {
        let (mut session, mut client) = established(suite);
        let mut random = Random(1);
        for size in [1, 2, 100, 16_383, 16_384, 0, 16_385, 70_000] {
            let payload = random.bytes(size);
            client.writer().write_all(&payload).expect("memory");
            let (data, others) = open_all(&mut session, sent(&mut client));
            assert_eq!((data == payload, others), (true, vec![]), "{suite:?}, {size} bytes to us");

            let parts = payload.chunks(PLAINTEXT_MAX);
            let wire: Vec<u8> = if size == 0 {
                seal(&mut session, &[])
            } else {
                parts.flat_map(|part| seal(&mut session, part)).collect()
            };
            assert!(wire.len() <= size + (size / PLAINTEXT_MAX + 1) * (session.before() + session.behind()));
            assert!(receive(&mut client, &wire).expect("records") == payload, "{suite:?}, {size} bytes from us");
        }
    }
}

#[test]
fn two_thousand_records_each_way_keep_step() {
    for suite in SUITES {
        let (mut session, mut client) = established(suite);
        let mut random = Random(2);
        for round in 0..2000 {
            let length = 1 + random.below(40);
            let payload = random.bytes(length);
            client.writer().write_all(&payload).expect("memory");
            assert_eq!(open_all(&mut session, sent(&mut client)).0, payload, "{suite:?}, round {round}");
            let wire = seal(&mut session, &payload);
            assert_eq!(receive(&mut client, &wire), Ok(payload), "{suite:?}, round {round}");
        }
    }
}

#[test]
fn no_nonce_comes_twice_and_none_of_the_handshakes_comes_again() {
    for suite in SUITES {
        let (mut session, _) = established(suite);
        // Finished went out under this key in TLS 1.2; a ticket may have in TLS 1.3.
        let first = session.seal.sequence;
        assert!(is_tls13(suite) || first == 1, "{first}");
        let mut seen = std::collections::HashSet::new();
        let mut control = Vec::new();
        for round in 0..100_u8 {
            assert!(seen.insert(session.seal.nonce()), "{suite:?}");
            if round % 2 == 0 {
                let record = seal(&mut session, &[round]);
                if session.seal.explicit_nonce > 0 {
                    assert!(seen.contains(&[&session.seal.iv[..4], &record[5..13]].concat()[..]), "it is the one sent");
                }
            } else {
                session.no_renegotiation(&mut control).expect("within the limit");
            }
        }
        assert_eq!(session.seal.sequence, first + 100);
    }
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    for suite in SUITES {
        let length = forged(suite).1.record(23, b"payload").len();
        let (mut session, mut forger) = forged(suite);
        let record = forger.record(23, b"payload");
        for at in 0..length {
            for bit in [1, 0x80] {
                let mut tampered = record.clone();
                tampered[at] ^= bit;
                let opened = session.open(&mut tampered);
                match at {
                    // A longer one is waited for; a shorter one has no right tag; one of 32 KiB is too long.
                    3 | 4 => assert!(
                        matches!(opened, Ok(Opened::Incomplete(more)) if more > length)
                            || opened == Err(BAD_RECORD_MAC)
                            || opened == Err(RECORD_OVERFLOW),
                        "{suite:?}, byte {at}: {opened:?}"
                    ),
                    0 if is_tls13(suite) => assert_eq!(opened, Err(UNEXPECTED_MESSAGE)),
                    1 | 2 => assert_eq!(opened, Err(DECODE_ERROR)),
                    _ => assert_eq!(opened, Err(BAD_RECORD_MAC), "{suite:?}, byte {at}"),
                }
            }
        }
        // None of the failures used up the sequence number.
        let mut whole = record;
        assert!(matches!(session.open(&mut whole), Ok(Opened::Data { .. })));
        assert_eq!(session.open(&mut whole), Err(BAD_RECORD_MAC), "and no record is taken twice");
    }
}

#[test]
fn records_out_of_order_or_from_another_session_are_refused() {
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        let (mut first, mut second) = (forger.record(23, b"1"), forger.record(23, b"2"));
        assert_eq!(session.open(&mut second), Err(BAD_RECORD_MAC), "{suite:?}");
        assert!(matches!(session.open(&mut first), Ok(Opened::Data { .. })), "{suite:?}");
        let mut foreign = forged(suite).1.record(23, b"1");
        assert_eq!(session.open(&mut foreign), Err(BAD_RECORD_MAC), "{suite:?}");
        let mut ours = seal(&mut session, b"ours");
        assert_eq!(session.open(&mut ours), Err(BAD_RECORD_MAC), "{suite:?}: our own, sent back");
    }
}

#[test]
fn a_record_cut_anywhere_is_incomplete() {
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        let record = forger.record(23, &[7; 300]);
        for cut in 0..record.len() {
            let mut part = record[..cut].to_vec();
            let wanted = if cut < HEADER { HEADER } else { record.len() };
            assert_eq!(session.open(&mut part), Ok(Opened::Incomplete(wanted)), "{suite:?} at {cut}");
            assert_eq!(part, record[..cut], "and nothing in it was touched");
        }
        let mut more = [&record[..], &record[..100]].concat();
        let opened = session.open(&mut more);
        assert!(matches!(opened, Ok(Opened::Data { consumed, .. }) if consumed == record.len()), "{opened:?}");
    }
}

#[test]
fn records_of_the_wrong_size_are_refused() {
    for suite in SUITES {
        let tls13 = is_tls13(suite);
        let (mut session, mut forger) = forged(suite);
        let most: u16 = if tls13 { 16_384 + 256 } else { 16_384 + 2048 };
        let header = |length: u16| [[23, 3, 3], [0; 3]].concat().into_iter().take(3).chain(length.to_be_bytes());
        let mut oversized: Vec<u8> = header(most + 1).collect();
        assert_eq!(session.open(&mut oversized), Err(RECORD_OVERFLOW), "{suite:?}: by its header");
        let mut allowed: Vec<u8> = header(most).collect();
        assert_eq!(session.open(&mut allowed), Ok(Opened::Incomplete(HEADER + usize::from(most))), "{suite:?}");
        assert!(HEADER + usize::from(most) <= RECORD_MAX);
        // Shorter than a tag.
        for length in 0..16 {
            let mut short: Vec<u8> = header(length).chain([0; 16]).take(HEADER + usize::from(length)).collect();
            assert_eq!(session.open(&mut short), Err(BAD_RECORD_MAC), "{suite:?} of {length}");
        }
        let mut largest = forger.record(23, &[1; PLAINTEXT_MAX]);
        assert!(matches!(session.open(&mut largest), Ok(Opened::Data { .. })), "{suite:?}");
        // One byte more than RFC 8446 section 5.1 and RFC 5246 section 6.2.1 allow, in a record of a legal length.
        let mut large = forger.record(23, &[1; PLAINTEXT_MAX + 1]);
        assert_eq!(session.open(&mut large), Err(RECORD_OVERFLOW), "{suite:?}: by its content");
    }
}

#[test]
fn padding_is_taken_off() {
    for suite in &SUITES[..3] {
        let (mut session, mut forger) = forged(*suite);
        for (content, padding) in [(1, 1), (5, 200), (100, 16_000), (PLAINTEXT_MAX - 1, 1), (16_000, 384)] {
            let mut random = Random(3);
            // The last byte of the content may be a zero like those behind it.
            let payload = [random.bytes(content - 1), vec![0]].concat();
            let mut record = forger.padded(23, &payload, padding);
            match session.open(&mut record).expect("a record") {
                Opened::Data { consumed, plaintext } => {
                    assert_eq!((consumed, &record[plaintext]), (record.len(), payload.as_slice()));
                }
                other => panic!("{other:?}"),
            }
        }
        let mut alert = forger.padded(21, &[1, 0], 99);
        assert!(matches!(session.open(&mut alert), Ok(Opened::Closed { .. })));
        for nothing in [0, 1, 77] {
            let (mut session, mut forger) = forged(*suite);
            let mut record = forger.inner(&vec![0; nothing]);
            assert_eq!(session.open(&mut record), Err(UNEXPECTED_MESSAGE), "{nothing} bytes and no content type");
        }
    }
}

#[test]
fn padding_does_not_lift_the_size_limit() {
    let (mut session, mut forger) = forged(TLS13);
    // RFC 8446 section 5.4: the padding counts.
    let mut record = forger.padded(23, b"x", PLAINTEXT_MAX);
    assert_eq!(session.open(&mut record), Err(RECORD_OVERFLOW));
}

#[test]
fn empty_records_are_nothing_and_a_flood_of_them_is_refused() {
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        for _ in 0..3 {
            for _ in 0..EMPTY_MAX {
                let mut record = forger.record(23, &[]);
                assert_eq!(session.open(&mut record), Ok(Opened::Nothing { consumed: record.len() }), "{suite:?}");
            }
            let mut data = forger.record(23, b"x");
            assert!(matches!(session.open(&mut data), Ok(Opened::Data { .. })), "{suite:?}: data starts a new count");
        }
        for _ in 0..EMPTY_MAX {
            session.open(&mut forger.record(23, &[])).expect("not yet too many");
        }
        assert_eq!(session.open(&mut forger.record(23, &[])), Err(UNEXPECTED_MESSAGE), "{suite:?}");
    }
}

#[test]
fn a_key_update_of_the_client_is_followed_and_answered() {
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
fn a_worn_key_is_changed_and_the_client_follows() {
    for suite in &SUITES[..3] {
        let (mut session, mut client) = established(*suite);
        session.limit_records(KEPT_BACK + 16);
        let mut changes = 0;
        for round in 0..200_u8 {
            let mut wire = Vec::new();
            if session.is_near_limit(4) {
                session.update_key(&mut wire).expect("kept back for this");
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
fn nothing_is_sealed_past_the_limit() {
    for suite in SUITES {
        let (mut session, mut client) = established(suite);
        session.limit_records(session.seal.sequence + 3);
        let mut wire = Vec::new();
        for _ in 0..3 {
            wire.extend(seal(&mut session, b"x"));
        }
        assert_eq!(session.seal_data(&mut [0; 64]), Err(Exhausted), "{suite:?}");
        assert_eq!(session.fatal(Alert::INTERNAL_ERROR, &mut wire), Err(Exhausted), "{suite:?}");
        assert_eq!(session.update_key(&mut Vec::new()), Err(Exhausted), "{suite:?}: it needs a record as well");
        wire.truncate(3 * (session.before() + 1 + session.behind()));
        assert_eq!(receive(&mut client, &wire).expect("records"), b"xxx");
    }
}

#[test]
fn what_cannot_be_sealed_leaves_no_trace() {
    for suite in SUITES {
        let (mut session, mut client) = established(suite);
        let mut out = b"kept".to_vec();
        let limit = session.seal.sequence;
        session.limit_records(limit);
        assert_eq!(session.close_notify(&mut out), Err(Exhausted));
        assert_eq!(out, b"kept", "{suite:?}: no half-made record is sent by mistake");
        // TLS 1.2 has no KeyUpdate.
        session.limit_records(limit + 10);
        if !is_tls13(suite) {
            assert_eq!(session.update_key(&mut out), Err(Exhausted));
            assert_eq!(out, b"kept", "{suite:?}");
            assert_eq!(session.seal.sequence, limit, "{suite:?}");
        }
        let wire = seal(&mut session, b"x");
        assert_eq!(receive(&mut client, &wire).expect("records"), b"x");
    }
}

#[test]
fn a_tls_1_2_key_that_is_worn_keeps_room_for_a_last_word() {
    let (mut session, mut client) = established(TLS12);
    session.limit_records(session.seal.sequence + KEPT_BACK + 4);
    assert!(!session.is_near_limit(4));
    let mut wire = (0..4).flat_map(|_| seal(&mut session, b"x")).collect::<Vec<u8>>();
    assert!(session.is_near_limit(1), "though it cannot be changed");
    session.fatal(Alert::INTERNAL_ERROR, &mut wire).expect("kept back for this");
    let error = receive(&mut client, &wire).expect_err("an alert");
    assert_eq!(error, Error::AlertReceived(AlertDescription::InternalError));
}

#[test]
fn key_updates_without_anything_between_them_are_refused() {
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
fn after_a_key_update_the_old_key_opens_nothing() {
    let (mut session, mut forger) = forged(TLS13);
    assert!(matches!(session.open(&mut forger.record(22, &KEY_UPDATE)), Ok(Opened::Nothing { .. })));
    assert_eq!(session.open(&mut forger.record(23, b"old")), Err(BAD_RECORD_MAC));
}

#[test]
fn handshake_messages_that_cannot_come_are_refused() {
    type Case = (CipherSuite, &'static [u8], RecordError);
    let cases: [Case; 18] = [
        (TLS13, &[24, 0, 0, 1, 2], ILLEGAL_PARAMETER),
        (TLS13, &[24, 0, 0, 1, 255], ILLEGAL_PARAMETER),
        // A KeyUpdate of another length than 1 is known by its header.
        (TLS13, &[24, 0, 0, 0], DECODE_ERROR),
        (TLS13, &[24, 0, 0, 2, 0, 0], DECODE_ERROR),
        (TLS13, &[24, 0, 0, 2], DECODE_ERROR),
        (TLS13, &[24, 0xff, 0xff, 0xff], DECODE_ERROR),
        // Nothing may follow a KeyUpdate in its record: the keys change behind it (RFC 8446 section 5.1).
        (TLS13, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], UNEXPECTED_MESSAGE),
        (TLS13, &[24, 0, 0, 1, 0, 0], UNEXPECTED_MESSAGE),
        // Other messages are known by their first byte.
        (TLS13, &[1, 0, 0, 0], UNEXPECTED_MESSAGE),
        (TLS13, &[4], UNEXPECTED_MESSAGE),
        (TLS13, &[11, 0, 0, 0], UNEXPECTED_MESSAGE),
        (TLS13, &[], UNEXPECTED_MESSAGE),
        (TLS12, &KEY_UPDATE, UNEXPECTED_MESSAGE),
        (TLS12, &[0, 0, 0, 0], UNEXPECTED_MESSAGE),
        (TLS12, &[20, 0, 0, 12], UNEXPECTED_MESSAGE),
        (TLS12, &[], UNEXPECTED_MESSAGE),
        // A ClientHello larger than any, and one with another message behind it.
        (TLS12, &[1, 1, 0, 0], DECODE_ERROR),
        (TLS12, &[1, 0, 0, 1, 0, 1], UNEXPECTED_MESSAGE),
    ];
    for (suite, message, error) in cases {
        let (mut session, mut forger) = forged(suite);
        assert_eq!(session.open(&mut forger.record(22, message)), Err(error), "{suite:?} {message:?}");
    }
    let (mut session, mut forger) = forged(TLS13);
    let opened = session.open(&mut forger.record(22, &KEY_UPDATE_REQUESTED));
    assert!(matches!(opened, Ok(Opened::KeyUpdateRequested { .. })), "the right one is taken: {opened:?}");
}

/// Opens these handshake records, all but the last of which are parts of a message.
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
fn a_key_update_in_any_fragments_is_followed() {
    // Each bit says whether the record ends behind that byte.
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
fn fragments_of_a_wrong_key_update_get_the_alert_of_the_whole() {
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
fn nothing_comes_between_fragments_in_tls_1_3() {
    for (kind, content) in [(23, &b"data"[..]), (23, b""), (21, &[1, 0]), (21, &[1, 90]), (20, &[1])] {
        let (mut session, mut forger) = forged(TLS13);
        session.open(&mut forger.record(22, &KEY_UPDATE[..3])).expect("a part of a message");
        assert_eq!(session.open(&mut forger.record(kind, content)), Err(UNEXPECTED_MESSAGE), "{kind} {content:?}");
    }
    // After an error alert nothing may be sent any more, not even a complaint.
    let (mut session, mut forger) = forged(TLS13);
    session.open(&mut forger.record(22, &KEY_UPDATE[..3])).expect("a part of a message");
    let opened = session.open(&mut forger.record(21, &[2, 80]));
    assert_eq!(opened, Ok(Opened::Alert(Alert::INTERNAL_ERROR)));
}

#[test]
fn a_renegotiation_in_fragments_among_data_is_declined_in_tls_1_2() {
    let hello = [&[1, 0, 0x80, 0][..], &[9; 0x8000]].concat();
    for size in [1, 3, 4, 5, 16_384] {
        let (mut session, mut forger) = forged(TLS12);
        let parts: Vec<&[u8]> = hello.chunks(size).collect();
        let (last, parts) = parts.split_last().expect("several");
        for (count, part) in parts.iter().enumerate() {
            let mut record = forger.record(22, part);
            assert_eq!(session.open(&mut record), Ok(Opened::Nothing { consumed: record.len() }), "of {size}");
            if count < 3 {
                // RFC 5246 section 6.2.1 lets records of different types alternate.
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
fn a_record_number_never_begins_anew() {
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        (session.open.sequence, *forger.sequence_mut()) = (u64::MAX, u64::MAX - 1);
        assert_eq!(session.open(&mut forger.record(23, b"x")), Err(BAD_RECORD_MAC), "{suite:?}: not that number");
        let opened = session.open(&mut forger.record(23, b"x"));
        assert_eq!(opened, Err(RecordError(Alert::INTERNAL_ERROR)), "{suite:?}: there is no number behind it");
    }
}

#[test]
fn renegotiation_is_declined_once_and_insisting_on_it_is_refused() {
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
fn other_content_types_are_refused() {
    for suite in SUITES {
        for kind in [0, 1, 19, 20, 24, 25, 255] {
            // In TLS 1.3 a 0 would be padding.
            if kind == 0 && is_tls13(suite) {
                continue;
            }
            let (mut session, mut forger) = forged(suite);
            assert_eq!(session.open(&mut forger.record(kind, &[1])), Err(UNEXPECTED_MESSAGE), "{suite:?} {kind}");
        }
    }
    // Unprotected ones, such as the ChangeCipherSpec that TLS 1.3 has during the handshake.
    for mut record in [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 3, 0, 1, 1]].map(<[u8]>::to_vec) {
        assert_eq!(forged(TLS13).0.open(&mut record), Err(UNEXPECTED_MESSAGE));
        assert_eq!(forged(TLS12).0.open(&mut record), Err(BAD_RECORD_MAC));
    }
}

#[test]
fn alerts_are_understood() {
    let consumed = |record: &[u8]| Opened::Nothing { consumed: record.len() };
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        // user_canceled is never more than a warning in TLS 1.3, whose levels mean nothing.
        let level = if is_tls13(suite) { 2 } else { 1 };
        let mut record = forger.record(21, &[level, 90]);
        assert_eq!(session.open(&mut record), Ok(consumed(&record)), "{suite:?}: user_canceled announces only");
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
    // There are two levels, and what is fatal ends the connection (RFC 5246 section 7.2).
    for (alert, opened) in
        [([0, 0], Err(ILLEGAL_PARAMETER)), ([3, 100], Err(ILLEGAL_PARAMETER)), ([2, 90], Ok(Opened::Alert(Alert(90))))]
    {
        let (mut session, mut forger) = forged(TLS12);
        assert_eq!(session.open(&mut forger.record(21, &alert)), opened, "{alert:?}");
    }
    // TLS 1.3 has no warnings but those two, whatever the level says (RFC 8446 section 6).
    for alert in [[1, 100], [7, 40], [1, 255]] {
        let (mut session, mut forger) = forged(TLS13);
        let opened = session.open(&mut forger.record(21, &alert));
        assert_eq!(opened, Ok(Opened::Alert(Alert(alert[1]))), "{alert:?}");
    }
    let (mut session, mut forger) = forged(TLS13);
    assert!(matches!(session.open(&mut forger.record(21, &[7, 0])), Ok(Opened::Closed { .. })));
}

#[test]
fn an_empty_alert_is_an_unexpected_message() {
    // RFC 8446 section 5.4 names the alert.
    let (mut session, mut forger) = forged(TLS13);
    assert_eq!(session.open(&mut forger.record(21, &[])), Err(UNEXPECTED_MESSAGE));
}

#[test]
fn close_notify_and_fatal_alerts_reach_rustls() {
    for suite in SUITES {
        let (mut session, mut client) = established(suite);
        let mut wire = seal(&mut session, b"last");
        session.close_notify(&mut wire).expect("within the limit");
        assert_eq!(receive(&mut client, &wire).expect("records"), b"last");
        assert!(matches!(client.reader().read(&mut [0; 8]), Ok(0)), "{suite:?}: a clean end");
        client.send_close_notify();
        let (_, others) = open_all(&mut session, sent(&mut client));
        assert!(matches!(others[..], [Opened::Closed { .. }]), "{suite:?}: {others:?}");

        let (mut session, mut client) = established(suite);
        let mut wire = Vec::new();
        session.fatal(Alert::ACCESS_DENIED, &mut wire).expect("within the limit");
        let error = receive(&mut client, &wire).expect_err("an alert");
        assert_eq!(error, Error::AlertReceived(AlertDescription::AccessDenied), "{suite:?}");
    }
}

/// A record of some kind, honest or not.
fn some_record(forger: &mut Forger, random: &mut Random) -> Vec<u8> {
    let kind = [20, 21, 22, 23, 23, 23, 24, 0][random.below(8)];
    let length = [0, 1, 2, 5, 300][random.below(5)];
    let content = random.bytes(length);
    forger.record(kind, &content)
}

#[test]
fn random_bytes_never_panic_and_never_open() {
    let mut random = Random(0x5eed);
    for suite in SUITES {
        let (mut session, _) = forged(suite);
        for _ in 0..20_000 {
            let length = random.below(64);
            let mut bytes = random.bytes(length);
            // Most of them with a header that gets further than the first look.
            if random.below(8) > 0 {
                let length = u8::try_from(random.below(48)).expect("a byte");
                for (slot, byte) in bytes.iter_mut().zip([23, 3, 3, 0, length]) {
                    *slot = byte;
                }
            }
            let opened = session.open(&mut bytes);
            assert!(matches!(opened, Err(_) | Ok(Opened::Incomplete(_))), "{suite:?}: {opened:?}");
        }
    }
}

#[test]
fn mutated_records_never_panic_and_ranges_stay_inside() {
    let mut random = Random(0xdead_beef);
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        for _ in 0..5_000 {
            let mut bytes = some_record(&mut forger, &mut random);
            let honest = random.below(2) == 0;
            if !honest {
                for _ in 0..1 + random.below(3) {
                    match random.below(3) {
                        0 => bytes.truncate(random.below(bytes.len() + 1)),
                        1 => bytes.push(0),
                        _ if bytes.is_empty() => {}
                        _ => {
                            let at = random.below(bytes.len());
                            bytes[at] ^= 1 << random.below(8);
                        }
                    }
                }
            }
            let length = bytes.len();
            match session.open(&mut bytes) {
                Ok(Opened::Data { consumed, plaintext }) => {
                    assert!(consumed <= length && plaintext.start <= plaintext.end && plaintext.end <= consumed);
                }
                Ok(
                    Opened::Nothing { consumed }
                    | Opened::KeyUpdateRequested { consumed }
                    | Opened::Renegotiation { consumed }
                    | Opened::Closed { consumed },
                ) => assert!(consumed <= length),
                Ok(Opened::Incomplete(wanted)) => assert!(wanted > length && wanted <= RECORD_MAX),
                Ok(Opened::Alert(_)) | Err(_) => {}
            }
            // The two keep step, whatever became of the record.
            session.open.sequence = forger.sequence();
        }
    }
}
