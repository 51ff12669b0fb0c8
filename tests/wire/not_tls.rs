//! Other protocols on the port: closed at once without a banner, and named in the log without their content.

use crate::scene::{PROMPT, Scene, assert_alert, send_and_read};

/// The first bytes of other protocols, and their names in the log.
const OTHER_PROTOCOLS: [(&str, &str, &[u8]); 21] = [
    ("HTTP", "http", b"GET /\x1b[31mevil\r\n HTTP/1.1\r\nHost: home.example\r\n\r\n"),
    ("HTTP POST", "http", b"POST /login HTTP/1.1\r\nHost: home.example\r\nContent-Length: 3\r\n\r\nabc"),
    ("HTTP CONNECT", "http", b"CONNECT example.org:443 HTTP/1.1\r\n\r\n"),
    ("HTTP/2", "http", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("SSH", "ssh", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    ("SMB 1", "smb", b"\0\0\0\x54\xffSMBr\0\0\0\0\x18\x01\x28\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ("SMB 2", "smb", b"\0\0\0\x6c\xfeSMB@\0\x01\0\0\0\0\0\0\0\x1f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ("RDP", "rdp", b"\x03\0\0\x2b\x26\xe0\0\0\0\0\0Cookie: mstshash=\x07\n\r\n\x01\0\x08\0\x03\0\0\0"),
    ("SOCKS 5", "socks", b"\x05\x02\0\x02"),
    ("SOCKS 4", "socks", b"\x04\x01\0\x50\x01\x02\x03\x04user\0"),
    ("PROXY 1", "proxy header", b"PROXY TCP4 198.51.100.1 198.51.100.2 1 2\r\n\x16\x03\x01"),
    ("PROXY 2", "proxy header", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02"),
    ("SSL 2", "tls, but not a ClientHello", b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10\x07\0\xc0\x03\0\x80\x01\0\x80"),
    ("alert", "tls, but not a ClientHello", b"\x15\x03\x01\0\x02\x02\x28"),
    ("ChangeCipherSpec", "tls, but not a ClientHello", b"\x14\x03\x03\0\x01\x01"),
    ("heartbeat", "tls, but not a ClientHello", b"\x18\x03\x02\0\x03\x01\x40\0"),
    ("application data", "tls, but not a ClientHello", b"\x17\x03\x03\0\x05hello"),
    ("a record of version 2", "other", b"\x16\x02\0\0\x05hello"),
    ("zeros", "other", &[0; 512]),
    ("newlines", "other", b"\r\n\r\n\r\n"),
    ("memcached", "other", b"stats\r\n"),
];

#[test]
fn other_protocols_are_closed_at_once_without_a_banner() {
    let scene = Scene::new();
    for (protocol, label, bytes) in OTHER_PROTOCOLS {
        let line = scene.assert_rejected(bytes, "client_hello", "not_tls", None);
        // Exactly a label from a closed list, without anything that was sent.
        assert_eq!(line["detail"], label, "{protocol}: {line}");
        assert!(line["server_name"].is_null() && line["route"].is_null(), "{line}");
        assert_eq!(line["side"], "client");
    }
    scene.end();
}

#[test]
fn random_bytes_are_closed_at_once_without_a_banner() {
    let scene = Scene::new();
    // The same in every run (xorshift64), without bytes that begin like a handshake record.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    for _ in 0..50 {
        let mut bytes: Vec<u8> = (0..32).flat_map(|_| next()).collect();
        if bytes[0] == 22 {
            bytes[0] = 0;
        }
        let line = scene.assert_rejected(&bytes, "client_hello", "not_tls", None);
        assert!(line["detail"].as_str().unwrap().len() < 32, "{line}");
    }
    scene.end();
}

#[test]
fn first_byte_is_enough_to_reject() {
    let scene = Scene::new();
    // No further byte can make these TLS, so the gate does not wait.
    for byte in [b'G', b'S', 0, 5, 0x15, 0x80, 0xff] {
        scene.assert_rejected(&[byte], "client_hello", "not_tls", None);
    }
    scene.end();
}

#[test]
fn megabytes_of_another_protocol_are_not_read() {
    let scene = Scene::new();
    let upload = [&b"POST / HTTP/1.1\r\nContent-Length: 33554432\r\n\r\n"[..], &vec![b'x'; 32 << 20]].concat();
    let before = scene.memory();
    scene.expect_rejection("client_hello", "not_tls", |stream| {
        let response = send_and_read(stream, &upload);
        assert!(response.after < PROMPT, "{:?}", response.after);
        assert_alert(&response, None);
    });
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes more");
    scene.end();
}
