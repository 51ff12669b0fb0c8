//! A second `run`, and process 1.

use std::process::Command;

use rustix::process::Signal;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{Finished, run, tool};
use crate::home::House;
use crate::scene::{config, upgrade};

fn second(gate: &Gate, config: &str) -> Finished {
    // With the port that the kernel chose for the first one.
    let file = gate.folder().join("doorward.toml");
    std::fs::write(&file, config.replacen("127.0.0.1:0", &gate.address().to_string(), 1)).unwrap();
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["run", "--config"]).arg(file)).failure()
}

#[test]
fn second_run_names_the_process_of_the_first() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let with_socket = config(&House::new(&pki).route("nas", backend.address()));
    let without = with_socket.replace("socket = \"control.sock\"", "socket = \"off\"");
    assert_ne!(with_socket, without);
    for config in [&with_socket, &without] {
        let gate = Gate::start(config);
        let refused = second(&gate, config);
        assert_eq!(refused.status.code(), Some(4));
        let words = format!("this gate is running already: process {} ", gate.pid());
        assert!(refused.stderr.contains(&words), "{refused}");
        assert!(!refused.stderr.contains("another process listens"), "{refused}");
    }
    // After an upgrade, that which accepts connections.
    let gate = Gate::start(&with_socket);
    let new = upgrade(&gate)["pid"].to_string();
    let refused = second(&gate, &with_socket);
    assert!(refused.stderr.contains(&format!("process {new} ")), "{refused}");
    gate.end_after_upgrades();
}

#[test]
fn process_1_is_not_replaced() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let mut gate = Gate::start_with(&config(&House::new(&pki).route("nas", backend.address())), |command| {
        let mut unshare = tool("unshare", "util-linux");
        unshare.args(["--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
        *command = unshare;
    });
    let refused = gate.ask(&["upgrade"]).failure();
    assert_eq!(refused.status.code(), Some(4), "{refused}");
    assert!(refused.stderr.contains("process 1") && refused.stderr.contains("replace the container"), "{refused}");
    // unshare ignores SIGTERM, and the gate ends with it.
    gate.settled();
    gate.signal(Signal::KILL);
    gate.wait_for_end();
}
