//! What a client certificate says about the device that shows it.

mod chain;
pub(crate) mod digest;
mod guest;
pub mod key;
mod origin;
mod serial;
pub mod text;
mod twins;

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::unicode::nfc;
pub use chain::{Chain, Issued, IssuerKey};
pub use digest::Sha256;
pub use guest::GuestPass;
pub use origin::Origin;
pub use serial::Serial;
pub use twins::Twins;

/// What the end-entity certificate of a client says, and whether its chain was verified.
///
/// An identity is always taken from the certificate at the head of the chain, the one whose key the client
/// proved to hold, and never from another one in the same message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain leads to a trust anchor of the route. Under the client-auth modes `request` and `require` it is not
    /// verified, and such an identity matches nothing but the word `unverified`.
    pub verified: bool,
    /// A trust anchor of the route signed the certificate, over intermediates if need be. It is set for certificates that
    /// are refused (revoked, expired, …) as well. It says nothing about the client: a refused client of TLS 1.3 has not
    /// proved yet that it holds the key, so anything that has seen the certificate can show it.
    pub anchored: bool,
    /// Another authority of the owner signed it, which the route does not trust: the certificate is a device's own, or was.
    pub of_other_authority: bool,
    /// `rfc822Name` alternative names.
    pub emails: Vec<String>,
    /// `uniformResourceIdentifier` alternative names, but for those of a guest pass.
    pub uris: Vec<String>,
    /// `dNSName` alternative names.
    pub dns_names: Vec<String>,
    /// `iPAddress` alternative names.
    pub ips: Vec<IpAddr>,
    /// The subject's common name, the most specific one.
    pub common_name: Option<String>,
    /// The subject's organizational units.
    pub organizational_units: Vec<String>,
    /// An issuer in its chain may vouch for certain names only (name constraints). Such constraints do not reach the
    /// subject, so neither the common name nor an organizational unit is a selector.
    pub name_constrained: bool,
    /// The routes that it is limited to; `None` for all.
    pub guest_pass: Option<GuestPass>,
    /// The certificate of the owner's authority that it descends from, if the renewal authority has signed it.
    pub origin: Option<Box<Origin>>,
    /// SHA-256 of the certificate.
    pub fingerprint: Sha256,
    /// SHA-256 of certificates that differ from this one in nothing but the form of their issuer's signature, and are as
    /// good: to deny this fingerprint is to deny those, too. See [`twins`].
    pub twins: Twins,
    /// What its key is, if that is of a kind that the gate cannot check signatures with: see [`key::unsupported`].
    pub unsupported_key: Option<Box<str>>,
    /// SHA-256 of its SubjectPublicKeyInfo: stays the same when a certificate is renewed with its key.
    pub spki: Sha256,
    /// Its serial number.
    pub serial: Serial,
    /// The issuer's name as text.
    pub issuer: String,
    /// Seconds since 1970 before which it is not valid.
    pub not_before: i64,
    /// Seconds since 1970 after which it is not valid.
    pub not_after: i64,
}

/// The certificate could not be read as X.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate")]
pub struct NotACertificate;

impl Identity {
    /// Reads an end-entity certificate. `verified` is the caller's word that its chain was checked.
    pub fn from_certificate(der: &[u8], verified: bool) -> Result<Self, NotACertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        if !rest.is_empty() {
            return Err(NotACertificate);
        }
        // As `allow` has it.
        let name = |attribute| nfc(&text::attribute(attribute)).into_owned();
        let mut identity = Self {
            verified,
            anchored: verified,
            of_other_authority: false,
            emails: Vec::new(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            ips: Vec::new(),
            common_name: certificate.subject().iter_common_name().last().map(name),
            organizational_units: certificate.subject().iter_organizational_unit().map(name).collect(),
            name_constrained: false,
            guest_pass: None,
            origin: None,
            fingerprint: Sha256::of(der),
            twins: Twins::of(der),
            unsupported_key: key::unsupported(certificate.public_key().raw).map(String::into_boxed_str),
            spki: Sha256::of(certificate.public_key().raw),
            serial: Serial::from_be_bytes(certificate.raw_serial()),
            issuer: text::name(certificate.issuer()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::RFC822Name(email) => identity.emails.push((*email).to_owned()),
                    GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => identity.dns_names.push((*dns).to_owned()),
                    GeneralName::IPAddress(bytes) => identity.ips.extend(ip_from(bytes)),
                    // Names with bytes that an IA5String cannot have.
                    GeneralName::Invalid(tag, bytes) => match tag.0 {
                        1 => identity.emails.push(text::bytes(bytes)),
                        2 => identity.dns_names.push(text::bytes(bytes)),
                        6 => identity.uris.push(text::bytes(bytes)),
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
        (identity.uris, identity.guest_pass) = GuestPass::take_from(identity.uris);
        Ok(identity)
    }

    /// The name to call this identity by: e-mail, URI, DNS name, common name, in this order, else its fingerprint.
    /// (mkcert writes a common name only with `-pkcs12`.)
    pub fn display_name(&self) -> String {
        self.emails
            .first()
            .or_else(|| self.uris.first())
            .or_else(|| self.dns_names.first())
            .or(self.common_name.as_ref())
            .cloned()
            .unwrap_or_else(|| format!("sha256:{}", self.fingerprint))
    }
}

fn ip_from(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_the_certificate_are_refused() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["phone.alice".to_owned()]).expect("a name");
        let mut der = params.self_signed(&key).expect("a certificate").der().to_vec();
        let identity = Identity::from_certificate(&der, true).expect("an identity");
        assert_eq!(identity.display_name(), "phone.alice");
        assert_eq!(identity.fingerprint, Sha256::of(&der));
        der.push(0);
        assert_eq!(Identity::from_certificate(&der, true), Err(NotACertificate));
        assert_eq!(Identity::from_certificate(b"", true), Err(NotACertificate));
    }
}
