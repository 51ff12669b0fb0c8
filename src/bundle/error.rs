//! Why a file is refused.

use super::BYTES_MAX;

/// Why a text is not a [`Bundle`](super::Bundle), or why its key cannot be used. The words never hold a part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Longer than [`BYTES_MAX`].
    #[error("larger than {} KiB: this is not a .doorward file", BYTES_MAX / 1024)]
    TooLarge,
    /// Something else, such as an archive.
    #[error("not a .doorward file: it has no line \"version = 1\"\n  give the file whose name ends in .doorward")]
    NotABundle,
    /// Written by a later version of this program.
    #[error("has version {0}, and this program reads version 1\n  update doorward on this device")]
    Newer(i64),
    /// Not what it was when it was written.
    #[error("line {line}: {what}\n  the file is damaged or incomplete: copy it again from where it was made")]
    Damaged {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The password of the key is wrong.
    #[error(
        "wrong password\n  it was shown when the file was made, as in \"k7mw-9xbq-...\"; if it is lost: doorward ca renew"
    )]
    WrongPassword,
    /// The key is encrypted in a way that this program does not decrypt.
    #[error(
        "the key is encrypted in an unsupported way\n  supported is PBES2 with PBKDF2 and at most {} rounds",
        super::key::ROUNDS_MAX
    )]
    UnsupportedEncryption,
    /// The key is not that of the certificate.
    #[error("the key does not match the certificate\n  the file was put together from two devices: ask for a new one")]
    KeyDoesNotFit,
    /// The key is in a token, and cannot be read from there.
    #[error("the key is in a PKCS#11 token and never leaves it")]
    InToken,
    /// The key is where the request for the certificate was made.
    #[error("the file has no key: the key is on the device that asked for the certificate")]
    OnDevice,
}
