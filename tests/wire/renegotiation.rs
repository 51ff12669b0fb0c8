//! Renegotiation (TLS 1.2) is declined by `no_renegotiation`.

use std::io::Write;
use std::process::Stdio;

use crate::common::process::{tool, wait_until};
use crate::scene::{NAS, Scene};

#[test]
fn renegotiation_by_openssl_is_declined() {
    let mut scene = Scene::new();
    let (chain, key) = alice(&scene);
    let mut client = tool("openssl", "openssl")
        .args(["s_client", "-tls1_2", "-servername", NAS, "-connect", &scene.gate.address().to_string()])
        .args(["-cert".as_ref(), chain.as_os_str(), "-key".as_ref(), key.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Before the request the session works.
    let mut stdin = client.stdin.take().unwrap();
    let asked = scene.backend.received();
    stdin.write_all(b"hello\n").unwrap();
    scene.backend.wait_received(asked + 6);
    // The line `R` requests renegotiation (openssl-s_client(1), "CONNECTED COMMANDS"). OpenSSL exits when it is declined.
    stdin.write_all(b"R\n").unwrap();
    wait_until("openssl exits", || client.try_wait().unwrap());
    drop(stdin);
    let output = client.wait_with_output().unwrap();
    let output_text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output_text.contains("RENEGOTIATING"), "{output_text}");
    assert!(output_text.contains("no renegotiation"), "{output_text}");

    let line = scene.assert_closed();
    assert_eq!(line["reason"], "client_reset", "{line}");
    assert_eq!([&line["bytes_to_backend"], &line["bytes_to_client"]], [6, 6]);
    assert_eq!(scene.backend.received(), asked + 6, "nothing of the request reaches the backend");
    scene.end();
}

/// Files with a certificate of alice and its key.
fn alice(scene: &Scene) -> (std::path::PathBuf, std::path::PathBuf) {
    let alice = scene.pki.client("alice");
    (scene.pki.write("alice.pem", alice.chain_pem()), scene.pki.write("alice-key.pem", alice.key_pem()))
}
