//! Certificate chains as they were verified.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;

use super::{Serial, Sha256};

/// A client's chain as it was verified, without other certificates that the client sent. It is kept as long as its session, so
/// that the session can be reviewed after a change.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    /// The client's own certificate, then the intermediates that lead to the trust anchor. Where certificates are not
    /// verified, the client's own only.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Who issued each of them, and the trust anchor's certificate if that issuer is in `trust`, too; empty where certificates
    /// are not verified.
    pub issued: Vec<Issued>,
    /// The last second, since 1970, in which all of them are valid.
    pub good_until: u64,
    /// SHA-256 of all of them: equal chains have the same.
    pub digest: Sha256,
}

impl Chain {
    /// The most bytes that all certificates of a client may have. Real chains have two to ten thousand, with signatures that
    /// resist quantum computers up to twenty thousand.
    pub const BYTES_MAX: usize = 32 * 1024;

    /// A chain of these certificates.
    pub fn new(certificates: Vec<CertificateDer<'static>>, issued: Vec<Issued>, good_until: u64) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        for certificate in &certificates {
            // With its length, so that two chains cannot be cut from the same bytes in different places.
            hash.update(&certificate.len().to_be_bytes());
            hash.update(certificate);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Self { certificates, issued, good_until, digest: Sha256(digest) }
    }
}

/// What revocation lists know a certificate by: its issuer, by name and key, and its serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The issuer's distinguished name (DER).
    pub issuer: Vec<u8>,
    /// The issuer's key; `None` for a certificate that is itself in `trust`.
    pub key: Option<IssuerKey>,
    /// The certificate's serial number.
    pub serial: Serial,
}

/// The key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// The SubjectPublicKeyInfo (DER).
    pub spki: Vec<u8>,
    /// SHA-256 of it.
    pub digest: Sha256,
    /// Whether its certificate permits it to sign revocation lists.
    pub signs_lists: bool,
}
