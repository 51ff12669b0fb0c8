//! Payload together with the last flight of the handshake, and after `close_notify`.

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;

use doorward::model::close::CloseReason;
use rustls::HandshakeKind;
use rustls::client::Resumption;

use super::{Finish, NAME, Peer, SUITES, assert_same, down, up, ways, with_suite};
use crate::client::{Client, End, client, connect};
use crate::common::backend::Backend;
use crate::common::pki::TestPki;
use crate::home::{House, Watch};

/// What `close_notify` means: nothing more comes from here, and the answer is still expected (RFC 8446 section 6.1).
#[test]
fn answer_after_close_notify_and_after_a_bare_half_close() {
    let pki = TestPki::new();
    let question = up(100_000);
    let backend = Backend::serve("127.0.0.1:0", move |mut stream, state| {
        let mut got = Vec::new();
        // It answers when the question is over, and not before.
        state.each_read(stream, |bytes| {
            got.extend_from_slice(bytes);
            true
        });
        let _ = stream.write_all(&got).and_then(|()| stream.write_all(down(200_000)));
        let _ = stream.shutdown(Shutdown::Write);
    });
    let gate = House::new(&pki).route("nas", backend.address()).passthrough("mail", backend.address()).open();
    for way in ways() {
        for (by_alert, by_tcp) in [(true, false), (true, true), (false, true)] {
            let watch = Watch::begin(&gate);
            let peer = way.connect(&gate, &pki);
            peer.send(question);
            match &peer {
                Peer::Tls(client) => {
                    if by_alert {
                        client.close_notify();
                    }
                    if by_tcp {
                        client.shut_tcp();
                    }
                }
                Peer::Raw(_) => peer.finish(Finish::Tcp),
            }
            let (received, end) = peer.read_to_end();
            assert_same(&way.name(), &received, &[&way.first(), question, down(200_000)].concat());
            assert_eq!(end, End::Orderly, "{}", way.name());
            drop(peer);
            watch.closed(CloseReason::ClientClosed);
        }
    }
}

/// Payload in the same segment as the client's last flight belongs to the relay, not to the handshake.
#[test]
fn first_payload_comes_with_the_last_flight() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    for suite in SUITES {
        let mut config = Arc::unwrap_or_clone(with_suite(&pki, suite));
        config.resumption = Resumption::in_memory_sessions(4);
        let config = Arc::new(config);
        // A full handshake, then resumed ones: under TLS 1.2 only these end with the client.
        for (round, length) in [1, 4, 1000, 16_384, 40_000, 200_000].into_iter().enumerate() {
            let client = Client::on(connect(gate.address()), &config, NAME);
            client.send(up(length)).unwrap();
            client.handshake().unwrap();
            let mut received = vec![0; length];
            client.read_exact(&mut received).unwrap();
            assert_same(&format!("{:?}, {length} bytes", suite.suite()), &received, up(length));
            let kind = client.tls(|connection| connection.handshake_kind());
            assert_eq!(kind == Some(HandshakeKind::Resumed), round > 0, "{:?}: {kind:?}", suite.suite());
            client.close_notify();
            assert_eq!(client.end(), End::Orderly);
        }
    }
}

/// A whole conversation in one segment: payload and close_notify right behind the last flight.
#[test]
fn everything_the_client_has_to_say_comes_with_the_last_flight() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for length in [0, 1, 5_000] {
        let watch = Watch::begin(&gate);
        let client = Client::on(connect(gate.address()), &config, NAME);
        client.flush().unwrap();
        while !client.tls(|connection| connection.wants_write()) {
            client.receive_some().unwrap();
        }
        client
            .tls(|connection| {
                connection.writer().write_all(up(length))?;
                connection.send_close_notify();
                Ok::<(), std::io::Error>(())
            })
            .unwrap();
        client.flush().unwrap();
        client.shut_tcp();
        let (received, end) = client.read_to_end();
        assert_same("the echo", &received, up(length));
        assert_eq!(end, End::Orderly);
        drop(client);
        let line = watch.closed_as(&[CloseReason::ClientClosed]);
        assert_eq!(line["bytes_to_backend"], length, "{line}");
    }
}
