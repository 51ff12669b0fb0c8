//! Each process of a gate enters a sandbox of its own, and what starts the next one has none.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use rustix::pipe::pipe;
use serde_json::Value;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::House;
use crate::scene::{NAS, ask, config, upgrade, wait_for_earlier};

const UPGRADES: usize = 10;

/// A value of proc(5)'s `status`, from its text.
fn value<'a>(status: &'a str, field: &str) -> &'a str {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {status}")).trim()
}

/// Says of every thread of a gate that it has given up its rights.
#[track_caller]
fn assert_restricted(pid: u32, when: &str) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end meanwhile.
    let threads: Vec<String> =
        threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok()).collect();
    assert!(threads.len() > 5, "{when}: threads of workers, reloads, log: {threads:?}");
    for status in threads {
        for (field, expected) in [("Seccomp", "2"), ("NoNewPrivs", "1"), ("CapEff", "0000000000000000")] {
            assert_eq!(value(&status, field), expected, "{when}, process {pid}: {status}");
        }
    }
}

/// The launcher of a gate: its only child.
fn launcher_of(pid: u32) -> u32 {
    let is_child = |child: &u32| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.contains(&format!("\nPPid:\t{pid}\n"))
    };
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let children: Vec<u32> = pids.filter(is_child).collect();
    let [launcher] = children[..] else { panic!("children of {pid}: {children:?}") };
    launcher
}

/// Says of the launcher of a gate that it has every right of this process, which has started the first gate.
#[track_caller]
fn assert_launcher_has_its_rights(pid: u32) {
    let status = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let (own, launcher) = (status("self"), status(&launcher_of(pid).to_string()));
    for field in ["Seccomp", "Seccomp_filters", "NoNewPrivs", "CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(value(&launcher, field), value(&own, field), "{field} of the launcher of {pid}");
    }
}

fn pid(answer: &Value) -> u32 {
    answer["pid"].as_u64().unwrap().try_into().unwrap()
}

/// Says of a reload that each process has the whole configuration.
#[track_caller]
fn assert_loaded_everywhere(reloaded: &Value) {
    let warnings = reloaded["warnings"].as_array().unwrap();
    let incomplete = warnings.iter().any(|one| one.as_str().unwrap().contains("cannot load this configuration"));
    assert!(!incomplete, "{reloaded}");
}

#[test]
fn each_of_ten_processes_is_restricted_anew_and_can_be_replaced() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let lasting = Client::admitted(gate.address(), &device, NAS).unwrap();
    let parts = ask(&gate, &["status"])["sandbox"].clone();
    assert_eq!(parts["mode"], "auto", "{parts}");
    assert_restricted(gate.pid(), "at the start");
    assert_launcher_has_its_rights(gate.pid());

    for round in 1..=UPGRADES {
        let new = pid(&upgrade(&gate));
        assert_restricted(new, &format!("upgrade {round}"));
        assert_launcher_has_its_rights(new);
        let status = ask(&gate, &["status"]);
        assert_eq!((pid(&status), &status["sandbox"]), (new, &parts), "what the first process has given up");
        assert_eq!(status["earlier"][0]["pid"], gate.pid(), "{status}");
        // The process that was replaced keeps its session and its sandbox.
        lasting.ping().unwrap();
        assert_restricted(gate.pid(), &format!("replaced, upgrade {round}"));
        Client::admitted(gate.address(), &device, NAS).unwrap().ping().unwrap();
        let reloaded = ask(&gate, &["reload"]);
        assert_loaded_everywhere(&reloaded);
        wait_for_earlier(&gate, 1);
    }
    let lines = gate.wait_for_lines("a line for each process", UPGRADES + 1, |line| line["event"] == "sandbox");
    assert!(lines.iter().all(|line| line["in_force"] == parts["in_force"]), "{lines:?}");
    drop(lasting);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

/// The folder of another gate is outside of the sandbox of the first process, with every version of Landlock.
#[test]
fn upgrade_allows_what_the_sandbox_refuses_a_reload() {
    let (pki, elsewhere, backend) = (TestPki::new(), TestPki::new(), Backend::echo());
    let before = config(&House::new(&pki).route("nas", backend.address()));
    let gate = Gate::start(&before);
    let lasting = client(&pki, Some(&pki.client("bob-laptop")));
    let lasting = Client::admitted(gate.address(), &lasting, NAS).unwrap();
    let list = format!("trust = [{:?}]", pki.path("clients.pem"));
    assert!(before.contains(&list), "{before}");
    // A list that cannot be read is told in the same words, not as a matter of its owner.
    let new_list = format!("{list}\nrevocation_lists = [{:?}]", elsewhere.path("clients.crl"));
    fs::write(elsewhere.path("clients.crl"), "a list").unwrap();
    fs::write(gate.folder().join("doorward.toml"), before.replace(&list, &new_list)).unwrap();
    let refused = gate.ask(&["reload"]).failure().stderr;
    assert_eq!(refused.matches("clients.crl, which was not named at its start").count(), 1, "{refused}");
    assert!(!refused.contains("may not be read by the user that runs doorward"), "{refused}");

    let other = before.replace(&list, &format!("trust = [{:?}]", elsewhere.path("clients.pem")));
    fs::write(gate.folder().join("doorward.toml"), other).unwrap();
    let refused = gate.ask(&["reload"]).failure();
    assert!(refused.stderr.contains("the sandbox of the running gate does not allow it to read"), "{refused}");
    assert!(refused.stderr.contains("doorward upgrade keeps its connections"), "{refused}");

    let new = pid(&upgrade(&gate));
    let device = client(&pki, Some(&elsewhere.client("alice-phone")));
    Client::admitted(gate.address(), &device, NAS).unwrap().ping().unwrap();
    assert_restricted(new, "with another folder");
    // The first process may not read that folder, and says so.
    let incomplete = ask(&gate, &["reload"])["warnings"].to_string();
    assert!(
        incomplete.contains("cannot load this configuration, except for revocation lists and deny"),
        "{incomplete}"
    );
    drop(lasting);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

/// The process that an upgrade has left has no access to the port of the new backend. It must end sessions nevertheless.
#[test]
fn reload_reviews_sessions_of_a_process_whose_sandbox_lacks_a_port() {
    let (pki, backend, other) = (TestPki::new(), Backend::echo(), Backend::echo());
    let [alice, bob] = ["alice-phone", "bob-laptop"].map(|name| client(&pki, Some(&pki.client(name))));
    let config = |backend: &Backend, allow: &[&str]| {
        config(&House::new(&pki).route_with("nas", &[&backend.address().to_string()], &format!("allow = {allow:?}")))
    };
    let gate = Gate::start(&config(&backend, &["any"]));
    let enter = |device| Client::admitted(gate.address(), device, NAS).unwrap();
    let (alices, bobs) = (enter(&alice), enter(&bob));
    let write = |config: String| fs::write(gate.folder().join("doorward.toml"), config).unwrap();
    write(config(&other, &["any"]));
    upgrade(&gate);
    enter(&alice).ping().unwrap();
    write(config(&other, &["bob-laptop"]));
    let reloaded = ask(&gate, &["reload"]);
    assert_loaded_everywhere(&reloaded);
    let _ = alices.read_to_end();
    let cut = |line: &Value| line["event"] == "closed" && line["reason"] == "not_allowed";
    gate.wait_for_line("the session with the first process", cut);
    bobs.ping().unwrap();
    drop(bobs);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

/// A launcher for `/bin/cat`, and the end of the gate.
fn launcher_alone() -> (Child, OwnedFd) {
    const NOBODY: u32 = 65_534;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    let launcher = command.args(["launcher", "--", "/bin/cat"]).stdin(far).uid(NOBODY).gid(NOBODY).spawn().unwrap();
    (launcher, near)
}

/// Without Landlock, a gate that was taken over may open files of its user in /proc: the memory of its launcher, which has no
/// sandbox, must not be one of them.
#[test]
fn memory_of_the_launcher_belongs_to_root() {
    let (mut launcher, gate) = launcher_alone();
    let memory = format!("/proc/{}/mem", launcher.id());
    wait_until("the memory is root's", || (fs::metadata(&memory).unwrap().uid() == 0).then_some(()));
    drop(gate);
    assert!(launcher.wait().unwrap().success());
}

#[test]
fn launcher_starts_one_process_at_a_time() {
    let (mut launcher, gate) = launcher_alone();
    let (stdin, keeps_it_running) = pipe().unwrap();
    let answer = || {
        let mut bytes = [0; 1024];
        let (_, length) = recv(&gate, &mut bytes, RecvFlags::empty()).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let start = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [stdin.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&gate, &[IoSlice::new(b"\"start\"")], &mut control, SendFlags::NOSIGNAL).unwrap();
    };
    start();
    let first = answer();
    assert!(first.starts_with("{\"started\":"), "{first}");
    start();
    // It ends instead.
    assert_eq!(answer(), "");
    assert!(launcher.wait().unwrap().success());
    drop(keeps_it_running);
}
