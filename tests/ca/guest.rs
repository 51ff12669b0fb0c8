//! Guest passes, and what a new device is told about the routes that admit it.

use serde_json::Value;

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{Finished, run};
use crate::gate::{config, visit_at};
use crate::home::{Home, refused};

/// Authorities, and the configuration of a gate with the routes nas and photos, of which the second allows these.
fn two_routes(backend: &Backend, allow: &str) -> (Home, String) {
    let home = Home::with_authorities();
    let config = format!(
        "{}[[route]]\nname = \"photos\"\nserver_names = [\"photos.home.example\"]\nbackends = [\"{}\"]\nallow = [{allow}]\n",
        config(&home, backend),
        backend.address(),
    );
    std::fs::write(home.path("doorward.toml"), &config).unwrap();
    (home, config)
}

fn explain(home: &Home, host: &str, device: &str) -> Finished {
    let mut explain = home.doorward();
    explain.args(["explain", "--config", "doorward.toml", "--server-name", &format!("{host}.home.example")]);
    run(explain.args(["--cert", &format!("devices/{device}.pem")]))
}

#[test]
fn guest_pass_opens_its_routes_and_no_other() {
    let backend = Backend::http("hello");
    let (home, config) = two_routes(&backend, "\"any\"");
    let before = time::OffsetDateTime::now_utc().unix_timestamp();
    let made = home.ca(&["device", "guest", "--for", "90m", "--route", "photos", "--format", "json"]).success();
    let after = time::OffsetDateTime::now_utc().unix_timestamp();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(made["routes"], serde_json::json!(["photos"]), "{made}");
    let end = made["not_after"].as_i64().unwrap();
    assert!((before + 90 * 60..=after + 90 * 60).contains(&end), "{before} {end} {after}");

    // Other programs read it as any other certificate.
    home.openssl(&["verify", "-purpose", "sslclient", "-CAfile", "pki/clients.pem", "devices/guest.pem"]).success();
    let text = home.openssl(&["x509", "-noout", "-text", "-in", "devices/guest.pem"]).success().text();
    assert!(text.contains("URI:doorward-route:photos\n"), "{text}");
    assert!(!text.contains("Subject Alternative Name: critical"), "{text}");

    home.ca(&["device", "alice-phone"]).success();
    let inventory = format!("[metrics]\ninventory = {:?}", home.path("pki/inventory.toml").display().to_string());
    let gate = Gate::start_with_control(&config.replace("[metrics]", &inventory));
    // It is meant to expire, so that no alert waits for it.
    let metrics = gate.get("/metrics").1;
    assert!(metrics.contains("\"alice-phone\"") && !metrics.contains("\"guest\""), "{metrics}");
    assert_eq!(visit_at(&home, &gate, "photos", "guest").success().text(), "hello");
    visit_at(&home, &gate, "nas", "guest").failure();
    let [line] = <[Value; 1]>::try_from(gate.wait_rejected("policy", "identity_not_allowed", 1)).unwrap();
    assert_eq!(line["detail"], "guest has a guest pass, which is for the route photos only", "{line}");
    let why = gate.ask(&["why", "guest"]).success().text();
    assert!(
        why.contains("guest has a guest pass, which is for the route photos only. The route nas refused it."),
        "{why}"
    );
    assert!(why.contains("there is nothing to do"), "{why}");
    let told = explain(&home, "photos", "guest").success();
    assert!(
        told.text().starts_with("yes: photos.home.example leads to route \"photos\", which admits guest"),
        "{told}"
    );
    let told = explain(&home, "nas", "guest").failure();
    assert!(told.text().contains("guest pass, which is for the route photos only"), "{told}");
    gate.wait_closed("photos", 1);
}

#[test]
fn guest_pass_is_listed_and_replaced_but_not_renewed() {
    let backend = Backend::http("hello");
    let (home, _) = two_routes(&backend, "\"any\"");
    let made = home.ca(&["device", "guest", "--for", "3h", "--route", "photos"]).success();
    assert!(made.stderr.starts_with("Issued a guest pass for photos to guest, valid until "), "{made}");
    assert!(made.stderr.contains("It may use these routes:\n  photos  https://photos.home.example/\n"), "{made}");
    assert!(!made.stderr.contains("https://nas"), "{made}");
    let page = std::fs::read_to_string(home.path("devices/guest.html")).unwrap();
    assert!(page.contains("https://photos.home.example") && !page.contains("https://nas.home.example"), "{page}");
    assert!(home.ca(&["list"]).success().text().contains(" guest: photos "));
    assert_eq!(home.list()[1]["routes"], serde_json::json!(["photos"]));
    refused(home.ca(&["renew", "guest"]), 2, &["doorward ca device guest --for 3h --route photos"]);
    // Another pass, and then a device of its own: no name is used up.
    home.ca(&["device", "guest", "--for", "1d", "--route", "photos", "--route", "nas"]).success();
    home.ca(&["device", "guest"]).success();
    refused(home.ca(&["device", "guest", "--for", "1h", "--route", "nas"]), 2, &["doorward ca renew guest"]);
    home.ca(&["revoke", "guest"]).success();
    assert_eq!(home.devices(), ["guest revoked"; 3]);
}

#[test]
fn wrong_guest_pass_is_refused_before_it_is_issued() {
    let backend = Backend::http("hello");
    let (home, _) = two_routes(&backend, "\"any\"");
    for (arguments, why) in [
        (&["--for", "3h", "--route", "photo"][..], "did you mean \"photos\"?"),
        (&["--for", "3h", "--route", "garage"], "the routes are: nas, photos"),
        (&["--for", "3h"], "--route"),
        (&["--route", "photos"], "--for"),
        (&["--for", "3", "--route", "photos"], "30m for minutes, 3h for hours"),
        (&["--for", "31d", "--route", "photos"], "from 1m to 30d"),
        (&["--for", "3h", "--route", "photos", "--canary"], "--canary"),
    ] {
        refused(home.ca(&[&["device", "guest"], arguments].concat()), 2, &[why]);
    }
    assert_eq!(home.devices(), [""; 0]);
}

#[test]
fn device_that_no_route_admits_is_issued_with_the_line_to_add() {
    let backend = Backend::http("hello");
    let (home, config) = two_routes(&backend, "\"alice-phone\", \"dns:x.example\"");
    let config = config.replace("allow = [\"any\"]", "allow = [\"bob\"]");
    std::fs::write(home.path("doorward.toml"), &config).unwrap();
    let issue = |arguments: &[&str]| home.ca(&[&["device"], arguments].concat()).success();
    let made = issue(&["carol"]);
    let line = "allow = [\"bob\", \"carol\"]";
    assert!(
        made.stderr.contains("warning: no route admits carol; to change that, write below the [[route]] \"nas\" in"),
        "{made}"
    );
    assert!(made.stderr.contains(&format!("\n  {line}\n")), "{made}");
    let again = "until then there is no file for \"doorward join\"; after the change, this makes it: doorward ";
    assert!(made.stderr.contains(again), "{made}");
    let made = issue(&["guest", "--for", "1h", "--route", "photos"]);
    assert!(made.stderr.contains("warning: the route photos does not admit guest"), "{made}");
    assert!(made.stderr.contains("\n  allow = [\"alice-phone\", \"dns:x.example\", \"guest\"]\n"), "{made}");
    // The line does what it says.
    std::fs::write(home.path("doorward.toml"), config.replace("allow = [\"bob\"]", line)).unwrap();
    explain(&home, "nas", "carol").success();
    let made = issue(&["bob"]);
    assert!(!made.stderr.contains("warning"), "{made}");
    assert!(made.stderr.contains("It may use these routes:\n  nas  https://nas.home.example/\n"), "{made}");
}

#[test]
fn check_shows_a_guest_as_the_gate_treats_it() {
    let home = Home::new();
    let mut init = home.doorward();
    init.args(["init", "--domain", "home.example", "--folder", ".", "--device", "alice-phone"]);
    run(init.args(["--route", "nas=127.0.0.1:9", "--route", "photos=127.0.0.1:8"])).success();
    home.ca(&["device", "guest", "--for", "1h", "--route", "photos"]).success();
    let file = home.path("doorward.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("allow = [\"any\"]", "allow = [\"guest\", \"alice-phone\"]")).unwrap();
    let shown = run(home.doorward().arg("check")).success();
    let row = |name: &str| {
        let text = shown.text();
        let row = text.lines().find(|line| line.starts_with(name)).map(|line| line.trim_start_matches(name).to_owned());
        row.unwrap_or_else(|| panic!("{name} in {text}")).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("guest (guest)"), ["no", "yes"], "{shown}");
    assert_eq!(row("alice-phone"), ["yes", "yes"], "{shown}");
}
