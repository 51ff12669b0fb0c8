//! Records that the session seals, read by rustls' client, and the record limit of a key.

use super::*;

#[test]
fn records_of_every_suite_and_size_agree_with_rustls() {
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
            assert!(
                wire.len() <= size + (size / PLAINTEXT_MAX + 1) * (session.prefix_length() + session.suffix_length())
            );
            assert!(receive(&mut client, &wire).expect("records") == payload, "{suite:?}, {size} bytes from us");
        }
    }
}

#[test]
fn two_thousand_records_each_way_stay_in_step() {
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
fn nonces_are_never_reused() {
    for suite in SUITES {
        let (mut session, _) = established(suite);
        // Finished was sealed under this key in TLS 1.2, possibly a ticket in TLS 1.3.
        let first = session.seal.sequence;
        assert!(is_tls13(suite) || first == 1, "{first}");
        let mut seen = std::collections::HashSet::new();
        let mut control = Vec::new();
        for round in 0..100_u8 {
            assert!(seen.insert(session.seal.nonce()), "{suite:?}");
            if round % 2 == 0 {
                let record = seal(&mut session, &[round]);
                if session.seal.explicit_nonce > 0 {
                    assert!(
                        seen.contains(&[&session.seal.iv[..4], &record[5..13]].concat()[..]),
                        "the explicit nonce is the one used"
                    );
                }
            } else {
                session.no_renegotiation(&mut control).expect("within the limit");
            }
        }
        assert_eq!(session.seal.sequence, first + 100);
    }
}

#[test]
fn failed_sealing_leaves_the_output_unchanged() {
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
fn sealing_stops_at_the_record_limit() {
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
        wire.truncate(3 * (session.prefix_length() + 1 + session.suffix_length()));
        assert_eq!(receive(&mut client, &wire).expect("records"), b"xxx");
    }
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

#[test]
fn tls12_key_near_its_limit_can_send_an_alert() {
    let (mut session, mut client) = established(TLS12);
    session.limit_records(session.seal.sequence + RESERVED_RECORDS + 4);
    assert!(!session.is_near_limit(4));
    let mut wire = (0..4).flat_map(|_| seal(&mut session, b"x")).collect::<Vec<u8>>();
    assert!(session.is_near_limit(1), "and cannot be changed");
    session.fatal(Alert::INTERNAL_ERROR, &mut wire).expect("a reserved record");
    let error = receive(&mut client, &wire).expect_err("an alert");
    assert_eq!(error, Error::AlertReceived(AlertDescription::InternalError));
}
