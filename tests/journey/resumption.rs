//! Sessions: resumed where nothing has changed, and never beyond the rights of the certificate they stand for
//! (attacks.md row 18, but for what needs a reload).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use doorward::model::rejection::{Alert, Reason};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, ResolvesClientCert, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, SupportedProtocolVersion};
use serde_json::Value;
use time::OffsetDateTime;

use crate::client::{Client, End, Shown, VERSIONS, showing};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::{House, assert_admitted, assert_refused};

/// Sessions of a client that offers each of them wherever it goes, whatever server they are from.
#[derive(Debug)]
pub(crate) struct Everywhere(pub(crate) ClientSessionMemoryCache);

fn somewhere() -> ServerName<'static> {
    ServerName::try_from("somewhere").unwrap()
}

impl ClientSessionStore for Everywhere {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(somewhere(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&somewhere())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(somewhere(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&somewhere())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        // It keeps what it has, and tries it again.
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(somewhere(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&somewhere())
    }
}

/// A client that keeps its sessions, and what it shows when it is asked for a certificate.
struct Device {
    config: Arc<ClientConfig>,
    shown: Arc<Shown>,
}

impl Device {
    fn new(pki: &TestPki, certified: &Certified, version: &'static SupportedProtocolVersion) -> Self {
        let shown = Shown::certificate(certified);
        let config = showing(pki, Arc::clone(&shown) as Arc<dyn ResolvesClientCert>, &[version]);
        let mut config = Arc::unwrap_or_clone(config);
        config.resumption = Resumption::store(Arc::new(Everywhere(ClientSessionMemoryCache::new(8))));
        Self { config: Arc::new(config), shown }
    }

    /// Gets in, leaves, and tells whether a session was resumed; both sides and the metrics must agree on that.
    #[track_caller]
    fn visit(&self, gate: &Gate, name: &str) -> bool {
        let mut kind = None;
        let counted = |line: &Value| {
            let version = line["tls"]["version"].as_str().unwrap();
            let labels = [("route", line["route"].as_str().unwrap()), ("version", version), ("resumed", "true")];
            gate.metrics().sum("doorward_handshakes_total", &labels)
        };
        let before = gate.metrics().sum("doorward_handshakes_total", &[("resumed", "true")]);
        let line = assert_admitted(gate, || {
            let client = Client::admitted(gate.address(), &self.config, name)?;
            kind = client.tls(|connection| connection.handshake_kind());
            Ok(client)
        });
        let resumed = kind == Some(HandshakeKind::Resumed);
        assert_eq!(line["tls"]["resumed"], resumed, "{line}");
        let after = gate.metrics().sum("doorward_handshakes_total", &[("resumed", "true")]);
        assert_eq!(after - before, f64::from(u8::from(resumed)), "{line}");
        assert!(counted(&line) >= f64::from(u8::from(resumed)));
        resumed
    }

    /// Tries to get in and must be refused: it was a full handshake, in which the certificate was looked at.
    #[track_caller]
    fn turned_away(&self, gate: &Gate, backend: &Backend, name: &str, reason: Reason, alert: Alert) {
        let before = gate.metrics().sum("doorward_handshakes_total", &[("resumed", "true")]);
        assert_refused(gate, backend, reason, alert, || Client::admitted(gate.address(), &self.config, name));
        let after = gate.metrics().sum("doorward_handshakes_total", &[("resumed", "true")]);
        assert_eq!(after, before, "nothing was resumed");
    }
}

#[test]
fn session_is_resumed_and_still_says_who_it_is() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate =
        House::new(&pki).route_with("nas", &[&backend.address().to_string()], "allow = [\"alice-phone\"]").open();
    for version in VERSIONS {
        let device = Device::new(&pki, &pki.client("alice-phone"), version);
        assert!(!device.visit(&gate, "nas.home.example"));
        for _ in 0..3 {
            assert!(device.visit(&gate, "nas.home.example"), "{:?}", version.version);
        }
        // A ticket stands for the certificate: it need not be shown again.
        device.shown.nothing_more();
        assert!(device.visit(&gate, "nas.home.example"));
    }
    for line in crate::home::verdicts(&gate) {
        assert_eq!(line["certificate"]["name"], "alice-phone", "{line}");
        assert_eq!(line["certificate"]["verified"], true, "{line}");
    }
}

#[test]
fn resumption_at_another_server_name_is_a_full_handshake() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let gate = House::new(&pki)
        .route("nas", &address)
        .route("photos", &address)
        .route_with("bob", &[&address], "allow = [\"bob-laptop\"]")
        .route_with("two", &[&address], "allow = [\"any\"]")
        .open();
    for version in VERSIONS {
        let device = Device::new(&pki, &pki.client("alice-phone"), version);
        assert!(!device.visit(&gate, "nas.home.example"));
        assert!(!device.visit(&gate, "photos.home.example"), "another route");
        device.turned_away(&gate, &backend, "bob.home.example", Reason::IdentityNotAllowed, Alert::ACCESS_DENIED);
        // A session without its certificate opens no other name.
        device.visit(&gate, "nas.home.example");
        device.shown.nothing_more();
        for name in ["photos.home.example", "bob.home.example", "two.home.example"] {
            let required = Alert::CERTIFICATE_REQUIRED;
            device.turned_away(&gate, &backend, name, Reason::CertificateRequired, required);
        }
    }
}

/// One route, two names: the tickets have one key, and are told apart by their name.
#[test]
fn names_of_one_route_share_no_session() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let config = House::new(&pki).route("nas", backend.address()).config();
    let config = config.replace("[\"nas.home.example\"]", "[\"nas.home.example\", \"files.home.example\"]");
    let gate = Gate::start(&config);
    for version in VERSIONS {
        let device = Device::new(&pki, &pki.client("alice-phone"), version);
        assert!(!device.visit(&gate, "nas.home.example"));
        assert!(!device.visit(&gate, "files.home.example"), "{:?}", version.version);
        device.visit(&gate, "nas.home.example");
        device.shown.nothing_more();
        let required = Alert::CERTIFICATE_REQUIRED;
        device.turned_away(&gate, &backend, "files.home.example", Reason::CertificateRequired, required);
    }
}

/// A route that accepts clients without a certificate gives them no session.
#[test]
fn client_without_certificate_gets_no_session() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let gate = House::new(&pki)
        .route("nas", &address)
        .route_with(
            "open",
            &[&address],
            "allow = [\"any\", \"unverified\"]\n[route.client_auth]\nmode = \"verify_if_given\"",
        )
        .open();
    for version in VERSIONS {
        let device = Device::new(&pki, &pki.client("alice-phone"), version);
        device.shown.nothing_more();
        assert!(!device.visit(&gate, "open.home.example"));
        assert!(!device.visit(&gate, "open.home.example"), "there is no session without a certificate");
        let required = Alert::CERTIFICATE_REQUIRED;
        device.turned_away(&gate, &backend, "nas.home.example", Reason::CertificateRequired, required);
    }
}

#[test]
fn session_ends_with_its_certificate_or_an_issuer() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let end = OffsetDateTime::now_utc() + Duration::from_secs(20);
    let list = pki.write("clients.crl", {
        // Of an authority of its own, so that the others need no list.
        pki.clients.revocation_list(&[0x4a01_u64.into()], days_from_now(-1), end)
    });
    let address = backend.address().to_string();
    let listed = format!("allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [{list:?}]");
    let gate = House::new(&pki).route("nas", &address).route_with("listed", &[&address], &listed).open();

    let mut short = Certified::for_clients("alice-phone");
    short.not_after = end;
    let short = pki.clients.issue(short);
    let mut between = Authority::for_authorities("Phones of home.example");
    between.not_after = end;
    let below = pki.clients.intermediate(between).issue(Certified::for_clients("bob-phone"));
    let carol = pki.client("carol-phone");
    let cases = [
        (&short, "nas.home.example", Reason::Expired, Alert::CERTIFICATE_EXPIRED),
        (&below, "nas.home.example", Reason::Expired, Alert::CERTIFICATE_EXPIRED),
        (&carol, "listed.home.example", Reason::RevocationListExpired, Alert::UNKNOWN_CA),
    ];
    let mut devices = Vec::new();
    for version in VERSIONS {
        for (certified, name, reason, alert) in cases {
            let (device, bare) = (Device::new(&pki, certified, version), Device::new(&pki, certified, version));
            for device in [&device, &bare] {
                assert!(!device.visit(&gate, name));
                assert!(device.visit(&gate, name), "while it is valid");
            }
            devices.push((device, bare, name, reason, alert));
        }
    }
    let left = end - OffsetDateTime::now_utc();
    assert!(left.is_positive(), "this machine is too slow for twenty seconds");
    // Dates in certificates are whole seconds, and the last one counts.
    thread::sleep(Duration::try_from(left).unwrap() + Duration::from_millis(1100));
    for (device, bare, name, reason, alert) in devices {
        device.turned_away(&gate, &backend, name, reason, alert);
        bare.shown.nothing_more();
        bare.turned_away(&gate, &backend, name, Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED);
    }
}

/// A session is invalid in the next process: a certificate that was denied or is no longer trusted is refused.
#[test]
fn session_ends_with_the_gate_that_issued_it() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let lost = pki.client("lost-phone");
    let digest = doorward::model::identity::Sha256::of(&lost.chain()[0]);
    let other = pki.write("other.pem", Authority::new("Another house").pem());
    let first = House::new(&pki).route("nas", backend.address()).open();
    let devices: Vec<Device> = VERSIONS
        .into_iter()
        .map(|version| {
            let device = Device::new(&pki, &lost, version);
            assert!(!device.visit(&first, "nas.home.example"));
            assert!(device.visit(&first, "nas.home.example"));
            device
        })
        .collect();
    drop(first);
    let address = backend.address().to_string();
    let house = House::new(&pki);
    let denied = format!("allow = [\"any\"]\n[route.client_auth]\ndeny = [\"sha256:{digest}\"]");
    let distrusted = format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{other:?}]");
    for (keys, reason, alert) in [
        (denied, Reason::Denied, Alert::ACCESS_DENIED),
        (distrusted, Reason::UnknownCa, Alert::UNKNOWN_CA),
        ("allow = [\"bob\"]".to_owned(), Reason::IdentityNotAllowed, Alert::ACCESS_DENIED),
    ] {
        let second = House::new(&pki).route_with("nas", &[&address], &keys).open();
        for device in &devices {
            device.turned_away(&second, &backend, "nas.home.example", reason, alert);
        }
    }
    let second = house.route("nas", &address).open();
    for device in &devices {
        assert!(!device.visit(&second, "nas.home.example"), "another process, another key");
    }
}

/// Bytes that look like a ticket are none, and the handshake goes on in full.
#[test]
fn early_data_is_not_offered() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let mut device = Device::new(&pki, &pki.client("alice-phone"), &rustls::version::TLS13);
    let mut config = Arc::unwrap_or_clone(Arc::clone(&device.config));
    config.enable_early_data = true;
    device.config = Arc::new(config);
    assert!(!device.visit(&gate, "nas.home.example"));
    let client = Client::on(crate::client::connect(gate.address()), &device.config, "nas.home.example");
    assert!(client.tls(|connection| connection.early_data().is_none()), "no ticket allows early data");
    client.handshake().unwrap();
    client.ping().unwrap();
    assert_eq!(client.tls(|connection| connection.handshake_kind()), Some(HandshakeKind::Resumed));
    client.close_notify();
    assert_eq!(client.end(), End::Orderly);
}
