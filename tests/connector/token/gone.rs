//! A token that is unplugged, and one that waits for a touch.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use super::Tokened;
use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::process::{run_with_input, wait_until};
use crate::scene::{Running, noise, route};

/// `doorward forward` of routes on free ports, and where they are.
fn forward(tokened: &Tokened, routes: &[&str]) -> (Running, Vec<SocketAddr>) {
    let rules: Vec<String> = routes.iter().map(|route| format!("{route}=0")).collect();
    let mut command = tokened.doorward(&["forward"]);
    let mut running = Running::start(command.args(rules));
    running.wait_for(" on ");
    let locals = |text: &str| -> Vec<SocketAddr> {
        text.lines().filter_map(|line| line.split_once(" on ")?.1.parse().ok()).collect()
    };
    wait_until("it listens", || (locals(&running.errors()).len() == routes.len()).then_some(()));
    let locals = locals(&running.errors());
    (running, locals)
}

fn dial(local: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(local).unwrap();
    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    stream
}

/// Sends something, and reads it back.
fn echoes(stream: &mut TcpStream, sent: &[u8]) -> bool {
    let mut writer = stream.try_clone().unwrap();
    let to_send = sent.to_vec();
    let sender = std::thread::spawn(move || writer.write_all(&to_send));
    let mut back = vec![0; sent.len()];
    let read = stream.read_exact(&mut back);
    sender.join().unwrap().is_ok() && read.is_ok() && back == sent
}

#[test]
fn open_tunnels_live_on_without_the_token_and_new_ones_wait_for_it() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    let (mut running, locals) = forward(&tokened, &["echo"]);
    let mut open = dial(locals[0]);
    assert!(echoes(&mut open, b"before"));

    tokened.token.set("gone", true);
    // Held for a while, in case the token comes back, then ended. Nothing is resumed without it either.
    let waiting = dial(locals[0]);
    running.wait_for("the token \"alice\" was removed\n  plug it in again");
    assert!(echoes(&mut open, &noise(300_000, 1)), "{}", running.errors());
    tokened.token.set("gone", false);
    let mut waiting = waiting;
    assert!(echoes(&mut waiting, b"again"), "{}", running.errors());
    assert!(echoes(&mut open, b"still"));
    assert!(echoes(&mut dial(locals[0]), b"another"));
    drop((open, waiting));
    running.signal(Signal::TERM);
    assert!(running.end().success(), "{}", running.errors());
}

#[test]
fn forward_starts_without_the_token_if_a_file_has_the_pin() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    tokened.token.set("gone", true);
    let (running, locals) = forward(&tokened, &["echo"]);
    assert!(running.errors().contains("the token \"alice\" is not there"), "{}", running.errors());
    tokened.token.set("gone", false);
    assert!(echoes(&mut dial(locals[0]), b"there"), "{}", running.errors());
    drop(running);
    // Otherwise it could not be entered later.
    tokened.token.set("gone", true);
    tokened.rename_key(&tokened.token.uri_without_pin());
    let refused = crate::common::process::run(&mut tokened.doorward(&["forward", "echo=0"])).failure();
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("the token \"alice\" is not there\n  plug it in"), "{refused}");
}

#[test]
fn tunnels_go_on_while_the_token_waits_for_a_touch() {
    let backend = Backend::echo();
    let routes = route("echo", backend.address()) + &route("other", backend.address());
    let tokened = Tokened::new(&routes, "EC:prime256v1");
    tokened.join().success();
    let (running, locals) = forward(&tokened, &["echo", "other"]);
    let mut open = dial(locals[0]);
    assert!(echoes(&mut open, b"before"));
    let signatures = tokened.token.count("signatures");

    tokened.token.set("slow", true);
    // Another server name: nothing is resumed, so the token is asked.
    let mut waiting = dial(locals[1]);
    wait_until("the token is asked", || (tokened.token.count("signatures") > signatures).then_some(()));
    for seed in 0..4 {
        assert!(echoes(&mut open, &noise(500_000, seed)), "{}", running.errors());
    }
    tokened.token.set("slow", false);
    assert!(echoes(&mut waiting, b"touched"), "{}", running.errors());
}

#[test]
fn touch_that_comes_too_late_for_the_gate_is_told() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    let config = format!(
        "{}\n[limits]\npenalties = \"off\"\n[timeouts]\nhandshake = \"2s\"\n{}{}",
        crate::common::gate::LOCAL,
        tokened.scene.pki.config(),
        route("echo", backend.address())
    );
    assert_eq!(tokened.scene.gate.reload(&config)["event"], "reloaded");
    let signatures = tokened.token.count("signatures");
    tokened.token.set("slow", true);
    let said = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| run_with_input(&mut tokened.doorward(&["connect", "echo"]), b"late"));
        wait_until("the token is asked", || (tokened.token.count("signatures") > signatures).then_some(()));
        // More than the half of ten seconds from which on a signature is called slow.
        std::thread::sleep(Duration::from_millis(5500));
        tokened.token.set("slow", false);
        connecting.join().unwrap()
    });
    assert_eq!(said.status.code(), Some(2), "{said}");
    let (_, took) = said.stderr.split_once("the token \"alice\" took ").unwrap_or_else(|| panic!("{said}"));
    let (seconds, words) = took.split_once(" s to sign").unwrap_or_else(|| panic!("{said}"));
    // At least as long as the test has waited: a busy machine adds to it.
    assert!((5..15).contains(&seconds.parse::<u32>().unwrap()), "{said}");
    assert!(words.starts_with(", and the gate did not wait that long"), "{said}");
    assert!(said.stderr.contains("touch it sooner"), "{said}");
}

#[test]
fn touch_that_never_comes_is_told() {
    let backend = Backend::echo();
    let tokened = Tokened::joined("echo", backend.address());
    tokened.token.set("slow", true);
    // As long as for a gate that does not answer.
    let said = run_with_input(&mut tokened.doorward(&["connect", "echo"]), b"never");
    assert_eq!(said.status.code(), Some(2), "{said}");
    assert!(said.stderr.contains("the token \"alice\" does not answer\n  does it wait for a touch?"), "{said}");
}
