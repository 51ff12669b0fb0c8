//! Private keys: generate, read, encrypt.

use std::fmt;

use clap::ValueEnum;
use pkcs8::der::SecretDocument;
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use super::{Error, random};
use crate::model::identity::key;

/// The type of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// ECDSA on the curve P-256: small, fast, and supported everywhere.
    #[default]
    P256,
    /// Ed25519: for programs such as curl; browsers and phones do not accept it in certificates.
    Ed25519,
    /// RSA with 3072 bits: for devices that are too old for the others.
    Rsa,
}

impl KeyType {
    /// Generates a key of this type.
    pub fn generate(self) -> Result<KeyPair, Error> {
        Ok(match self {
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
            Self::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        }?)
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "p256",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        })
    }
}

/// The type of the key in a SubjectPublicKeyInfo, as `--key-type` names it if it can.
pub fn describe(spki: &[u8]) -> String {
    let Ok((_, info)) = SubjectPublicKeyInfo::from_der(spki) else { return "unknown".to_owned() };
    match info.parsed() {
        Ok(PublicKey::RSA(key)) if info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION => {
            format!("rsa-{}", key.key_size())
        }
        Ok(PublicKey::EC(point)) => match key::unsupported(spki) {
            Some(what) => what,
            None => match point.key_size() {
                // There is one supported curve for each length of coordinates.
                256 => KeyType::P256.to_string(),
                384 => "p384".to_owned(),
                _ => "p521".to_owned(),
            },
        },
        _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => KeyType::Ed25519.to_string(),
        _ => key::unsupported(spki).unwrap_or_else(|| info.algorithm.algorithm.to_id_string()),
    }
}

/// The rounds for a passphrase, which people choose: as OWASP advises for PBKDF2 with SHA-256.
const ITERATIONS: u32 = 600_000;

/// The PEM label of an encrypted key.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// Whether a key in PEM is encrypted.
pub fn is_encrypted(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains(ENCRYPTED)
}

/// The key as PEM, encrypted: PKCS#8, PBES2 with AES-256-CBC and PBKDF2 (RFC 8018). OpenSSL reads it.
pub fn encrypt(key: &KeyPair, passphrase: &str) -> Result<Zeroizing<String>, Error> {
    let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS, &random::<16>()?, random()?)
        .map_err(|_| Error::Encrypt)?;
    let der = Zeroizing::new(key.serialize_der());
    let document = PrivateKeyInfoRef::try_from(der.as_slice())
        .and_then(|info| info.encrypt_with_params(parameters, passphrase))
        .map_err(|_| Error::Encrypt)?;
    document.to_pem(ENCRYPTED, LineEnding::LF).map_err(|_| Error::Encrypt)
}

/// Reads a key in PEM that is encrypted as [`encrypt`] does it, or as OpenSSL does by default.
pub fn decrypt(pem: &[u8], passphrase: &str) -> Result<KeyPair, Error> {
    let text = str::from_utf8(pem).map_err(|_| Error::NotAKey)?;
    let (_, document) = SecretDocument::from_pem(text).map_err(|_| Error::NotAKey)?;
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| Error::NotAKey)?;
    let der = info.decrypt(passphrase).map_err(|_| Error::WrongPassphrase)?;
    KeyPair::try_from(der.as_bytes()).map_err(|_| Error::NotAKey)
}

/// Reads a key in PEM: PKCS#8, or the older forms that OpenSSL writes.
pub fn read(pem: &[u8]) -> Result<KeyPair, Error> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::NotAKey)?;
    KeyPair::try_from(&key).map_err(|_| Error::NotAKey)
}

/// Whether `key` matches the SubjectPublicKeyInfo of a certificate.
pub fn fits(key: &KeyPair, spki: &[u8]) -> bool {
    key.subject_public_key_info() == spki
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_type_are_generated_and_read_back() {
        for (kind, described) in [(KeyType::P256, "p256"), (KeyType::Ed25519, "ed25519"), (KeyType::Rsa, "rsa-3072")] {
            let key = kind.generate().expect("a key");
            let spki = key.subject_public_key_info();
            assert_eq!(describe(&spki), described);
            let again = read(key.serialize_pem().as_bytes()).expect("readable");
            assert!(fits(&again, &spki), "{kind}");
            assert!(!fits(&kind.generate().expect("a key"), &spki), "{kind}");
        }
        assert!(read(b"").is_err());
        assert!(read(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
    }
    #[test]
    fn encrypted_key_is_decrypted_only_with_its_passphrase() {
        for kind in [KeyType::P256, KeyType::Ed25519, KeyType::Rsa] {
            let key = kind.generate().expect("a key");
            let pem = encrypt(&key, "correct horse").expect("encrypted");
            assert!(is_encrypted(pem.as_bytes()) && !is_encrypted(key.serialize_pem().as_bytes()));
            assert!(matches!(read(pem.as_bytes()), Err(Error::NotAKey)));
            let again = decrypt(pem.as_bytes(), "correct horse").expect("the passphrase fits");
            assert!(fits(&again, &key.subject_public_key_info()), "{kind}");
            assert!(matches!(decrypt(pem.as_bytes(), "Correct horse"), Err(Error::WrongPassphrase)), "{kind}");
        }
    }
}
