//! Validators of pending orders, and what other clients see of them: row 45 of the list of attacks, and the other rows once more
//! with ALPN `acme-tls/1`.

#[path = "../../../../tests/wire/hello.rs"]
mod hello;
mod limits;
mod live;
mod strangers;
mod tickets;
mod validator;
mod wire;

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};

use self::hello::{vector8, vector16};
use self::live::{Live, NAS};
use self::validator::{ACME, Client, Seen};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// The body of an ALPN extension with these protocols.
fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    vector16(&protocols.iter().flat_map(|protocol| vector8(protocol)).collect::<Vec<_>>())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn validator_is_shown_the_challenge_and_nothing_else() {
    let live = Live::new("");
    live.order(NAS);
    for version in BOTH {
        for payload in [&b""[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let validator = Client::new(version, None);
            let outcome = validator.run(live.connect(), NAS, &[ACME], payload);
            assert_eq!(outcome.end, Seen::CloseNotify, "{outcome:?}");
            assert_eq!((outcome.kind, outcome.payload.len()), (Some(HandshakeKind::Full), 0));
            assert_eq!(outcome.protocol.as_deref(), Some(ACME));
            assert_eq!(validator.asked(), 0, "it is not asked for a certificate");
            validator.shown.assert_is_challenge(NAS);
            let told = live.verdict();
            assert_eq!((told.reason.as_str(), &told.stage, &told.alert), ("acme_challenge", &None, &None));
            let line = &told.line;
            assert_eq!([&line["route"], &line["server_name"], &line["path"]], ["nas", NAS, "copy"], "{line}");
            let named = if version.version == TLS13.version { "TLSv1.3" } else { "TLSv1.2" };
            assert_eq!((&line["tls"]["version"], &line["tls"]["resumed"]), (&named.into(), &false.into()), "{line}");
            assert_eq!([&line["bytes_to_backend"], &line["bytes_to_client"]], [0, 0], "{line}");
            assert!(line.get("backend").is_none() && line.get("certificate").is_none(), "{line}");
        }
    }
    let counted = live.counted();
    assert_eq!(counted.len(), 2, "{counted:?}");
    assert_eq!(counted["doorward_connections_closed_total{route=\"nas\",reason=\"acme_challenge\"}"], 4);
    assert_eq!(live.reached(), 0, "no backend is dialled");
    assert!(live.gate.sessions.newest(1).0.is_empty());
}
