//! `doorward ca revoke` and a gate that an upgrade has replaced: its word is about both processes.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::Finished;
use crate::gate::{config, stay, visit};
use crate::home::Home;

#[test]
fn revocation_is_in_force_only_when_the_earlier_process_says_so() {
    let home = Home::with_authorities();
    for name in ["alice-phone", "bob-laptop"] {
        home.ca(&["device", name]).success();
    }
    let backend = Backend::echo();
    // So that each process learns of a list by the command alone.
    let mut gate =
        Gate::start_with_control(&format!("watch = \"off\"\ntimeouts.drain = \"5m\"\n{}", config(&home, &backend)));
    let mut sessions = ["alice-phone", "bob-laptop"].map(|name| stay(&home, &gate, name));
    gate.ask(&["upgrade"]).success();
    let mut new = stay(&home, &gate, "alice-phone");

    let (file, pki) = (gate.folder().join("doorward.toml"), home.path("pki"));
    let (file, pki) = (file.display().to_string(), pki.display().to_string());
    let revoke = |name| home.ca(&["revoke", name, "--config", &file, "--folder", &pki, "--format", "json"]);
    let said = |finished: &Finished| serde_json::from_slice::<Value>(&finished.stdout).unwrap();
    let earlier = Pid::from_raw(gate.pid().try_into().unwrap()).unwrap();
    kill_process(earlier, Signal::STOP).unwrap();
    let unproved = revoke("alice-phone").not_proved();
    assert_eq!(said(&unproved)["in_force"], false, "{unproved}");
    let words = format!("the process {} (version", gate.pid());
    assert!(unproved.stderr.contains(&words) && unproved.stderr.contains("kill -KILL"), "{unproved}");
    // It is in force where that is possible.
    new.wait().unwrap();
    visit(&home, &gate, "alice-phone").failure();
    assert!(sessions[0].try_wait().unwrap().is_none(), "a stopped process has cut its session");

    kill_process(earlier, Signal::CONT).unwrap();
    let proved = revoke("alice-phone").success();
    assert_eq!(said(&proved)["in_force"], true, "{proved}");
    sessions[0].wait().unwrap();

    let proved = revoke("bob-laptop").success();
    assert_eq!((&said(&proved)["in_force"], &said(&proved)["sessions_cut"]), (&true.into(), &1.into()), "{proved}");
    sessions[1].wait().unwrap();
    gate.wait_for_end_of(gate.pid());
    gate.end_after_upgrades();
}
