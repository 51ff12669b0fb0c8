//! A client's certificate, parsed before it is verified. Four parsers read it, for the names, for the path, for the signature
//! and for the page: they must agree, or a certificate could be one device's for one of them and another's for another.
#![no_main]

use doorward::explain::certificate::Certificate;
use doorward::model::identity::Identity;
use doorward::pki::{Parts, inspect};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

fuzz_target!(|der: &[u8]| {
    let parts = Parts::read(der);
    if let Some(parts) = &parts {
        let _ = (parts.has_more_values_than(256), parts.has_too_many_extensions(), parts.key_id());
        let _ = (parts.authority_key_id(), parts.constrains_names(), parts.is_authority(), parts.signs_lists());
    }
    if let (Some(parts), Ok(([], read))) = (&parts, X509Certificate::from_der(der)) {
        assert_eq!(parts.serial, read.raw_serial());
        // x509-parser leaves out what begins where it cannot read on.
        assert!(parts.issuer.starts_with(read.issuer().as_raw()), "{:x?}", parts.issuer);
        assert!(parts.subject.starts_with(read.subject().as_raw()), "{:x?}", parts.subject);
        assert!(parts.key.starts_with(read.public_key().raw), "{:x?}", parts.key);
    }
    let certificate = CertificateDer::from(der);
    let identity = Identity::from_certificate(der, false);
    // What one of them cannot read is refused.
    if let (Ok(theirs), Some(parts), Ok(identity)) = (webpki::EndEntityCert::try_from(&certificate), &parts, &identity)
    {
        assert_eq!(parts.key, &*theirs.subject_public_key_info());
        // With a mistake anywhere in the extension, the identity has none of its names: it is less, and nothing else.
        if !(identity.dns_names.is_empty() && identity.uris.is_empty()) {
            for name in theirs.valid_dns_names() {
                assert!(identity.dns_names.iter().any(|one| one == name), "{name} is not in {:?}", identity.dns_names);
            }
            for name in theirs.valid_uri_names() {
                assert!(identity.uris.iter().any(|one| one == name), "{name} is not in {:?}", identity.uris);
            }
        }
    }
    let Ok(identity) = identity else { return };
    assert!(!identity.verified && !identity.anchored);
    let Certificate { names, issuer, serial, .. } = Certificate::from(&identity);
    for text in names.iter().chain([&issuer, &serial]) {
        assert!(text.chars().all(|c| matches!(c, ' '..='~' | '…') || c.is_alphanumeric()), "{text:?}");
    }
    if let Some(inspect::Contents::Objects(objects)) = inspect::contents(der) {
        for item in inspect::describe(&objects, OffsetDateTime::UNIX_EPOCH, 0o600) {
            assert!(!item.text().chars().any(|c| c.is_control() && c != '\n'), "{:?}", item.text());
        }
    }
});
