//! Records that the session opens: integrity, order, size and content type.

use super::*;

/// A random record, legal or not.
fn some_record(forger: &mut Forger, random: &mut Random) -> Vec<u8> {
    let kind = [20, 21, 22, 23, 23, 23, 24, 0][random.below(8)];
    let length = [0, 1, 2, 5, 300][random.below(5)];
    let content = random.bytes(length);
    forger.record(kind, &content)
}

#[test]
fn changed_byte_is_rejected() {
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
                    // A longer length is waited for, a shorter one breaks the tag, and 32 KiB is too long.
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
        // The failures did not advance the sequence number.
        let mut whole = record;
        assert!(matches!(session.open(&mut whole), Ok(Opened::Data { .. })));
        assert_eq!(session.open(&mut whole), Err(BAD_RECORD_MAC), "a record is accepted once");
    }
}

#[test]
fn reordered_and_foreign_records_are_rejected() {
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        let (mut first, mut second) = (forger.record(23, b"1"), forger.record(23, b"2"));
        assert_eq!(session.open(&mut second), Err(BAD_RECORD_MAC), "{suite:?}");
        assert!(matches!(session.open(&mut first), Ok(Opened::Data { .. })), "{suite:?}");
        let mut foreign = forged(suite).1.record(23, b"1");
        assert_eq!(session.open(&mut foreign), Err(BAD_RECORD_MAC), "{suite:?}");
        let mut ours = seal(&mut session, b"ours");
        assert_eq!(session.open(&mut ours), Err(BAD_RECORD_MAC), "{suite:?}: our own record, reflected");
    }
}

#[test]
fn truncated_record_is_incomplete() {
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        let record = forger.record(23, &[7; 300]);
        for cut in 0..record.len() {
            let mut part = record[..cut].to_vec();
            let wanted = if cut < HEADER { HEADER } else { record.len() };
            assert_eq!(session.open(&mut part), Ok(Opened::Incomplete(wanted)), "{suite:?} at {cut}");
            assert_eq!(part, record[..cut], "the bytes are unchanged");
        }
        let mut more = [&record[..], &record[..100]].concat();
        let opened = session.open(&mut more);
        assert!(matches!(opened, Ok(Opened::Data { consumed, .. }) if consumed == record.len()), "{opened:?}");
    }
}

#[test]
fn records_of_illegal_size_are_rejected() {
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
fn padding_is_removed() {
    for suite in &SUITES[..3] {
        let (mut session, mut forger) = forged(*suite);
        for (content, padding) in [(1, 1), (5, 200), (100, 16_000), (PLAINTEXT_MAX - 1, 1), (16_000, 384)] {
            let mut random = Random(3);
            // The last byte of the content may be a zero like the padding.
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
fn padding_counts_toward_the_size_limit() {
    let (mut session, mut forger) = forged(TLS13);
    // Padding counts (RFC 8446 section 5.4).
    let mut record = forger.padded(23, b"x", PLAINTEXT_MAX);
    assert_eq!(session.open(&mut record), Err(RECORD_OVERFLOW));
}

#[test]
fn empty_records_are_ignored_up_to_a_limit() {
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
fn sequence_number_never_wraps() {
    for suite in SUITES {
        let (mut session, mut forger) = forged(suite);
        (session.open.sequence, *forger.sequence_mut()) = (u64::MAX, u64::MAX - 1);
        assert_eq!(
            session.open(&mut forger.record(23, b"x")),
            Err(BAD_RECORD_MAC),
            "{suite:?}: another sequence number"
        );
        let opened = session.open(&mut forger.record(23, b"x"));
        assert_eq!(opened, Err(RecordError(Alert::INTERNAL_ERROR)), "{suite:?}: it is the last sequence number");
    }
}

#[test]
fn illegal_content_types_are_rejected() {
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
    // Unencrypted ones, such as the ChangeCipherSpec in a TLS 1.3 handshake.
    for mut record in [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 3, 0, 1, 1]].map(<[u8]>::to_vec) {
        assert_eq!(forged(TLS13).0.open(&mut record), Err(UNEXPECTED_MESSAGE));
        assert_eq!(forged(TLS12).0.open(&mut record), Err(BAD_RECORD_MAC));
    }
}

#[test]
fn random_bytes_are_rejected_without_panic() {
    let mut random = Random(0x5eed);
    for suite in SUITES {
        let (mut session, _) = forged(suite);
        for _ in 0..20_000 {
            let length = random.below(64);
            let mut bytes = random.bytes(length);
            // Most of them have a plausible header.
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
fn mutated_records_never_panic() {
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
            // Both sides stay in step, even if the record was rejected.
            session.open.sequence = forger.sequence();
        }
    }
}

#[test]
fn pending_record_is_seen_when_it_is_whole() {
    let record = [23, 3, 3, 0, 2, 7, 7];
    for length in 0..record.len() {
        let pending = Pending { received: record[..length].to_vec(), ..Pending::default() };
        assert!(!pending.has_record(), "{length}");
    }
    for behind in [&[][..], &[23, 3]] {
        let pending = Pending { received: [&record[..], behind].concat(), ..Pending::default() };
        assert!(pending.has_record(), "{behind:?}");
    }
}
