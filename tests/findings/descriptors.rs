//! Few file descriptors, all of them that strangers can get held by strangers. Once nothing was said about it, and then no
//! list of revoked devices could be read any more.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::process::Command;

use doorward::model::close::CloseReason;
use rcgen::SerialNumber;
use serde_json::Value;

use crate::client::{Client, End, client, connect_from};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{after_script, run, tool, wait_until};
use crate::hello::Hello;
use crate::home::House;
use crate::scene::NAS;

/// `command` with so few descriptors.
fn limited(command: &Command, limit: usize) -> Command {
    after_script(tool("bash", "bash"), &format!("ulimit -n {limit}"), command)
}

/// How many descriptors a gate has open.
fn open(gate: &Gate) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count()
}

/// A stranger on a passthrough route whose bytes do not arrive.
fn stall(source: IpAddr, gate: &Gate) -> TcpStream {
    let mut stream = connect_from(source, gate.address());
    // It may be refused already.
    let _ = stream.write_all(&Hello::tls13("mail.home.example").records());
    stream.set_nonblocking(true).unwrap();
    let chunk = [b'x'; 64 * 1024];
    for _ in 0..100 {
        if stream.write(&chunk).is_err() {
            break;
        }
    }
    stream
}

#[track_caller]
fn assert_strangers_leave_enough(limit: usize) {
    let pki = TestPki::new();
    let (backend, mute) = (Backend::echo(), Backend::mute());
    let list = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let lists = format!("revocation_lists = [{:?}]", list(&[]));
    let house = House::new(&pki)
        .client_auth(&lists)
        .limits("connection_rate_per_source = \"off\"\nconnections_per_source = \"off\"")
        .timeouts("client_hello = \"5m\"\nhandshake = \"5m\"")
        .route("nas", backend.address())
        .passthrough("mail", mute.address());
    let config = format!("watch = \"off\"\n{}\n[control]\nsocket = \"control.sock\"\n", house.config());
    let gate = Gate::start_with(&config, |command| *command = limited(command, limit));

    // Told at the start and by `check`.
    let warning = format!("limits.connections: 10000 connections do not fit the limit of {limit} open files");
    assert!(gate.stderr().contains(&warning), "{}", gate.stderr());
    let mut check = Command::new(env!("CARGO_BIN_EXE_doorward"));
    check.args(["check", "--format", "json", "--config"]).arg(gate.folder().join("doorward.toml"));
    let checked = run(&mut limited(&check, limit)).success();
    assert!(checked.stderr.contains(&warning), "{checked}");
    let table: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(table["warnings"].as_array().unwrap().iter().any(|one| one.as_str().unwrap().starts_with(&warning)));
    assert_eq!(gate.metrics().sum("doorward_descriptors_limit", &[]), limit as f64);

    let device = |name: &str, serial: u64| {
        let mut params = Certified::for_clients(name);
        params.serial_number = Some(SerialNumber::from(serial));
        client(&pki, Some(&pki.clients.issue(params)))
    };
    let (alice, bob) = (device("alice-phone", 77), device("bob-laptop", 78));
    let session = Client::admitted(gate.address(), &alice, NAS).unwrap();
    session.ping().unwrap();

    // Strangers hold whatever they can get: those who stall, then those who say nothing.
    let source = |number: usize| IpAddr::V4(Ipv4Addr::new(127, 0, 3, u8::try_from(number % 200).unwrap() + 1));
    let mut strangers: Vec<TcpStream> = (0..limit / 2).map(|number| stall(source(number), &gate)).collect();
    let active = |route: &str| gate.metrics().sum("doorward_connections_active", &[("route", route)]);
    let rejected = |labels: &[(&str, &str)]| gate.metrics().sum("doorward_connections_rejected_total", labels);
    wait_until("strangers have all that they can get of the route", || {
        (active("mail") > 0.0 && active("mail") + rejected(&[]) >= strangers.len() as f64).then_some(())
    });
    strangers.extend((0..limit / 2).map(|number| connect_from(source(number), gate.address())));
    wait_until("all others are silent or had to go", || {
        (rejected(&[("reason", "handshake_limit")]) > 0.0).then_some(())
    });
    wait_until("all have been taken", || {
        (gate.metrics().sum("doorward_connections_accepted_total", &[]) >= strangers.len() as f64 + 1.0).then_some(())
    });

    // Everything works that the owner needs.
    let held = open(&gate);
    assert!(held + 5 <= limit, "{held} of {limit} descriptors are open");
    session.ping().unwrap();
    let status = gate.ask(&["status"]).success().text();
    assert!(status.contains(" open"), "{status}");
    assert_eq!(gate.get("/healthz").0, 200);
    let second = Client::admitted(gate.address(), &bob, NAS).unwrap();
    second.ping().unwrap();
    list(&[SerialNumber::from(77)]);
    let reloaded = gate.ask(&["reload"]).success();
    assert!(format!("{}{}", reloaded.text(), reloaded.stderr).contains(&warning), "{reloaded}");
    assert_eq!(session.end(), End::of(CloseReason::Revoked));
    second.ping().unwrap();
    assert_eq!(gate.metrics().sum("doorward_accept_errors_total", &[]), 0.0);
    drop((second, strangers, mute));
    gate.settled();
}

#[test]
fn row_38_strangers_hold_what_they_can_of_64_descriptors() {
    assert_strangers_leave_enough(64);
}

#[test]
fn row_38_strangers_hold_what_they_can_of_256_descriptors() {
    assert_strangers_leave_enough(256);
}

#[test]
fn row_38_strangers_hold_what_they_can_of_1024_descriptors() {
    assert_strangers_leave_enough(1024);
}

#[test]
fn row_38_relay_without_a_pipe_passes_all_bytes_on() {
    let pki = TestPki::new();
    let (backend, mute) = (Backend::echo(), Backend::mute());
    let house = House::new(&pki).passthrough("mail", mute.address()).passthrough("echo", backend.address());
    let gate = Gate::start_with(&house.config(), |command| *command = limited(command, 64));
    // Those that stall hold the few pipes that there are.
    let stalled = [1, 2, 3].map(|host| stall(IpAddr::V4(Ipv4Addr::new(127, 0, 3, host)), &gate));
    wait_until("they are connected", || {
        (gate.metrics().sum("doorward_connections_active", &[("route", "mail")]) == 3.0).then_some(())
    });
    let hello = Hello::tls13("echo.home.example").records();
    let sent: Vec<u8> = (0..500_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut stream = connect_from(IpAddr::V4(Ipv4Addr::LOCALHOST), gate.address());
    let mut receiving = stream.try_clone().unwrap();
    let (first, expected) = (hello.clone(), sent.len());
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; first.len() + expected];
        std::io::Read::read_exact(&mut receiving, &mut got).unwrap();
        assert!(got.starts_with(&first));
        got.split_off(first.len())
    });
    stream.write_all(&hello).unwrap();
    stream.write_all(&sent).unwrap();
    assert!(reader.join().unwrap() == sent, "not the bytes that were sent");
    drop((stream, stalled, mute));
    gate.settled();
}

#[test]
fn row_38_too_few_descriptors_to_start_names_the_remedy() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("doorward.toml");
    fs::write(&file, House::new(&pki).route("nas", backend.address()).config()).unwrap();
    for limit in [24, 32, 40] {
        let mut gate = Command::new(env!("CARGO_BIN_EXE_doorward"));
        gate.args(["run", "--config"]).arg(&file);
        let refused = run(&mut limited(&gate, limit)).failure();
        let told = format!("error: the limit of open files is {limit}, and the gate needs at least ");
        assert!(refused.stderr.contains(&told) && refused.stderr.contains("ulimit -n"), "{refused}");
        let mut check = Command::new(env!("CARGO_BIN_EXE_doorward"));
        check.args(["check", "--config"]).arg(&file);
        let checked = run(&mut limited(&check, limit)).success();
        assert!(checked.stderr.contains("needs at least"), "{checked}");
    }
}
