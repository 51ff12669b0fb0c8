//! Refusals that strangers could hide: with enough made-up certificates, the owner read nothing of a stolen device.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use doorward::model::identity::Sha256;
use doorward::model::rejection::{Alert, Reason};
use rcgen::SerialNumber;
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use serde_json::Value;
use time::OffsetDateTime;

use crate::client::{Client, End, Shown, TLS13, VERSIONS, client, connect_from, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::House;

const NAME: &str = "nas.home.example";

/// More than the log takes at once of all strangers together, and more than are kept for `why`.
const JUNK: u32 = 600;

/// A gate that writes its log as it does by default, with a control socket and a list that revokes number 7.
fn open(pki: &TestPki, backend: &Backend) -> Gate {
    let list = pki.clients.revocation_list(&[SerialNumber::from(7)], days_from_now(-1), days_from_now(5));
    let list = pki.write("clients.crl", list);
    let config = House::new(pki)
        .limits("connection_rate_per_source = \"off\"")
        .client_auth(&format!("revocation_lists = [{list:?}]"))
        .route("nas", backend.address())
        .route_with("ssh", &[&backend.address().to_string()], "allow = [\"bob-laptop\"]")
        .config();
    Gate::start_with_control(&config.replace("sampling = \"off\"", "sampling = \"on\""))
}

fn attempt(gate: &Gate, config: &Arc<ClientConfig>, source: Ipv4Addr, name: &str) -> End {
    let client = Client::on(connect_from(IpAddr::V4(source), gate.address()), config, name);
    client.handshake().and_then(|()| client.ping()).expect_err("it should have been refused")
}

/// Self-made certificates in the name of a device and of its authority, from many addresses.
fn flood(gate: &Gate, pki: &TestPki) {
    let forged = Authority::new("Clients of home.example");
    let mut junk = Certified::for_clients("alice-phone");
    junk.serial_number = Some(SerialNumber::from(7));
    let forged = client(pki, Some(&forged.issue(junk)));
    for number in 0..JUNK {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 3, 0, 1)) + number / 5);
        assert_eq!(attempt(gate, &forged, source, NAME), End::Alert(Alert::UNKNOWN_CA));
    }
}

fn why(gate: &Gate, wanted: &str) -> Value {
    let said = gate.ask(&["why", wanted, "--count", "20", "--format", "json"]).success();
    serde_json::from_slice(&said.stdout).unwrap()
}

fn logged<'a>(lines: &'a [Value], fingerprint: &str, event: &str) -> Vec<&'a Value> {
    let of = |line: &&Value| {
        let own = [&line["certificate"]["fingerprint"], &line["fingerprint"]];
        line["event"] == event && own.iter().any(|one| *one == fingerprint)
    };
    lines.iter().filter(of).collect()
}

/// Sixty self-made certificates used up what the log writes of one stage, and 1,300 what `why` remembers: the revoked phone
/// that was tried meanwhile was in neither.
#[test]
fn made_up_certificates_hid_the_refusal_of_a_lost_device() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let mut gate = open(&pki, &backend);
    let thief = Ipv4Addr::new(127, 0, 0, 66);
    let with = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = Certified::for_clients("alice-phone");
        change(&mut params);
        pki.clients.issue(params)
    };
    let below = pki.clients.intermediate(Authority::for_authorities("Phones of home.example"));
    let mut expired = Certified::for_clients("alice-phone");
    expired.not_after = OffsetDateTime::now_utc() - time::Duration::HOUR;
    let cases = [
        (with(&|params| params.serial_number = Some(SerialNumber::from(7))), NAME, Reason::Revoked),
        (with(&|params| params.not_after = OffsetDateTime::now_utc() - time::Duration::HOUR), NAME, Reason::Expired),
        (with(&|params| params.not_before = days_from_now(1)), NAME, Reason::NotYetValid),
        (
            with(&|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]),
            NAME,
            Reason::WrongPurpose,
        ),
        (with(&|_| {}), "ssh.home.example", Reason::IdentityNotAllowed),
        (below.issue(expired), NAME, Reason::Expired),
    ];
    flood(&gate, &pki);
    for (device, name, reason) in &cases {
        assert!(matches!(attempt(&gate, &client(&pki, Some(device)), thief, name), End::Alert(_)), "{reason}");
        // A refusal is recorded after its alert was sent: two in a row could change places.
        gate.settled();
    }
    flood(&gate, &pki);
    gate.settled();
    let found = why(&gate, "alice-phone");
    for (index, (device, _, reason)) in cases.iter().enumerate() {
        let fingerprint = Sha256::of(&device.chain()[0]).to_string();
        let by_fingerprint = why(&gate, &format!("sha256:{fingerprint}"));
        // Its own before those that call themselves so.
        for told in [&found["refusals"][cases.len() - 1 - index], &by_fingerprint["refusals"][0]] {
            assert_eq!(told["certificate"]["fingerprint"], fingerprint, "{reason}: {told}");
            assert_eq!(told["reason"], reason.label(), "{told}");
            let certificate = &told["certificate"];
            assert_eq!([&certificate["anchored"], &certificate["verified"]], [true, false], "{reason}: {told}");
        }
    }
    let forged = &found["refusals"][cases.len()];
    assert_eq!(
        (&forged["reason"], &forged["certificate"]["anchored"]),
        (&"unknown_ca".into(), &false.into()),
        "{found}"
    );
    assert!(why(&gate, "127.0.0.66")["known"].as_u64().unwrap() >= 6);

    gate.signal(Signal::TERM);
    assert!(gate.wait_for_end().success());
    let lines = gate.lines();
    for (device, _, reason) in &cases {
        let fingerprint = Sha256::of(&device.chain()[0]).to_string();
        let logged = logged(&lines, &fingerprint, "rejected");
        assert_eq!(logged.len(), 1, "{reason}: {logged:?}");
        assert_eq!(logged[0]["reason"], reason.label(), "{logged:?}");
    }
    assert_eq!(backend.accepted(), 0);
}

/// One lost device that tries again and again has some lines, a count of the rest, and one entry: it hides no other device.
#[test]
fn lost_device_that_tries_all_the_time_hides_no_other() {
    const TIMES: usize = 700;
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let mut gate = open(&pki, &backend);
    let bob = pki.client("bob-phone");
    assert_eq!(
        attempt(&gate, &client(&pki, Some(&bob)), Ipv4Addr::new(127, 0, 0, 5), "ssh.home.example"),
        End::Alert(Alert::ACCESS_DENIED)
    );
    let mut lost = Certified::for_clients("alice-phone");
    lost.serial_number = Some(SerialNumber::from(7));
    let lost = pki.clients.issue(lost);
    let config = client(&pki, Some(&lost));
    for _ in 0..TIMES {
        attempt(&gate, &config, Ipv4Addr::LOCALHOST, NAME);
    }
    gate.settled();
    let told = why(&gate, "alice-phone");
    assert_eq!((&told["known"], &told["refusals"][0]["times"]), (&1.into(), &TIMES.into()), "{told}");
    let text = gate.ask(&["why", "alice-phone"]).success().text();
    assert!(text.contains(&format!("{TIMES}; this is the latest")), "{text}");
    assert_eq!(why(&gate, "bob-phone")["known"], 1);
    gate.signal(Signal::TERM);
    assert!(gate.wait_for_end().success());
    let lines = gate.lines();
    let fingerprint = Sha256::of(&lost.chain()[0]).to_string();
    let written = logged(&lines, &fingerprint, "rejected").len();
    // One more for each minute that it took.
    assert!((10..20).contains(&written), "{written}");
    let left_out = logged(&lines, &fingerprint, "left_out");
    let left_out: u64 = left_out.iter().map(|line| line["lines"].as_u64().unwrap()).sum();
    assert_eq!(left_out, (TIMES - written) as u64);
}

/// Anything that has seen a certificate can show it. It is told as the device's, but not as proved, and what the device
/// itself meets has an entry of its own.
#[test]
fn copied_certificate_hides_nothing_of_the_device_itself() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = open(&pki, &backend);
    let (alice, mallory) = (pki.client("alice-phone"), pki.client("mallory"));
    let copied = Shown::new(alice.chain(), signing_key(mallory.key()));
    for version in VERSIONS {
        let config = showing(&pki, Arc::clone(&copied) as Arc<dyn ResolvesClientCert>, &[version]);
        assert_eq!(attempt(&gate, &config, Ipv4Addr::LOCALHOST, NAME), End::Alert(Alert::DECRYPT_ERROR));
    }
    gate.settled();
    let config = showing(&pki, Shown::certificate(&alice) as Arc<dyn ResolvesClientCert>, TLS13);
    attempt(&gate, &config, Ipv4Addr::LOCALHOST, "ssh.home.example");
    gate.settled();
    let told = why(&gate, "alice-phone");
    let entries = told["refusals"].as_array().unwrap();
    let seen: Vec<_> =
        entries.iter().map(|one| (one["reason"].as_str().unwrap(), one["times"].as_u64().unwrap())).collect();
    assert_eq!(seen, [("identity_not_allowed", 1), ("bad_signature", 2)], "{told}");
    let text = gate.ask(&["why", "alice-phone", "--count", "2"]).success().text();
    assert!(text.contains("the client did not prove that it has the key"), "{text}");
}
