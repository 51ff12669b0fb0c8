//! Tickets of a strict route for a challenge, and sessions of a challenge for a strict route.

use std::io::Write;

use rustls::{AlertDescription, HandshakeKind};

use super::BOTH;
use super::live::{Live, NAS};
use super::validator::{ACME, Client, Outcome, Seen, go_on};

/// A validator's connection, and whether it asks to resume a session: by `pre_shared_key` in TLS 1.3, and by a ticket or a
/// session ID in TLS 1.2.
fn validate(live: &Live, client: &Client) -> (Outcome, bool) {
    let (mut tls, mut hello) = (client.begin(NAS, &[ACME]), Vec::new());
    tls.write_tls(&mut hello).expect("memory");
    let asks = extensions(&hello).iter().any(|(kind, body)| *kind == 41 || *kind == 35 && !body.is_empty());
    let mut stream = live.connect();
    stream.write_all(&hello).expect("a connection");
    (go_on(tls, stream, b""), asks)
}

/// The extensions of a ClientHello in one record.
fn extensions(hello: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let length = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + length(at);
    at += 1 + usize::from(hello[at]);
    at += 2;
    let mut all = Vec::new();
    while at < hello.len() {
        let (kind, body) = (u16::from_be_bytes([hello[at], hello[at + 1]]), length(at + 2));
        all.push((kind, hello[at + 4..at + 4 + body].to_vec()));
        at += 4 + body;
    }
    all
}

#[test]
fn ticket_of_a_strict_route_is_worth_nothing_for_a_challenge() {
    let live = Live::new("");
    for version in BOTH {
        let alice = Client::new(version, Some(&live.alice));
        let serve = |kind| {
            let outcome = alice.run(live.connect(), NAS, &[], b"hello");
            assert_eq!((outcome.payload.as_slice(), outcome.kind), (&b"hello"[..], Some(kind)));
            assert_eq!(live.verdict().reason, "client_closed");
        };
        serve(HandshakeKind::Full);
        serve(HandshakeKind::Resumed);
        live.order(NAS);
        let reached = live.reached();
        let (outcome, asks) = validate(&live, &alice);
        assert!(asks);
        assert_eq!((outcome.end, outcome.kind), (Seen::CloseNotify, Some(HandshakeKind::Full)), "{outcome:?}");
        alice.shown.assert_is_challenge(NAS);
        let told = live.verdict();
        assert_eq!((told.reason.as_str(), &told.line["tls"]["resumed"]), ("acme_challenge", &false.into()));
        assert_eq!(live.reached(), reached);
        live.gate.challenges.withdraw_all();
    }
}

#[test]
fn challenge_leaves_no_session_to_resume() {
    let live = Live::new("");
    for version in BOTH {
        live.order(NAS);
        let stranger = Client::new(version, None);
        for _ in 0..3 {
            let (outcome, asks) = validate(&live, &stranger);
            assert!(!asks);
            assert_eq!((outcome.end, outcome.kind), (Seen::CloseNotify, Some(HandshakeKind::Full)), "{outcome:?}");
            assert_eq!(live.verdict().reason, "acme_challenge");
        }
        // Neither during the order nor after it.
        for protocols in [&[][..], &[&b"http/1.1"[..]], &[ACME]] {
            if protocols == [ACME] {
                live.gate.challenges.withdraw_all();
            }
            let outcome = stranger.run(live.connect(), NAS, protocols, b"hello");
            assert_eq!(outcome.end, Seen::Alert(AlertDescription::CertificateRequired), "{outcome:?}");
            assert_eq!(live.verdict().reason, "required");
        }
    }
    assert_eq!(live.reached(), 0);
}
