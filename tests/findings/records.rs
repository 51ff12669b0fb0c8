//! Records that break the rules, in and after the handshake.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ConnectionTrafficSecrets, Error, StreamOwned,
    SupportedProtocolVersion,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::common::process::{run, tool};
use crate::hello::{self, APPLICATION_DATA, HANDSHAKE, Hello};
use crate::scene::{End, NAS, PROMPT, Scene, read_to_end, send_and_read};

const ALERT: u8 = 21;

/// The content types and payloads of whole records.
#[track_caller]
fn records(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut records = Vec::new();
    while let [kind, 3, _, high, low, rest @ ..] = bytes {
        let (payload, behind) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        records.push((*kind, payload.to_vec()));
        bytes = behind;
    }
    assert!(bytes.is_empty(), "half a record: {bytes:02x?}");
    records
}

/// Junk that may come behind a ClientHello: records that cannot be, and one that can be but not here.
fn junk() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("an empty record", hello::record(HANDSHAKE, &[])),
        ("an empty alert", hello::record(ALERT, &[])),
        ("an oversized record", [&[HANDSHAKE, 3, 3], &[0xff; 2][..], &[0; 300]].concat()),
        ("an unknown content type", hello::record(99, &[1, 2, 3])),
        ("an unknown version", vec![HANDSHAKE, 9, 9, 0, 1, 0]),
        ("payload", hello::record(APPLICATION_DATA, &[7; 100])),
    ]
}

/// rustls, asked for more after an error, looked at the same bytes again: four alerts for one mistake in builds for
/// release, and in others a failed assertion, which ended the connection as `internal`.
#[test]
fn junk_behind_a_hello_was_answered_with_more_than_one_alert() {
    let scene = Scene::new();
    for (what, junk) in junk() {
        // In the clear.
        let hello = Hello::tls12(NAS).records();
        scene.expect_rejection("handshake", "misbehaved", |stream| {
            let heard = send_and_read(stream, &[hello, junk.clone()].concat());
            assert!(heard.after < PROMPT && heard.end == End::Orderly, "{what}: {heard:?}");
            let records = records(&heard.bytes);
            assert_eq!(records[0].0, HANDSHAKE, "{what}: a ServerHello first");
            let alerts: Vec<_> = records.iter().filter(|(kind, _)| *kind == ALERT).collect();
            assert_eq!(alerts.len(), 1, "{what}: {alerts:02x?}");
            assert!(matches!(alerts[0].1[..], [2, _]), "{what}: a fatal one: {alerts:02x?}");
            assert_eq!(records.last(), Some(alerts[0]), "{what}: nothing comes behind it");
        });
        // Under keys: one record more than a client hears that says no more, as long as an alert is.
        let hello = Hello::tls13(NAS).records();
        let mut quiet = 0;
        scene.expect_rejection("handshake", "closed_early", |mut stream| {
            stream.write_all(&hello).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            quiet = records(&read_to_end(stream, Instant::now()).bytes).len();
        });
        scene.expect_rejection("handshake", "misbehaved", |stream| {
            let heard = send_and_read(stream, &[hello, junk].concat());
            assert!(heard.after < PROMPT && heard.end == End::Orderly, "{what}: {heard:?}");
            let records = records(&heard.bytes);
            assert_eq!(records.len(), quiet + 1, "{what}: one alert and nothing else");
            let (kind, payload) = &records[quiet];
            // Two bytes, their content type, and sixteen that prove them (RFC 8446 section 5.2).
            assert_eq!((*kind, payload.len()), (APPLICATION_DATA, 2 + 1 + 16), "{what}");
        });
    }
    scene.end();
}

fn connection(scene: &Scene, version: &'static SupportedProtocolVersion) -> ClientConfig {
    scene.pki.client_config(Some(&scene.pki.client("alice")), &[version])
}

/// Sends what rustls has to send, after `change`; returns it.
fn flush(client: &mut ClientConnection, mut stream: &TcpStream, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    change(&mut bytes);
    stream.write_all(&bytes).unwrap();
    bytes
}

/// The same with a record whose authentication fails.
#[test]
fn bad_mac_in_the_handshake_got_more_than_one_alert() {
    const BAD_RECORD_MAC: u8 = 20;
    let scene = Scene::new();
    for version in [&TLS12, &TLS13] {
        let tls13 = version.version == TLS13.version;
        let config = Arc::new(connection(&scene, version));
        let line = scene.expect_rejection("handshake", "misbehaved", |mut stream| {
            let mut client = ClientConnection::new(config, NAS.try_into().unwrap()).unwrap();
            flush(&mut client, stream, |_| ());
            // Under TLS 1.3 there may be something to say before the gate's flight has come whole.
            while if tls13 { client.is_handshaking() } else { !client.wants_write() } {
                assert_ne!(client.read_tls(&mut stream).unwrap(), 0);
                client.process_new_packets().unwrap();
            }
            // Finished is the last record of the client's flight, and its tag the end of it.
            let flight = flush(&mut client, stream, |flight| *flight.last_mut().unwrap() ^= 1);
            assert!(flight.len() > 300, "a Certificate and what belongs to it");
            let heard = read_to_end(stream, Instant::now());
            assert_eq!(heard.end, End::Orderly);
            let records = records(&heard.bytes);
            assert_eq!(records.len(), 1, "one alert and nothing else: {records:02x?}");
            if tls13 {
                client.read_tls(&mut &heard.bytes[..]).unwrap();
                let told = client.process_new_packets().unwrap_err();
                assert_eq!(told, Error::AlertReceived(AlertDescription::BadRecordMac));
            } else {
                assert_eq!(records[0], (ALERT, vec![2, BAD_RECORD_MAC]));
            }
        });
        // Under TLS 1.3 the certificate is in the record that cannot be opened.
        let seen = if tls13 { Value::Null } else { Value::Bool(false) };
        assert_eq!(line["certificate"]["verified"], seen, "the handshake came to nothing: {line}");
    }
    scene.end();
}

/// rustls has no error of its own for this; it was counted as `internal`, a fault of the gate, and any client could have it
/// raise an alarm.
#[test]
fn missing_signature_scheme_was_an_internal_error() {
    let mut scene = Scene::new();
    let address = scene.gate.address().to_string();
    let s_client = |algorithms: &str| {
        let mut command = tool("openssl", "openssl");
        command.args(["s_client", "-connect", &address, "-servername", NAS, "-tls1_2", "-sigalgs", algorithms]);
        run(&mut command).failure()
    };
    let line = scene.expect_one_rejection("handshake", "no_shared_parameters", || {
        let finished = s_client("ECDSA+SHA384");
        assert!(finished.stderr.contains("alert handshake failure"), "{finished}");
    });
    assert_eq!([&line["side"], &line["route"], &line["alert"]], ["client", "nas", "handshake_failure"]);
    // With the one that P-256 goes with it gets as far as being asked for a certificate.
    scene.expect_one_rejection("certificate", "required", || {
        s_client("ECDSA+SHA256:ECDSA+SHA384");
    });
    scene.assert_alice_served();
    scene.end();
}

/// A record of TLS 1.2 under AES-128-GCM (RFC 5288 section 3).
fn sealed(key: &LessSafeKey, salt: [u8; 4], sequence: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
    let explicit = sequence.to_be_bytes();
    let nonce: [u8; 12] = [&salt[..], &explicit].concat().try_into().unwrap();
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let additional = [&explicit[..], &[kind, 3, 3], &length].concat();
    let mut sealed = payload.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(additional), &mut sealed).unwrap();
    [&[kind, 3, 3][..], &hello::vector16(&[&explicit[..], &sealed].concat())].concat()
}

/// A client that asked for renegotiation again and again, with a byte of payload in between, and read nothing had the
/// gate keep a warning for each: memory without end. It is declined once; a client that insists is rejected.
#[test]
fn renegotiation_between_payload_accumulated_alerts() {
    const REQUESTS: usize = 5000;
    let scene = Scene::new();
    let mut config = connection(&scene, &TLS12);
    config.enable_secret_extraction = true;
    let client = ClientConnection::new(Arc::new(config), NAS.try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(client, scene.connect());
    tls.write_all(b"ping").unwrap();
    tls.read_exact(&mut [0; 4]).unwrap();
    let (client, mut stream) = tls.into_parts();
    let secrets = client.dangerous_extract_secrets().unwrap();
    let (first, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
        panic!("not the cipher suite that the gate prefers");
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let salt = *iv.as_ref().first_chunk().unwrap();
    let request = Hello::tls12(NAS).message();
    let all: Vec<u8> = (0..2 * REQUESTS)
        .zip(first..)
        .flat_map(|(count, sequence)| match count % 2 {
            0 => sealed(&key, salt, sequence, APPLICATION_DATA, b"x"),
            _ => sealed(&key, salt, sequence, HANDSHAKE, &request),
        })
        .collect();
    let before = scene.memory();
    // The gate has heard enough before all of it is sent.
    let _ = stream.write_all(&all);
    let line = scene.gate.wait_closed("nas", 2).pop().unwrap();
    assert_eq!(line["reason"], "tls_error", "{line}");
    assert!(line["bytes_to_backend"].as_u64().unwrap() <= 4 + 2, "only what came before it: {line}");
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes more");
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    let alerts = records(&heard).iter().filter(|(kind, _)| *kind == ALERT).count();
    assert!(alerts <= 2, "{alerts} alerts: one declines, one is the end");
    drop(stream);
    assert_eq!(scene.backend.accepted(), 2);
    // The scene counts on its own how many were let in.
    let Scene { gate, .. } = scene;
    gate.settled();
}
