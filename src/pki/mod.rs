//! Certificates of the user's own: two authorities, what they issue, and the archives and files it is handed out in.
//!
//! There are two authorities because they answer two different questions. [`ServerAuthority`] goes *into* phones and
//! browsers, which believe what it signs; so it may sign for one domain only. [`DeviceAuthority`] is known to the gate
//! alone and says who is let in. One key for both would make every device a possible impostor of the gate.
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
    AUTHORITY_DAYS, Authority, Certified, DEVICE_DAYS, DeviceAuthority, Issued, Limits, Revocation, RevokedFor,
    SERVER_DAYS, ServerAuthority, has_signed, has_signed_list, usual_names,
};

pub(crate) use parts::public_key;
pub use parts::{Parts, Signed};
pub use signature::{Algorithms, NotSigned, choose, verify};

/// A certificate, list or archive could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key could not be generated, or something could not be signed.
    #[error("failed to make a certificate")]
    Sign(#[from] rcgen::Error),
    /// A PKCS#12 archive could not be written.
    #[error("failed to make a PKCS#12 archive")]
    Archive(#[from] p12_keystore::error::Error),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// What should be a private key in PEM is none, or is encrypted, or of a kind that is not known.
    #[error("this is no private key that can be used")]
    NotAKey,
    /// A key could not be encrypted.
    #[error("failed to encrypt a key")]
    Encrypt,
    /// The passphrase of a key is another one.
    #[error("the passphrase is not that of this key")]
    WrongPassphrase,
    /// What should be a certificate in PEM is none.
    #[error("there is no certificate in it (\"-----BEGIN CERTIFICATE-----\")")]
    NotACertificate,
    /// A key and a certificate do not belong together.
    #[error("the key does not belong to the certificate")]
    KeyDoesNotFit,
    /// What should be the certificate of an authority is none, or one whose name cannot be written again as it is.
    #[error("this is no certificate of an authority, or of one that cannot be used here")]
    NotAnAuthority,
    /// The clock says this, which cannot be.
    #[error("the clock of this machine says {}, which cannot be: set it, and try again", .0.date())]
    Clock(time::OffsetDateTime),
    /// An authority has expired: nobody would believe what it signs.
    #[error("the authority has expired, and nobody would believe what it signs")]
    AuthorityExpired,
}

/// `N` bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}
