//! Revocation lists, in DER and in PEM: read for the configuration, and for the control socket.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use doorward::config::checked::RevocationList;
use doorward::handshake::trust::Authorities;
use doorward::model::identity::Serial;
use doorward::pki::{Signed, has_signed_list, inspect};
use house::{AUTHORITY, House};
use libfuzzer_sys::{Corpus, fuzz_target};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

static HOUSE: LazyLock<House> = LazyLock::new(House::new);
static ISSUER: LazyLock<CertificateDer<'static>> = LazyLock::new(|| CertificateDer::from_pem_slice(AUTHORITY).unwrap());

/// What the authority has signed: nothing else may count as signed by it.
static SIGNED: LazyLock<BTreeSet<Vec<u8>>> = LazyLock::new(|| {
    [&include_bytes!("../seeds/revocation_list/empty.der")[..], include_bytes!("../seeds/revocation_list/three.der")]
        .map(|list| Signed::read(list).unwrap().message.to_vec())
        .into()
});

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let list = RevocationList::read(bytes.to_vec(), Path::new("clients.crl"));
    if let Some(list) = &list {
        let (rest, parsed) = CertificateRevocationList::from_der(bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!(list.issuer, parsed.issuer().as_raw());
        assert!(!list.is_newer_than(list), "no list is newer than itself");
        assert!(!has_signed_list(&ISSUER, bytes) || is_signed(bytes), "a forged list counts as signed");
        let _ = (list.number_in_words(), list.issuer_in_words());
        same_serials(bytes, &parsed);
    } else if !bytes.starts_with(b"-----BEGIN ") {
        return Corpus::Keep;
    }
    if let Some(inspect::Contents::Objects(objects)) = inspect::contents(bytes) {
        for item in inspect::describe(&objects, OffsetDateTime::UNIX_EPOCH, 0o600) {
            house::printable(&item.text());
        }
    }
    HOUSE.write("clients.crl", bytes);
    if let Ok(config) = HOUSE.load("server.pem", "server-key.pem", "clients.pem", &["clients.crl"]) {
        // What a load accepts must not fail when the route is built.
        let doorward::config::checked::RouteMode::Terminate(route) = &config.routes[0].mode else { unreachable!() };
        Authorities::new(&route.client_auth).unwrap();
        for list in &route.client_auth.revocation_lists {
            assert!(list.signer.is_none() || is_signed(&list.list), "a forged list counts as signed");
        }
    }
    Corpus::Keep
});

fn is_signed(list: &[u8]) -> bool {
    Signed::read(list).is_some_and(|list| SIGNED.contains(list.message))
}

/// webpki judges certificates by the list, and the gate looks serial numbers up: both must find the same.
fn same_serials(bytes: &[u8], parsed: &CertificateRevocationList<'_>) {
    let Ok(other) = webpki::BorrowedCertRevocationList::from_der(bytes) else { return };
    let theirs: Result<BTreeSet<Serial>, _> =
        other.into_iter().map(|entry| entry.map(|entry| Serial::from_be_bytes(entry.serial_number))).collect();
    let Ok(theirs) = theirs else { return };
    let ours: BTreeSet<Serial> =
        parsed.iter_revoked_certificates().map(|entry| Serial::from_be_bytes(entry.raw_serial())).collect();
    assert_eq!(ours, theirs);
}
