//! `doorward why` explains each refusal, and keeps a bounded number of them.

use std::net::Shutdown;
use std::sync::Arc;

use doorward::model::rejection::Reason;
use rcgen::{DnType, ExtendedKeyUsagePurpose};
use rustls::client::ResolvesClientCert;
use serde_json::Value;

use crate::client::{
    Client, End, Hello, Shown, TLS13, client, connect, plain_end, refused_plainly, showing, signing_key,
};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::wait_until;
use crate::home::{House, Watch};
use crate::{NAME, json, memory};

/// Asks in each way about the connection that was just refused for this reason, and compares the answer with the log line.
/// Returns the answer as text.
#[track_caller]
fn explained(gate: &Gate, reason: Reason, attempt: impl FnOnce() -> End) -> String {
    let watch = Watch::begin(gate);
    let end = attempt();
    let line = watch.rejected(reason, &end);

    let why = json(gate, &["why", "last"]);
    let shown = &why["refusals"][0];
    for field in ["id", "listener", "source", "server_name", "route", "stage", "reason", "side", "detail", "alert"] {
        assert_eq!(shown[field], line[field], "{field}: {shown} {line}");
    }
    for field in ["name", "fingerprint", "serial", "issuer", "not_after", "verified"] {
        assert_eq!(shown["certificate"][field], line["certificate"][field], "{field}: {shown} {line}");
    }
    let (explanation, advice) = (shown["explanation"].as_str().unwrap(), shown["advice"].as_str().unwrap());

    let text = gate.ask(&["why", "last"]).success().text();
    assert!(text.starts_with(&format!("{explanation}\n{advice}\n\n")), "{text}");
    assert!(text.contains(&format!("{reason}: ")), "{text}");
    for field in ["source", "server_name", "alert"] {
        assert!(line[field].as_str().is_none_or(|value| text.contains(value)), "{field}: {text}");
    }

    // By address, and by certificate.
    let id = &line["id"];
    let by = |wanted: &str| json(gate, &["why", wanted])["refusals"][0]["id"].clone();
    assert_eq!(&by("127.0.0.1"), id);
    if let Some(fingerprint) = line["certificate"]["fingerprint"].as_str() {
        assert_eq!(&by(&format!("sha256:{fingerprint}")), id);
        assert_eq!(&by(&format!("sha256:{}", &fingerprint[..8])), id);
        // By its name, a device's own refusals come before those of a copy of its certificate.
        if reason != Reason::BadSignature {
            assert_eq!(&by(line["certificate"]["name"].as_str().unwrap()), id);
        }
        assert!(text.contains(&format!("sha256:{fingerprint}")), "{text}");
    }
    text
}

#[track_caller]
fn refusal(outcome: Result<Client, End>) -> End {
    outcome.map(|_| ()).expect_err("it should have been refused")
}

#[test]
fn why_finds_and_explains_a_refusal_for_each_reason() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let lost = pki.client("carol-phone");
    let revoked = pki.clients.issue(numbered("dave-phone", 0x4a01));
    let list = pki.clients.revocation_list(&[0x4a01_u64.into()], days_from_now(-2), days_from_now(7));
    let list = pki.write("clients.crl", list);
    let digest = doorward::model::identity::Sha256::of(&lost.chain()[0]);
    let house = House::new(&pki)
        .client_auth(&format!("revocation_lists = [{list:?}]\ndeny = [\"sha256:{digest}\"]"))
        .timeouts("client_hello = \"2s\"")
        .route("nas", echo.address())
        .route_with("ssh", &[&echo.address().to_string()], "allow = [\"bob-laptop\"]")
        .route("dead", "unix:/nowhere/service.sock");
    let gate = Gate::start_with_control(&house.config());
    let here = gate.address();
    let none = gate.ask(&["why"]).success().text();
    assert_eq!(none, "No connection has been refused since the gate was started.\n");

    let good = client(&pki, Some(&pki.client("alice-phone")));
    let shown = |certified: &Certified| client(&pki, Some(certified));
    let attempt = |config, name| move || refusal(Client::admitted(here, &config, name));
    let hello = |suites| Hello { version: 0x0303, suites, server_name: NAME }.record();

    let text = explained(&gate, Reason::ClientHelloTimeout, || plain_end(&connect(here)));
    assert!(text.starts_with("127.0.0.1 connected and did not begin a TLS connection in time."), "{text}");
    explained(&gate, Reason::ClientHelloClosedEarly, || {
        let stream = connect(here);
        stream.shutdown(Shutdown::Write).unwrap();
        plain_end(&stream)
    });
    let text = explained(&gate, Reason::NotTls, || refused_plainly(&connect(here), b"GET / HTTP/1.1\r\n\r\n"));
    assert!(text.contains("not TLS, but http."), "{text}");
    explained(&gate, Reason::TooLarge, || refused_plainly(&connect(here), &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]));
    let mut nameless = pki.client_config(None, TLS13);
    nameless.enable_sni = false;
    explained(&gate, Reason::ServerNameMissing, attempt(Arc::new(nameless), NAME));
    let text = explained(&gate, Reason::ServerNameUnknown, attempt(Arc::clone(&good), "tv.home.example"));
    assert!(text.contains("add \"tv.home.example\" to server_names"), "{text}");
    explained(&gate, Reason::ProtocolVersion, || {
        let old = Hello { version: 0x0302, suites: &[0xc013], server_name: NAME }.record();
        refused_plainly(&connect(here), &old)
    });
    explained(&gate, Reason::NoSharedParameters, || refused_plainly(&connect(here), &hello(&[0x002f, 0x0002])));
    let text = explained(&gate, Reason::CertificateRequired, attempt(client(&pki, None), NAME));
    assert!(text.starts_with("127.0.0.1 asked for nas.home.example and showed no certificate."), "{text}");
    let stranger = Authority::new("Another house").issue(Certified::for_clients("alice-phone"));
    let text = explained(&gate, Reason::UnknownCa, attempt(shown(&stranger), NAME));
    assert!(text.contains("calls itself alice-phone") && text.contains("Another house"), "{text}");
    let mut expired = Certified::for_clients("alice-phone");
    expired.not_after = days_from_now(-3) - time::Duration::MINUTE;
    let text = explained(&gate, Reason::Expired, attempt(shown(&pki.clients.issue(expired)), NAME));
    assert!(text.starts_with("alice-phone's certificate expired 3 days ago.\nIssue alice-phone a new"), "{text}");
    let mut early = Certified::for_clients("alice-phone");
    early.not_before = days_from_now(2) + time::Duration::MINUTE;
    let text = explained(&gate, Reason::NotYetValid, attempt(shown(&pki.clients.issue(early)), NAME));
    assert!(text.contains("2 days from now"), "{text}");
    let mut for_servers = Certified::for_clients("alice-phone");
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    explained(&gate, Reason::WrongPurpose, attempt(shown(&pki.clients.issue(for_servers)), NAME));
    explained(&gate, Reason::Revoked, attempt(shown(&revoked), NAME));
    let text = explained(&gate, Reason::Denied, attempt(shown(&lost), NAME));
    assert!(text.contains("If carol-phone should get in again"), "{text}");
    let stolen = Shown::new(pki.client("alice-phone").chain(), signing_key(pki.client("mallory").key()));
    let stolen = showing(&pki, stolen as Arc<dyn ResolvesClientCert>, TLS13);
    explained(&gate, Reason::BadSignature, attempt(stolen, NAME));
    let text = explained(&gate, Reason::IdentityNotAllowed, attempt(Arc::clone(&good), "ssh.home.example"));
    assert!(text.contains("add \"alice-phone\" to allow of the route ssh"), "{text}");
    let text = explained(&gate, Reason::BackendUnreachable, attempt(Arc::clone(&good), "dead.home.example"));
    assert!(text.starts_with("alice-phone was let in, but"), "{text}");

    // All of them at once, the newest first.
    let count = 18;
    let all = json(&gate, &["why", "127.0.0.1", "--count", "100"]);
    assert_eq!((&all["known"], &all["rejected"]), (&count.into(), &count.into()), "{all}");
    let ids: Vec<u64> = all["refusals"].as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), count);
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    let two = gate.ask(&["why", "127.0.0.1", "--count", "2"]).success().text();
    assert!(two.ends_with("\nThe gate remembers 16 earlier ones: --count shows more.\n"), "{two}");
    let none = gate.ask(&["why", "192.0.2.7"]).success().text();
    assert!(
        none.starts_with("The gate remembers no such refusal. Refused since it was started: 18 connections."),
        "{none}"
    );

    let status = json(&gate, &["status"]);
    assert_eq!((&status["accepted"], &status["rejected"]), (&18.into(), &18.into()), "{status}");
}

fn numbered(name: &str, serial: u64) -> rcgen::CertificateParams {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(serial.into());
    params
}

#[test]
fn names_in_foreign_certificates_are_escaped() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", echo.address()).config());
    let nasty = "<script>alert(1)</script>\u{1b}[31m\nrejected\u{202e}";
    let mut params = Certified::for_clients("x");
    params.distinguished_name.push(DnType::CommonName, nasty);
    let stranger = Authority::new(nasty).issue(params);
    let text = explained(&gate, Reason::UnknownCa, || {
        refusal(Client::admitted(gate.address(), &client(&pki, Some(&stranger)), NAME))
    });
    let escaped = r"<script>alert(1)</script>\u{1b}[31m\nrejected\u{202e}";
    assert!(text.contains(&format!("calls itself {escaped}, and")), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']) && !text.contains("\nrejected"), "{text}");
    let why = gate.ask(&["why", "--format", "json"]).success().text();
    assert!(!why.contains(['\u{1b}', '\u{202e}']), "{why}");
    let why: Value = serde_json::from_str(&why).unwrap();
    assert_eq!(why["refusals"][0]["certificate"]["name"], escaped);

    // rustls refuses a server name with quotes, control characters or spaces.
    let odd = Hello { version: 0x0303, suites: &[0x1301], server_name: "<b>\u{1b}[31m\n.example" }.record();
    refused_plainly(&connect(gate.address()), &odd);
    wait_until("it is remembered", || (json(&gate, &["status"])["rejected"] == 2).then_some(()));
    let text = gate.ask(&["why"]).success().text();
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn memory_for_refusals_is_bounded() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", echo.address()).config());
    let flood = |count: usize| {
        let before = gate.metrics().sum("doorward_connections_rejected_total", &[]);
        for number in 0..count {
            let server_name = format!("{number}.{}.example", ["x".repeat(60).as_str(); 3].join("."));
            let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: &server_name }.record();
            refused_plainly(&connect(gate.address()), &hello);
        }
        gate.wait_metric("doorward_connections_rejected_total", &[], before + count as f64);
        memory(&gate)
    };
    // By now all 512 entries are used, and the buffers of the process have their final size.
    let full = flood(1000);
    let later = flood(2000);
    assert!(later.saturating_sub(full) < 2 * 1024, "{full} KiB, then {later} KiB");
    let why = json(&gate, &["why", "127.0.0.1"]);
    assert_eq!((&why["known"], &why["rejected"]), (&512.into(), &3000.into()));
}
