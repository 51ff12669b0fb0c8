//! The control socket: its place, its permissions, and what its clients cannot do to the gate.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use doorward::sys::credentials::act_as;
use rustix::process::{Gid, Uid};
use serde_json::Value;
use tokio::time::Instant;

use crate::client::{Client, client, connect, refused_plainly};
use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, Finished, own_loopback, run, wait_until};
use crate::home::House;
use crate::{NAME, control_socket, doorward, json, memory};

/// Sends bytes to the control socket and reads the answer to its end.
#[track_caller]
fn raw(socket: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    // The gate need not read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with('\n') && answer.lines().count() == 1, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn abuse_of_the_control_socket_does_not_affect_the_gate() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", echo.address()).config());
    let socket = control_socket(&gate);
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let established = Client::admitted(gate.address(), &alice, NAME).unwrap();
    let open_before = descriptors(&gate);
    let memory_before = memory(&gate);

    // A hundred idle connections: the newest request is answered, and the gate works.
    let idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let begun = Instant::now();
    assert_eq!(json(&gate, &["sessions"])["open"], 1);
    established.ping().unwrap();
    Client::admitted(gate.address(), &alice, NAME).unwrap().close_notify();
    assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());

    // A line of a megabyte.
    let answer = raw(&socket, &vec![b'x'; 1024 * 1024]);
    assert_eq!(answer["error"], "cannot read the request: longer than 4096 bytes");
    for nonsense in
        ["", "\n", "null\n", "{}\n", "{\"command\":\"cut\"}\n", "{\"command\":\"why\"}\n", "GET / HTTP/1.1\r\n"]
    {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "{\"error\":\"this is no question that the gate understands\"}\n", "{nonsense:?}");
    }
    let answer = raw(&socket, b"{\"command\":\"why\",\"wanted\":\"\",\"count\":1}\n");
    assert_eq!(answer["error"], "write an address, a fingerprint, the name of a device, or the word last");
    // A count above what is remembered, and above the limit.
    let all = raw(&socket, b"{\"command\":\"why\",\"wanted\":\"last\",\"count\":18446744073709551615}\n");
    assert_eq!(all["why"]["known"], 0);
    // An incomplete request times out.
    let slow = raw(&socket, b"{\"command\":");
    assert_eq!(slow["error"], "the request did not arrive in time");

    drop(idle);
    established.ping().unwrap();
    // No resources are leaked.
    wait_until("its descriptors are closed", || (descriptors(&gate) <= open_before).then_some(()));
    let grown = memory(&gate).saturating_sub(memory_before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

fn descriptors(gate: &Gate) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count()
}

#[test]
fn control_socket_is_private_and_replaces_only_a_stale_one() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let house = House::new(&pki).route("nas", echo.address());
    let gate = Gate::start_with_control(&house.config());
    let path = control_socket(&gate);
    assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let line = gate.wait_for_line("the socket to be named", |line| line["event"] == "control");
    assert_eq!(line["socket"], path.to_str().unwrap());

    // A second gate does not replace it, nor a file at its path.
    let at = |socket: &Path| format!("{}\n[control]\nsocket = {socket:?}\n", house.config());
    let said = Gate::fails_to_start(&at(&path));
    assert_eq!(said.status.code(), Some(4));
    assert!(said.stderr.contains("another gate is listening on it"), "{said}");
    let precious = gate.folder().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let said = Gate::fails_to_start(&at(&precious));
    assert_eq!((said.status.code(), std::fs::read_to_string(&precious).unwrap().as_str()), (Some(4), "precious"));
    assert!(said.stderr.contains("a file of this name exists that is not a socket of this user"), "{said}");
    let said = Gate::fails_to_start(&at(Path::new("/nowhere/control.sock")));
    assert!(said.stderr.contains("its folder does not exist"), "{said}");

    // A killed gate leaves its socket, and the next one replaces it. A stopped gate removes it.
    let left = tempfile::tempdir().unwrap();
    let left = left.path().join("control.sock");
    let mut first = Gate::start(&at(&left));
    first.signal(rustix::process::Signal::KILL);
    first.wait_for_end();
    assert!(left.exists());
    let mut second = Gate::start(&at(&left));
    doorward(&["status", "--socket", left.to_str().unwrap()]).success();
    second.signal(rustix::process::Signal::TERM);
    assert!(second.wait_for_end().success());
    assert!(!left.exists());
}

#[test]
fn without_a_control_section_there_is_no_socket() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).open();
    let files: BTreeSet<_> = std::fs::read_dir(gate.folder()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, BTreeSet::from(["doorward.toml", "history"].map(Into::into)));
    assert_eq!(gate.ask(&["status"]).failure().status.code(), Some(8));
}

/// A folder in which `doorward init` was run, and a gate that runs in its folder `doorward`.
struct OutOfTheBox {
    home: tempfile::TempDir,
    address: SocketAddrV4,
}

impl OutOfTheBox {
    fn new() -> Self {
        let (home, address) = (tempfile::tempdir().unwrap(), SocketAddrV4::new(own_loopback(), 8443));
        let made = Self { home, address };
        let listen = address.to_string();
        let init = ["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--device", "alice-phone"];
        made.doorward("", &[&init[..], &["--listen", &listen]].concat()).success();
        // The default metrics port is the same for all gates on this machine.
        let config = made.path("doorward/doorward.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("127.0.0.1:9180", "127.0.0.1:0")).unwrap();
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn doorward(&self, folder: &str, arguments: &[&str]) -> Finished {
        run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments).current_dir(self.path(folder)))
    }

    /// `doorward run`, as systemd starts it with these runtime folders.
    fn run(&self, runtime_folders: Option<&str>) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("run").current_dir(self.path("doorward")).env_remove("RUNTIME_DIRECTORY");
        if let Some(folders) = runtime_folders {
            command.env("RUNTIME_DIRECTORY", folders);
        }
        let gate = Daemon::start(&mut command, self.address);
        wait_until("it is ready", || gate.output().contains(" ready\n").then_some(()));
        gate
    }
}

#[test]
fn control_socket_works_with_the_configuration_of_init() {
    let made = OutOfTheBox::new();
    let _gate = made.run(None);
    let mode = std::fs::symlink_metadata(made.path("doorward/control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let why = || made.doorward("doorward", &["why"]).success().text();
    assert_eq!(why(), "No connection has been refused since the gate was started.\n");
    refused_plainly(&connect(made.address.into()), b"GET / HTTP/1.1\r\n\r\n");
    wait_until("why tells of it", || why().contains("sent something that is not TLS, but http.").then_some(()));

    // The same in the folder where init was run; elsewhere, the error says where was looked.
    assert!(made.doorward("", &["why"]).success().text().contains("not TLS, but http."));
    std::fs::create_dir(made.path("elsewhere")).unwrap();
    let said = made.doorward("elsewhere", &["why"]).failure();
    assert_eq!(said.status.code(), Some(8), "{said}");
    assert!(
        said.stderr.contains("neither doorward.toml nor doorward/doorward.toml in this folder, nor /etc"),
        "{said}"
    );
    made.doorward("", &["status", "--config", "doorward/doorward.toml"]).success();
}

#[test]
fn service_has_its_socket_in_the_runtime_directory() {
    let made = OutOfTheBox::new();
    let runtime = made.path("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let _gate = made.run(Some(&format!("{}:/nowhere", runtime.display())));
    assert!(!made.path("doorward/control.sock").exists());
    doorward(&["status", "--socket", runtime.join("control.sock").to_str().unwrap()]).success();
}

#[test]
fn gate_without_a_possible_auto_socket_warns_and_runs() {
    let made = OutOfTheBox::new();
    let gate = made.run(Some("/nowhere"));
    let said = gate.output();
    assert!(said.contains("warning: cannot create the control socket /nowhere/control.sock: its folder"), "{said}");
    assert!(said.contains("the gate runs, but commands such as"), "{said}");
    refused_plainly(&connect(made.address.into()), b"GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn other_user_is_refused_whatever_the_mode_of_the_file() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", echo.address()).config());
    let socket = control_socket(&gate);
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(gate.folder(), std::fs::Permissions::from_mode(0o711)).unwrap();
    // Debian's nobody and nogroup.
    let (user, group) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
    for request in ["{\"command\":\"status\"}\n", "{\"command\":\"upgrade\"}\n"] {
        let answer = act_as(user, group, || raw(&socket, request.as_bytes())).unwrap();
        assert!(answer["error"].as_str().unwrap().starts_with("permission denied: only the gate's user"), "{answer}");
    }
    assert_eq!(raw(&socket, b"{\"command\":\"counters\"}\n")["error"], Value::Null);
}
