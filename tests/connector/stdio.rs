//! `doorward connect`: no byte is lost, and it ends when it should.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use doorward::connector::homes::Homes;

use crate::common::backend::Backend;
use crate::common::process::{run, run_with_input, run_with_open_input};
use crate::duplex::duplex;
use crate::scene::{Running, Scene, doorward, noise};

const LARGE: usize = 64 * 1024 * 1024;

/// Both sides send so much, and each ends on its own.
#[track_caller]
fn exchange(up: usize, down: usize) {
    let (up, down) = (noise(up, 1), Arc::new(noise(down, 2)));
    let (backend, received) = duplex(Arc::clone(&down));
    let scene = Scene::with("sync", backend.address());
    let file = scene.file();
    let finished = run_with_input(&mut doorward(&["connect", "sync"], &file), &up).success();
    assert!(finished.stdout == *down, "{} of {} bytes came down", finished.stdout.len(), down.len());
    let received = received.recv().unwrap();
    assert!(received == up, "{} of {} bytes came up", received.len(), up.len());
    assert_eq!(finished.stderr, "");
    let closed = scene.gate.wait_closed("sync", 1).remove(0);
    assert!(closed["reason"] == "client_closed" || closed["reason"] == "backend_closed", "{closed}");
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
fn service_may_answer_after_the_end_of_the_input() {
    let backend = Backend::serve("127.0.0.1:0", |mut stream, state| {
        let mut count = 0;
        state.each_read(stream, |bytes| {
            count += bytes.len();
            true
        });
        let _ = stream.write_all(format!("{count} bytes").as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
    });
    let scene = Scene::with("count", backend.address());
    let file = scene.file();
    let finished = run_with_input(&mut doorward(&["connect", "count"], &file), b"12345").success();
    assert_eq!(finished.text(), "5 bytes");
    // No input at all.
    assert_eq!(run(&mut doorward(&["connect", "count.home.example"], &file)).success().text(), "0 bytes");
}

#[test]
fn joined_home_is_found_without_options() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let homes = Homes::at(scene.path("doorward/homes"));
    let mut connect = Command::new(env!("CARGO_BIN_EXE_doorward"));
    connect.args(["connect", "echo"]).env("XDG_CONFIG_HOME", scene.folder.path());
    let refused = run(&mut connect);
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("this user has joined no home"), "{refused}");
    homes.keep("home.example", &scene.bundle(&scene.certified())).unwrap();
    assert_eq!(run_with_input(&mut connect, b"hello").success().text(), "hello");
}

#[test]
fn end_of_the_service_ends_it_although_input_stays_open() {
    let backend = Backend::serve("127.0.0.1:0", |mut stream, _| {
        let _ = stream.write_all(b"bye");
        let _ = stream.shutdown(Shutdown::Both);
    });
    let scene = Scene::with("greeter", backend.address());
    let file = scene.file();
    let finished = run_with_open_input(&mut doorward(&["connect", "greeter"], &file), b"").success();
    assert_eq!(finished.text(), "bye");
}

#[test]
fn end_of_the_service_is_seen_before_the_process_ends() {
    let backend = Backend::serve("127.0.0.1:0", |mut stream, state| {
        let _ = stream.write_all(b"first");
        let _ = stream.shutdown(Shutdown::Write);
        state.each_read(stream, |_| true);
    });
    let scene = Scene::with("half", backend.address());
    let file = scene.file();
    let mut running = Running::start(&mut doorward(&["connect", "half"], &file));
    let mut text = String::new();
    running.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "first");
    // The other direction still works.
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"after the end").unwrap();
    backend.wait_received(13);
    drop(stdin);
    assert!(running.end().success(), "{}", running.errors());
}

#[test]
fn reader_of_the_output_may_leave() {
    let backend = Backend::serve("127.0.0.1:0", |mut stream, _| {
        let block = noise(64 * 1024, 3);
        while stream.write_all(&block).is_ok() {}
    });
    let scene = Scene::with("endless", backend.address());
    let file = scene.file();
    let mut running = Running::start(&mut doorward(&["connect", "endless"], &file));
    let mut stdout = running.child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100_000]).unwrap();
    drop(stdout);
    assert!(running.end().success(), "{}", running.errors());
    assert_eq!(running.errors(), "");
    scene.gate.wait_closed("endless", 1);
}

#[test]
fn sockets_and_files_are_taken_for_input_and_output() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let file = scene.file();
    let sent = noise(3_000_000, 4);

    // A file, which no system can wait for.
    std::fs::write(scene.path("sent"), &sent).unwrap();
    let mut command = doorward(&["connect", "echo"], &file);
    command.stdin(File::open(scene.path("sent")).unwrap()).stdout(File::create(scene.path("back")).unwrap());
    assert!(command.status().unwrap().success());
    assert!(std::fs::read(scene.path("back")).unwrap() == sent);

    // One socket for both, as ssh and inetd do.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let clone = theirs.try_clone().unwrap();
    let mut command = doorward(&["connect", "echo"], &file);
    let mut child =
        command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(clone)).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let (mut writer, to_send) = (ours.try_clone().unwrap(), sent.clone());
    let sender = thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    (&ours).read_to_end(&mut back).unwrap();
    sender.join().unwrap();
    assert!(back == sent, "{} bytes", back.len());
    assert!(child.wait().unwrap().success());
}

#[test]
fn inherited_pipes_keep_their_flags() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let file = scene.file();
    // bash reads from the same pipe afterwards: it would fail with EAGAIN.
    let script = "(sleep 0.2; echo more) | { \"$@\" </dev/null; head -c 5; }";
    let mut bash = crate::common::process::tool("bash", "bash");
    let connect = doorward(&["connect", "echo"], &file);
    bash.args(["-euc", script, "bash"]).arg(connect.get_program()).args(connect.get_args());
    assert_eq!(run(&mut bash).success().text(), "more\n");
}

#[test]
fn named_pipe_whose_writer_has_left_has_an_end() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let file = scene.file();
    // The writer has gone before the program looks.
    let script = "mkfifo \"$1\"; exec 3<>\"$1\"; exec 4<\"$1\"; echo hello >&3; exec 3>&-; shift; exec \"$@\" <&4 4<&-";
    let mut bash = crate::common::process::tool("bash", "bash");
    let connect = doorward(&["connect", "echo"], &file);
    bash.args(["-euc", script, "bash"]).arg(scene.path("fifo")).arg(connect.get_program()).args(connect.get_args());
    assert_eq!(run(&mut bash).success().text(), "hello\n");
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let file = scene.file();
    let mut bash = crate::common::process::tool("bash", "bash");
    let connect = doorward(&["connect", "echo"], &file);
    bash.args(["-euc", "exec \"$@\" >/dev/full", "bash"]).arg(connect.get_program()).args(connect.get_args());
    let finished = run_with_input(&mut bash, b"hello");
    assert_eq!(finished.status.code(), Some(1), "{finished}");
    assert!(finished.stderr.starts_with("error: cannot write to standard output: No space left"), "{finished}");
}

#[test]
fn cut_connection_is_no_orderly_end() {
    let backend = Backend::serve("127.0.0.1:0", |mut stream, state| {
        let _ = stream.write_all(b"some");
        state.each_read(stream, |_| true);
        let _ = stream.shutdown(Shutdown::Both);
    });
    // Between device and gate: ends the connection as a network does.
    let scene = Scene::with("some", backend.address());
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
    let mut running = Running::start(&mut doorward(&["connect", "some"], &file));
    running.child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    drop(cutter);
    assert_eq!(running.end().code(), Some(13));
    running.wait_for("the connection to some was cut");
}
