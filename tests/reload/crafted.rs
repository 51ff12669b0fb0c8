//! What a device sends along cannot delay its own cut, nor end a session that goes on: attacks.md row 36.

use std::sync::Arc;

use doorward::model::close::CloseReason;
use doorward::model::rejection::Alert;
use rcgen::SerialNumber;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::client::{Client, End, Shown, TLS13, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::House;
use crate::{NAS, controlled, reload};

/// As many as a source may have at once.
const SESSIONS: usize = 60;

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// How many signatures it takes, `src/handshake/authorities/tests.rs` counts: none to cut those that a list names, one for
/// each device that goes on.
#[test]
fn row_36_crafted_sessions_of_a_revoked_device_are_cut() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let numbered = |name: &str, serial: u64| {
        let mut params = Certified::for_clients(name);
        params.serial_number = Some(SerialNumber::from(serial));
        pki.clients.issue(params)
    };
    let (lost, kept) = (numbered("lost-phone", 7), numbered("alice-phone", 8));
    let list = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let keys = format!("revocation_lists = [{:?}]", list(&[]));
    let limits = "connection_rate_per_source = \"off\"\nconnections_per_source = \"off\"";
    let house = controlled(&House::new(&pki).limits(limits).client_auth(&keys).route("nas", backend.address()));
    let gate = Gate::start(&house);

    let name = "Clients of home.example";
    let forged = Authority::new(name);
    let mut junk: Vec<_> = (0..8).map(|_| der(forged.intermediate(Authority::for_authorities(name)).pem())).collect();
    let mut sessions = |device: &Certified| -> Vec<Client> {
        let mut one = || {
            junk.rotate_left(3);
            junk.swap(0, 1);
            let shown = Shown::new([device.chain(), junk.clone()].concat(), signing_key(device.key()));
            let config = showing(&pki, shown as Arc<dyn ResolvesClientCert>, TLS13);
            Client::admitted(gate.address(), &config, NAS).unwrap()
        };
        (0..SESSIONS).map(|_| one()).collect()
    };
    let (gone, stay) = (sessions(&lost), sessions(&kept));
    list(&[SerialNumber::from(7)]);
    let output = reload(&gate, &house).success();
    assert!(output.text().contains(&format!("because they are no longer admitted: {SESSIONS}.")), "{output}");
    for client in &gone {
        assert_eq!(client.end(), End::of(CloseReason::Revoked));
    }
    for client in &stay {
        client.ping().unwrap();
    }
    let cut = |reason| gate.metrics().sum("doorward_sessions_cut_total", &[("reason", reason)]);
    gate.wait_metric("doorward_sessions_cut_total", &[("reason", "revoked")], SESSIONS as f64);
    assert_eq!(cut("not_trusted"), 0.0);
    // And it does not come back in.
    let shown = Shown::certificate(&lost);
    let config = showing(&pki, shown as Arc<dyn ResolvesClientCert>, TLS13);
    let end = Client::admitted(gate.address(), &config, NAS).map(drop).unwrap_err();
    assert_eq!(end, End::Alert(Alert::CERTIFICATE_REVOKED));
}

#[test]
fn row_36_expiry_of_an_unneeded_certificate_ends_nothing() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start(&controlled(&House::new(&pki).route("nas", backend.address())));
    let alice = pki.client("alice-phone");
    let now = time::OffsetDateTime::now_utc();
    // Already expired, and soon: neither is a part of the path.
    for seconds in [-60, 2] {
        let mut needless = Authority::for_authorities("Needless");
        needless.not_after = now + time::Duration::seconds(seconds);
        let needless = der(Authority::custom(needless).pem());
        let shown = Shown::new([alice.chain(), vec![needless]].concat(), signing_key(alice.key()));
        let config = showing(&pki, shown as Arc<dyn ResolvesClientCert>, TLS13);
        let client = Client::admitted(gate.address(), &config, NAS).unwrap();
        while time::OffsetDateTime::now_utc() < now + time::Duration::seconds(seconds + 2) {
            client.ping().unwrap();
        }
        client.ping().unwrap();
    }
}
