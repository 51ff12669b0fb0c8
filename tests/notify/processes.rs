//! The processes that send messages: what they may do, and that there is always one.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::Scene;
use crate::common::gate::Gate;
use crate::common::process::wait_until;
use crate::receiver::Receiver;

const BACKENDS: &str = "events = [\"backend_down\", \"backend_up\"]";

/// The notifiers of a gate, by the path of its configuration.
fn notifiers(gate: &Gate) -> Vec<u32> {
    let config = gate.folder().join("doorward.toml").display().to_string();
    let is_one = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&&b"notifier"[..]) && words.contains(&config.as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_one).collect()
}

#[track_caller]
fn notifier(gate: &Gate) -> u32 {
    wait_until("there is one notifier", || match notifiers(gate)[..] {
        [pid] => Some(pid),
        _ => None,
    })
}

fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {status}")).trim().to_owned()
}

#[test]
fn notifier_has_a_sandbox_of_its_own_and_no_key_of_the_gate() {
    let (mut scene, receiver) = (Scene::new(), Receiver::start());
    let gate = Gate::start(&scene.config(&format!("webhook = \"http://{}/\"\n{BACKENDS}", receiver.address())));
    scene.down(&gate);
    receiver.wait(1);
    let pid = notifier(&gate);
    for (field, expected) in [("Seccomp", "2"), ("NoNewPrivs", "1"), ("CapEff", "0000000000000000")] {
        assert_eq!(status(pid, field), expected, "{field}");
    }
    // It listens nowhere, and has no file of the gate open: stdin, its channel, what tokio needs.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap_or_default().display().to_string();
        let known = ["/dev/null", "socket:", "pipe:", "anon_inode:"].iter().any(|start| target.starts_with(start));
        assert!(known, "{target}");
    }
    // A signal to every process of the service is for the gate.
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
    }
    scene.up(&gate);
    receiver.wait(2);
    assert_eq!(notifier(&gate), pid);
    drop(gate);
    wait_until("it ends with the gate", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[test]
fn notifier_that_was_killed_is_started_again() {
    let (mut scene, receiver) = (Scene::new(), Receiver::start());
    let gate = Gate::start(&scene.config(&format!("webhook = \"http://{}/\"\n{BACKENDS}", receiver.address())));
    scene.down(&gate);
    receiver.wait(1);
    let first = notifier(&gate);
    kill_process(Pid::from_raw(first.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    // What happens meanwhile waits for the next one.
    scene.up(&gate);
    assert_eq!(receiver.wait(2).body["event"], "backend_up");
    assert_ne!(notifier(&gate), first);
    let line = gate.wait_for_line("the end is said", |line| line["event"] == "notices_failing");
    assert!(line["error"].as_str().unwrap().contains("was started again"), "{line}");
}

#[test]
fn upgraded_gate_has_a_notifier_of_its_own() {
    let (mut scene, receiver) = (Scene::new(), Receiver::start());
    let gate = Gate::start(&scene.config(&format!("webhook = \"http://{}/\"\n{BACKENDS}", receiver.address())));
    scene.down(&gate);
    receiver.wait(1);
    let first = notifier(&gate);
    gate.ask(&["upgrade"]).success();
    wait_until("another notifier is the only one", || {
        matches!(notifiers(&gate)[..], [pid] if pid != first).then_some(())
    });
    // The new process has not dialled yet: what it assumes is that the backend is up. But its owner knows already.
    scene.connect(&gate);
    gate.wait_metric("doorward_notices_total", &[("event", "backend_down"), ("outcome", "digested")], 1.0);
    // Something else is told at once.
    scene.up(&gate);
    assert_eq!(receiver.wait(2).body["event"], "backend_up");
    // And once more, from one process to the next but one.
    gate.ask(&["upgrade"]).success();
    scene.down(&gate);
    gate.wait_metric("doorward_notices_total", &[("event", "backend_down"), ("outcome", "digested")], 2.0);
    gate.end_after_upgrades();
}

#[test]
fn program_is_run_with_the_message() {
    let mut scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let (script, out) = (folder.path().join("tell"), folder.path().join("out"));
    let text = format!(
        "#!/bin/sh\ncat > {0}.new\necho >> {0}.new\necho \"$1 $DOORWARD_TITLE\" >> {0}.new\nmv {0}.new {0}\n",
        out.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let gate = Gate::start(&scene.config(&format!("command = [{script:?}, \"me\"]\n{BACKENDS}")));
    scene.down(&gate);
    let written = wait_until("the program has run", || fs::read_to_string(&out).ok());
    let (json, environment) = written.split_once('\n').unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((&json["event"], environment), (&serde_json::json!("backend_down"), "me nas is down\n"));
    gate.wait_metric("doorward_notices_total", &[("event", "backend_down"), ("outcome", "sent")], 1.0);
}
