//! Two commands at the same time.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::wait_until;
use crate::gate::{config, stay, visit};
use crate::home::Home;

#[test]
fn concurrent_commands_lose_nothing() {
    let home = Home::with_authorities();
    let names: Vec<String> = (0..6).map(|i| format!("device-{i}")).collect();
    let running: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = home.doorward();
            command.args(["ca", "device", name]).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for command in running {
        let ended = command.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let mut devices = home.devices();
    devices.sort();
    assert_eq!(devices, names.iter().map(|name| format!("{name} valid")).collect::<Vec<_>>());
    for name in &names {
        home.openssl(&["verify", "-CAfile", "pki/clients.pem", &format!("devices/{name}.pem")]).success();
    }
}

/// Each list takes the place of the one before in the gate, and each command must find its own there.
#[test]
fn row_33_simultaneous_revocations_are_all_in_force() {
    const DEVICES: usize = 6;
    let (home, backend) = (Home::with_authorities(), Backend::echo());
    let names: Vec<String> = (0..2 * DEVICES).map(|number| format!("lost-{number}")).collect();
    for name in &names {
        home.ca(&["device", name]).success();
    }
    let gate = Gate::start_with_control(&config(&home, &backend));
    let (file, pki) = (gate.folder().join("doorward.toml"), home.path("pki"));
    let good = std::fs::read_to_string(&file).unwrap();
    let mut refusals = 0;
    // With a configuration that can be loaded, and with one that cannot: then the lists are in force all the same.
    for (names, broken) in names.chunks(DEVICES).zip([false, true]) {
        if broken {
            std::fs::write(&file, format!("nonsense = true\n{good}")).unwrap();
        }
        let sessions: Vec<_> = names.iter().map(|name| stay(&home, &gate, name)).collect();
        let revoke = |name: &String| {
            let mut command = home.doorward();
            command.args(["ca", "revoke", name, "--format", "json"]);
            command.arg("--config").arg(&file).arg("--folder").arg(&pki);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let running: Vec<_> = names.iter().map(revoke).collect();
        for command in running {
            let ended = command.wait_with_output().unwrap();
            let said: Value = serde_json::from_slice(&ended.stdout).unwrap();
            let told = (ended.status.code(), said["in_force"].as_bool(), said["after_restart"].as_bool());
            let right = if broken { (Some(3), Some(true), Some(false)) } else { (Some(0), Some(true), Some(true)) };
            assert_eq!(told, right, "{said} {}", String::from_utf8_lossy(&ended.stderr));
        }
        for (mut session, name) in sessions.into_iter().zip(names) {
            session.wait().unwrap();
            visit(&home, &gate, name).failure();
            refusals += 1;
        }
        gate.wait_rejected("certificate", "revoked", refusals);
    }
}

/// Otherwise the second list could take the place of the first before that was compared with what is in force.
#[test]
fn row_33_revocation_locks_the_folder_until_the_answer() {
    let (home, backend) = (Home::with_authorities(), Backend::echo());
    for name in ["alice-phone", "bob-laptop"] {
        home.ca(&["device", name]).success();
    }
    let gate = Gate::start_with_control(&config(&home, &backend));
    let list = home.path("pki/clients.crl");
    let before = std::fs::read(&list).unwrap();
    let revoke = |name: &str| {
        let mut command = home.doorward();
        command.args(["ca", "revoke", name, "--config"]).arg(gate.folder().join("doorward.toml"));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    gate.signal(Signal::STOP);
    let first = revoke("alice-phone");
    let written = wait_until("the first one has written its list", || {
        let now = std::fs::read(&list).unwrap();
        (now != before).then_some(now)
    });
    let mut second = revoke("bob-laptop");
    let mut note = String::new();
    BufReader::new(second.stderr.as_mut().unwrap()).read_line(&mut note).unwrap();
    assert!(note.contains("waiting for another doorward"), "{note}");
    assert_eq!(std::fs::read(&list).unwrap(), written);
    gate.signal(Signal::CONT);
    for command in [first, second] {
        let ended = command.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    for name in ["alice-phone", "bob-laptop"] {
        visit(&home, &gate, name).failure();
    }
    gate.wait_rejected("certificate", "revoked", 2);
}
