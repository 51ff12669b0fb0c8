//! The running gate: what it has given up, what it says about that, and what a reload outside of it says.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::attempt::landlock;
use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{run, wait_until};
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
fn memory_of_the_gate_belongs_to_root() {
    // As a user of its own: /proc says so only then.
    const NOBODY: u32 = 65_534;
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let file = pki.write("doorward.toml", House::new(&pki).route("nas", backend.address()).config());
    let folder = file.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        std::os::unix::fs::chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["run", "--config"]).arg(&file).uid(NOBODY).gid(NOBODY);
    let mut gate = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let of = |file: &str| format!("/proc/{}/{file}", gate.id());
    wait_until("it is in its sandbox", || {
        let status = fs::read_to_string(of("status")).unwrap();
        status.contains("\nSeccomp:\t2\n").then_some(())
    });
    let owner = fs::metadata(of("mem")).unwrap().uid();
    gate.kill().unwrap();
    gate.wait().unwrap();
    assert_eq!(owner, 0);
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

/// What `doorward check` says of this configuration: nothing is wrong.
#[track_caller]
fn assert_checked(gate: &Gate, config: &str) {
    let file = gate.folder().join("next.toml");
    fs::write(&file, config).unwrap();
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["check", "--config"]).arg(&file)).success();
    fs::remove_file(file).unwrap();
}

/// The only error of a reload that is refused.
#[track_caller]
fn refused(gate: &Gate, config: &str) -> String {
    assert_checked(gate, config);
    let line = gate.reload(config);
    assert_eq!(line["event"], "reload_failed", "{line}");
    let errors = line["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{line}");
    let error = errors[0].as_str().unwrap();
    assert!(error.contains("fix:   start the gate anew: doorward upgrade"), "{error}");
    error.to_owned()
}

#[test]
fn reload_that_needs_another_port_says_so_and_changes_nothing() {
    let (pki, backend, other) = (TestPki::new(), Backend::echo(), Backend::echo());
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let config = |backend: &dyn std::fmt::Display| House::new(&pki).route("nas", backend).config();
    let gate = Gate::start(&config(&backend.address()));
    let port = other.address().port();

    if landlock() < 4 {
        // Such a kernel restricts no ports, so the reload may have them.
        assert_eq!(gate.reload(&config(&other.address()))["event"], "reloaded");
        return;
    }
    let error = refused(&gate, &config(&other.address()));
    assert!(error.contains("route \"nas\".backends"), "{error}");
    assert!(error.contains(&format!("does not allow it to connect to TCP port {port}")), "{error}");
    let error = refused(&gate, &config(&format!("localhost:{}", backend.address().port())));
    assert!(error.contains("does not allow it to read the files of the resolver"), "{error}");
    let moved = config(&backend.address()).replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    let error = refused(&gate, &moved);
    assert!(error.contains("listener \"public\".address"), "{error}");
    assert!(error.contains(&format!("does not allow it to bind TCP port {port}")), "{error}");

    Client::admitted(gate.address(), &device, crate::NAS).unwrap().ping().unwrap();
    // The next start allows what it names.
    let restarted = Gate::start(&config(&other.address()));
    Client::admitted(restarted.address(), &device, crate::NAS).unwrap().ping().unwrap();
}

#[test]
fn reload_that_needs_the_first_unix_socket_says_so() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let config = |backend: &dyn std::fmt::Display| House::new(&pki).route("nas", backend).config();
    let gate = Gate::start(&config(&backend.address()));
    let error = refused(&gate, &config(&"unix:/run/app.sock"));
    assert!(error.contains("does not allow it to connect to Unix sockets, which unix:/run/app.sock needs"), "{error}");
    assert_eq!(gate.reload(&config(&backend.address()))["event"], "reloaded");
}

#[test]
fn reload_that_needs_the_first_packet_to_wake_a_machine_says_so() {
    let pki = TestPki::new();
    let config = |keys: &str| House::new(&pki).route_with("nas", &["192.0.2.1:9"], keys).config();
    let wakes = "allow = [\"any\"]\nwake = { mac = \"3e:ec:ef:12:34:56\" }";
    let gate = Gate::start(&config("allow = [\"any\"]"));
    let error = refused(&gate, &config(wakes));
    assert!(error.contains("route \"nas\".wake"), "{error}");
    assert!(error.contains("does not allow it to send packets that wake a machine"), "{error}");
    // The next start allows what it names.
    let restarted = Gate::start(&config(wakes));
    assert_eq!(restarted.hang_up()["event"], "reloaded");
}

#[test]
fn reload_that_needs_a_file_outside_names_it() {
    let (pki, elsewhere, backend) = (TestPki::new(), TestPki::new(), Backend::echo());
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let config = |pki: &TestPki| House::new(pki).route("nas", backend.address()).config();
    let before = fs::read_to_string(gate.folder().join("doorward.toml")).unwrap();
    let file = elsewhere.path("clients.pem");
    let list = format!("trust = [{:?}]", pki.path("clients.pem"));
    assert!(before.contains(&list), "{before}");
    let error = refused(&gate, &before.replace(&list, &format!("trust = [{file:?}]")));
    assert!(error.contains(&format!("does not allow it to read {}", file.display())), "{error}");
    assert_eq!(gate.reload(&config(&pki))["event"], "reloaded");
}

#[test]
fn require_starts_only_where_all_of_it_is_in_force() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let config = House::new(&pki).route("nas", backend.address()).config();
    let gate = Gate::start_with_control(&config);
    let status: Value = serde_json::from_slice(&gate.ask(&["status", "--format", "json"]).success().stdout).unwrap();
    let sandbox = &status["sandbox"];
    let missing: Vec<&str> = sandbox["missing"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let line = gate.wait_for_line("the sandbox", |line| line["event"] == "sandbox");
    assert_eq!(sandbox["in_force"], line["in_force"], "{status}");
    // Linux 6.12 and later have everything; tests/vm has older ones.
    let version = landlock();
    assert_eq!(sandbox["landlock"], version, "{sandbox}");
    let complete = version >= 6;
    assert_eq!(missing.is_empty(), complete, "{sandbox}");
    let required = format!("{config}\n[sandbox]\nmode = \"require\"\n");
    if complete {
        let all = [
            "capabilities",
            "no_new_privs",
            "no_dump",
            "files",
            "tcp_ports",
            "abstract_sockets",
            "signals",
            "system_calls",
        ];
        assert_eq!(line["in_force"], serde_json::json!(all), "{line}");
        drop(Gate::start(&required));
    } else {
        let refused = Gate::fails_to_start(&required).stderr;
        for missing in missing {
            assert!(refused.contains(missing), "{missing} in {refused}");
        }
    }
}

#[test]
fn capability_is_kept_only_for_files_of_another_user() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let kept = |gate: &Gate| {
        let line = gate.wait_for_line("the sandbox", |line| line["event"] == "sandbox");
        line["capabilities"].as_array().cloned().unwrap_or_default()
    };
    let house = House::new(&pki).route("nas", backend.address());
    assert_eq!(kept(&house.open()), Vec::<Value>::new());
    let key = pki.path("server-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&key, Some(12345), Some(12345)).unwrap();
    let gate = house.open();
    assert_eq!(kept(&gate), ["CAP_DAC_READ_SEARCH"]);
    let line = gate.hang_up();
    assert_eq!(line["event"], "reloaded", "{line}");
}

#[test]
fn socket_of_another_user_stays_within_reach() {
    let (pki, folder) = (TestPki::new(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("backend.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(12345), Some(12345)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    let gate = House::new(&pki).route("nas", format!("unix:{}", socket.display())).open();
    let line = gate.wait_for_line("the sandbox", |line| line["event"] == "sandbox");
    assert_eq!(line["capabilities"], serde_json::json!(["CAP_DAC_OVERRIDE"]), "{line}");
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let guest = Client::handshaken(gate.address(), &device, crate::NAS).unwrap();
    drop(listener.accept().unwrap());
    drop(guest);
}
