//! A certificate request (PKCS#10, RFC 2986) of a device: its key, proved by its signature. The names in it are not looked at.

use rustls::crypto::aws_lc_rs::default_provider;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::der_fields::Signed;
use super::signature::verify;
use crate::model::identity::{Sha256, key};

/// A request whose signature was made by the key in it.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    der: Vec<u8>,
    spki: Vec<u8>,
}

/// Why a certificate request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// Not a request.
    #[error("not a certificate request (PKCS#10)")]
    NotARequest,
    /// The gate could not verify the certificate's signatures.
    #[error("the key is not supported: {0}")]
    Key(String),
    /// Another key made the signature, or its algorithm is not accepted.
    #[error("the signature of the certificate request is wrong")]
    NotSigned,
}

impl CertificateRequest {
    /// No request with a supported key is longer: one with a key of RSA 8192 and a few names has 3 kB.
    pub const LONGEST: usize = 8 * 1024;

    /// Reads a request (DER) and verifies its signature.
    ///
    /// # Errors
    /// If it is no request, or the key in it did not sign it.
    pub fn read(der: &[u8]) -> Result<Self, InvalidRequest> {
        if der.len() > Self::LONGEST {
            return Err(InvalidRequest::NotARequest);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| InvalidRequest::NotARequest)?;
        let signed = Signed::read(der).filter(|_| rest.is_empty()).ok_or(InvalidRequest::NotARequest)?;
        let spki = request.certification_request_info.subject_pki.raw.to_vec();
        if let Some(what) = key::unsupported(&spki) {
            return Err(InvalidRequest::Key(what));
        }
        let algorithms = default_provider().signature_verification_algorithms.all;
        verify(algorithms, &spki, &signed).map_err(|_| InvalidRequest::NotSigned)?;
        Ok(Self { der: der.to_vec(), spki })
    }

    /// The whole request.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn key(&self) -> Sha256 {
        Sha256::of(&self.spki)
    }
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRequest").field("key", &self.key()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;
    use crate::pki::keys::KeyType;

    fn request(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(vec!["other.home.example".to_owned()]).expect("parameters");
        params.serialize_request(key).expect("a request").der().to_vec()
    }

    #[test]
    fn request_is_read_if_its_own_key_signed_it() {
        let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let keys = [KeyType::P256, KeyType::Ed25519, KeyType::Rsa].map(|kind| kind.generate().expect("a key"));
        for key in keys.iter().chain([&p384]) {
            let read = CertificateRequest::read(&request(key)).expect("a request");
            assert!(crate::pki::keys::fits(key, read.spki()));
            assert_eq!(read.key(), Sha256::of(read.spki()));
        }
    }

    #[test]
    fn changed_request_is_refused() {
        let key = KeyType::P256.generate().expect("a key");
        let der = request(&key);
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 1;
            assert!(CertificateRequest::read(&changed).is_err(), "byte {at}");
            assert!(CertificateRequest::read(&der[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(CertificateRequest::read(&[&der[..], &[0]].concat()), Err(InvalidRequest::NotARequest));
        assert_eq!(CertificateRequest::read(&[]), Err(InvalidRequest::NotARequest));
        assert_eq!(CertificateRequest::read(&[0x30; 9000]), Err(InvalidRequest::NotARequest));
    }
}
