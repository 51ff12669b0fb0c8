//! A file of certificates or keys, in PEM: as `trust`, as the gate's own chain, as its key.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

use std::sync::LazyLock;

use doorward::config::checked::RouteMode;
use doorward::handshake::trust::Authorities;
use doorward::pki::{inspect, keys};
use house::House;
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

static HOUSE: LazyLock<House> = LazyLock::new(House::new);
const GIVEN: &str = "given.pem";

fuzz_target!(|bytes: &[u8]| {
    let objects = match inspect::contents(bytes) {
        Some(inspect::Contents::Objects(objects)) => objects,
        // The target archive.
        Some(inspect::Contents::Archive(_)) => return,
        None => Vec::new(),
    };
    for item in inspect::describe(&objects, OffsetDateTime::UNIX_EPOCH, 0o600) {
        house::printable(&item.text());
    }
    if let Ok(key) = keys::read(bytes) {
        // Printed and read again, it is the same.
        let again = keys::read(key.serialize_pem().as_bytes()).expect("a key that was just printed");
        assert_eq!(again.serialize_der(), key.serialize_der());
    }
    HOUSE.write(GIVEN, bytes);
    if let Ok(config) = HOUSE.load("server.pem", "server-key.pem", GIVEN, &[]) {
        let RouteMode::Terminate(route) = &config.routes[0].mode else { unreachable!() };
        let trusted = certificates(&config);
        // `doorward ca inspect` shows exactly what is trusted: a hidden block would be a hidden authority.
        let shown = inspect::certificates(bytes, &[]);
        assert_eq!(shown, trusted);
        Authorities::new(&route.client_auth).unwrap();
        // Printed and read again, they are the same.
        HOUSE.write(GIVEN, printed(&trusted).as_bytes());
        let again = HOUSE.load("server.pem", "server-key.pem", GIVEN, &[]).expect("what was just printed");
        assert_eq!(certificates(&again), trusted);
        HOUSE.write(GIVEN, bytes);
    }
    // With its own key in the same file, as HAProxy has it, or with another's.
    let _ = HOUSE.load(GIVEN, GIVEN, "clients.pem", &[]);
});

fn certificates(config: &doorward::config::checked::Config) -> Vec<CertificateDer<'static>> {
    let RouteMode::Terminate(route) = &config.routes[0].mode else { unreachable!() };
    route.client_auth.trust.iter().map(|anchor| anchor.certificate.clone()).collect()
}

fn printed(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|one| pem::encode(&pem::Pem::new("CERTIFICATE", one.to_vec()))).collect()
}
