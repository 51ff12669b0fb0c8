//! What a device of [`TestPki`] is given.

use std::net::SocketAddr;

use doorward::bundle::{Bundle, BundleKey, BundleRoute, PlainKey, Trust};
use doorward::model::device_name::DeviceName;
use doorward::model::names::{Name, ServerName, ServerNamePattern};
use doorward::model::service::ServiceKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::pki::{Certified, TestPki};

/// For alice-laptop, which has this certificate: the gate at this address, with routes of these names.
pub(crate) fn bundle(pki: &TestPki, certified: &Certified, gate: SocketAddr, routes: &[&str]) -> Bundle {
    let authority = CertificateDer::from_pem_slice(pki.servers.pem().as_bytes()).unwrap();
    Bundle {
        home: ServerName::parse("home.example").unwrap(),
        device: DeviceName::parse("alice-laptop").unwrap(),
        address: Some(gate.ip().to_string()),
        port: gate.port(),
        routes: routes.iter().map(|name| bundle_route(name)).collect(),
        trust: Trust::Authorities(vec![authority]),
        chain: certified.chain(),
        key: BundleKey::Plain(PlainKey::new(certified.key().secret_der())),
        renewal: None,
    }
}

/// A route as a device knows it: its kind is that of its name.
pub(crate) fn bundle_route(name: &str) -> BundleRoute {
    let kinds = ServiceKind::WORDS;
    let kind = kinds.iter().find(|(word, _)| *word == name).map_or(ServiceKind::Other, |(_, kind)| *kind);
    let server_name = ServerNamePattern::parse(&format!("{name}.home.example")).unwrap();
    BundleRoute { name: Name::parse(name).unwrap(), kind, server_name }
}
