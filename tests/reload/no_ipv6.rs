//! A machine whose kernel has no IPv6 (`ipv6.disable=1`).

use std::net::{SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::client::{Client, client};
use crate::common::backend::{Backend, kept_address};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, run, run_with_input, tool, wait_until};
use crate::home::House;
use crate::{NAS, controlled};

/// `socket(2)` as such a kernel has it.
const SOCKET: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
int socket(int domain, int type, int protocol) {
    if (domain == AF_INET6) { errno = EAFNOSUPPORT; return -1; }
    int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, \"socket\");
    return real(domain, type, protocol);
}";

fn library(folder: &TempDir) -> PathBuf {
    let library = folder.path().join("no6.so");
    let mut gcc = tool("gcc", "gcc");
    gcc.args(["-shared", "-fPIC", "-x", "c", "-", "-ldl", "-o"]).arg(&library);
    run_with_input(&mut gcc, SOCKET.as_bytes()).success();
    library
}

#[test]
fn wildcard_address_is_ipv4_only_without_ipv6() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(&folder);
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let config = controlled(&House::new(&pki).route("nas", backend.address()));
    assert!(config.contains("address = \"127.0.0.1:0\""), "{config}");
    let every = config.replacen("address = \"127.0.0.1:0\"", "address = \"[::]:0\"", 1);
    let gate = Gate::start_with(&every, |command| {
        command.env("LD_PRELOAD", &library);
    });
    let mut address = gate.address();
    assert_eq!(address.ip().to_string(), "0.0.0.0");
    assert!(gate.stderr().contains("warning: this machine has no IPv6"), "{}", gate.stderr());
    address.set_ip([127, 0, 0, 1].into());
    drop(Client::admitted(address, &alice, NAS).unwrap());

    // One that comes with a reload, too; what is there already is not warned of again.
    let more = format!("{every}\n[[listener]]\nname = \"more\"\naddress = \"[::]:0\"\n");
    let reloaded = gate.reload(&more);
    let warnings = reloaded["warnings"].as_array().unwrap();
    let warned = warnings.iter().filter(|text| text.as_str().unwrap().contains("no IPv6")).count();
    assert_eq!((&reloaded["event"], warned), (&"reloaded".into(), 1), "{reloaded}");
    // An address of IPv6 cannot be had.
    let loopback = format!("{every}\n[[listener]]\nname = \"more\"\naddress = \"[::1]:0\"\n");
    let refused = gate.reload(&loopback);
    assert_eq!(refused["event"], "reload_failed", "{refused}");
    assert!(refused.to_string().contains("this machine has no IPv6: write an IPv4 address"), "{refused}");
}

/// A configuration whose listener is on all addresses of the machine, at this port.
fn everywhere(house: &House<'_>, port: u16) -> String {
    controlled(house).replacen("address = \"127.0.0.1:0\"", &format!("address = \"[::]:{port}\""), 1)
}

#[test]
fn check_warns_as_the_gate_does_without_ipv6() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(&folder);
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let file = folder.path().join("doorward.toml");
    let check = |config: &str, without: bool| {
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["check", "--format", "json", "--config"]).arg(&file);
        if without {
            command.env("LD_PRELOAD", &library);
        }
        let checked = run(&mut command).success();
        let table: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
        let warnings = table["warnings"].as_array().unwrap();
        let about: Vec<String> = warnings
            .iter()
            .filter_map(|text| Some(text.as_str()?.to_owned()))
            .filter(|text| text.contains("IPv6"))
            .collect();
        about
    };
    let config = everywhere(&House::new(&pki).route("nas", backend.address()), 8443);
    let expected =
        "this machine has no IPv6: listener \"public\" accepts IPv4 only, on 0.0.0.0:8443 instead of [::]:8443";
    assert_eq!(check(&config, true), [expected]);
    assert_eq!(check(&config, false), [""; 0]);
    let [error] = check(&config.replacen("[::]", "[::1]", 1), true).try_into().unwrap();
    assert!(error.contains("cannot listen on [::1]:8443") && error.contains("write an IPv4 address"), "{error}");
}

#[test]
fn listener_without_ipv6_is_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(&folder);
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start_with(&everywhere(&House::new(&pki).route("nas", backend.address()), 0), |command| {
        command.env("LD_PRELOAD", &library);
    });
    let mut address = gate.address();
    address.set_ip([127, 0, 0, 1].into());
    let session = Client::admitted(address, &alice, NAS).unwrap();
    gate.ask(&["upgrade"]).success();
    session.ping().unwrap();
    Client::admitted(address, &alice, NAS).unwrap().ping().unwrap();
    let listening = gate.wait_for_lines("both processes listen", 2, |line| line["event"] == "listening");
    assert_eq!(listening[0]["address"], listening[1]["address"]);
    assert_eq!(gate.stderr().matches("warning: this machine has no IPv6").count(), 2, "{}", gate.stderr());
    drop(session);
    gate.end_after_upgrades();
}

/// systemd opens a socket of IPv4 for `ListenStream=8443` on such a machine.
#[test]
fn socket_of_systemd_fits_all_addresses_without_ipv6_only() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(&folder);
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let start = |script: &str| {
        let port = kept_address(([0, 0, 0, 0], 0)).port();
        let file = folder.path().join("doorward.toml");
        std::fs::write(&file, everywhere(&House::new(&pki).route("nas", backend.address()), port)).unwrap();
        let mut command = tool("systemd-socket-activate", "systemd");
        command.args([&format!("--listen=0.0.0.0:{port}"), "--fdname=public", "bash", "-euc"]);
        command.args([&format!("{script}\nexec \"$@\""), "bash", env!("CARGO_BIN_EXE_doorward"), "run", "--config"]);
        command.arg(file);
        (Daemon::start(&mut command, SocketAddrV4::new([0, 0, 0, 0].into(), port)), port)
    };
    let (gate, port) = start(&format!("export LD_PRELOAD={}", library.display()));
    Client::admitted(([127, 0, 0, 1], port).into(), &alice, NAS).unwrap().ping().unwrap();
    assert!(gate.output().contains("warning: this machine has no IPv6"), "{}", gate.output());
    drop(gate);

    let (gate, port) = start("");
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let message = "ListenStream= and address must be the same";
    wait_until("it does not start", || gate.output().contains(message).then_some(()));
}
