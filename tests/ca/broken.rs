//! Many revocations while the gate's configuration cannot be loaded: what each command says is so.

use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::gate::{config, stay, visit};
use crate::home::Home;

#[test]
fn row_34_devices_revoked_under_a_broken_file_stay_out() {
    const DEVICES: usize = 20;
    let (home, backend) = (Home::with_authorities(), Backend::echo());
    let names: Vec<String> = (0..DEVICES).map(|number| format!("lost-{number}")).collect();
    for name in names.iter().map(String::as_str).chain(["alice-phone"]) {
        home.ca(&["device", name]).success();
    }
    // The commands alone have it reloaded, and so it is they who count the sessions.
    let gate = Gate::start_with_control(&format!("watch = \"off\"\n{}", config(&home, &backend)));
    let (file, pki) = (gate.folder().join("doorward.toml"), home.path("pki").display().to_string());
    let good = std::fs::read_to_string(&file).unwrap();
    let shown = file.display().to_string();
    let ca = |name: &str| {
        let revoked = home.ca(&["revoke", name, "--config", &shown, "--folder", &pki, "--format", "json"]);
        let said: Value = serde_json::from_slice(&revoked.stdout).unwrap();
        let flags = ["in_force", "after_restart"].map(|key| said[key].as_bool().unwrap());
        (revoked.status.code(), flags, said["sessions_cut"].as_u64().unwrap())
    };
    let mut alice = stay(&home, &gate, "alice-phone");
    let mut refusals = 0;
    let mut out = |names: &[String]| {
        for name in names {
            visit(&home, &gate, name).failure();
            refusals += 1;
        }
        gate.wait_rejected("certificate", "revoked", refusals);
    };

    std::fs::write(&file, format!("nonsense = true\n{good}")).unwrap();
    gate.ask(&["reload"]).failure();
    for (done, name) in names.iter().enumerate() {
        let mut session = stay(&home, &gate, name);
        // In force, but a gate that starts would find a configuration that it cannot load.
        assert_eq!(ca(name), (Some(3), [true, false], 1), "{name}");
        session.wait().unwrap();
        out(&names[done..=done]);
    }
    out(&names);
    std::fs::write(&file, good).unwrap();
    gate.ask(&["reload"]).success();
    out(&names);
    assert_eq!(ca(&names[0]), (Some(0), [true, true], 0));
    out(&names);
    assert!(alice.try_wait().unwrap().is_none(), "alice was not meant");
    alice.kill().unwrap();
    alice.wait().unwrap();
}
