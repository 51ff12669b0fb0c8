//! A ClientHello fragmented over records, segments, or both. The handshake completes, and the route is that of the complete
//! name (CVE-2026-32305, RUSTSEC-2024-0399).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};

use crate::common::backend::Backend;
use crate::hello::{self, Hello, SUPPORTED_GROUPS};
use crate::scene::{NAS, Scene, read_to_end, send_and_read, send_byte_by_byte};

/// Sizes of records: within the message's header, exactly the header, and larger.
const SIZES: [usize; 6] = [1, 2, 3, 4, 64, 1000];

/// The ClientHello of a rustls client, without its record header.
fn first_message(client: &mut ClientConnection) -> Vec<u8> {
    let mut record = Vec::new();
    client.write_tls(&mut record).unwrap();
    assert_eq!(record[0], hello::HANDSHAKE);
    assert_eq!(usize::from(u16::from_be_bytes([record[3], record[4]])), record.len() - 5, "one record");
    record.split_off(5)
}

fn client(config: ClientConfig) -> ClientConnection {
    ClientConnection::new(Arc::new(config), NAS.try_into().unwrap()).unwrap()
}

/// A socket that sends each byte in a segment of its own.
struct ByteByByte(TcpStream);

impl Write for ByteByByte {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0.write_all(&[*byte])?;
            thread::sleep(Duration::from_micros(50));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for ByteByByte {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

fn versions() -> [&'static SupportedProtocolVersion; 2] {
    [&TLS12, &TLS13]
}

#[test]
fn hello_in_small_records_completes_the_handshake() {
    let mut scene = Scene::new();
    let alice = scene.pki.client("alice");
    for version in versions() {
        for size in SIZES {
            let mut client = client(scene.pki.client_config(Some(&alice), &[version]));
            let pieces = hello::records(&first_message(&mut client), size);
            let mut stream = scene.connect();
            stream.write_all(&pieces).unwrap();
            scene.assert_served(StreamOwned::new(client, stream));
        }
    }
    scene.end();
}

#[test]
fn client_sending_byte_by_byte_completes_the_handshake() {
    let mut scene = Scene::new();
    let alice = scene.pki.client("alice");
    for version in versions() {
        // Not only the ClientHello, but everything that this client sends.
        let client = client(scene.pki.client_config(Some(&alice), &[version]));
        let stream = ByteByByte(scene.connect());
        scene.assert_served(StreamOwned::new(client, stream));
    }
    scene.end();
}

#[test]
fn hello_in_one_byte_records_completes_the_handshake() {
    let mut scene = Scene::new();
    let mut client = scene.alice();
    let pieces = hello::records(&first_message(&mut client), 1);
    let stream = scene.connect();
    send_byte_by_byte(&stream, pieces, Duration::from_micros(20)).join().unwrap();
    scene.assert_served(StreamOwned::new(client, stream));
    scene.end();
}

#[test]
fn flights_in_small_records_complete_the_handshake() {
    let mut scene = Scene::new();
    let alice = scene.pki.client("alice");
    for version in versions() {
        let mut config = scene.pki.client_config(Some(&alice), &[version]);
        config.max_fragment_size = Some(32);
        let stream = scene.connect();
        scene.assert_served(StreamOwned::new(client(config), stream));
    }
    scene.end();
}

#[test]
fn rejected_hello_in_pieces_gets_the_same_alert() {
    let scene = Scene::new();
    for size in SIZES {
        let unknown = hello::records(&Hello::tls13("other.home.example").message(), size);
        let line = scene.assert_rejected(&unknown, "route", "server_name_unknown", Some(112));
        assert_eq!(line["server_name"], "other.home.example");
        let twice = Hello::tls13(NAS).and(SUPPORTED_GROUPS, hello::vector16(&[0, 0x1d]));
        scene.assert_rejected(&hello::records(&twice.message(), size), "client_hello", "malformed", Some(47));
    }
    scene.end();
}

#[test]
fn hello_in_pieces_never_selects_the_default_route() {
    let decoy = Backend::echo();
    let mut scene = Scene::with(&format!(
        "[[route]]\nname = \"rest\"\nmode = \"passthrough\"\nserver_names = [\"*\"]\nbackends = [\"{}\"]\n",
        decoy.address()
    ));
    for size in SIZES {
        let mut client = scene.alice();
        let pieces = hello::records(&first_message(&mut client), size);
        let mut stream = scene.connect();
        stream.write_all(&pieces).unwrap();
        scene.assert_served(StreamOwned::new(client, stream));

        // The policy of `nas` applies: a client without a certificate is rejected, not passed to another route.
        let mut client = self::client(scene.pki.client_config(None, &[&TLS13]));
        let pieces = hello::records(&first_message(&mut client), size);
        let line = scene.expect_rejection("certificate", "required", |mut stream| {
            stream.write_all(&pieces).unwrap();
            let error = rustls::Stream::new(&mut client, &mut stream).read(&mut [0]).unwrap_err();
            assert!(error.to_string().contains("CertificateRequired"), "{error}");
        });
        assert_eq!(line["route"], "nas");

        // An invalid ClientHello selects no route.
        let unreadable = Hello::tls13(NAS).and(SUPPORTED_GROUPS, Vec::new());
        scene.assert_rejected(&hello::records(&unreadable.message(), size), "client_hello", "malformed", Some(47));
        // Nor does an incomplete one.
        let half = &pieces[..pieces.len() / 2];
        scene.expect_rejection("client_hello", "closed_early", |mut stream| {
            stream.write_all(half).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            read_to_end(stream, tokio::time::Instant::now());
        });
    }
    assert_eq!(decoy.accepted(), 0);
    scene.end();
}

#[test]
fn hello_in_pieces_is_passed_through_unchanged() {
    let echo = Backend::echo();
    let mut scene = Scene::with(&format!(
        "[[route]]\nname = \"mail\"\nmode = \"passthrough\"\nserver_names = [\"mail.home.example\"]\n\
         backends = [\"{}\"]\n",
        echo.address()
    ));
    for (count, size) in SIZES.into_iter().enumerate() {
        let pieces = hello::records(&Hello::tls13("mail.home.example").message(), size);
        let with_payload = [&pieces[..], b"and the bytes after it"].concat();
        let stream = scene.connect();
        let sender = send_byte_by_byte(&stream, with_payload.clone(), Duration::from_micros(20));
        let mut echoed = vec![0; with_payload.len()];
        (&stream).read_exact(&mut echoed).unwrap();
        assert_eq!(echoed, with_payload);
        sender.join().unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(send_and_read(&stream, b"").bytes.is_empty());
        scene.gate.wait_closed("mail", count + 1);
        if count == 0 {
            // The pipes of passthrough relays stay in the pool.
            scene.count_descriptors();
        }
    }
    assert_eq!(echo.accepted(), SIZES.len() as u64);
    scene.end();
}
