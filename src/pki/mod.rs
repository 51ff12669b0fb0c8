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

/// A certificate, list or archive could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A key could not be generated, or something could not be signed.
    Sign(rcgen::Error),
    /// A PKCS#12 archive could not be written.
    Archive(p12_keystore::error::Error),
    /// The system gave no random bytes.
    Random,
    /// What should be a private key in PEM is none, or is encrypted, or of a kind that is not known.
    NotAKey,
    /// A key could not be encrypted.
    Encrypt,
    /// The passphrase of a key is another one.
    WrongPassphrase,
    /// What should be a certificate in PEM is none.
    NotACertificate,
    /// A key and a certificate do not belong together.
    KeyDoesNotFit,
    /// What should be the certificate of an authority is none, or one whose name cannot be written again as it is.
    NotAnAuthority,
    /// The clock says this, which cannot be.
    Clock(time::OffsetDateTime),
    /// An authority has expired: nobody would believe what it signs.
    AuthorityExpired,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Clock(now) = self {
            return write!(f, "the clock of this machine says {}, which cannot be: set it, and try again", now.date());
        }
        f.write_str(match self {
            Self::Sign(_) => "failed to make a certificate",
            Self::Archive(_) => "failed to make a PKCS#12 archive",
            Self::Random => "the system gave no random bytes",
            Self::NotAKey => "this is no private key that can be used",
            Self::Encrypt => "failed to encrypt a key",
            Self::WrongPassphrase => "the passphrase is not that of this key",
            Self::NotACertificate => "there is no certificate in it (\"-----BEGIN CERTIFICATE-----\")",
            Self::KeyDoesNotFit => "the key does not belong to the certificate",
            Self::NotAnAuthority => "this is no certificate of an authority, or of one that cannot be used here",
            Self::Clock(_) => "the clock of this machine is wrong",
            Self::AuthorityExpired => "the authority has expired, and nobody would believe what it signs",
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

/// `N` bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}
