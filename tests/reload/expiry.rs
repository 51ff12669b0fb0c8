//! Sessions are cut when their certificate expires, unless the route keeps them.

use std::time::Duration;

use doorward::model::close::CloseReason;
use rcgen::SerialNumber;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::Instant;

use super::sessions::{AT_ONCE, closed};
use crate::client::{Client, End, Shown, TLS13, client, showing, signing_key};
use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::House;
use crate::{NAS, SSH, controlled, reload};

/// How long a certificate is valid: enough for the handshakes and reloads of a test on a busy machine.
const LEFT: Duration = Duration::from_secs(8);
/// How late its end may be seen here. The gate looks for it by the clock, and each minute.
const LATE: Duration = Duration::from_secs(10);

/// The clock is not the test's to set; what is done about dates when it jumps is shown by the unit tests of `sessions`.
#[test]
fn expired_session_is_cut_unless_its_route_keeps_it() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let list = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let lists = list(&[]);
    let address = backend.address().to_string();
    let keep =
        format!("allow = [\"any\"]\n[route.client_auth]\nexpired_session = \"keep\"\nrevocation_lists = [{lists:?}]");
    let house = controlled(&House::new(&pki).route("nas", &address).route_with("ssh", &[&address], &keep));
    let gate = Gate::start(&house);
    let mut params = Certified::for_clients("carol-phone");
    params.serial_number = Some(SerialNumber::from(7));
    let begun = Instant::now();
    params.not_after = time::OffsetDateTime::now_utc() + LEFT;
    let carol = client(&pki, Some(&pki.clients.issue(params)));
    let [goes, stays] = [NAS, SSH].map(|name| Client::admitted(gate.address(), &carol, name).unwrap());
    assert_eq!(goes.end(), End::of(CloseReason::Expired));
    let lasted = begun.elapsed();
    assert!(lasted + AT_ONCE >= LEFT && lasted < LEFT + LATE, "{lasted:?}");
    let line = closed(&gate, "expired");
    assert_eq!(line["route"], "nas", "{line}");

    // It is still in, and would be kept by a reload: but for a reason that the dates hide.
    stays.ping().unwrap();
    assert_eq!(gate.hang_up()["sessions_kept"], 1);
    stays.ping().unwrap();
    list(&[SerialNumber::from(7)]);
    assert_eq!(gate.hang_up()["sessions_cut"], 1);
    assert_eq!(stays.end(), End::of(CloseReason::Revoked));
    closed(&gate, "revoked");
    assert!(begun.elapsed() < LEFT + DEADLINE);
}

/// Certificates that a client sends and its chain does not need have no effect: an authority that has expired and is
/// trusted all the same, as many `.p12` bring it along, or one that it has no use for any more.
#[test]
fn expired_unneeded_certificate_ends_no_session() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let mut old = Authority::for_authorities("Old clients of home.example");
    (old.not_before, old.not_after) = (days_from_now(-9), days_from_now(-2));
    let old = Authority::custom(old);
    let house = House::new(&pki).route_with(
        "nas",
        &[&backend.address().to_string()],
        &format!(
            "allow = [\"any\"]\n[route.client_auth]\ntrust = [{:?}, {:?}]",
            pki.path("clients.pem"),
            pki.write("old.pem", old.pem())
        ),
    );
    let gate = Gate::start(&controlled(&house));
    let old_certificate = CertificateDer::from_pem_slice(old.pem().as_bytes()).unwrap();
    let guests = [&old, &pki.clients].map(|authority| {
        let certified = authority.issue(Certified::for_clients("alice-phone"));
        let chain = [certified.chain(), vec![old_certificate.clone()]].concat();
        let shown = Shown::new(chain, signing_key(certified.key()));
        Client::admitted(gate.address(), &showing(&pki, shown, TLS13), NAS).unwrap()
    });
    // An expired session ends, which proves that the gate has checked all dates.
    let mut params = Certified::for_clients("carol-phone");
    params.not_after = time::OffsetDateTime::now_utc() + LEFT;
    let carol = client(&pki, Some(&pki.clients.issue(params)));
    assert_eq!(Client::admitted(gate.address(), &carol, NAS).unwrap().end(), End::of(CloseReason::Expired));
    closed(&gate, "expired");
    for guest in &guests {
        guest.ping().unwrap();
    }
    assert_eq!(gate.hang_up()["sessions_kept"], 2);
    gate.wait_metric("doorward_sessions_cut_total", &[], 1.0);
}

/// The dates were not verified when the session began, and are after the reload.
#[test]
fn unverified_session_is_cut_on_expiry_once_verified() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let house = |mode: &str, allow: &str| {
        let keys = format!("allow = [{allow:?}]\n[route.client_auth]\nmode = {mode:?}");
        controlled(&House::new(&pki).route_with("nas", &[&backend.address().to_string()], &keys))
    };
    let gate = Gate::start(&house("require", "unverified"));
    let mut params = Certified::for_clients("carol-phone");
    let begun = Instant::now();
    params.not_after = time::OffsetDateTime::now_utc() + LEFT;
    let carol = client(&pki, Some(&pki.clients.issue(params)));
    let carol = Client::admitted(gate.address(), &carol, NAS).unwrap();
    let output = reload(&gate, &house("require_and_verify", "any")).success();
    assert!(output.text().contains("kept: 1. Cut"), "{output}");
    carol.ping().unwrap();
    assert_eq!(carol.end(), End::of(CloseReason::Expired));
    assert!(begun.elapsed() < LEFT + LATE, "{:?}", begun.elapsed());
    closed(&gate, "expired");
}
