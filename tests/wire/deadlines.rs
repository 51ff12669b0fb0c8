//! Slow clients are closed at the deadline of their phase, neither earlier nor later.

use std::io::Write;
use std::iter;
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

use crate::hello::{self, Hello};
use crate::scene::{NAS, PROMPT, Response, Scene, read_to_end, send_byte_by_byte};

/// Enough for a hello on a busy machine.
const DEADLINE: Duration = Duration::from_secs(2);

fn scene() -> Scene {
    Scene::with("[timeouts]\nclient_hello = \"2s\"\nhandshake = \"2s\"\n")
}

/// Waits for the deadline of a phase. Returns what the client received until then.
#[track_caller]
fn assert_times_out(scene: &Scene, stage: &str, attempt: impl FnOnce(&TcpStream)) -> Response {
    let mut response = None;
    // Measured from before the connection, so that a punctual gate never seems early.
    let started = Instant::now();
    let line = scene.expect_rejection(stage, "timeout", |stream| {
        attempt(stream);
        response = Some(read_to_end(stream, started));
    });
    let response = response.unwrap();
    assert!(response.after >= DEADLINE, "closed after {:?}", response.after);
    assert!(response.after <= DEADLINE + PROMPT, "closed after {:?}", response.after);
    assert!(line["alert"].is_null(), "{line}");
    assert!(line["seconds"].as_f64().unwrap() >= DEADLINE.as_secs_f64(), "{line}");
    response
}

#[test]
fn silent_client_is_closed_at_the_deadline() {
    let scene = scene();
    let response = assert_times_out(&scene, "client_hello", |_| ());
    assert!(response.bytes.is_empty(), "{response:02x?}");
    scene.end();
}

#[test]
fn incomplete_hello_is_closed_at_the_deadline() {
    let scene = scene();
    let whole = Hello::tls13(NAS).records();
    for part in [1, 4, 5, 6, 9, whole.len() / 2, whole.len() - 1] {
        let response = assert_times_out(&scene, "client_hello", |mut stream| stream.write_all(&whole[..part]).unwrap());
        assert!(response.bytes.is_empty(), "{part}: {response:02x?}");
    }
    // A client that stops between two records.
    let first = hello::record(hello::HANDSHAKE, &Hello::tls13(NAS).message()[..40]);
    assert_times_out(&scene, "client_hello", |mut stream| stream.write_all(&first).unwrap());
    scene.end();
}

#[test]
fn hello_byte_by_byte_is_closed_at_the_deadline() {
    let scene = scene();
    // In one long record, and in one-byte records, where the gate is woken for every byte.
    let message = hello::message(1, &[0; 16_000]);
    for bytes in [hello::records(&message, 1 << 14), hello::records(&message, 1)] {
        let mut sender = None;
        let response = assert_times_out(&scene, "client_hello", |stream| {
            sender = Some(send_byte_by_byte(stream, bytes, Duration::from_millis(10)));
        });
        assert!(response.bytes.is_empty(), "{response:02x?}");
        sender.unwrap().join().unwrap();
    }
    scene.end();
}

#[test]
fn silence_after_the_hello_is_closed_at_the_deadline() {
    let scene = scene();
    for hello in [Hello::tls13(NAS), Hello::tls12(NAS)] {
        let response = assert_times_out(&scene, "handshake", |mut stream| stream.write_all(&hello.records()).unwrap());
        assert_eq!([response.bytes[0], response.bytes[5]], [hello::HANDSHAKE, 2], "a ServerHello");
    }
    scene.end();
}

#[test]
fn handshake_byte_by_byte_is_closed_at_the_deadline() {
    let scene = scene();
    // A record that never ends, and a TLS 1.2 message that never ends. (One ChangeCipherSpec is legal, and an empty
    // handshake record is an error, so neither can be repeated.)
    let endless = hello::record(hello::APPLICATION_DATA, &[0; 16_000]);
    let certificate = hello::records(&hello::message(11, &[0; 16_000]), 1);
    for (hello, behind) in [(Hello::tls13(NAS), endless), (Hello::tls12(NAS), certificate)] {
        let mut sender = None;
        assert_times_out(&scene, "handshake", |mut stream| {
            stream.write_all(&hello.records()).unwrap();
            sender = Some(send_byte_by_byte(stream, behind, Duration::from_millis(10)));
        });
        sender.unwrap().join().unwrap();
    }
    scene.end();
}

#[test]
fn waiting_connections_do_not_block_others() {
    let mut scene = scene();
    let held: Vec<TcpStream> = iter::repeat_with(|| scene.connect()).take(100).collect();
    scene.assert_alice_served();
    for stream in &held {
        assert!(read_to_end(stream, Instant::now()).bytes.is_empty());
    }
    scene.gate.wait_rejected("client_hello", "timeout", held.len());
    scene.end();
}
