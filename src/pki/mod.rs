//! X.509, PKCS#12 and revocation lists: read, write and inspect. What is issued, and for how long, is policy of
//! [`crate::ca`].
//!
//! X.509 is written by `rcgen`, PKCS#12 by `p12-keystore` and CMS by `yasna`, which `der` reads; nothing here encodes ASN.1 by hand.

pub mod certs_only;
mod der_fields;
pub mod keys;
mod request;
mod signature;

#[cfg(feature = "gate")]
mod archive;
#[cfg(feature = "gate")]
mod authority;
#[cfg(feature = "gate")]
pub mod inspect;
#[cfg(feature = "gate")]
pub mod origin;
#[cfg(feature = "gate")]
pub(crate) mod pem;
#[cfg(feature = "gate")]
pub mod public;
#[cfg(feature = "gate")]
pub mod temporary;
#[cfg(feature = "gate")]
pub mod validation_errors;

#[cfg(feature = "gate")]
mod exports {
    pub use super::archive::{Password, Profile, device_archive};
    pub use super::authority::{
        Authority, IssuedCertificate, IssuedCredentials, Lifetime, Revocation, RevocationReason, has_signed,
        has_signed_list,
    };
    pub(crate) use super::authority::{distinguished_name, fits_common_name, subject};
    pub(crate) use super::der_fields::public_key;
}
pub use der_fields::{Parts, Signed};
#[cfg(feature = "gate")]
pub use exports::*;
pub use request::{CertificateRequest, InvalidRequest};
pub use signature::{Algorithms, NotSigned, choose, verify};

/// A certificate, key, revocation list or archive could not be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key could not be generated, or something could not be signed.
    #[error("failed to sign")]
    Sign(#[from] rcgen::Error),
    /// A PKCS#12 archive could not be written.
    #[error("failed to write a PKCS#12 file")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system returned no random bytes.
    #[error("the system returned no random bytes")]
    Random,
    /// Not a private key in PEM, or an encrypted one, or one of an unsupported type.
    #[error("not a supported private key")]
    NotAKey,
    /// A key could not be encrypted.
    #[error("failed to encrypt a key")]
    Encrypt,
    /// The passphrase of a key is wrong.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// Not a certificate in PEM.
    #[error("no certificate found (\"-----BEGIN CERTIFICATE-----\")")]
    NotACertificate,
    /// A key and a certificate do not match.
    #[error("the key does not match the certificate")]
    KeyDoesNotFit,
    /// Not the certificate of an authority, or one whose name cannot be written back unchanged.
    #[error("not the certificate of an authority, or of one that cannot be used")]
    NotAnAuthority,
    /// The clock shows an impossible time.
    #[error("the clock of this machine is wrong: it shows {}\n  set it, and try again", .0.date())]
    Clock(time::OffsetDateTime),
    /// An authority has expired.
    #[error("the authority has expired: clients would reject what it signs")]
    AuthorityExpired,
}

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}
