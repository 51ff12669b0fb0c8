//! `doorward forward`: what ghostunnel's tests ask of its client mode, and more.
//!
//! | ghostunnel's client | test |
//! |---|---|
//! | overrides the server name | [`server_name_is_that_of_the_route_and_not_the_address`] |
//! | reloads a renewed certificate | [`renewed_certificate_is_used_and_a_broken_one_is_not`]; `last_third` in tests/renewal: one that it renews itself |
//! | keeps the earlier certificate if the new one is broken | the same; `wrong_answers` in tests/renewal |
//! | listens on a unix socket, which it removes | [`unix_socket_is_for_this_user_alone`] |
//! | fails if its port is in use | [`port_conflict_is_told_and_nothing_is_listened_on`] |
//! | listens beyond loopback only if told | [`other_machines_are_kept_out_unless_told`] |
//! | ends in order, open connections as well | [`stop_ends_sessions_in_order`] |
//! | judges the server's certificate | `refusals::certificate_of_the_gate_is_judged_and_named` |
//! | passes a half-close on | `stdio::service_may_answer_after_the_end_of_the_input` and [`several_sessions_at_once_move_every_byte`] |
//! | has a status | [`status_tells_sessions_and_the_last_failure`] |

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use doorward::connector::forward::service::service;
use doorward::connector::homes::Homes;
use rustix::process::Signal;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::bundle::bundle_route;
use crate::common::process::{after_script, run, run_with_input, wait_until};
use crate::scene::{DEVICE, Running, Scene, doorward, noise, replace, route, write};

/// Starts `doorward forward` and waits until it listens; returns the addresses, in order.
#[track_caller]
fn forward(arguments: &[&str], file: &Path) -> (Running, Vec<String>) {
    let mut command = doorward(&[&["forward"], arguments].concat(), file);
    let mut running = Running::start(&mut command);
    running.wait_for(" on ");
    let count = arguments.iter().filter(|argument| !argument.starts_with('-')).count().max(1);
    let locals = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once(" on ")?.1.to_owned())).collect()
    };
    wait_until("it listens", || (locals(&running.errors()).len() >= count).then_some(()));
    let locals = locals(&running.errors());
    (running, locals)
}

fn dial(local: &str) -> TcpStream {
    let stream = TcpStream::connect(local.parse::<SocketAddr>().unwrap()).unwrap();
    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    stream
}

/// Sends, ends, and returns all that comes back.
fn exchange(mut stream: TcpStream, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut writer = stream.try_clone()?;
    let sent = sent.to_vec();
    let sender = std::thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.shutdown(Shutdown::Write)));
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    let _ = sender.join();
    Ok(back)
}

/// A gate with an echo service behind it.
pub(crate) fn echo() -> (Backend, Scene) {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    (backend, scene)
}

#[test]
fn several_sessions_at_once_move_every_byte() {
    let (_backend, scene) = echo();
    let file = scene.file();
    let (mut running, locals) = forward(&["echo=0"], &file);
    let threads: Vec<_> = (0..8)
        .map(|seed| {
            let local = locals[0].clone();
            std::thread::spawn(move || {
                let sent = noise(2_000_000, seed);
                assert!(exchange(dial(&local), &sent).unwrap() == sent);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    scene.gate.wait_closed("echo", 8);
    running.signal(Signal::TERM);
    assert!(running.end().success(), "{}", running.errors());
}

#[test]
fn server_name_is_that_of_the_route_and_not_the_address() {
    let (one, two) = (Backend::http("one"), Backend::http("two"));
    let wildcard = format!(
        "\n[[route]]\nname = \"wild\"\nserver_names = [\"*.two.home.example\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n",
        two.address()
    );
    let scene = Scene::new(&(route("one", one.address()) + &wildcard));
    let mut bundle = scene.bundle(&scene.certified());
    bundle.routes[1].server_name = doorward::model::names::ServerNamePattern::parse("*.two.home.example").unwrap();
    // The gate's certificate names it.
    let certified = scene
        .pki
        .servers
        .issue(crate::common::pki::Certified::for_servers(&["one.home.example", "photos.two.home.example"]));
    fs::write(scene.pki.path("server.pem"), certified.chain_pem()).unwrap();
    fs::write(scene.pki.path("server-key.pem"), certified.key_pem()).unwrap();
    assert_eq!(scene.gate.hang_up()["event"], "reloaded");
    let file = scene.file_of(&bundle);
    let (_running, locals) = forward(&["one=0", "photos.two.home.example=0"], &file);
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for (local, page) in [(&locals[0], "one"), (&locals[1], "two")] {
        let answer = exchange(dial(local), get).unwrap();
        assert!(String::from_utf8(answer).unwrap().ends_with(page), "{local}");
    }
    // Which of its names is not known without being told.
    let refused = run(&mut doorward(&["forward", "wild=0"], &file)).failure();
    assert!(refused.stderr.contains("answers to every name like *.two.home.example"), "{refused}");
}

#[test]
fn renewed_certificate_is_used_and_a_broken_one_is_not() {
    let (_backend, scene) = echo();
    let file = scene.file();
    let (mut running, locals) = forward(&["echo=0"], &file);
    assert_eq!(exchange(dial(&locals[0]), b"first").unwrap(), b"first");

    // A renewal under way, or a full disk: half a file.
    let text = fs::read_to_string(&file).unwrap();
    replace(&file, &text[..text.len() / 2]);
    assert_eq!(exchange(dial(&locals[0]), b"second").unwrap(), b"second");
    running.wait_for("were not taken over");
    fs::remove_file(&file).unwrap();
    assert_eq!(exchange(dial(&locals[0]), b"third").unwrap(), b"third");

    // A session that is open stays open.
    let mut open = dial(&locals[0]);
    open.write_all(b"open").unwrap();
    open.read_exact(&mut [0; 4]).unwrap();
    let mut params = Scene::device();
    params.serial_number = Some(rcgen::SerialNumber::from(vec![0x55, 0x66]));
    let renewed = scene.pki.clients.issue(params);
    write(&file, &scene.bundle(&renewed));
    assert_eq!(exchange(dial(&locals[0]), b"fourth").unwrap(), b"fourth");
    running.wait_for("new connections use them");
    assert_eq!(exchange(open, b"fifth").unwrap(), b"fifth");
    let closed = scene.gate.wait_closed("echo", 5);
    let serials: Vec<_> =
        closed.iter().map(|line| line["certificate"]["serial"].to_string().to_lowercase().replace(':', "")).collect();
    // The whole number: those of other certificates are random, and may have these digits.
    let renewed: Vec<_> = serials.iter().map(|serial| serial == "\"5566\"").collect();
    assert_eq!(renewed.iter().filter(|renewed| **renewed).count(), 1, "{serials:?}");
    assert!(renewed[3] || renewed[4], "{serials:?}");
}

/// As many as the system lets this user have: each session has two.
#[test]
fn limit_of_open_files_is_raised() {
    let (_backend, scene) = echo();
    let mut command =
        after_script(Command::new("bash"), "ulimit -Sn 64", &doorward(&["forward", "echo=0"], &scene.file()));
    let mut running = Running::start(&mut command);
    running.wait_for(" on ");
    let local = running.errors().lines().find_map(|line| Some(line.split_once(" on ")?.1.to_owned())).unwrap();
    let mut open: Vec<TcpStream> = (0..100).map(|_| dial(&local)).collect();
    for stream in &mut open {
        stream.write_all(b"open").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn unix_socket_is_for_this_user_alone() {
    let (_backend, scene) = echo();
    let file = scene.file();
    let socket = scene.path("echo.sock");
    let rule = format!("echo=unix:{}", socket.display());
    // Of a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (mut running, _) = forward(&[&rule], &file);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "hello");

    let second = run(&mut doorward(&["forward", &rule], &file));
    assert_eq!(second.status.code(), Some(4), "{second}");
    assert!(second.stderr.contains("is in use by another program"), "{second}");
    running.signal(Signal::TERM);
    assert!(running.end().success());
    assert!(!socket.exists());

    // Not a socket: it is not removed.
    fs::write(&socket, "mine").unwrap();
    assert_eq!(run(&mut doorward(&["forward", &rule], &file)).status.code(), Some(4));
    assert!(!fs::metadata(&socket).unwrap().file_type().is_socket());
}

#[test]
fn port_conflict_is_told_and_nothing_is_listened_on() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    bundle.routes.push(bundle_route("ssh"));
    let file = scene.file_of(&bundle);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let refused = run(&mut doorward(&["forward", "ssh=0", &format!("echo={taken}")], &file));
    assert_eq!(refused.status.code(), Some(4), "{refused}");
    assert!(refused.stderr.starts_with(&format!("error: echo: {taken} is in use by another program")), "{refused}");
    assert!(refused.stderr.contains("doorward forward echo=ADDRESS:PORT"), "{refused}");
}

#[test]
fn other_machines_are_kept_out_unless_told() {
    let (_backend, scene) = echo();
    let file = scene.file();
    let refused = run(&mut doorward(&["forward", "echo=0.0.0.0:0"], &file));
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("can be reached from other machines"), "{refused}");
    let (_running, locals) = forward(&["--listen-beyond-loopback", "echo=0.0.0.0:0"], &file);
    let local = locals[0].replace("0.0.0.0", "127.0.0.1");
    assert_eq!(exchange(dial(&local), b"hello").unwrap(), b"hello");
}

#[test]
fn stop_ends_sessions_in_order() {
    let (backend, scene) = echo();
    let file = scene.file();
    let (mut running, locals) = forward(&["echo=0"], &file);
    let mut open = dial(&locals[0]);
    open.write_all(b"open").unwrap();
    open.read_exact(&mut [0; 4]).unwrap();
    running.signal(Signal::TERM);
    // An end, not a reset.
    assert_eq!(open.read(&mut [0; 16]).unwrap(), 0);
    assert!(running.end().success(), "{}", running.errors());
    assert!(TcpStream::connect(locals[0].parse::<SocketAddr>().unwrap()).is_err());
    let closed = scene.gate.wait_closed("echo", 1).remove(0);
    assert!(closed["reason"] == "client_closed" || closed["reason"] == "backend_closed", "{closed}");
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn status_tells_sessions_and_the_last_failure() {
    let (_backend, scene) = echo();
    let file = scene.file();
    let runtime = scene.path("run");
    fs::create_dir(&runtime).unwrap();
    let status = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        run(command.args(["forward", "--status"]).env("XDG_RUNTIME_DIR", &runtime))
    };
    assert_eq!(status().status.code(), Some(8));
    let mut command = doorward(&["forward", "echo=0"], &file);
    let mut running = Running::start(command.env("XDG_RUNTIME_DIR", &runtime));
    running.wait_for(" on ");
    let local = running.errors().lines().find_map(|line| Some(line.split_once(" on ")?.1.to_owned())).unwrap();
    let mut open = dial(&local);
    open.write_all(b"open").unwrap();
    open.read_exact(&mut [0; 4]).unwrap();
    let expected = format!("echo on {local}: 1 open, 1 session since the start, 4 bytes sent, 4 received\n");
    wait_until("the status counts", || (status().success().text() == expected).then_some(()));
    drop(open);
    scene.revoke();
    // A reset: an end could be taken for an answer.
    let refused = exchange(dial(&local), b"hello").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    running.wait_for("was revoked at the gate of home.example");
    let text = status().success().text();
    assert!(text.contains(&format!("ago: this device ({DEVICE}) was revoked")), "{text}");
}

#[test]
fn connection_waits_for_a_gate_that_comes_back() {
    let (_backend, scene) = echo();
    let mut bundle = scene.bundle(&scene.certified());
    // The way to the gate, which is away first.
    let gate = scene.gate.address();
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    bundle.port = address.port();
    let file = scene.file_of(&bundle);
    let (mut running, locals) = forward(&["echo=0"], &file);
    let waiting = dial(&locals[0]);
    running.wait_for(&format!("echo: connection refused by {address}"));
    let _way = Backend::serve(address, move |client, state| {
        let gate = TcpStream::connect(gate).unwrap();
        let (mut from, mut to) = (gate.try_clone().unwrap(), client.try_clone().unwrap());
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        state.each_read(client, |bytes| (&gate).write_all(bytes).is_ok());
        let _ = gate.shutdown(Shutdown::Write);
        let _ = back.join();
    });
    assert_eq!(exchange(waiting, b"at last").unwrap(), b"at last");
    // Said once.
    assert_eq!(running.errors().matches("connection refused").count(), 1, "{}", running.errors());
}

#[test]
fn tls_sessions_are_resumed() {
    let backend = Backend::echo();
    let scene = Scene::with("echo", backend.address());
    let file = scene.file();
    let (_running, locals) = forward(&["echo=0"], &file);
    let resumed = || scene.gate.metrics().sum("doorward_tickets_total", &[("outcome", "resumed")]);
    for _ in 0..3 {
        assert_eq!(exchange(dial(&locals[0]), b"hello").unwrap(), b"hello");
    }
    assert_eq!(resumed(), 2.0);
}

#[test]
fn configuration_file_names_routes() {
    let (_backend, scene) = echo();
    let file = scene.file();
    let config = scene.path("forward.toml");
    fs::write(&config, "[[forward]]\nroute = \"echo\"\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let (_running, locals) = forward(&["--config", config.to_str().unwrap()], &file);
    assert_eq!(exchange(dial(&locals[0]), b"hello").unwrap(), b"hello");
    // Beside the homes.
    fs::create_dir(scene.path("doorward")).unwrap();
    fs::copy(&config, scene.path("doorward/forward.toml")).unwrap();
    Homes::at(scene.path("doorward/homes")).keep("home.example", &scene.bundle(&scene.certified())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.arg("forward").env("XDG_CONFIG_HOME", scene.folder.path()).env_remove("XDG_RUNTIME_DIR");
    let mut running = Running::start(&mut command);
    running.wait_for("echo on 127.0.0.1:");

    fs::write(&config, "[[forward]]\nroute = \"echo\"\nlisten = \"nas:1\"\n").unwrap();
    let refused = run(&mut doorward(&["forward", "--config", config.to_str().unwrap()], &file));
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("\"nas:1\" is no local address"), "{refused}");
}

#[test]
fn install_writes_a_unit_that_systemd_takes() {
    let (_backend, scene) = echo();
    let file = scene.file();
    let mut command = doorward(&["forward", "echo=2222", "--install"], &file);
    command.env("HOME", scene.folder.path()).env_remove("XDG_CONFIG_HOME");
    let installed = run(&mut command).success();
    assert!(installed.text().contains("systemctl --user enable --now doorward-forward"), "{installed}");
    let unit = scene.path(".config/systemd/user/doorward-forward.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.contains(&format!("forward echo=2222 --file {}\n", file.display())), "{text}");
    let mut analyze = crate::common::process::tool("systemd-analyze", "systemd");
    run(analyze.args(["--user", "--man=no", "verify"]).arg(&unit).env("XDG_RUNTIME_DIR", scene.folder.path()))
        .success();
}

/// launchd itself was never run: the file is read by Python, and has keys of launchd.plist(5) alone, with values of their types.
#[test]
fn install_writes_a_property_list_of_launchd() {
    const CHECK: &str = r#"
import plistlib, sys
job = plistlib.loads(sys.stdin.buffer.read())
known = {"Label": str, "ProgramArguments": list, "RunAtLoad": bool, "KeepAlive": dict, "StandardErrorPath": str}
for key, value in job.items():
    assert type(value) is known[key], (key, value)
assert set(job) == set(known), job
assert all(type(word) is str for word in job["ProgramArguments"]), job
assert job["ProgramArguments"] == ["/usr/local/bin/doorward", "forward", "ssh=2222", "a <b> & \"c\""], job
assert job["ProgramArguments"][0].startswith("/") and job["StandardErrorPath"].startswith("/Users/alice/"), job
# Again after a crash, and not after a stop.
assert job["KeepAlive"] == {"SuccessfulExit": False} and job["RunAtLoad"] is True, job
print(job["Label"])
"#;
    let arguments = ["forward", "ssh=2222", "a <b> & \"c\""].map(str::to_owned);
    let home = Path::new("/Users/alice");
    let program = Path::new("/usr/local/bin/doorward");
    let service = service("macos", home, &home.join(".config"), program, &arguments).unwrap();
    let mut python = crate::common::process::tool("python3", "python3");
    let label = run_with_input(python.args(["-c", CHECK]), service.text.as_bytes()).success().text();
    // launchd wants the file to be called as the job.
    assert_eq!(service.path, home.join(format!("Library/LaunchAgents/{}.plist", label.trim())));
    assert_eq!(service.start[0], format!("launchctl bootstrap gui/$(id -u) {}", service.path.display()));
}
