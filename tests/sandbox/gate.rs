//! The running gate: what it has given up, what it says about that, and what a reload outside of it says.

use std::fs;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::House;

/// A line of proc(5)'s `status` for each thread of the gate.
fn of_threads(gate: &Gate, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", gate.pid())).unwrap();
    let line = |status: String| {
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        value.trim().to_owned()
    };
    // A thread may end meanwhile.
    threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok()).map(line).collect()
}

#[test]
fn every_thread_has_given_up_its_rights() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let guest = Client::admitted(gate.address(), &device, crate::NAS).unwrap();
    guest.ping().unwrap();
    let log = gate.wait_for_line("the sandbox", |line| line["event"] == "sandbox");
    assert_eq!(log["mode"], "auto", "{log}");
    for (field, expected) in [
        ("NoNewPrivs", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("Seccomp", "2"),
    ] {
        let found = of_threads(&gate, field);
        assert!(found.len() > 5, "threads of workers, reloads, log: {found:?}");
        assert!(found.iter().all(|value| value == expected), "{field}: {found:?}");
    }
    drop(guest);
}

#[test]
fn sandbox_can_be_turned_off() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let config = House::new(&pki).route("nas", backend.address()).config();
    let gate = Gate::start_with_control(&format!("{config}\n[sandbox]\nmode = \"off\"\n"));
    let found = of_threads(&gate, "NoNewPrivs");
    assert!(found.iter().all(|value| value == "0"), "{found:?}");
    let line = gate.wait_for_line("the sandbox", |line| line["event"] == "sandbox");
    assert_eq!((&line["mode"], line["in_force"].as_array().unwrap().len()), (&"off".into(), 0), "{line}");
    let status = gate.ask(&["status"]).success().text();
    assert!(status.contains("  sandbox        off\n"), "{status}");
}
