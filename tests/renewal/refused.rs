//! Which devices get no answer, or a refusal.

use std::fs;

use crate::common::gate::Gate;
use crate::common::process::run;
use crate::home::Home;
use crate::house::{House, REENROLL, RENEW, answer, config};

#[test]
fn strangers_end_in_the_handshake() {
    let house = House::of(&["alice-laptop"]);
    let mut curl = house.curl(None, RENEW, REENROLL);
    run(curl.args(["--data-binary", "x"])).failure();
    let lines = house.gate.wait_rejected("certificate", "required", 1);
    assert_eq!(
        (&lines[0]["route"], lines[0]["alert"].as_str().unwrap().contains("certificate_required")),
        (&"renewal".into(), true)
    );
    // Of another household.
    let other = Home::with_authorities();
    other.ca(&["device", "alice-laptop"]).success();
    for file in ["alice-laptop.pem", "alice-laptop-key.pem"] {
        fs::copy(other.path(&format!("devices/{file}")), house.home.path(&format!("devices/other-{file}"))).unwrap();
    }
    fs::rename(house.home.path("devices/other-alice-laptop-key.pem"), house.home.path("devices/other-key.pem"))
        .unwrap();
    fs::rename(house.home.path("devices/other-alice-laptop.pem"), house.home.path("devices/other.pem")).unwrap();
    run(&mut house.curl(Some("other"), RENEW, REENROLL)).failure();
    house.gate.wait_rejected("certificate", "unknown_ca", 1);
    assert_eq!(fs::read_dir(house.folder()).unwrap().count(), 0);
}

#[test]
fn revoked_device_is_refused_and_logged() {
    let house = House::of(&["alice-laptop", "bob-laptop"]);
    house.ca(&["revoke", "alice-laptop"]).success();
    let mut curl = house.curl(Some("alice-laptop"), RENEW, REENROLL);
    run(curl.args([
        "--header",
        "Content-Type: application/pkcs10",
        "--data-binary",
        &house.request("devices/alice-laptop-key.pem"),
    ]))
    .failure();
    let lines = house.gate.wait_rejected("certificate", "revoked", 1);
    assert_eq!(lines[0]["route"], "renewal");
    assert_eq!(fs::read_dir(house.folder()).unwrap().count(), 0);
}

#[test]
fn guest_passes_are_not_renewed() {
    let home = Home::with_authorities();
    // Made for this very name, in case it is a route.
    home.ca(&["device", "guest", "--for", "3h", "--route", "renewal"]).success();
    home.ca(&["device", "visitor", "--for", "3h", "--route", "nas"]).success();
    let house = House::at(home, "");
    let answered = house.send("guest", &house.request("devices/guest-key.pem"));
    assert_eq!((answered.status, answered.body.as_str()), (403, "a guest pass is not renewed\n"));
    run(&mut house.curl(Some("visitor"), RENEW, REENROLL)).failure();
    house.gate.wait_rejected("policy", "identity_not_allowed", 1);
    assert_eq!(fs::read_dir(house.folder()).unwrap().count(), 0);
}

#[test]
fn certificate_that_is_not_in_the_inventory_is_not_renewed() {
    let house = House::of(&["alice-laptop", "bob-laptop"]);
    let inventory = house.home.path("pki/inventory.toml");
    let text = fs::read_to_string(&inventory).unwrap();
    let (before, bob) = text.rsplit_once("[[certificate]]").unwrap();
    assert!(bob.contains("bob-laptop"), "{bob}");
    fs::write(&inventory, before).unwrap();
    house.gate.hang_up();
    let answered = house.send("bob-laptop", &house.request("devices/bob-laptop-key.pem"));
    assert_eq!(answered.status, 403, "{}", answered.body);
    let line = house.gate.wait_for_line("the refusal", |line| line["event"] == "renewal_request");
    assert_eq!((&line["outcome"], &line["device"]), (&"not_renewed".into(), &"bob-laptop".into()));
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 202);
}

#[test]
fn name_of_the_service_leads_to_no_backend_and_routes_to_no_service() {
    let house = House::of(&["alice-laptop"]);
    for path in ["/", "/index.html", "/.well-known/est/simpleenroll", "/.well-known/est/fullcmc", "/metrics", "//"] {
        let answered = answer(&run(&mut house.curl(Some("alice-laptop"), RENEW, path)).success());
        assert_eq!(answered.status, 404, "{path}: {}", answered.body);
    }
    let answered = answer(&run(&mut house.curl(Some("alice-laptop"), RENEW, REENROLL)).success());
    assert_eq!((answered.status, answered.headers.contains("\nallow: post\n")), (405, true), "{}", answered.headers);
    assert_eq!(house.nas.accepted(), 0);
    let closed = house.gate.wait_closed("renewal", 7);
    assert!(closed.iter().all(|line| line.get("backend").is_none() && line["path"] == "copy"), "{closed:?}");
    // Off unless it is asked for.
    let without = config(&house.home, &house.nas, "");
    let without = without.split("[renewal]").next().unwrap();
    house.gate.reload(&format!("{without}\n[control]\nsocket = \"control.sock\"\n"));
    run(&mut house.curl(Some("alice-laptop"), RENEW, REENROLL)).failure();
    house.gate.wait_rejected("route", "server_name_unknown", 1);
}

#[test]
fn folder_that_cannot_be_written_is_told() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-laptop"]).success();
    fs::write(home.path("renewal.txt"), "").unwrap();
    let nas = crate::common::backend::Backend::echo();
    let wrong = config(&home, &nas, "").replace("renewal\"\n", "renewal.txt\"\n");
    let finished = Gate::fails_to_start(&wrong);
    assert!(finished.stderr.contains("renewal.txt is no folder"), "{finished}");
    let house = House::at(home, "");
    fs::remove_dir(house.folder()).unwrap();
    let answered = house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem"));
    assert_eq!(answered.status, 503, "{}", answered.body);
    house.gate.wait_for_line("the failure", |line| line["outcome"] == "failed");
}
