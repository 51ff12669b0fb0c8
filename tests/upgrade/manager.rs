//! What systemd is told of an upgrade (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::net::sockopt::set_socket_passcred;
use rustix::process::Signal;

use crate::client::{Client, client};
use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::House;
use crate::scene::{NAS, config};

#[test]
fn service_moves_to_the_new_process_with_its_watchdog() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    set_socket_passcred(&socket, true).unwrap();
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start_with(&config(&House::new(&pki).route("nas", backend.address())), |command| {
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        command.env("WATCHDOG_USEC", Duration::from_millis(900).as_micros().to_string());
        // Both variables say which process they are for, as systemd sets them.
        let mut shell = Command::new("sh");
        shell.args(["-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = shell;
    });
    let session = Client::admitted(gate.address(), &device, NAS).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a message in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let wait = |wanted: &str| wait_until(wanted, || Some(next()).filter(|message| message.starts_with(wanted)));
    wait("READY=1");
    wait("WATCHDOG=1");
    gate.signal(Signal::USR2);
    let main = wait("MAINPID=");
    let new = gate.wait_for_line("the upgrade", |line| line["event"] == "upgraded")["pid"].to_string();
    assert_eq!(main.trim_end(), format!("MAINPID={new}"));
    // From now on all is said by the new one: the old one lives, and says nothing. systemd would take it from neither.
    wait("READY=1");
    let stat = std::fs::read_to_string(format!("/proc/{new}/stat")).unwrap();
    let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
    let parent = std::fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap();
    assert!(!parent.contains("launcher"), "systemd is told of the end of its own children only");
    assert!(wait("STATUS=").contains("; more in 1 earlier process"));
    for _ in 0..3 {
        wait("WATCHDOG=1");
    }
    session.ping().unwrap();
    drop(session);
    gate.end_after_upgrades();
}
