//! X.509, PKCS#12 and revocation lists: read, write and inspect. What is issued, and for how long, is policy of
//! [`crate::ca`].
//!
//! X.509 is written by `rcgen` and PKCS#12 by `p12-keystore`; nothing here encodes ASN.1 by hand.

pub mod acceptance;
mod archive;
mod authority;
pub mod inspect;
pub mod keys;
mod parts;
pub(crate) mod pem;
pub mod public;
mod signature;

pub use archive::{Password, Profile, device_archive};
pub use authority::{
    Authority, IssuedCertificate, IssuedCredentials, Revocation, RevocationReason, has_signed, has_signed_list,
};
pub(crate) use authority::{fits_common_name, subject};

pub(crate) use parts::public_key;
pub use parts::{Parts, Signed};
pub use signature::{Algorithms, NotSigned, choose, verify};

use std::fmt;

/// A certificate, key, revocation list or archive could not be read or made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A key could not be generated, or something could not be signed.
    Sign(rcgen::Error),
    /// A PKCS#12 archive could not be written.
    Archive(p12_keystore::error::Error),
    /// The system returned no random bytes.
    Random,
    /// Not a private key in PEM, or an encrypted one, or one of an unsupported type.
    NotAKey,
    /// A key could not be encrypted.
    Encrypt,
    /// The passphrase of a key is wrong.
    WrongPassphrase,
    /// Not a certificate in PEM.
    NotACertificate,
    /// A key and a certificate do not match.
    KeyDoesNotFit,
    /// Not the certificate of an authority, or one whose name cannot be written back unchanged.
    NotAnAuthority,
    /// The clock shows an impossible time.
    Clock(time::OffsetDateTime),
    /// An authority has expired.
    AuthorityExpired,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Clock(now) = self {
            return write!(f, "the clock of this machine is wrong: it shows {}\n  set it, and try again", now.date());
        }
        f.write_str(match self {
            Self::Sign(_) => "failed to sign",
            Self::Archive(_) => "failed to write a PKCS#12 file",
            Self::Random => "the system returned no random bytes",
            Self::NotAKey => "not a supported private key",
            Self::Encrypt => "failed to encrypt a key",
            Self::WrongPassphrase => "wrong passphrase",
            Self::NotACertificate => "no certificate found (\"-----BEGIN CERTIFICATE-----\")",
            Self::KeyDoesNotFit => "the key does not match the certificate",
            Self::NotAnAuthority => "not the certificate of an authority, or of one that cannot be used",
            Self::Clock(_) => "the clock of this machine is wrong",
            Self::AuthorityExpired => "the authority has expired: clients would reject what it signs",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sign(error) => Some(error),
            Self::Archive(error) => Some(error),
            Self::Random
            | Self::NotAKey
            | Self::Encrypt
            | Self::WrongPassphrase
            | Self::NotACertificate
            | Self::KeyDoesNotFit
            | Self::NotAnAuthority
            | Self::Clock(_)
            | Self::AuthorityExpired => None,
        }
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Sign(error)
    }
}

impl From<p12_keystore::error::Error> for Error {
    fn from(error: p12_keystore::error::Error) -> Self {
        Self::Archive(error)
    }
}

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}
