//! The key of a device: encrypted, plain, or in a token.

use std::fmt;

use pkcs8::der::SecretDocument;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::{Bundle, BundleError};

/// The most rounds of PBKDF2 that are computed, some seconds: a file from a stranger must not occupy the machine for days.
pub(super) const ROUNDS_MAX: u32 = 10_000_000;

/// The PEM label of an encrypted key.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// The key of a device.
#[derive(Clone, PartialEq, Eq)]
pub enum BundleKey {
    /// PEM, `ENCRYPTED PRIVATE KEY` (PKCS#8).
    Encrypted(String),
    /// Not encrypted, as on a device that has joined.
    Plain(PlainKey),
    /// A `pkcs11:` URI (RFC 7512).
    Token(String),
    /// The file has none: the certificate is for a key that the device has made, and keeps.
    OnDevice,
}

impl fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypted(_) => "Encrypted(…)",
            Self::Plain(_) => "Plain(…)",
            Self::Token(_) => "Token(…)",
            Self::OnDevice => "OnDevice",
        })
    }
}

/// A key in PKCS#8 that is wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainKey(Zeroizing<Vec<u8>>);

impl PlainKey {
    /// A key in PKCS#8 (DER).
    pub fn new(der: &[u8]) -> Self {
        Self(Zeroizing::new(der.to_vec()))
    }

    /// The key as rustls takes it.
    pub fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.to_vec()).into()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey(…)")
    }
}

impl Bundle {
    /// The key, which is that of the certificate. The password is not looked at if the key is not encrypted.
    pub fn unlock(&self, password: &str) -> Result<PrivateKeyDer<'static>, BundleError> {
        let key = match &self.key {
            BundleKey::Encrypted(pem) => decrypt(pem, password)?,
            BundleKey::Plain(key) => key.clone(),
            BundleKey::Token(_) => return Err(BundleError::InToken),
            BundleKey::OnDevice => return Err(BundleError::OnDevice),
        };
        if fits(&self.chain, &key) { Ok(key.der()) } else { Err(BundleError::KeyDoesNotFit) }
    }
}

/// Whether the key is that of the first certificate.
pub(super) fn fits(chain: &[CertificateDer<'static>], key: &PlainKey) -> bool {
    let Ok(key) = any_supported_type(&key.der()) else { return false };
    CertifiedKey::new(chain.to_vec(), key).keys_match().is_ok()
}

/// Reads an encrypted key, without its password: an error if it will never be decrypted. Returns it in PEM as this program writes
/// it. A stranger's PEM may have other ends of lines, and any text before the key (RFC 7468), which would end a string of TOML.
pub(super) fn encrypted(pem: &str) -> Result<String, BundleError> {
    let unsupported = |_| BundleError::UnsupportedEncryption;
    let (label, document) = SecretDocument::from_pem(pem).map_err(unsupported)?;
    if label != ENCRYPTED {
        return Err(BundleError::UnsupportedEncryption);
    }
    parameters(&document)?;
    let written = document.to_pem(ENCRYPTED, LineEnding::LF).map_err(unsupported)?;
    Ok(written.trim_end().to_owned())
}

fn parameters(document: &SecretDocument) -> Result<EncryptedPrivateKeyInfoRef<'_>, BundleError> {
    let unsupported = BundleError::UnsupportedEncryption;
    let Ok(info) = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()) else { return Err(unsupported) };
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else { return Err(unsupported) };
    match &parameters.kdf {
        Kdf::Pbkdf2(kdf) if kdf.iteration_count <= ROUNDS_MAX => Ok(info),
        _ => Err(unsupported),
    }
}

fn decrypt(pem: &str, password: &str) -> Result<PlainKey, BundleError> {
    let (_, document) = SecretDocument::from_pem(pem).map_err(|_| BundleError::UnsupportedEncryption)?;
    let decrypted = parameters(&document)?.decrypt(password).map_err(|_| BundleError::WrongPassword)?;
    // One wrong password of 256 leaves correct padding: what it is then is no key.
    PrivateKeyInfoRef::try_from(decrypted.as_bytes()).map_err(|_| BundleError::WrongPassword)?;
    Ok(PlainKey::new(decrypted.as_bytes()))
}
