//! Which devices a running gate admits after each command.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::process::{Finished, run, tool};
use crate::home::Home;

pub(crate) fn config(home: &Home, backend: &Backend) -> String {
    let path = |file: &str| home.path(file).display().to_string();
    format!(
        "{LOCAL}\n[certificate]\nchain = {:?}\nkey = {:?}\n[client_auth]\ntrust = [{:?}]\nrevocation_lists = [{:?}]\n\
         [[route]]\nname = \"nas\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n",
        path("pki/server.pem"),
        path("pki/server-key.pem"),
        path("pki/clients.pem"),
        path("pki/clients.crl"),
        backend.address(),
    )
}

pub(crate) fn visit(home: &Home, gate: &Gate, device: &str) -> Finished {
    visit_at(home, gate, "nas", device)
}

pub(crate) fn visit_at(home: &Home, gate: &Gate, host: &str, device: &str) -> Finished {
    let mut curl = tool("curl", "curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(home.path("pki/server-ca.pem"));
    let address = gate.address();
    curl.arg("--resolve").arg(format!("{host}.home.example:{}:{}", address.port(), address.ip()));
    curl.arg("--cert").arg(home.path(&format!("devices/{device}.pem")));
    curl.arg("--key").arg(home.path(&format!("devices/{device}-key.pem")));
    run(curl.arg(format!("https://{host}.home.example:{}/", address.port())))
}

/// An open connection of OpenSSL through the gate to an echo server.
pub(crate) fn stay(home: &Home, gate: &Gate, device: &str) -> Child {
    let mut client = tool("openssl", "openssl");
    client.args(["s_client", "-quiet", "-verify_quiet", "-servername", "nas.home.example", "-connect"]);
    client.arg(gate.address().to_string()).arg("-CAfile").arg(home.path("pki/server-ca.pem"));
    client.arg("-cert").arg(home.path(&format!("devices/{device}.pem")));
    client.arg("-key").arg(home.path(&format!("devices/{device}-key.pem")));
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    client.stdin.as_mut().unwrap().write_all(b"?").unwrap();
    client.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    client
}

#[test]
fn revoked_device_loses_its_connections_and_others_do_not() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    home.ca(&["device", "bob-laptop"]).success();
    let backend = Backend::echo();
    // The command alone has it reloaded, and so it is the command that counts the session.
    let gate = Gate::start_with_control(&format!("watch = \"off\"\n{}", config(&home, &backend)));
    let file = gate.folder().join("doorward.toml").display().to_string();
    let mut alice = stay(&home, &gate, "alice-phone");
    let mut bob = stay(&home, &gate, "bob-laptop");

    let begun = Instant::now();
    let pki = home.path("pki").display().to_string();
    let revoked =
        home.ca(&["revoke", "alice-phone", "--config", &file, "--folder", &pki, "--format", "json"]).success();
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!((&revoked["in_force"], &revoked["sessions_cut"]), (&true.into(), &1.into()), "{revoked}");
    alice.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    // The other device is not affected.
    bob.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    let mut came = [0];
    bob.stdout.as_mut().unwrap().read_exact(&mut came).unwrap();
    assert_eq!(came, *b"!");
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
    bob.kill().unwrap();
    bob.wait().unwrap();
    gate.wait_closed("nas", 2);
}

#[test]
fn gate_that_does_not_use_the_list_is_reported() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let backend = Backend::echo();
    let config = config(&home, &backend);
    let gate = Gate::start_with_control(&config.replace("revocation_lists", "# revocation_lists"));
    let file = gate.folder().join("doorward.toml");
    let pki = home.path("pki").display().to_string();
    let named = file.display().to_string();
    let revoke = || home.ca(&["revoke", "alice-phone", "--config", &named, "--folder", &pki]);
    // The list is sent to the gate, so it is in force, but not after the next start.
    let said = revoke().not_proved().stderr;
    for words in ["change is in force", "does not name", "[client_auth]", "revocation_lists = [", "doorward reload"] {
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
    // A configuration with errors has its own exit code.
    std::fs::write(&file, format!("{config}\nnonsense = true\n[control]\nsocket = \"control.sock\"\n")).unwrap();
    let refused = revoke();
    assert_eq!(refused.status.code(), Some(3), "{refused}");
    assert!(
        refused.stderr.contains("the next start of the gate would undo it") && refused.stderr.contains("nonsense"),
        "{refused}"
    );
    assert_eq!(home.devices(), ["alice-phone revoked"]);
}

#[test]
fn new_device_is_admitted_until_it_is_revoked() {
    let home = Home::with_authorities();
    let backend = Backend::http("Hello from the NAS.");
    {
        let gate = Gate::start(&config(&home, &backend));
        // The running gate knows the authority, which is enough.
        home.ca(&["device", "alice-phone"]).success();
        home.ca(&["device", "bob-laptop"]).success();
        assert_eq!(visit(&home, &gate, "alice-phone").success().text(), "Hello from the NAS.");
        home.ca(&["renew", "alice-phone"]).success();
        assert_eq!(visit(&home, &gate, "alice-phone").success().text(), "Hello from the NAS.");
    }
    let revoked = home.ca(&["revoke", "alice-phone"]).not_proved();
    assert!(revoked.stderr.contains("no gate configuration found"), "{revoked}");
    // Devices do not notice that the gate's certificate was renewed.
    home.ca(&["renew", "--server"]).not_proved();
    let gate = Gate::start(&config(&home, &backend));
    let before = backend.accepted();
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
    assert_eq!(backend.accepted(), before);
    assert_eq!(visit(&home, &gate, "bob-laptop").success().text(), "Hello from the NAS.");
}

#[test]
fn gate_with_another_configuration_does_not_verify_the_list() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let backend = Backend::echo();
    let config = config(&home, &backend);
    let gate = Gate::start_with_control(&config.replace("revocation_lists", "# revocation_lists"));
    // The configuration beside the authorities names the list, and leads to the same socket.
    let socket = gate.folder().join("control.sock").display().to_string();
    std::fs::write(home.path("doorward.toml"), format!("{config}\n[control]\nsocket = {socket:?}\n")).unwrap();
    let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).not_proved();
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!((&revoked["in_force"], &revoked["after_restart"]), (&true.into(), &false.into()), "{revoked}");
    let said = home.ca(&["revoke", "alice-phone"]).not_proved().stderr;
    let own = gate.folder().join("doorward.toml").display().to_string();
    assert!(said.contains("the next start of the gate would undo it") && said.contains(&own), "{said}");
    // What the command reported is true.
    visit(&home, &gate, "alice-phone").failure();
    gate.wait_rejected("certificate", "revoked", 1);
}

#[test]
fn route_that_does_not_use_the_list_is_named() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let backend = Backend::echo();
    let route = format!(
        "[[route]]\nname = \"old\"\nserver_names = [\"old.home.example\"]\nbackends = [\"{}\"]\nallow = [\"any\"]\n\
         [route.client_auth]\nrevocation_lists = []\n",
        backend.address()
    );
    let gate = Gate::start_with_control(&format!("{}{route}", config(&home, &backend)));
    let file = gate.folder().join("doorward.toml").display().to_string();
    let pki = home.path("pki").display().to_string();
    let revoke = |format| home.ca(&["revoke", "alice-phone", "--config", &file, "--folder", &pki, "--format", format]);
    let revoked = revoke("json").not_proved();
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!((&revoked["in_force"], &revoked["after_restart"]), (&true.into(), &false.into()), "{revoked}");
    let said = revoke("text").not_proved().stderr;
    for words in ["the route old", "[route.client_auth]", "revocation_lists = ["] {
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
    // A list that was sent is in force there as well.
    for host in ["nas", "old"] {
        visit_at(&home, &gate, host, "alice-phone").failure();
    }
    gate.wait_rejected("certificate", "revoked", 2);
}

#[test]
fn unknown_state_of_the_gate_is_not_reported_as_stopped() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let backend = Backend::echo();
    let write = |end: &str| std::fs::write(home.path("doorward.toml"), config(&home, &backend) + end).unwrap();
    // A path that even root cannot resolve.
    std::os::unix::fs::symlink("loop", home.path("loop")).unwrap();
    write("[control]\nsocket = \"loop/control.sock\"\n");
    let said = home.ca(&["revoke", "alice-phone"]).not_proved().stderr;
    assert!(said.contains("not verified to be in force"), "{said}");
    assert!(said.contains("loop/control.sock") && !said.contains("No gate is running"), "{said}");

    // With errors in the configuration, nothing is known about the gate.
    for mistake in ["nonsense = true\n", "[control]\nsocket = 3\n", "[["] {
        write(mistake);
        let said = home.ca(&["revoke", "alice-phone"]).not_proved().stderr;
        assert!(said.contains("doorward check --config") && !said.contains("reads the change"), "{mistake}: {said}");
    }
    write("[control]\nsocket = \"control.sock\"\n");
    let revoked = home.ca(&["revoke", "alice-phone"]).success();
    assert!(
        revoked.stderr.contains("No gate is running here")
            && revoked.stderr.contains("that you start will load the change"),
        "{revoked}"
    );
    let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).success();
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!((&revoked["in_force"], &revoked["after_restart"]), (&false.into(), &true.into()), "{revoked}");

    // A gate without a control socket is detected.
    let socketless = config(&home, &backend);
    let gate = Gate::start(&socketless);
    let file = gate.folder().join("doorward.toml");
    std::fs::write(&file, socketless + "[control]\nsocket = \"off\"\n").unwrap();
    gate.hang_up();
    let (named, pki) = (file.display().to_string(), home.path("pki").display().to_string());
    let said = home.ca(&["revoke", "alice-phone", "--config", &named, "--folder", &pki]).not_proved().stderr;
    assert!(said.contains("a gate runs with a configuration in the folder"), "{said}");
}
