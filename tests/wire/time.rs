//! Clients that take their time: each is closed at the deadline of its phase, not earlier and not later.

use std::io::Write;
use std::iter;
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

use crate::hello::{self, Hello};
use crate::scene::{Heard, NAS, Scene, dribble, listen};

const DEADLINE: Duration = Duration::from_millis(500);

fn scene() -> Scene {
    Scene::with("[timeouts]\nclient_hello = \"500ms\"\nhandshake = \"500ms\"\n")
}

/// Runs into the deadline of a phase; returns what the client heard until then.
#[track_caller]
fn assert_times_out(scene: &Scene, stage: &str, attempt: impl FnOnce(&TcpStream)) -> Heard {
    let mut heard = None;
    // Counted from before the connection was made, so a gate that is in time cannot look early.
    let begun = Instant::now();
    let line = scene.refused(stage, "timeout", |stream| {
        attempt(stream);
        heard = Some(listen(stream, begun));
    });
    let heard = heard.unwrap();
    assert!(heard.after >= DEADLINE, "closed after {:?}", heard.after);
    assert!(heard.after <= DEADLINE + Duration::from_secs(1), "closed after {:?}", heard.after);
    assert!(line["alert"].is_null(), "{line}");
    assert!(line["seconds"].as_f64().unwrap() >= DEADLINE.as_secs_f64(), "{line}");
    heard
}

#[test]
fn silent_client_is_closed_at_the_deadline() {
    let scene = scene();
    let heard = assert_times_out(&scene, "client_hello", |_| ());
    assert!(heard.bytes.is_empty(), "{heard:02x?}");
    scene.end();
}

#[test]
fn half_a_hello_is_closed_at_the_deadline() {
    let scene = scene();
    let whole = Hello::tls13(NAS).records();
    for part in [1, 4, 5, 6, 9, whole.len() / 2, whole.len() - 1] {
        let heard = assert_times_out(&scene, "client_hello", |mut stream| stream.write_all(&whole[..part]).unwrap());
        assert!(heard.bytes.is_empty(), "{part}: {heard:02x?}");
    }
    // One that stops between two records.
    let first = hello::record(hello::HANDSHAKE, &Hello::tls13(NAS).message()[..40]);
    assert_times_out(&scene, "client_hello", |mut stream| stream.write_all(&first).unwrap());
    scene.end();
}

#[test]
fn one_byte_at_a_time_for_ever_is_closed_at_the_deadline() {
    let scene = scene();
    // In one long record, and in a record for each byte: there the gate has news at every byte.
    let message = hello::message(1, &[0; 16_000]);
    for bytes in [hello::records(&message, 1 << 14), hello::records(&message, 1)] {
        let mut sender = None;
        let heard = assert_times_out(&scene, "client_hello", |stream| {
            sender = Some(dribble(stream, bytes, Duration::from_millis(10)));
        });
        assert!(heard.bytes.is_empty(), "{heard:02x?}");
        sender.unwrap().join().unwrap();
    }
    scene.end();
}

#[test]
fn hello_then_nothing_is_closed_at_the_deadline_of_the_handshake() {
    let scene = scene();
    for hello in [Hello::tls13(NAS), Hello::tls12(NAS)] {
        let heard = assert_times_out(&scene, "handshake", |mut stream| stream.write_all(&hello.records()).unwrap());
        assert_eq!([heard.bytes[0], heard.bytes[5]], [hello::HANDSHAKE, 2], "a ServerHello");
    }
    scene.end();
}

#[test]
fn hello_then_one_byte_at_a_time_for_ever_is_closed_at_the_deadline_of_the_handshake() {
    let scene = scene();
    // A record that never ends, and records that never amount to anything: ChangeCipherSpec is let pass once, and empty
    // handshake records not at all, so the message that never ends is one of TLS 1.2.
    let endless = hello::record(hello::APPLICATION_DATA, &[0; 16_000]);
    let certificate = hello::records(&hello::message(11, &[0; 16_000]), 1);
    for (hello, behind) in [(Hello::tls13(NAS), endless), (Hello::tls12(NAS), certificate)] {
        let mut sender = None;
        assert_times_out(&scene, "handshake", |mut stream| {
            stream.write_all(&hello.records()).unwrap();
            sender = Some(dribble(stream, behind, Duration::from_millis(10)));
        });
        sender.unwrap().join().unwrap();
    }
    scene.end();
}

#[test]
fn many_that_wait_do_not_keep_others_out() {
    let mut scene = scene();
    let held: Vec<TcpStream> = iter::repeat_with(|| scene.connect()).take(100).collect();
    scene.serve_alice();
    for stream in &held {
        assert!(listen(stream, Instant::now()).bytes.is_empty());
    }
    scene.gate.wait_rejected("client_hello", "timeout", held.len());
    scene.end();
}
