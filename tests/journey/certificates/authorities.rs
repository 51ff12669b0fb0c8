//! The authorities of a route: which ones the gate names to clients, and what their revocation lists revoke.

use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::{NAME, odd, odd_authority};
use crate::client::{Client, Shown, TLS13, VERSIONS, showing};
use crate::common::backend::Backend;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::{House, assert_admitted, assert_refused};

/// What the gate asks for: certificates of the route's own authorities, named anew with each configuration.
#[test]
fn certificate_request_names_only_authorities_of_the_route() {
    #[derive(Debug, Default)]
    struct Asked(std::sync::Mutex<Vec<Vec<u8>>>);

    impl ResolvesClientCert for Asked {
        fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            *self.0.lock().unwrap() = hints.iter().map(|hint| hint.to_vec()).collect();
            None
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let pki = TestPki::new();
    let other = Authority::new("Guests of home.example");
    let guests = pki.write("guests.pem", other.pem());
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let gate = House::new(&pki)
        .route("nas", &address)
        .route_with("guests", &[&address], &format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{guests:?}]"))
        .open();
    for (name, wanted, unwanted) in [
        (NAME, "Clients of home.example", "Guests of home.example"),
        ("guests.home.example", "Guests of home.example", "Clients of home.example"),
    ] {
        for version in VERSIONS {
            let asked = Arc::new(Asked::default());
            let config = showing(&pki, Arc::clone(&asked) as Arc<dyn ResolvesClientCert>, &[version]);
            assert_refused(&gate, &backend, Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED, || {
                Client::admitted(gate.address(), &config, name)
            });
            let hints = asked.0.lock().unwrap().clone();
            let has =
                |name: &str| hints.iter().any(|hint| hint.windows(name.len()).any(|window| window == name.as_bytes()));
            assert!(has(wanted) && !has(unwanted), "{name}: {hints:?}");
        }
    }
    // The other route's authority lets no client in.
    let guest = other.issue(Certified::for_clients("guest"));
    let config = showing(&pki, Shown::certificate(&guest) as Arc<dyn ResolvesClientCert>, TLS13);
    assert_admitted(&gate, || Client::admitted(gate.address(), &config, "guests.home.example"));
    assert_refused(&gate, &backend, Reason::UnknownCa, Alert::UNKNOWN_CA, || {
        Client::admitted(gate.address(), &config, NAME)
    });
}

/// A list that names one certificate keeps that one out, and a list that says nothing about it says so.
#[test]
fn revoked_but_accepted_no_byte_reaches_the_backend() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let serial = |number: u64| odd(|params| params.serial_number = Some(number.into()));
    let (alice, lost) = (pki.clients.issue(serial(0x4a01)), pki.clients.issue(serial(0x4a02)));
    let between = |number: u64| {
        let params = odd_authority(|params| params.serial_number = Some(number.into()));
        pki.clients.intermediate(params).issue(Certified::for_clients("below"))
    };
    let (below_lost, below) = (between(0x4a03), between(0x4a04));
    let list = |authority: &Authority, next: i64| {
        let revoked = [0x4a02_u64, 0x4a03].map(Into::into);
        authority.revocation_list(&revoked, days_from_now(-2), days_from_now(next))
    };
    let fresh = pki.write("fresh.crl", list(&pki.clients, 7));
    let stale = pki.write("stale.crl", list(&pki.clients, -1));
    let foreign = pki.write("foreign.crl", list(&Authority::new("Another house"), 7));
    let route = |file: &std::path::Path, more: &str| {
        format!("allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [{file:?}]\n{more}")
    };
    let address = &*backend.address().to_string();
    let gate = House::new(&pki)
        .route_with("fresh", &[address], &route(&fresh, ""))
        .route_with("stale", &[address], &route(&stale, ""))
        .route_with("lenient", &[address], &route(&stale, "expired_revocation_list = \"warn\""))
        .route_with("foreign", &[address], &route(&foreign, ""))
        .open();
    let admitted = |name: &str, certified: &Certified, version| {
        let config = showing(&pki, Shown::certificate(certified) as Arc<dyn ResolvesClientCert>, &[version]);
        Client::admitted(gate.address(), &config, &format!("{name}.home.example"))
    };
    for version in VERSIONS {
        let refused = |name: &str, certified: &Certified, reason: Reason, alert: Alert| {
            assert_refused(&gate, &backend, reason, alert, || admitted(name, certified, version));
        };
        assert_admitted(&gate, || admitted("fresh", &alice, version));
        refused("fresh", &lost, Reason::Revoked, Alert::CERTIFICATE_REVOKED);
        refused("fresh", &below_lost, Reason::Revoked, Alert::CERTIFICATE_REVOKED);
        // The intermediate has no list, so its status is unknown.
        refused("fresh", &below, Reason::RevocationUnknown, Alert::UNKNOWN_CA);
        refused("stale", &alice, Reason::RevocationListExpired, Alert::UNKNOWN_CA);
        refused("stale", &lost, Reason::RevocationListExpired, Alert::UNKNOWN_CA);
        assert_admitted(&gate, || admitted("lenient", &alice, version));
        refused("lenient", &lost, Reason::Revoked, Alert::CERTIFICATE_REVOKED);
        refused("foreign", &alice, Reason::RevocationUnknown, Alert::UNKNOWN_CA);
    }
}
