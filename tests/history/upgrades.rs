//! Sessions that end in a process that an upgrade has left.

use super::*;

#[test]
fn session_that_ends_in_an_earlier_process_is_in_the_history() {
    let (pki, backend, home) = (TestPki::new(), Backend::echo(), tempfile::tempdir().unwrap());
    let folder = home.path().join("history");
    let text = config(&pki, &backend, &folder).replacen("[timeouts]\n", "[timeouts]\ndrain = \"5m\"\n", 1);
    let gate = Gate::start(&text);
    let enter = |device: &str| Client::admitted(gate.address(), &client(&pki, Some(&pki.client(device))), NAS).unwrap();
    let early = [enter("alice-phone"), enter("alice-phone")];
    for session in &early {
        session.ping().unwrap();
    }
    for n in 0..2 {
        gate.ask(&["upgrade"]).success();
        visit(&gate, &pki, &format!("device-{n}"));
        let [session, _] = &early;
        session.ping().unwrap();
    }
    for session in early {
        session.close_notify();
        session.end();
    }
    wait_until("the newest process knows the end of both", || {
        let visits = told(&gate);
        let alice = visits.iter().find(|visit| visit["device"] == "alice-phone").unwrap();
        assert_eq!(alice["connections"], 2, "{alice}");
        (alice["bytes_to_client"].as_u64().unwrap() > 0 && alice["open"] == 0).then_some(())
    });
    let names: Vec<String> = written(&folder).iter().map(|visit| visit.device.to_string()).collect();
    for name in ["alice-phone", "device-0", "device-1"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    assert!(gate.lines().iter().all(|line| line["event"] != "history"), "{:?}", gate.lines());
    gate.end_after_upgrades();
}
