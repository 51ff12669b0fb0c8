//! What `doorward check` says about devices that a configuration names, and the folder that `doorward ca` takes.

use crate::common::process::{Finished, run};
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
fn check_warns_of_an_allowed_name_with_a_slip() {
    let home = initialised();
    edit(&home, "allow = [\"any\"]", "allow = [\"alice-fone\", \"bob-laptop\", \"somebody.else\"]");
    let said = check(&home).stderr;
    assert_eq!(said, "warning: allow: no device has the name \"alice-fone\"; did you mean \"alice-phone\"?\n");
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
fn revocation_without_a_name_says_that_none_was_revoked() {
    let home = initialised();
    let said = home.ca(&["revoke"]).success();
    assert!(said.stderr.starts_with("No certificate was named, so none was revoked."), "{said}");
    assert_eq!(home.devices(), ["alice-phone valid", "bob-laptop valid"]);
}
