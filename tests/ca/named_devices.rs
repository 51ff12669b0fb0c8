//! What `doorward check` says about devices that a configuration names, and the folder that `doorward ca` takes.

use crate::common::process::{Finished, run};
use crate::common::terminal::answering;
use crate::home::Home;

/// A folder as `doorward init` leaves it, with alice-phone and bob-laptop.
fn initialised() -> Home {
    let home = Home::new();
    let devices = ["--device", "alice-phone", "--device", "bob-laptop"];
    let mut init = home.doorward();
    init.args(["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--folder", "."]).args(devices);
    run(&mut init).success();
    home
}

fn edit(home: &Home, from: &str, to: &str) {
    let file = home.path("doorward.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

#[track_caller]
fn check(home: &Home) -> Finished {
    run(home.doorward().arg("check")).success()
}

#[test]
fn check_warns_of_a_denied_certificate_with_a_successor() {
    let home = initialised();
    let fingerprint = |home: &Home| {
        let lines = home.list();
        let line = lines.iter().rev().find(|line| line["name"] == "alice-phone").unwrap();
        line["fingerprint"].as_str().unwrap().to_owned()
    };
    let first = fingerprint(&home);
    edit(&home, &format!("# \"sha256:{first}\""), &format!("\"sha256:{first}\""));
    assert_eq!(check(&home).stderr, "");
    home.ca(&["renew", "alice-phone"]).success();
    let (said, newer) = (check(&home), fingerprint(&home));
    assert!(
        said.stderr.starts_with("warning: deny: alice-phone is still admitted") && said.stderr.contains(&newer),
        "{said}"
    );
    edit(&home, &first, &newer);
    assert_eq!(check(&home).stderr, "");
    // The same by serial number.
    let serial = home.list().iter().find(|line| line["name"] == "alice-phone").unwrap()["serial"].to_string();
    edit(&home, &format!("sha256:{newer}"), &format!("serial:{}", serial.trim_matches('"')));
    let said = check(&home);
    assert!(said.stderr.contains("alice-phone is still admitted") && said.stderr.contains(&newer), "{said}");
}

#[test]
fn check_warns_of_names_that_no_device_has() {
    let home = initialised();
    edit(&home, "allow = [\"any\"]", "allow = [\"alice-fone\", \"bob-laptop\", \"somebody.else\"]");
    let said = check(&home).stderr;
    let expected = "warning: allow: no device has the name \"alice-fone\"; did you mean \"alice-phone\"?\n\
                    warning: allow: no device has the name \"somebody.else\"; to make it: doorward ca device somebody.else\n";
    assert_eq!(said, expected);

    // An authority of somebody else may have issued certificates for other names.
    let other = Home::with_authorities();
    std::fs::copy(other.path("pki/clients.pem"), home.path("pki/others.pem")).unwrap();
    edit(&home, "trust = [\"pki/clients.pem\"]", "trust = [\"pki/clients.pem\", \"pki/others.pem\"]");
    let said = check(&home).stderr;
    assert!(said.contains("alice-fone") && !said.contains("somebody.else"), "{said}");
}

#[test]
fn check_warns_of_an_expectation_about_no_device() {
    let home = initialised();
    edit(&home, "[control]", "[[expect]]\ndevice = \"bob-labtop\"\nroute = \"nas\"\nallowed = true\n\n[control]");
    let said = check(&home).stderr;
    assert_eq!(said, "warning: expect[1]: no device has the name \"bob-labtop\"; did you mean \"bob-laptop\"?\n");
}

#[test]
fn folder_of_the_authorities_may_be_the_one_above() {
    let home = initialised();
    let above = home.path("").display().to_string();
    for folder in [above.clone(), format!("{above}/pki")] {
        let listed = home.ca(&["list", "--folder", &folder]).success().text();
        assert!(listed.contains("bob-laptop"), "{folder}: {listed}");
    }
}

#[test]
fn folder_means_the_same_to_every_command() {
    let home = Home::new();
    home.ca(&["init", "--domain", "home.example", "--folder", "a"]).success();
    assert!(home.path("a/pki/clients.pem").exists() && !home.path("a/clients.pem").exists());
    home.ca(&["init", "--domain", "home.example", "--folder", "b/pki"]).success();
    for folder in ["a", "a/pki", "b", "b/pki"] {
        let name = folder.replace('/', "-");
        home.ca(&["device", &name, "--folder", folder]).success();
        let above = folder.split('/').next().unwrap();
        assert!(home.path(&format!("{above}/devices/{name}.pem")).exists(), "{folder}");
        let mut share = home.doorward();
        share.args(["share", &name, "--folder", folder, "--address", "127.0.0.1", "--expires", "1s"]);
        let shared = run(&mut share).failure();
        assert_eq!(shared.status.code(), Some(9), "the link was made, and not used: {shared}");
    }
}

#[test]
fn revocation_without_a_name_lists_the_devices() {
    let home = initialised();
    let said = home.ca(&["revoke"]).failure();
    assert_eq!(said.status.code(), Some(2), "{said}");
    for needed in [
        "error: no device is named, so none was revoked. The devices are:\n  alice-phone              until 20",
        "\n  bob-laptop               until 20",
        "doorward ca revoke NAME\n",
        "doorward ca revoke --lists\n",
    ] {
        assert!(said.stderr.contains(needed), "{needed}: {said}");
    }
    let said = home.ca(&["revoke", "--lists"]).success();
    assert!(said.stderr.starts_with("No certificate was revoked. The revocation lists were written again:"), "{said}");
    assert_eq!(home.devices(), ["alice-phone valid", "bob-laptop valid"]);
}

#[test]
fn revocation_without_a_name_asks_on_a_terminal() {
    let home = initialised();
    let asked = |typed: &[&str]| answering(home.doorward().args(["ca", "revoke"]), typed);
    let (seen, code) = asked(&[" "]);
    assert!(code == 2 && seen.contains("none was revoked"), "{seen}");
    let (seen, code) = asked(&["alice-fone", "alice-phone"]);
    assert!(code == 0 && seen.contains("did you mean alice-phone?") && seen.contains(") is revoked."), "{seen}");
    assert_eq!(home.devices(), ["alice-phone revoked", "bob-laptop valid"]);
    let (seen, code) = asked(&["alice-phone", "bob-laptop"]);
    assert!(code == 0 && !seen.contains("  alice-phone") && seen.contains("there is no device"), "{seen}");
    home.ca(&["revoke"]).failure();
}

#[test]
fn init_asks_on_a_terminal_and_only_there() {
    let home = Home::new();
    let typed = ["", "https://alice.duckdns.org/", "no", "nas=127.0.0.1:9", "alice-phone", "", "8443", ""];
    let (seen, code) = answering(home.doorward().arg("init"), &typed);
    assert_eq!(code, 0, "{seen}");
    for needed in [
        "DuckDNS",
        "doorward init --domain alice.duckdns.org --no-wildcard --route nas=127.0.0.1:9 --device alice-phone --public-port 8443",
        "http://127.0.0.1:9180/",
        "forward TCP port 8443 to port 8443",
    ] {
        assert!(seen.contains(needed), "{needed} is missing in\n{seen}");
    }
    let page = std::fs::read_to_string(home.path("doorward/devices/alice-phone.html")).unwrap();
    assert!(page.contains("https://alice.duckdns.org:8443/"), "{page}");
    let (seen, code) = answering(home.doorward().arg("init"), &["elsewhere.example"]);
    assert!(code == 2 && seen.contains("already") && !seen.contains("1. "), "{seen}");

    let home = Home::new();
    let said = run(home.doorward().arg("init")).failure();
    assert!(said.status.code() == Some(2) && said.stderr.contains("--domain <DOMAIN>"), "{said}");
    assert!(said.stderr.contains("DuckDNS"), "{said}");
    assert_eq!(home.files(), []);
}
