//! The certificate in use, as the agent reads it: what it is for, and when it is renewed.

use std::collections::BTreeSet;
use std::path::Path;

use instant_acme::CertificateIdentifier;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::schedule::Validity;
use crate::config;
use crate::model::identity::Sha256;

/// A certificate whose key fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// The host names that it is for.
    pub(super) names: BTreeSet<String>,
    /// When it is valid.
    pub(super) validity: Validity,
    /// What the server knows it by (RFC 9773 section 4.1), if it says which key signed it.
    pub(super) identifier: Option<(Vec<u8>, Vec<u8>)>,
    fingerprint: Sha256,
}

impl Served {
    /// Reads the text of a file with the chain and the key.
    ///
    /// # Errors
    /// In words, why it cannot be used.
    pub(super) fn read(pem: &[u8]) -> Result<Self, String> {
        let (certificate, names) = config::one_file_certificate(Path::new(""), pem)?;
        let leaf = certificate.certified_key.cert.first().ok_or("it has no certificate")?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| format!("it is damaged: {error}"))?;
        let at = |time: x509_parser::time::ASN1Time| time.to_datetime();
        Ok(Self {
            names: names.into_iter().collect(),
            validity: Validity {
                not_before: at(parsed.validity().not_before),
                not_after: at(parsed.validity().not_after),
            },
            identifier: identifier(&parsed),
            fingerprint: Sha256::of(leaf),
        })
    }

    #[cfg(test)]
    pub(super) fn of(names: BTreeSet<String>, validity: Validity) -> Self {
        Self { names, validity, identifier: None, fingerprint: Sha256([0x80; 32]) }
    }

    /// One of these names that it is not for.
    pub(super) fn lacks<'a>(&self, names: &'a BTreeSet<String>) -> Option<&'a str> {
        names.iter().find(|name| !self.covers(name)).map(String::as_str)
    }

    fn covers(&self, name: &str) -> bool {
        let wildcard = || name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        self.names.contains(name) || wildcard().is_some_and(|wildcard| self.names.contains(&wildcard))
    }

    /// What the server knows it by.
    pub(super) fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        let (key, serial) = self.identifier.clone()?;
        Some(CertificateIdentifier::new(key.into(), serial.into()).into_owned())
    }

    /// A number between 0 and 1 that is the same for this certificate in every process: restarts do not move its renewal.
    pub(super) fn jitter(&self) -> f64 {
        let mut first = [0; 4];
        first.copy_from_slice(self.fingerprint.0.get(..4).unwrap_or(&[0; 4]));
        f64::from(u32::from_be_bytes(first)) / f64::from(u32::MAX)
    }
}

/// The key identifier of the authority, and the serial number.
fn identifier(certificate: &X509Certificate<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
        _ => None,
    })?;
    Some((key.0.to_vec(), certificate.raw_serial().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(names: &[&str], other_key: bool) -> Vec<u8> {
        let made = || {
            let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            rcgen::generate_simple_self_signed(names).expect("a certificate")
        };
        let (one, two) = (made(), made());
        let key = if other_key { &two.signing_key } else { &one.signing_key };
        format!("{}{}", one.cert.pem(), key.serialize_pem()).into_bytes()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn certificate_covers_its_names_and_one_label_below_its_wildcards() {
        let served = Served::read(&pem(&["nas.home.example", "*.cloud.example"], false)).expect("a certificate");
        assert_eq!(served.lacks(&names(&["nas.home.example", "a.cloud.example", "*.cloud.example"])), None);
        for name in ["ssh.home.example", "cloud.example", "a.b.cloud.example"] {
            assert_eq!(served.lacks(&names(&[name])), Some(name));
        }
        for (pem, part) in [(pem(&["nas.home.example"], true), "key"), (b"garbage".to_vec(), "no private key")] {
            let error = Served::read(&pem).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }
}
