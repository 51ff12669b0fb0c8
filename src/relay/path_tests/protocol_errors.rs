//! Protocol errors of a client after its handshake, and the alerts that answer them.

use std::io;
use std::net::Shutdown;

use rustls::CipherSuite;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Rig, TestEngine, rig_between};
use crate::model::close::CloseReason;
use crate::model::rejection::Alert;
use crate::relay::End;
use crate::relay::testing::{pair, until_end, within};
use crate::sys::stream::Stream;
use crate::tls::record::testing::{Forger, SUITES, TLS12, TLS13, forged_keys, is_tls13};

/// Sends one record of data and then `wire`. Returns how the relay ended and which records the client received.
async fn send_invalid<E: TestEngine>(
    suite: CipherSuite,
    wire: impl FnOnce(&mut Forger) -> Vec<u8>,
) -> (End, Vec<(u8, Vec<u8>)>) {
    let (keys, mut forger) = forged_keys(suite);
    let (mut client, ours) = pair(false).await;
    let (to_backend, mut backend) = pair(false).await;
    let mut engine = E::build(ours, keys, None, Stream::Tcp(to_backend));
    let exchange = async {
        client.write_all(&forger.record(23, b"fine")).await.expect("sent");
        let mut delivered = [0; 4];
        backend.read_exact(&mut delivered).await.expect("bytes");
        client.write_all(&wire(&mut forger)).await.expect("sent");
        let end = backend.read_to_end(&mut Vec::new()).await;
        assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset), "a reset and no byte");
        let mut received = Vec::new();
        let _ = client.read_to_end(&mut received).await;
        forger.open_records(&received)
    };
    let gate = async {
        let end = until_end(&mut engine).await;
        drop(engine);
        end
    };
    within(async { tokio::join!(gate, exchange) }).await
}

pub(crate) async fn tls12_key_at_its_limit_ends_in_an_alert<E: TestEngine>() {
    let Rig { mut engine, mut client, mut backend } =
        rig_between::<E>(TLS12, Some(200), pair(false).await, pair(false).await);
    let bytes = vec![7; 8_000_000];
    let sender = async {
        let _ = backend.write_all(&bytes).await;
        std::future::pending::<()>().await
    };
    let (end, delivered) = within(async {
        tokio::select! {
            both = async { tokio::join!(until_end(&mut engine), client.receive_all()) } => both,
            () = sender => unreachable!(),
        }
    })
    .await;
    assert_eq!(end.reason, CloseReason::TlsError, "{end:?}");
    let error = delivered.expect_err("not everything can be sent").to_string();
    assert!(error.contains("InternalError"), "{error}");
}

pub(crate) async fn renegotiation_after_our_close_notify_is_ignored<E: TestEngine>() {
    let (keys, mut forger) = forged_keys(TLS12);
    let (mut client, ours) = pair(false).await;
    let (to_backend, mut backend) = pair(false).await;
    let mut engine = E::build(ours, keys, None, Stream::Tcp(to_backend));
    SockRef::from(&backend).shutdown(Shutdown::Write).expect("shut");
    let exchange = async {
        client.read_to_end(&mut Vec::new()).await.expect("an end");
        for (kind, content) in [(22, &[1, 0, 0, 1, 0][..]), (23, b"the rest")] {
            client.write_all(&forger.record(kind, content)).await.expect("sent");
        }
        let mut delivered = vec![0; 8];
        backend.read_exact(&mut delivered).await.expect("bytes");
        client.write_all(&forger.record(21, &[1, 0])).await.expect("sent");
        backend.read_to_end(&mut delivered).await.expect("an orderly end");
        delivered
    };
    let (end, delivered) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
    assert_eq!((end.reason, delivered.as_slice()), (CloseReason::BackendClosed, &b"the rest"[..]));
}

pub(crate) async fn empty_records_are_ignored_up_to_a_limit<E: TestEngine>() {
    for suite in SUITES {
        let (keys, mut forger) = forged_keys(suite);
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut engine = E::build(ours, keys, None, Stream::Tcp(to_backend));
        let exchange = async {
            let mut delivered = Vec::new();
            for length in [1, 32, 2] {
                let mut wire = Vec::new();
                for _ in 0..length {
                    wire.extend(forger.record(23, b""));
                }
                wire.extend(forger.record(23, b"data"));
                client.write_all(&wire).await.expect("sent");
                let mut part = [0; 4];
                backend.read_exact(&mut part).await.expect("an empty record is no end");
                delivered.extend(part);
            }
            for _ in 0..33 {
                client.write_all(&forger.record(23, b"")).await.expect("sent");
            }
            let end = backend.read_to_end(&mut delivered).await.map_err(|error| error.kind());
            assert_eq!((delivered.as_slice(), end), (&b"datadatadata"[..], Err(io::ErrorKind::ConnectionReset)));
        };
        let gate = async {
            let end = until_end(&mut engine).await;
            drop(engine);
            end
        };
        let (end, ()) = within(async { tokio::join!(gate, exchange) }).await;
        assert_eq!(end.reason, CloseReason::TlsError, "{suite:?}: {end:?}");
    }
}

pub(crate) async fn invalid_records_end_the_relay<E: TestEngine>() {
    for suite in SUITES {
        let tampered = |forger: &mut Forger| {
            let mut record = forger.record(23, b"tampered");
            *record.last_mut().expect("a record") ^= 1;
            record
        };
        assert_eq!(send_invalid::<E>(suite, tampered).await.0.reason, CloseReason::TlsError, "{suite:?}: a bad tag");
        for (what, wire) in [
            ("garbage", vec![b'G'; 600]),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: nas\r\n\r\n".to_vec()),
            ("a record too long", [&[23, 3, 3, 0xff, 0xff][..], &[0; 600]].concat()),
            ("a record of another version", [&[23, 3, 9, 0, 40][..], &[0; 40]].concat()),
        ] {
            let (end, _) = send_invalid::<E>(suite, |_| wire).await;
            assert_eq!(end.reason, CloseReason::TlsError, "{suite:?}: {what}: {end:?}");
        }
    }
}

/// Which messages are legal is tested with the record layer; this test checks that every path answers them the same.
pub(crate) async fn protocol_error_is_answered_by_its_alert<E: TestEngine>() {
    type Case = (&'static str, &'static [(u8, &'static [u8])], Alert);
    let both: &[Case] = &[
        ("an unknown type", &[(99, &[0])], Alert::UNEXPECTED_MESSAGE),
        ("a Finished", &[(22, &[20, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
        ("an empty message", &[(22, &[])], Alert::UNEXPECTED_MESSAGE),
        ("an empty alert", &[(21, &[])], Alert::UNEXPECTED_MESSAGE),
        ("half an alert", &[(21, &[2])], Alert::DECODE_ERROR),
        ("two alerts in a record", &[(21, &[1, 0, 1, 0])], Alert::DECODE_ERROR),
        ("a ChangeCipherSpec", &[(20, &[1])], Alert::UNEXPECTED_MESSAGE),
    ];
    let tls13: &[Case] = &[
        ("an empty KeyUpdate", &[(22, &[24, 0, 0, 0])], Alert::DECODE_ERROR),
        ("a KeyUpdate of two bytes", &[(22, &[24, 0, 0, 2, 0, 0])], Alert::DECODE_ERROR),
        ("a KeyUpdate that asks for 2", &[(22, &[24, 0, 0, 1, 2])], Alert(47)),
        ("two KeyUpdates in a record", &[(22, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
        ("a ClientHello", &[(22, &[1, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
        ("a NewSessionTicket", &[(22, &[4, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
    ];
    let tls12: &[Case] = &[
        ("a KeyUpdate", &[(22, &[24, 0, 0, 1, 0])], Alert::UNEXPECTED_MESSAGE),
        ("a HelloRequest", &[(22, &[0, 0, 0, 0])], Alert::UNEXPECTED_MESSAGE),
        ("an endless ClientHello", &[(22, &[1, 0xff, 0xff, 0xff])], Alert::DECODE_ERROR),
        ("an unknown level", &[(21, &[3, 0])], Alert(47)),
    ];
    for suite in SUITES {
        let more = if is_tls13(suite) { tls13 } else { tls12 };
        for (what, records, alert) in both.iter().chain(more) {
            let wire = |forger: &mut Forger| {
                records.iter().flat_map(|(kind, content)| forger.record(*kind, content)).collect::<Vec<u8>>()
            };
            let (end, received) = send_invalid::<E>(suite, wire).await;
            assert_eq!(end.reason, CloseReason::TlsError, "{suite:?}: {what}: {end:?}");
            assert_eq!(received, [(21, vec![2, alert.0])], "{suite:?}: {what}");
            assert!(end.detail.is_some_and(|detail| detail.contains(&alert.to_string())), "{suite:?}: {what}");
        }
    }
}

pub(crate) async fn fatal_alert_of_the_client_resets_the_backend<E: TestEngine>() {
    for suite in [TLS12, TLS13] {
        let (end, _) = send_invalid::<E>(suite, |forger| forger.record(21, &[2, 80])).await;
        assert_eq!(end.reason, CloseReason::ClientReset, "{suite:?}: {end:?}");
        assert!(end.detail.is_some_and(|detail| detail.contains("alert")), "{suite:?}");
    }
}

pub(crate) async fn end_inside_a_message_is_a_client_reset<E: TestEngine>() {
    // In TLS 1.2, because the kernel fails at the first fragment of a KeyUpdate in TLS 1.3.
    let (keys, mut forger) = forged_keys(TLS12);
    let (mut client, ours) = pair(false).await;
    let (to_backend, mut backend) = pair(false).await;
    let mut engine = E::build(ours, keys, None, Stream::Tcp(to_backend));
    let exchange = async {
        client.write_all(&forger.record(22, &[1, 0, 0, 40, 3, 3])).await.expect("sent");
        client.shutdown().await.expect("shut");
        backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind())
    };
    let gate = async {
        let end = until_end(&mut engine).await;
        drop(engine);
        end
    };
    let (end, ended) = within(async { tokio::join!(gate, exchange) }).await;
    assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
    assert_eq!(end.reason, CloseReason::ClientReset, "{end:?}");
    assert_eq!(end.detail.as_deref(), Some("ended inside a handshake message"));
}

pub(crate) async fn data_after_a_close_notify_is_ignored<E: TestEngine>() {
    for suite in SUITES {
        let (keys, mut forger) = forged_keys(suite);
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut engine = E::build(ours, keys, None, Stream::Tcp(to_backend));
        let exchange = async {
            let mut wire = [forger.record(23, b"all"), forger.record(21, &[1, 0])].concat();
            for _ in 0..100 {
                wire.extend(forger.record(23, &[b'x'; 5000]));
            }
            wire.extend(forger.record(22, b"junk"));
            client.write_all(&wire).await.expect("sent");
            let mut delivered = Vec::new();
            backend.read_to_end(&mut delivered).await.expect("an orderly end");
            assert_eq!(delivered, b"all", "{suite:?}");
            client.write_all(&forger.record(23, b"more")).await.expect("sent");
            backend.write_all(b"answer").await.expect("sent");
            let mut received = vec![0; forger.length_of(6)];
            client.read_exact(&mut received).await.expect("an answer");
            assert_eq!(forger.open_records(&received), [(23, b"answer".to_vec())], "{suite:?}");
            backend.shutdown().await.expect("shut");
            received.clear();
            client.read_to_end(&mut received).await.expect("an orderly end");
            assert_eq!(forger.open_records(&received), [(21, vec![1, 0])], "{suite:?}");
            client.shutdown().await.expect("shut");
            client
        };
        let gate = async { until_end(&mut engine).await };
        let (end, client) = within(async { tokio::join!(gate, exchange) }).await;
        drop(engine);
        assert_eq!(end.reason, CloseReason::ClientClosed, "{suite:?}: {end:?}");
        // A reset after an end that has been read is visible only here.
        let error = client.take_error().expect("a socket");
        assert!(error.is_none(), "{suite:?}: {error:?}");
    }
}
