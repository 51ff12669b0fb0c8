//! How processes end.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::House;
use crate::scene::{NAS, ask, config, replace, upgrade, wait_for_earlier, with_own_program};

fn exists(pid: u64) -> bool {
    // Its parent may not have waited for it yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn sigterm_waits_for_sessions_of_every_process() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let mut gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let session = Client::admitted(gate.address(), &device, NAS).unwrap();
    let new = upgrade(&gate)["pid"].as_u64().unwrap();
    gate.wait_for_lines("the new process is ready", 2, |line| line["event"] == "ready");
    kill_process(Pid::from_raw(new.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    gate.wait_for_line("it drains", |line| line["event"] == "draining");
    session.ping().unwrap();
    assert!(exists(new) && exists(gate.pid().into()));
    session.close_notify();
    session.end();
    assert!(gate.wait_for_end().success());
    wait_until("the new process has ended", || (!exists(new)).then_some(()));
}

#[test]
fn end_of_the_new_process_cuts_what_is_left() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let mut gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let session = Client::admitted(gate.address(), &device, NAS).unwrap();
    let new = upgrade(&gate)["pid"].as_u64().unwrap();
    session.ping().unwrap();
    // Nothing could take rights away from its session any more.
    kill_process(Pid::from_raw(new.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    let begun = Instant::now();
    let _ = session.read_to_end();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(gate.wait_for_end().code(), Some(5));
    let closed = gate.lines().into_iter().find(|line| line["event"] == "closed").unwrap();
    assert_eq!(closed["reason"], "drain_deadline");
    // Nothing listens there: its sockets are closed in every process.
    let refused = std::net::TcpStream::connect(gate.address()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn drain_timeout_cuts_sessions_that_stay_in_the_old_process() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let short = config(&House::new(&pki).route("nas", backend.address())).replace("\"5m\"", "\"2s\"");
    let mut gate = Gate::start(&short);
    let session = Client::admitted(gate.address(), &device, NAS).unwrap();
    upgrade(&gate);
    let begun = Instant::now();
    session.ping().unwrap();
    let _ = session.read_to_end();
    assert!((1..=4).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    wait_for_earlier(&gate, 0);
    gate.wait_metric("doorward_connections_closed_total", &[("reason", "drain_deadline")], 1.0);
    assert_eq!(ask(&gate, &["status"])["sessions"], 0);
    kill_process(*gate.upgraded().last().unwrap(), Signal::TERM).unwrap();
    assert_eq!(gate.wait_for_end().code(), Some(5));
}

#[test]
fn sigterm_ends_a_gate_whose_upgrade_is_in_progress() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let (mut gate, _folder, program) = with_own_program(&config(&House::new(&pki).route("nas", backend.address())));
    let marker = program.with_extension("pid");
    replace(&program, &format!("echo $$ > {}; exec sleep 1000 >/dev/null", marker.display()));
    gate.signal(Signal::USR2);
    let new: u64 = wait_until("the new process runs", || std::fs::read_to_string(&marker).ok()?.trim().parse().ok());
    gate.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(gate.wait_for_end().success());
    assert!(begun.elapsed() < Duration::from_secs(10));
    wait_until("the new process has ended", || (!exists(new)).then_some(()));
}
