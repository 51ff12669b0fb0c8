//! What is issued, for how long, and how it ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use doorward::pki::{Parts, origin};

use super::{gets_in, house, house_with, issuer, origin_of, outcomes, ready, renewed, revoke, take};
use crate::common::process::{run, tool};
use crate::home::refused;
use crate::house::{House, RENEW, answer};

/// An open connection to the NAS, which has sent and got back a line.
fn session(house: &House, device: &str) -> Child {
    let mut client = tool("openssl", "openssl");
    let address = house.gate.address().to_string();
    client.args(["s_client", "-quiet", "-verify_quiet", "-servername", "nas.home.example", "-connect", &address]);
    client.arg("-CAfile").arg(house.home.path("pki/server-ca.pem"));
    client.arg("-cert").arg(house.home.path(&format!("devices/{device}.pem")));
    client.arg("-key").arg(house.home.path(&format!("devices/{device}-key.pem")));
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    client.stdin.as_mut().unwrap().write_all(b"echo\n").unwrap();
    let mut back = [0; 5];
    client.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
    client
}

#[test]
fn certificate_comes_at_once_and_so_does_the_next_and_one_revocation_ends_all() {
    let house = house(&["alice-laptop", "bob-laptop"]);
    let request = house.request("devices/alice-laptop-key.pem");
    let sent = house.send("alice-laptop", &request);
    assert_eq!(sent.status, 200, "{}", sent.body);
    assert!(sent.headers.contains("application/pkcs7-mime; smime-type=certs-only"), "{}", sent.headers);
    let first = take(&house, &sent, "alice-laptop", "first");

    // The names of the one before, whatever the request says; thirty days; and what it descends from.
    let text = house.home.openssl(&["x509", "-noout", "-text", "-in", "devices/first.pem"]).success().text();
    assert!(!text.contains("bob-laptop") && !text.contains("admins") && !text.contains("DNS:"), "{text}");
    assert!(text.contains("CN = alice-laptop\n") || text.contains("CN=alice-laptop\n"), "{text}");
    assert!(text.contains("CA:FALSE") && text.contains("TLS Web Client Authentication"), "{text}");
    let own = origin_of(&house, "alice-laptop");
    assert_eq!(origin::of(&Parts::read(&first).unwrap()), Ok(own.clone()));
    let lasts = |seconds: i64| {
        let arguments = ["x509", "-noout", "-checkend", &seconds.to_string(), "-in", "devices/first.pem"];
        house.home.openssl(&arguments).status.success()
    };
    assert!(lasts(29 * 86_400) && !lasts(30 * 86_400));
    let issued_by = house.home.path("pki/renewals.pem").display().to_string();
    house.home.openssl(&["verify", "-CAfile", &issued_by, "devices/first.pem"]).success();
    let line = house.gate.wait_for_line("the certificate", |line| line["outcome"] == "issued_unattended");
    assert_eq!((&line["device"], &line["key"]), (&"alice-laptop".into(), &"same".into()));
    assert_eq!(line["descends_from"], own.serial.to_string());
    assert!(
        line["not_after"].as_str().unwrap().starts_with("20") && line["serial"].as_str().unwrap().len() == 32,
        "{line}"
    );

    // The answer may have been lost: it is the same one, and no other is issued.
    assert_eq!(take(&house, &house.send("alice-laptop", &request), "alice-laptop", "again"), first);
    assert_eq!(outcomes(&house, "issued_unattended").iter().filter(|line| line.get("serial").is_some()).count(), 1);

    // The next one descends from the same.
    assert!(gets_in(&house, "first"));
    let second = renewed(&house, "first", "second");
    assert_ne!(second, first);
    assert_eq!(origin::of(&Parts::read(&second).unwrap()), Ok(own));
    assert!(gets_in(&house, "second"));
    let third = renewed(&house, "second", "third");
    assert_ne!(third, second);

    // The owner's commands know none of them, and revoke all of them.
    let mut open = ["alice-laptop", "first", "second", "third"].map(|device| session(&house, device));
    let mut bob = session(&house, "bob-laptop");
    revoke(&house, "alice-laptop");
    for client in &mut open {
        let mut rest = Vec::new();
        client.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
        let _ = client.kill();
        client.wait().unwrap();
    }
    let cut = house.gate.wait_closed("nas", 4);
    assert!(cut.iter().all(|line| line["reason"] == "revoked"), "{cut:?}");
    for device in ["first", "second", "third"] {
        assert!(!gets_in(&house, device), "{device}");
    }
    let lines = house.gate.wait_rejected("certificate", "revoked", 3);
    assert!(lines.iter().all(|line| line["alert"].as_str().unwrap().contains("certificate_revoked")), "{lines:?}");
    let mut curl = house.curl(Some("third"), RENEW, crate::house::REENROLL);
    run(curl.args(["--header", "Content-Type: application/pkcs10", "--data-binary", &request])).failure();
    house.gate.wait_rejected("certificate", "revoked", 4);
    // The other device goes on.
    bob.stdin.as_mut().unwrap().write_all(b"still\n").unwrap();
    let mut back = [0; 6];
    bob.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
    bob.kill().unwrap();
    bob.wait().unwrap();
    let metrics = house.gate.settled();
    let count = |outcome| metrics.sum("doorward_renewal_requests_total", &[("outcome", outcome)]);
    assert_eq!(count("issued_unattended"), 4.0);
}

#[test]
fn devices_authorities_are_told_with_the_one_that_renews() {
    let house = house(&["alice-laptop"]);
    let sent = answer(&run(&mut house.curl(Some("alice-laptop"), RENEW, "/.well-known/est/cacerts")).success());
    let all = house.issued(&sent);
    assert!(all.contains("Doorward devices") && all.contains("Doorward renewals"), "{all}");
}

#[test]
fn certificate_that_lasts_longer_anyway_is_left_to_the_owner() {
    let home = super::home(&["alice-laptop"], 31);
    let more = issuer(&home, ", days = 30");
    let house = House::at(home, &more);
    ready(&house.gate);
    let request = house.request("devices/alice-laptop-key.pem");
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    let line = house.gate.wait_for_line("the request", |line| line["outcome"] == "stored");
    assert!(line["detail"].as_str().unwrap().contains("would not be valid for longer"), "{line}");
    // The owner can approve it, and what is approved counts.
    house.ca(&["approve", "alice-laptop"]).success();
    let approved = take(&house, &house.send("alice-laptop", &request), "alice-laptop", "approved");
    assert_eq!(origin::of(&Parts::read(&approved).unwrap()), Err(origin::NoOrigin::Missing));
}

#[test]
fn owner_can_approve_what_a_renewed_device_asks() {
    let house = house_with(&["alice-laptop"], ", days = 30");
    renewed(&house, "alice-laptop", "first");
    // With a new key, which is for the owner alone.
    let key = house.home.path("devices/next-key.pem").display().to_string();
    house.home.openssl(&["genpkey", "-algorithm", "ED25519", "-out", &key]).success();
    let request = house.request("devices/next-key.pem");
    let waits = crate::common::process::wait_until("the request to be stored", || {
        Some(house.send("first", &request)).filter(|sent| sent.status == 202)
    });
    assert_eq!(waits.status, 202);
    refused(house.ca(&["approve", "alice-laptop"]), 2, &["asks with a new key"]);
    house.approve_key("alice-laptop");
    let sent = house.send("first", &request);
    fs::write(house.home.path("devices/next.pem"), house.issued(&sent)).unwrap();
    assert!(gets_in(&house, "next"));
    assert_eq!(house.home.devices(), ["alice-laptop renewed", "alice-laptop valid"]);
    // It has expired by now, and what descends from it has not.
    let file = house.home.path("pki/inventory.toml");
    let text = fs::read_to_string(&file).unwrap();
    let end = text.lines().find(|line| line.starts_with("not_after")).unwrap();
    fs::write(&file, text.replacen(end, "not_after = \"2026-01-02T00:00:00Z\"", 1)).unwrap();
    house.gate.hang_up();
    assert!(gets_in(&house, "first"));
}
