//! What an authority has issued.

use std::fmt;

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::pki::pem;

/// A certificate that an [`Authority`](super::Authority) has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) serial: Vec<u8>,
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
}

impl IssuedCertificate {
    /// The certificate. It is the whole chain: its issuer is the trust anchor.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.certificate)
    }

    /// The serial number, most significant byte first.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// When it becomes valid.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// An issued certificate with its private key.
pub struct IssuedCredentials {
    issued: IssuedCertificate,
    key: KeyPair,
}

impl IssuedCredentials {
    /// This certificate with its key.
    pub fn new(issued: IssuedCertificate, key: KeyPair) -> Self {
        Self { issued, key }
    }

    /// The certificate without the key.
    pub fn issued(&self) -> &IssuedCertificate {
        &self.issued
    }

    /// The certificate. It is the whole chain: its issuer is the trust anchor.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.issued.certificate()
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        self.issued.certificate_pem()
    }

    /// The private key (PKCS#8).
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The private key as PEM (PKCS#8, not encrypted).
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The serial number, most significant byte first.
    pub fn serial(&self) -> &[u8] {
        self.issued.serial()
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.issued.not_after()
    }
}

impl fmt::Debug for IssuedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCredentials").field("not_after", &self.not_after()).finish_non_exhaustive()
    }
}
