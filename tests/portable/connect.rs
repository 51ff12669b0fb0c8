//! `doorward connect` on Windows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::common::backend::Backend;
use crate::common::process::{run, run_with_input};
use crate::duplex::duplex;
use crate::scene::{DEVICE, Running, Scene, noise};
use crate::wine::Windows;

const LARGE: usize = 64 * 1024 * 1024;

/// Both sides send so much, and each ends on its own.
#[track_caller]
fn exchange(up: usize, down: usize) {
    let (up, down) = (noise(up, 1), Arc::new(noise(down, 2)));
    let (backend, received) = duplex(Arc::clone(&down));
    let scene = Scene::with("sync", backend.address());
    let file = scene.file();
    let mut command = Windows::new().doorward(&["connect", "sync", "--file", file.to_str().unwrap()]);
    let finished = run_with_input(&mut command, &up).success();
    assert!(finished.stdout == *down, "{} of {} bytes came down", finished.stdout.len(), down.len());
    let received = received.recv().unwrap();
    assert!(received == up, "{} of {} bytes came up", received.len(), up.len());
    assert_eq!(finished.stderr, "");
    scene.gate.wait_closed("sync", 1);
}

#[test]
fn both_sides_send_64_mib_at_once() {
    exchange(LARGE, LARGE);
}

#[test]
fn service_ends_while_the_device_still_sends_64_mib() {
    exchange(LARGE, 1_000_000);
}

#[test]
fn device_ends_while_the_service_still_sends_64_mib() {
    exchange(1_000_000, LARGE);
}

#[test]
fn end_of_the_output_is_seen_while_the_input_is_open() {
    let (backend, received) = duplex(Arc::new(b"all".to_vec()));
    let scene = Scene::with("sync", backend.address());
    let file = scene.file();
    let mut command =
        Windows::new().started_by("half_close.exe", &["connect", "sync", "--file", file.to_str().unwrap()]);
    assert_eq!(run(&mut command).success().text(), "all, running");
    assert_eq!(received.recv().unwrap(), b"first, last");
}

#[test]
fn refusal_and_a_gate_that_is_away_are_told() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let file = scene.file();
    let connect = || Windows::new().doorward(&["connect", "echo", "--file", file.to_str().unwrap()]);
    assert_eq!(run_with_input(&mut connect(), b"hello").success().text(), "hello");
    scene.revoke();
    let refused = run(&mut connect());
    assert_eq!(refused.status.code(), Some(6), "{refused}");
    assert!(refused.stderr.contains(&format!("this device ({DEVICE}) was revoked")), "{refused}");
    drop(scene.gate);
    let away = run(&mut connect());
    assert_eq!(away.status.code(), Some(8), "{away}");
    assert!(away.stderr.contains("connection refused by 127.0.0.1:"), "{away}");
}

#[test]
fn cut_connection_is_no_orderly_end() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    // Between device and gate: ends the connection as a network does.
    let gate = scene.gate.address();
    let cutter = Backend::serve("127.0.0.1:0", move |client, state| {
        let gate = TcpStream::connect(gate).unwrap();
        let (mut from, mut to) = (gate.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
        });
        state.each_read(client, |bytes| (&gate).write_all(bytes).is_ok());
        let _ = client.shutdown(Shutdown::Both);
        let _ = gate.shutdown(Shutdown::Both);
    });
    let mut bundle = scene.bundle(&scene.certified());
    bundle.port = cutter.address().port();
    let file = scene.file_of(&bundle);
    let mut running =
        Running::start(&mut Windows::new().doorward(&["connect", "echo", "--file", file.to_str().unwrap()]));
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"some").unwrap();
    running.child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    drop(cutter);
    assert_eq!(running.end().code(), Some(13), "{}", running.errors());
    running.wait_for("the connection to echo was cut");
}
