//! 0-RTT is never offered, and early data is discarded, because it could be replayed (RFC 8446 section 8).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::process::{run, run_with_input, tool, wait_until};
use crate::hello::{self, APPLICATION_DATA, EARLY_DATA, Hello};
use crate::scene::{NAS, PROMPT, Scene, send_and_read};

/// `openssl s_client` with alice's certificate.
fn s_client(scene: &Scene) -> Command {
    let mut command = tool("openssl", "openssl");
    command
        .args(["s_client", "-tls1_3", "-servername", NAS, "-connect", &scene.gate.address().to_string()])
        .args(["-cert".as_ref(), scene.pki.path("alice.pem").as_os_str()])
        .args(["-key".as_ref(), scene.pki.path("alice-key.pem").as_os_str()]);
    command
}

/// A file with a TLS session of alice, as OpenSSL stores it.
fn session(scene: &mut Scene) -> std::path::PathBuf {
    let alice = scene.pki.client("alice");
    scene.pki.write("alice.pem", alice.chain_pem());
    scene.pki.write("alice-key.pem", alice.key_pem());
    let file = scene.pki.path("session.pem");
    let mut client = s_client(scene)
        .arg("-sess_out")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    // OpenSSL writes the file when the ticket arrives, which is with the backend's first bytes, and exits at the end of its
    // input.
    stdin.write_all(b"request to the echo\n").unwrap();
    wait_until("openssl has a ticket", || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains("-----END SSL SESSION PARAMETERS-----"))
    });
    drop(stdin);
    assert!(client.wait().unwrap().success());
    scene.assert_closed();
    file
}

/// Makes OpenSSL send early data with this session: sets `max_early_data`, element [15] of `SSL_SESSION` (ssl/ssl_asn1.c).
fn allow_early_data(scene: &Scene, session: &Path) {
    let der = scene.pki.path("session.der");
    let convert = |from: &Path, form: &str, to: &Path, out: &str| {
        let mut command = tool("openssl", "openssl");
        command.args(["sess_id", "-inform", form, "-outform", out, "-in"]).arg(from).arg("-out").arg(to);
        run(&mut command).success();
    };
    convert(session, "PEM", &der, "DER");
    let bytes = std::fs::read(&der).unwrap();
    let (_, content) = element(&bytes);
    let mut rest = content;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (length, _) = element(rest);
        if rest[0] < 0xaf {
            elements.extend_from_slice(&rest[..length]);
        }
        rest = &rest[length..];
    }
    // 16,384 bytes. The elements after it are optional.
    elements.extend_from_slice(&[0xaf, 4, 2, 2, 0x40, 0]);
    let length = u16::try_from(elements.len()).unwrap().to_be_bytes();
    std::fs::write(&der, [&[0x30, 0x82], &length[..], &elements].concat()).unwrap();
    convert(&der, "DER", session, "PEM");
}

/// The length of the first DER element, and its content (X.690 section 8.1.3).
fn element(der: &[u8]) -> (usize, &[u8]) {
    let (header, length) = match der[1] {
        short @ ..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        other => panic!("a length in {other:#x}"),
    };
    (header + length, &der[header..header + length])
}

#[test]
fn early_data_is_discarded_and_the_handshake_completes() {
    let mut scene = Scene::new();
    let session = session(&mut scene);
    allow_early_data(&scene, &session);
    let early = scene.pki.write("early", "DELETE / HTTP/1.1\r\n".repeat(100));
    let received = scene.backend.received();

    let mut client = s_client(&scene);
    client.arg("-sess_in").arg(&session).arg("-early_data").arg(&early);
    let output = run_with_input(&mut client, b"late\n").success();
    assert!(output.text().contains("Early data was rejected"), "{output}");
    let line = scene.assert_closed();
    assert_eq!(line["bytes_to_backend"], 5, "{line}");
    assert_eq!(line["tls"]["resumed"], true, "{line}");
    assert_eq!(line["certificate"]["name"], "alice", "{line}");
    assert_eq!(scene.backend.received(), received + 5);
    scene.end();
}

#[test]
fn flood_of_early_data_is_rejected() {
    let scene = Scene::new();
    let before = scene.memory();
    let hello = Hello::tls13(NAS).with(EARLY_DATA, Vec::new()).records();
    // One message of the largest size is tolerated, because the client may have expected it to be allowed.
    let garbage = hello::record(APPLICATION_DATA, &[7; 4096]);
    let line = scene.expect_rejection("handshake", "misbehaved", |stream| {
        let response = send_and_read(stream, &[hello.clone(), garbage.repeat(5)].concat());
        assert!(response.after < PROMPT, "{:?}", response.after);
        assert_eq!([response.bytes[0], response.bytes[5]], [22, 2], "a ServerHello");
        assert_eq!(
            response.bytes[response.bytes.len() - 24..][..5],
            [23, 3, 3, 0, 19],
            "one encrypted alert: {response:02x?}"
        );
    });
    assert_eq!(line["route"], "nas");
    // However much follows.
    scene.expect_rejection("handshake", "misbehaved", |stream| {
        let response = send_and_read(stream, &[hello.clone(), garbage.repeat(4096)].concat());
        assert!(response.after < PROMPT, "{:?}", response.after);
    });
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    scene.end();
}

#[test]
fn early_data_without_a_session_reaches_no_backend() {
    let scene = Scene::with("[timeouts]\nhandshake = \"2s\"\n");
    let hello = Hello::tls13(NAS).with(EARLY_DATA, Vec::new()).records();
    let garbage = hello::record(APPLICATION_DATA, b"DELETE / HTTP/1.1\r\n\r\n");
    scene.expect_rejection("handshake", "timeout", |stream| {
        let response = send_and_read(stream, &[hello.clone(), garbage.clone()].concat());
        assert_eq!([response.bytes[0], response.bytes[5]], [22, 2], "a ServerHello");
    });
    // The same for an unknown name.
    let unknown = Hello::tls13("other.home.example").with(EARLY_DATA, Vec::new()).records();
    scene.assert_rejected(&[unknown, garbage].concat(), "route", "server_name_unknown", Some(112));
    scene.end();
}
