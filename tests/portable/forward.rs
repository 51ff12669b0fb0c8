//! `doorward forward` on Windows.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::process::{run, wait_until};
use crate::scene::{Running, Scene, noise};
use crate::wine::Windows;

fn dial(local: &str) -> TcpStream {
    let stream = TcpStream::connect(local.parse::<SocketAddr>().unwrap()).unwrap();
    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    stream
}

#[test]
fn sessions_move_every_byte_and_status_counts_them() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let (windows, file) = (Windows::new(), scene.file());
    let status = || run(&mut windows.doorward(&["forward", "--status"]));
    assert_eq!(status().status.code(), Some(8));
    let mut running = Running::start(&mut windows.doorward(&["forward", "echo=0", "--file", file.to_str().unwrap()]));
    running.wait_for(" on 127.0.0.1:");
    let local = running.errors().lines().find_map(|line| Some(line.split_once(" on ")?.1.to_owned())).unwrap();
    let each = |seed| {
        let (mut stream, sent) = (dial(&local), noise(32 * 1024 * 1024, seed));
        thread::spawn(move || {
            let (mut writer, to_send) = (stream.try_clone().unwrap(), sent.clone());
            let sender = thread::spawn(move || {
                writer.write_all(&to_send).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            sender.join().unwrap();
            assert!(back == sent, "{} bytes", back.len());
        })
    };
    for session in [1, 2, 3].map(each) {
        session.join().unwrap();
    }
    let open = dial(&local);
    (&open).write_all(b"open").unwrap();
    (&open).read_exact(&mut [0; 4]).unwrap();
    let bytes = 3 * 32 * 1024 * 1024 + 4;
    let expected = format!("echo on {local}: 1 open, 4 sessions since the start, {bytes} bytes sent, {bytes} received");
    wait_until("the status counts", || (status().success().text().trim_end() == expected).then_some(()));
    // A reset: an end could be taken for all there was.
    scene.revoke();
    let mut refused = dial(&local);
    let error = refused.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    running.wait_for("was revoked at the gate of home.example");
}

#[test]
fn socket_with_a_path_and_a_port_in_use_are_refused_in_words() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let (windows, file) = (Windows::new(), scene.file());
    let forward = |rule: &str| run(&mut windows.doorward(&["forward", rule, "--file", file.to_str().unwrap()]));
    let refused = forward(r"echo=unix:C:\echo.sock");
    assert!(refused.stderr.contains("Windows has no such sockets; give a port"), "{refused}");
    let taken = forward(&format!("echo={}", backend.address().port()));
    assert!(taken.stderr.contains("is in use by another program"), "{taken}");
    assert_eq!((refused.status.code(), taken.status.code()), (Some(4), Some(4)), "{refused} {taken}");
}
