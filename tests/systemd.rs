//! What systemd is told, with a socket that is read as systemd reads its own (sd_notify(3)).

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with the tests of the journey")]
#[path = "journey/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with the tests of the journey")]
#[path = "journey/home.rs"]
mod home;

use std::io::Write;
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::DEADLINE;
use common::backend::Backend;
use common::gate::Gate;
use common::pki::TestPki;
use common::process::{Daemon, own_loopback, tool, wait_until};
use home::House;
use rustix::process::Signal;
use tokio::time::Instant;

/// The socket of a service manager.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { folder, socket }
    }

    /// The gate as its service: with the variables that systemd sets.
    fn start(&self, config: &str, watchdog: Option<Duration>) -> Gate {
        Gate::start_with(config, |command| {
            command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
            // Without $WATCHDOG_PID, it is for each process.
            match watchdog {
                Some(within) => command.env("WATCHDOG_USEC", within.as_micros().to_string()).env_remove("WATCHDOG_PID"),
                None => command.env_remove("WATCHDOG_USEC"),
            };
        })
    }

    /// The next message, one assignment a line.
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next message that starts with `wanted`.
    fn wait(&self, wanted: &str) -> String {
        loop {
            let message = self.next();
            if message.starts_with(wanted) {
                return message;
            }
        }
    }
}

fn config(pki: &TestPki) -> String {
    House::new(pki).route("nas", Backend::echo().address()).config()
}

#[test]
fn start_reload_and_stop_are_told_in_systemds_words() {
    let (manager, pki) = (Manager::new(), TestPki::new());
    let mut gate = manager.start(&config(&pki), None);
    assert_eq!(manager.wait("READY=1").trim_end(), "READY=1");
    let reloaded = || {
        gate.hang_up();
        let reloading = manager.wait("RELOADING=1");
        let (_, microseconds) = reloading.trim_end().split_once("\nMONOTONIC_USEC=").expect("both in one message");
        manager.wait("READY=1");
        microseconds.parse::<u128>().unwrap()
    };
    let begin = Instant::now();
    let (first, second) = (reloaded(), reloaded());
    assert!(first < second && second - first <= begin.elapsed().as_micros(), "{first} {second}");
    gate.signal(Signal::TERM);
    let stopping = manager.wait("STOPPING=1");
    assert!(stopping.contains("\nEXTEND_TIMEOUT_USEC="), "{stopping}");
    gate.wait_for_end();
}

#[test]
fn failed_reload_ends_and_its_trouble_is_in_the_status() {
    let (manager, pki) = (Manager::new(), TestPki::new());
    let good = config(&pki);
    // With a watchdog the status is compared more often.
    let gate = manager.start(&good, Some(Duration::from_millis(600)));
    assert_eq!(manager.wait("STATUS=").trim_end(), "STATUS=0 open connections");
    gate.reload(&format!("{good}\nnonsense = 1\n"));
    manager.wait("RELOADING=1");
    // A reload that fails has ended as well: systemd would wait for it.
    manager.wait("READY=1");
    assert!(manager.wait("STATUS=").contains("; the latest reload was refused, see doorward status"));
    gate.reload(&good);
    assert_eq!(manager.wait("STATUS=0 open connections\n").trim_end(), "STATUS=0 open connections");
}

#[test]
fn watchdog_is_fed_in_time_and_not_by_a_stopped_process() {
    let (manager, pki) = (Manager::new(), TestPki::new());
    let within = Duration::from_millis(1500);
    let config = format!("{}\n[control]\nsocket = \"control.sock\"\n", config(&pki));
    let gate = manager.start(&config, Some(within));
    manager.wait("WATCHDOG=1");
    for _ in 0..5 {
        let before = Instant::now();
        manager.wait("WATCHDOG=1");
        assert!(before.elapsed() < within);
    }
    gate.signal(Signal::STOP);
    manager.socket.set_read_timeout(Some(within)).unwrap();
    let mut buffer = [0; 4096];
    // What was sent before.
    while manager.socket.recv(&mut buffer).is_ok() {}
    gate.signal(Signal::CONT);
    manager.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    manager.wait("WATCHDOG=1");
}

#[test]
fn without_a_watchdog_none_is_fed() {
    let (manager, pki) = (Manager::new(), TestPki::new());
    let _gate = manager.start(&config(&pki), None);
    manager.wait("READY=1");
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = manager.socket.recv(&mut buffer) {
        assert!(!buffer[..length].starts_with(b"WATCHDOG"));
    }
}

/// The gate, as `systemd-socket-activate` starts it at the first connection, with a socket of this name.
fn activated(name: &str, config: &str, address: SocketAddrV4) -> (tempfile::TempDir, Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("doorward.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = tool("systemd-socket-activate", "systemd");
    command.arg(format!("--listen={address}")).arg(format!("--fdname={name}"));
    command.arg(env!("CARGO_BIN_EXE_doorward")).args(["run", "--config"]).arg(file);
    (folder, Daemon::start(&mut command, address))
}

#[test]
fn socket_of_systemd_is_the_listener_of_its_name() {
    let (pki, address) = (TestPki::new(), SocketAddrV4::new(own_loopback(), 8443));
    let config = config(&pki).replacen("127.0.0.1:0", &address.to_string(), 1);
    let document: toml::Table = config.parse().unwrap();
    let name = document["listener"][0]["name"].as_str().unwrap();

    let (_folder, gate) = activated(name, &config, address);
    // The connection that starts it waits in the queue of the socket.
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    wait_until("the first connection is refused", || gate.output().contains("\"rejected\"").then_some(()));
    assert!(gate.output().contains(&format!("\"address\":\"{address}\"")), "{}", gate.output());
    drop(gate);

    let (_folder, gate) = activated("wrong", &config, address);
    let _client = TcpStream::connect(address).unwrap();
    wait_until("it does not start", || gate.output().contains("no listener has this name").then_some(()));
}
