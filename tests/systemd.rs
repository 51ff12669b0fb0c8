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

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use common::DEADLINE;
use common::backend::Backend;
use common::gate::Gate;
use common::pki::TestPki;
use common::process::{Daemon, own_loopback, run, tool, wait_until};
use home::House;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::Instant;

/// The socket of a service manager.
struct Manager {
    _folder: tempfile::TempDir,
    /// `$NOTIFY_SOCKET`.
    name: OsString,
    socket: UnixDatagram,
}

impl Manager {
    /// One whose socket is a file, as systemd's.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { _folder: folder, name: path.into_os_string(), socket }
    }

    /// One whose socket is a name in the abstract namespace, as that of some container managers.
    fn with_abstract_socket() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("notify").into_os_string();
        let address = SocketAddr::from_abstract_name(name.as_encoded_bytes()).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = [OsStr::new("@"), &name].iter().copied().collect();
        Self { _folder: folder, name, socket }
    }

    /// The gate as its service: with the variables that systemd sets.
    fn start(&self, config: &str, watchdog: Option<Duration>) -> Gate {
        self.start_with(config, |command| {
            if let Some(within) = watchdog {
                // Without $WATCHDOG_PID, it is for each process.
                command.env("WATCHDOG_USEC", within.as_micros().to_string());
            }
        })
    }

    /// The same with other variables.
    fn start_with(&self, config: &str, change: impl FnOnce(&mut Command)) -> Gate {
        Gate::start_with(config, |command| {
            command.env("NOTIFY_SOCKET", &self.name).env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
            change(command);
        })
    }

    /// Whether a message to keep the watchdog quiet comes within this time.
    fn is_fed_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut buffer = [0; 4096];
        let mut fed = false;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero() && !fed) {
            self.socket.set_read_timeout(Some(left)).unwrap();
            fed = self.socket.recv(&mut buffer).is_ok_and(|length| buffer[..length].starts_with(b"WATCHDOG=1"));
        }
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        fed
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
    let within = Duration::from_secs(6);
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
    let pki = TestPki::new();
    let variables: [&[(&str, &str)]; 4] = [
        &[],
        // Of another process: a child that inherited the variables.
        &[("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "1")],
        // systemd writes neither.
        &[("WATCHDOG_USEC", "0")],
        &[("WATCHDOG_USEC", "soon")],
    ];
    for variables in variables {
        let manager = Manager::new();
        let _gate = manager.start_with(&config(&pki), |command| {
            command.envs(variables.iter().copied());
        });
        manager.wait("READY=1");
        assert!(!manager.is_fed_within(Duration::from_secs(1)), "{variables:?}");
    }
}

#[test]
fn watchdog_of_this_process_is_fed_at_half_the_interval() {
    let (manager, pki) = (Manager::new(), TestPki::new());
    let within = Duration::from_secs(12);
    // A shell knows the number that the gate will have.
    let script = "export WATCHDOG_PID=$$ WATCHDOG_USEC=12000000; exec \"$@\"";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("doorward.toml");
    std::fs::write(&file, config(&pki)).unwrap();
    let mut command = tool("bash", "bash");
    command.args(["-euc", script, "bash", env!("CARGO_BIN_EXE_doorward"), "run", "--config"]).arg(file);
    let _gate = Daemon::start_until(command.env("NOTIFY_SOCKET", &manager.name), "it starts", || true);
    manager.wait("READY=1");
    for _ in 0..2 {
        assert!(manager.is_fed_within(within / 2));
    }
}

#[test]
fn abstract_notify_socket_is_told_the_same() {
    let (manager, pki) = (Manager::with_abstract_socket(), TestPki::new());
    let mut gate = manager.start(&config(&pki), Some(Duration::from_secs(3)));
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
    gate.hang_up();
    manager.wait("RELOADING=1");
    manager.wait("READY=1");
    gate.signal(Signal::TERM);
    manager.wait("STOPPING=1");
    gate.wait_for_end();
}

/// A configuration with these listeners, whose addresses nothing else on this machine has.
struct Activated {
    folder: tempfile::TempDir,
    pki: TestPki,
    _backend: Backend,
    addresses: Vec<SocketAddrV4>,
}

impl Activated {
    fn new(names: &[&str]) -> Self {
        let (folder, pki, backend) = (tempfile::tempdir().unwrap(), TestPki::new(), Backend::echo());
        let addresses: Vec<_> = names.iter().map(|_| SocketAddrV4::new(own_loopback(), 8443)).collect();
        let mut document: toml::Table = House::new(&pki).route("nas", backend.address()).config().parse().unwrap();
        let listeners = document["listener"].as_array_mut().unwrap();
        let first = listeners[0].clone();
        *listeners = names.iter().map(|_| first.clone()).collect();
        for (listener, (name, address)) in listeners.iter_mut().zip(names.iter().zip(&addresses)) {
            listener["name"] = (*name).into();
            listener["address"] = address.to_string().into();
        }
        std::fs::write(folder.path().join("doorward.toml"), document.to_string()).unwrap();
        Self { folder, pki, _backend: backend, addresses }
    }

    /// The gate, as `systemd-socket-activate` starts it at the first connection with these sockets, after a script that may
    /// change what systemd has set. `$LISTEN_PID` is right: a shell and what it executes have the same number.
    fn start(&self, options: &[&str], script: &str) -> Daemon {
        let mut command = tool("systemd-socket-activate", "systemd");
        command.args(self.addresses.iter().map(|address| format!("--listen={address}"))).args(options);
        command.args([
            "bash",
            "-euc",
            &format!("{script}\nexec \"$@\""),
            "bash",
            env!("CARGO_BIN_EXE_doorward"),
            "run",
        ]);
        command.arg("--config").arg(self.folder.path().join("doorward.toml"));
        Daemon::start(&mut command, self.addresses[0])
    }

    /// Starts it, which fails with this message.
    fn fails(&self, options: &[&str], script: &str, message: &str) {
        let gate = self.start(options, script);
        let _client = TcpStream::connect(self.addresses[0]).unwrap();
        wait_until("it does not start", || gate.output().contains(message).then_some(()));
    }
}

/// The connection that starts the gate waits in the queue of the socket, as those to the other sockets do.
#[test]
fn sockets_of_systemd_are_the_listeners_of_their_names() {
    let activated = Activated::new(&["public", "local"]);
    let gate = activated.start(&["--fdname=public:local"], "");
    let clients = [0, 1].map(|index| {
        let mut client = TcpStream::connect(activated.addresses[index]).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        client
    });
    for (name, address) in ["public", "local"].iter().zip(&activated.addresses) {
        let listening = format!("\"listener\":\"{name}\",\"address\":\"{address}\"");
        let refused = |line: &&str| line.contains("\"rejected\"") && line.contains(&format!("\"listener\":\"{name}\""));
        wait_until("both connections are refused", || gate.output().lines().find(refused).map(|_| ()));
        assert!(gate.output().contains(&listening), "{}", gate.output());
    }
    drop(clients);
}

/// As without these sockets, a stop ends handshakes and lets relays end. What differs: a client that connects meanwhile is
/// neither reset nor refused, and the next start admits it.
#[test]
fn restart_ends_handshakes_and_admits_clients_that_wait() {
    let activated = Activated::new(&["public"]);
    // As systemd: it keeps the socket, and starts the gate a second time.
    let twice = "trap : TERM; (export LISTEN_PID=$BASHPID; exec \"$@\"); echo the first has ended";
    let gate = activated.start(&["--fdname=public"], twice);
    let (address, name) = (activated.addresses[0].into(), "nas.home.example");
    let phone = activated.pki.client_config(Some(&activated.pki.client("phone")), client::TLS13).into();
    let relay = client::Client::admitted(address, &phone, name).unwrap();
    let handshake = client::Client::on(client::connect(address), &phone, name);
    handshake.flush().unwrap();
    handshake.receive_some().unwrap();

    let group = Pid::from_raw(gate.group().cast_signed()).unwrap();
    kill_process_group(group, Signal::TERM).unwrap();
    let refused = |line: &str| line.contains("\"rejected\"") && line.contains("\"reason\":\"draining\"");
    wait_until("the handshake is ended", || gate.output().lines().any(refused).then_some(()));
    assert!(handshake.handshake().and_then(|()| handshake.ping()).is_err());
    // The relay keeps the first process, which accepts nothing more.
    let waiting = client::Client::on(client::connect(address), &phone, name);
    waiting.flush().unwrap();
    relay.ping().unwrap();
    relay.close_notify();
    assert_eq!(relay.end(), client::End::Orderly);
    waiting.handshake().and_then(|()| waiting.ping()).unwrap();
    assert!(gate.output().contains("the first has ended"), "{}", gate.output());
    assert_eq!(gate.output().lines().filter(|line| refused(line)).count(), 1, "{}", gate.output());
}

/// A connection to the status page starts the gate, whose listener has the other socket.
#[test]
fn socket_of_the_metrics_is_that_of_systemd() {
    let mut activated = Activated::new(&["public"]);
    let metrics = SocketAddrV4::new(own_loopback(), 9180);
    activated.addresses.push(metrics);
    let file = activated.folder.path().join("doorward.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let with = |address: &str| {
        let mut document: toml::Table = text.parse().unwrap();
        document["metrics"]["address"] = address.into();
        std::fs::write(&file, document.to_string()).unwrap();
    };
    let does_not_fit =
        "\"metrics\" of systemd): the configuration has 127.0.0.1:9181: ListenStream= and address must be the same";
    with("127.0.0.1:9181");
    activated.fails(&["--fdname=public:metrics"], "", does_not_fit);
    with("off");
    activated.fails(&["--fdname=public:metrics"], "", "no listener has this name");
    with(&metrics.to_string());
    let gate = activated.start(&["--fdname=public:metrics"], "");
    let mut page = TcpStream::connect(metrics).unwrap();
    page.set_read_timeout(Some(DEADLINE)).unwrap();
    page.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer} {}", gate.output());
    let phone = activated.pki.client_config(Some(&activated.pki.client("phone")), client::TLS13).into();
    client::Client::admitted(activated.addresses[0].into(), &phone, "nas.home.example").unwrap();
}

#[test]
fn sockets_that_do_not_fit_keep_the_gate_from_starting() {
    let activated = Activated::new(&["public"]);
    activated.fails(&["--fdname=wrong"], "", "no listener has this name: FileDescriptorName= must be that of one");
    // systemd-socket-activate and old versions of systemd set no names.
    activated.fails(&[], "unset LISTEN_FDNAMES", "no listener has this name");
    let does_not_fit = "LISTEN_FDS and LISTEN_FDNAMES do not fit what was passed";
    activated.fails(&["--fdname=public"], "export LISTEN_FDNAMES=public:local", does_not_fit);
    activated.fails(&["--fdname=public"], "export LISTEN_FDS=200", does_not_fit);
    activated.fails(&["--fdname=public"], "export LISTEN_FDS=many", does_not_fit);
    let two = Activated::new(&["public", "local"]);
    two.fails(&["--fdname=public:public"], "", "ListenStream= and address must be the same");
    two.fails(&["--fdname=public:local"], "exec 4</dev/null", "it does not listen for TCP connections");
}

/// A process that inherited the variables, and none of the sockets, listens on its own.
#[test]
fn sockets_of_another_process_are_not_taken() {
    let (manager, pki) = (Manager::new(), TestPki::new());
    let gate = manager.start_with(&config(&pki), |command| {
        command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "public")]);
    });
    manager.wait("READY=1");
    TcpStream::connect(gate.address()).unwrap();
}

/// `LoadCredential=gate.key:…`: the file is in a folder that only the service knows.
#[test]
fn key_is_taken_from_the_folder_of_credentials() {
    let (pki, echo) = (TestPki::new(), Backend::echo());
    let mut document: toml::Table = House::new(&pki).route("nas", echo.address()).config().parse().unwrap();
    let certificate = document["certificate"].as_table_mut().unwrap();
    let [chain, key] = ["chain", "key"].map(|name| certificate[name].as_str().unwrap().to_owned());
    certificate["key"] = "credential:gate.key".into();
    let credentials = tempfile::tempdir().unwrap();
    std::fs::rename(&key, credentials.path().join("gate.key")).unwrap();
    // Only the signal reloads it: it is the reply to that which is looked at.
    let text = format!("watch = \"off\"\n{document}");
    let gate = Gate::start_with(&text, |command| {
        command.env("CREDENTIALS_DIRECTORY", credentials.path());
    });
    let phone = pki.client_config(Some(&pki.client("phone")), &client::VERSIONS);
    client::Client::admitted(gate.address(), &phone.into(), "nas.home.example").unwrap();

    // Outside of the service.
    let file = gate.folder().join("doorward.toml");
    let check = |options: &[&OsStr]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        run(command.arg("check").arg("--config").arg(&file).args(options).env_remove("CREDENTIALS_DIRECTORY"))
    };
    let refused = check(&[]).failure();
    assert!(refused.stderr.contains("exists only in the service"), "{refused}");
    check(&[OsStr::new("--credentials"), credentials.path().as_os_str()]).success();

    // A renewal with a new key: the service has the old one until it starts again.
    let other_pki = TestPki::new();
    let other: toml::Table = config(&other_pki).parse().unwrap();
    std::fs::copy(other["certificate"]["chain"].as_str().unwrap(), &chain).unwrap();
    let reply = gate.reload(&text);
    assert!(
        reply.to_string().contains("if the credential gate.key is a new one: systemctl restart doorward"),
        "{reply}"
    );
}
