//! A new program is installed while the gate runs: it takes over, and open sessions go on.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::common::backend::Backend;
use crate::common::process::Finished;
use crate::machine::{Machine, UNPACKED};

/// Another program: the same with more bytes at its end.
const NEXT: &str = "/home/next";

/// What systemctl was asked, and that systemd runs: the service is active and enabled.
const ASKED: &str = "/run/systemctl";
const SYSTEMCTL: &str = "\
mkdir -p /run/systemd/system
printf '#!/bin/sh\\necho \"$*\" >> /run/systemctl\\n' > /run/fake
chmod 755 /run/fake
mount --bind /run/fake /usr/bin/systemctl
";

/// A connection of alice's phone to the route `echo`.
struct Session {
    client: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Session {
    fn open(machine: &Machine) -> Self {
        let (address, devices) = (machine.address.to_string(), "/home/alice/doorward/devices");
        let [cert, key] = ["", "-key"].map(|part| format!("{devices}/alice-phone{part}.pem"));
        let trust = "/home/alice/doorward/pki/server-ca.pem";
        let client = ["timeout", "120", "openssl", "s_client", "-quiet", "-connect", &address];
        let options = ["-servername", "echo.home.example", "-cert", &cert, "-key", &key, "-CAfile", trust];
        let mut command = machine.command("root", "/", &[&client[..], &options].concat());
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (to, from) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
        Self { client, to, from }
    }

    /// Sends a line, and waits for the same.
    #[track_caller]
    fn say(&mut self, word: &str) {
        writeln!(self.to, "{word}").unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), word);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// A machine with a gate that is to be installed, and with another program.
fn machine(nas: &Backend, echo: &Backend) -> Machine {
    let machine = Machine::new();
    machine.init_with(&[("nas", nas), ("echo", echo)]);
    machine.run("root", "/home", &["bash", "-euc", "cp doorward next; echo next >> next"]).success();
    machine
}

/// The process that accepts connections.
fn process(machine: &Machine) -> u64 {
    let status = machine.run("root", "/", &["/usr/local/bin/doorward", "status", "--format", "json"]).success();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    status["pid"].as_u64().unwrap()
}

fn install(machine: &Machine, program: &str) -> Finished {
    machine.run("root", "/home/alice", &[program, "install"])
}

#[test]
fn new_program_takes_over_and_sessions_go_on() {
    let (nas, echo) = (Backend::http("the page"), Backend::echo());
    let machine = machine(&nas, &echo);
    machine.run("root", "/", &["bash", "-euc", SYSTEMCTL]).success();
    // No gate answers yet, and the service is said to be active.
    let first = install(&machine, UNPACKED).success();
    assert!(first.stderr.contains("run systemctl restart doorward.service: "), "{first}");
    let _gate = machine.gate();
    let before = process(&machine);
    let asked = || machine.run("root", "/", &["cat", ASKED]).success().text();
    machine.run("root", "/", &["truncate", "--size=0", ASKED]).success();
    assert!(install(&machine, UNPACKED).success().stderr.contains("Everything is installed already."));

    let mut session = Session::open(&machine);
    session.say("before");
    let upgraded = install(&machine, NEXT).success();
    let step = "run doorward upgrade --config /etc/doorward/doorward.toml: the new program takes over";
    assert!(upgraded.stderr.contains(step), "{upgraded}");
    session.say("after");
    assert_ne!(process(&machine), before);
    assert!(machine.is_admitted("alice-phone"));
    let again = install(&machine, NEXT).success();
    assert!(again.stderr.contains("Everything is installed already."), "{again}");
    assert!(!asked().contains("restart"), "{}", asked());

    // What a process cannot take over: the unit gives it.
    let changed = ["sed", "-i", "s/^LimitCORE=.*/LimitCORE=1/", "/etc/systemd/system/doorward.service"];
    machine.run("root", "/", &changed).success();
    let unit = install(&machine, NEXT).success();
    assert!(unit.stderr.contains("run systemctl restart doorward.service: the unit has changed\n"), "{unit}");
    assert!(asked().ends_with("daemon-reload\nrestart doorward.service\n"), "{}", asked());
}

#[test]
fn program_that_cannot_start_leaves_the_gate_running() {
    let (nas, echo) = (Backend::http("the page"), Backend::echo());
    let machine = machine(&nas, &echo);
    machine.run("root", "/", &["bash", "-euc", SYSTEMCTL]).success();
    install(&machine, UNPACKED).success();
    let _gate = machine.gate();
    let before = process(&machine);
    machine.run("root", "/", &["truncate", "--size=0", ASKED]).success();
    let mut session = Session::open(&machine);
    session.say("before");

    let config = "/etc/doorward/doorward.toml";
    machine
        .run("root", "/", &["bash", "-euc", "cp \"$0\" /run/good; sed -i '1i mistake = 1' \"$0\"", config])
        .success();
    let failed = install(&machine, NEXT).failure();
    assert!(failed.stderr.contains("failed to run doorward upgrade"), "{failed}");
    assert!(failed.stderr.contains("the gate was not replaced, and continues as before"), "{failed}");
    session.say("after");
    assert_eq!(process(&machine), before);
    assert!(machine.is_admitted("alice-phone"));
    let asked = machine.run("root", "/", &["cat", ASKED]).success().text();
    assert!(!asked.contains("restart"), "{asked}");

    // The file of the program is there already, and the gate does not run it yet.
    machine.run("root", "/", &["cp", "/run/good", config]).success();
    let step = "run doorward upgrade ";
    let again = install(&machine, NEXT).success();
    assert!(again.stderr.starts_with(step) && again.stderr.contains("1 step, all done.\n"), "{again}");
    session.say("later");
    assert_ne!(process(&machine), before);
}

#[test]
fn without_systemd_the_owner_is_told_how_to_replace_the_gate() {
    let (nas, echo) = (Backend::http("the page"), Backend::echo());
    let machine = machine(&nas, &echo);
    install(&machine, UNPACKED).success();
    let _gate = machine.gate();
    let (before, told) =
        (process(&machine), "next: the gate still runs the program before; to replace it: doorward upgrade");
    let installed = install(&machine, NEXT).success();
    assert!(installed.stderr.contains(told), "{installed}");
    assert!(!installed.stderr.contains("to start the gate"), "{installed}");
    assert_eq!(process(&machine), before);
    assert!(install(&machine, NEXT).success().stderr.contains(told));
    machine.run("root", "/", &["/usr/local/bin/doorward", "upgrade"]).success();
    assert_ne!(process(&machine), before);
    let done = install(&machine, NEXT).success();
    assert!(!done.stderr.contains("doorward upgrade"), "{done}");
}
