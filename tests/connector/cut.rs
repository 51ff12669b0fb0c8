//! A session that the gate cuts is no finished one: the device says why, and its programs see no end in order.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use socket2::SockRef;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::process::{run, wait_until};
use crate::scene::{DEVICE, Running, Scene, doorward, noise, route};

/// The exit code of a session that was cut.
const LOST: i32 = 13;

/// A session with an echo service that has worked.
fn open(scene: &Scene) -> Running {
    let mut running = Running::start(&mut doorward(&["connect", "echo"], &scene.file()));
    running.stdin.as_mut().unwrap().write_all(b"open").unwrap();
    running.child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    running
}

/// It says this and ends, although its input stays open.
#[track_caller]
fn assert_cut(running: &mut Running, said: &str) {
    assert_eq!(running.end().code(), Some(LOST), "{}", running.errors());
    running.wait_for(&format!("error: the connection to echo was cut: {said}"));
}

fn revoked() -> String {
    format!("this device ({DEVICE}) was revoked at the gate of home.example\n  ask its owner")
}

#[test]
fn lost_right_is_told_in_an_open_session() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let mut running = open(&scene);
    scene.revoke();
    assert_cut(&mut running, &revoked());

    let scene = Scene::with("echo", backend.address());
    let mut running = open(&scene);
    scene.reload_with("", &route("echo", backend.address()).replace(DEVICE, "bob-laptop"));
    assert_cut(
        &mut running,
        "the owner of home.example has ended it, or the gate does not admit alice-laptop to echo any more",
    );

    let scene = Scene::with("echo", backend.address());
    let mut running = open(&scene);
    scene.reload_with("", &route("files", backend.address()));
    assert_cut(&mut running, "the gate of home.example has no route for echo.home.example");
}

#[test]
fn cut_by_the_owner_is_told() {
    let backend = Backend::echo();
    let control = "\n[control]\nsocket = \"control.sock\"\n";
    let scene = Scene::new(&(route("echo", backend.address()) + control));
    let mut running = open(&scene);
    scene.gate.ask(&["cut", DEVICE]).success();
    assert_cut(&mut running, "the owner of home.example has ended it");
    // It may come back.
    drop(open(&scene));
}

/// TLS has no word for a time limit or the end of a process, so the device tells what may have happened.
#[test]
fn time_limits_and_the_end_of_the_gate_are_no_end_in_order() {
    const MAYBE: &str = "the network has changed, or the gate or its service has ended, or it has reached a time limit";
    let backend = Backend::echo();
    for limit in ["idle = \"3s\"", "lifetime = \"5s\""] {
        let scene = Scene::with("echo", backend.address());
        scene.reload_with("", &(format!("[timeouts]\n{limit}\n") + &route("echo", backend.address())));
        assert_cut(&mut open(&scene), MAYBE);
    }
    let mut scene = Scene::with("echo", backend.address());
    let mut running = open(&scene);
    scene.gate.signal(Signal::TERM);
    wait_until("it drains", || scene.gate.stderr().contains("stopping: ").then_some(()));
    scene.gate.signal(Signal::TERM);
    assert_cut(&mut running, MAYBE);
    assert_eq!(scene.gate.wait_for_end().code(), Some(5));
}

/// Both are in one read of the device, and rustls gives the alert first.
#[test]
fn bytes_that_came_before_the_alert_are_written() {
    let last = noise(3000, 5);
    let (tell, told) = mpsc::channel::<()>();
    let (told, answer) = (Mutex::new(told), last.clone());
    let backend = Backend::serve("127.0.0.1:0", move |mut stream, state| {
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"open").unwrap();
        told.lock().unwrap().recv().unwrap();
        stream.write_all(&answer).unwrap();
        state.each_read(stream, |_| true);
    });
    let scene = Scene::with("echo", backend.address());
    let mut running = open(&scene);
    running.signal(Signal::STOP);
    tell.send(()).unwrap();
    scene.gate.wait_metric("doorward_relay_bytes_total", &[("direction", "backend_to_client")], 3004.0);
    scene.revoke();
    scene.gate.wait_closed("echo", 1);
    running.signal(Signal::CONT);
    let mut received = Vec::new();
    running.child.stdout.take().unwrap().read_to_end(&mut received).unwrap();
    assert_cut(&mut running, &revoked());
    assert!(received == last, "{} bytes", received.len());
}

#[test]
fn cut_in_a_download_keeps_what_came() {
    let block = noise(64 * 1024, 6);
    let endless = block.clone();
    let backend = Backend::serve("127.0.0.1:0", move |mut stream, _| while stream.write_all(&endless).is_ok() {});
    let scene = Scene::with("echo", backend.address());
    let mut running = Running::start(&mut doorward(&["connect", "echo"], &scene.file()));
    let mut stdout = running.child.stdout.take().unwrap();
    let mut received = vec![0; 4_000_000];
    stdout.read_exact(&mut received).unwrap();
    let reader = thread::spawn(move || {
        stdout.read_to_end(&mut received).unwrap();
        received
    });
    scene.revoke();
    // What is in TCP's queues stays in front of an alert, and is not delivered: the reason may be unknown.
    assert_cut(&mut running, "");
    let received = reader.join().unwrap();
    assert!(received.chunks(block.len()).all(|part| part == &block[..part.len()]), "{} bytes", received.len());
    let line = scene.gate.wait_closed("echo", 1).remove(0);
    let sent = line["bytes_to_client"].as_u64().unwrap();
    assert!(received.len() as u64 <= sent, "{} bytes: {line}", received.len());
}

#[test]
fn cut_in_an_upload_is_told() {
    let backend = Backend::sink();
    let scene = Scene::with("echo", backend.address());
    let mut running = Running::start(&mut doorward(&["connect", "echo"], &scene.file()));
    let mut stdin = running.stdin.take().unwrap();
    let sender = thread::spawn(move || while stdin.write_all(&[7; 64 * 1024]).is_ok() {});
    backend.wait_received(4_000_000);
    scene.revoke();
    // Nothing has come from the gate, so it may as well be a refusal.
    assert_eq!(running.end().code(), Some(6), "{}", running.errors());
    running.wait_for(&revoked());
    sender.join().unwrap();
}

#[test]
fn forwarded_session_is_reset_and_the_status_tells_why() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let runtime = scene.path("run");
    std::fs::create_dir(&runtime).unwrap();
    let mut command = doorward(&["forward", "echo=0"], &scene.file());
    let mut running = Running::start(command.env("XDG_RUNTIME_DIR", &runtime));
    running.wait_for(" on ");
    let local = running.errors().lines().find_map(|line| Some(line.split_once(" on ")?.1.to_owned())).unwrap();
    let mut sessions = [(); 3].map(|()| {
        let mut session = TcpStream::connect(local.parse::<SocketAddr>().unwrap()).unwrap();
        session.set_read_timeout(Some(2 * DEADLINE)).unwrap();
        session.write_all(b"open").unwrap();
        session.read_exact(&mut [0; 4]).unwrap();
        session
    });
    scene.revoke();
    for session in &mut sessions {
        assert_eq!(session.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let why = format!("the connection to echo was cut: {}", revoked());
    running.wait_for(&format!("echo: {why}"));
    // Once for all three.
    assert_eq!(running.errors().matches(&why).count(), 1, "{}", running.errors());
    let status = run(doorward(&["forward", "--status"], &scene.file()).env("XDG_RUNTIME_DIR", &runtime)).success();
    let first = why.lines().next().unwrap();
    assert!(status.text().contains(&format!("ago: {first}")), "{status}");
}

/// An end would tell the service that half of an upload is the whole.
#[test]
fn reset_of_a_local_program_is_one_for_the_service() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = Scene::with("upload", listener.local_addr().unwrap());
    let mut running = Running::start(&mut doorward(&["forward", "upload=0"], &scene.file()));
    running.wait_for(" on ");
    let local = running.errors().lines().find_map(|line| Some(line.split_once(" on ")?.1.to_owned())).unwrap();
    let mut program = TcpStream::connect(local.parse::<SocketAddr>().unwrap()).unwrap();
    program.write_all(b"half").unwrap();
    let (mut service, _) = listener.accept().unwrap();
    service.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    service.read_exact(&mut [0; 4]).unwrap();
    SockRef::from(&program).set_linger(Some(Duration::ZERO)).unwrap();
    drop(program);
    assert_eq!(service.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
