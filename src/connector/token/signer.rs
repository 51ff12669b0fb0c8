//! The key of a certificate, which is in a token: for TLS, and for certificate requests.

use std::cell::RefCell;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme};
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo, X509Certificate};

use super::Token;
use super::error::TokenError;
use super::kind::Kind;
use crate::model::identity::key::unsupported;

/// A key in a token, whose public half is known.
#[derive(Clone, Debug)]
pub struct TokenKey {
    token: Arc<Token>,
    kind: Kind,
    spki: Vec<u8>,
}

impl TokenKey {
    /// The key of this certificate. The token is not asked.
    ///
    /// # Errors
    /// If no token has such a key.
    pub fn of_certificate(token: Arc<Token>, certificate: &CertificateDer<'_>) -> Result<Self, TokenError> {
        let parsed = X509Certificate::from_der(certificate).ok();
        let spki = parsed.map(|(_, certificate)| certificate.public_key().raw.to_vec()).unwrap_or_default();
        Self::new(token, spki)
    }

    /// The key that the token has. The user may be asked for the PIN.
    ///
    /// # Errors
    /// Why the token cannot be used.
    pub fn of_token(token: Arc<Token>) -> Result<Self, TokenError> {
        let spki = token.unlock()?.ok_or_else(|| TokenError::Unsuitable {
            token: token.uri().describe(),
            what:
                "the token does not show its public half\n  put it, or a certificate, beside the key with the same id"
                    .to_owned(),
        })?;
        Self::new(token, spki)
    }

    fn new(token: Arc<Token>, spki: Vec<u8>) -> Result<Self, TokenError> {
        let unsuitable = |what| TokenError::Unsuitable { token: token.uri().describe(), what };
        // As the gate has it.
        if let Some(what) = unsupported(&spki) {
            return Err(unsuitable(format!("its type is not supported: {what}")));
        }
        let none = || unsuitable("the certificate is for a key of another type than tokens have here".to_owned());
        let kind = Kind::of(&spki).ok_or_else(none)?;
        Ok(Self { token, kind, spki })
    }

    /// The SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The token.
    pub fn token(&self) -> &Arc<Token> {
        &self.token
    }

    /// Makes it ready to sign, and asks the user for the PIN if that is needed. Blocks.
    ///
    /// # Errors
    /// Why it cannot sign.
    pub fn unlock(&self) -> Result<(), TokenError> {
        self.check(self.token.unlock()?)
    }

    /// The same without asking.
    pub(in crate::connector) fn prepare(&self) -> Result<(), TokenError> {
        self.check(self.token.prepare()?)
    }

    fn check(&self, spki: Option<Vec<u8>>) -> Result<(), TokenError> {
        if spki.is_none_or(|spki| spki == self.spki) { Ok(()) } else { Err(self.other()) }
    }

    fn other(&self) -> TokenError {
        let uri = self.token.uri();
        TokenError::OtherKey { token: uri.describe(), uri: uri.to_string() }
    }

    /// A certificate request (PKCS#10) with this common name, or none. Its signature was verified. Blocks.
    ///
    /// # Errors
    /// If the token does not sign, or with another key.
    pub fn request(&self, name: Option<&str>) -> Result<Vec<u8>, TokenError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let requesting = Requesting { key: self, public: public_bits(&self.spki), error: RefCell::new(None) };
        let made = params.serialize_request(&requesting);
        let request =
            made.map_err(|error| requesting.error.take().unwrap_or_else(|| self.failed(error.to_string())))?;
        Ok(request.der().to_vec())
    }

    /// Whether the token has the key: it signs something. Blocks.
    ///
    /// # Errors
    /// If it has not, or does not sign.
    pub fn prove(&self) -> Result<(), TokenError> {
        self.unlock()?;
        self.request(None).map(drop)
    }

    fn failed(&self, text: String) -> TokenError {
        TokenError::Failed { token: self.token.uri().describe(), action: "sign", text }
    }
}

impl SigningKey for TokenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.kind.schemes().iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(TokenSigner { token: Arc::clone(&self.token), scheme: *scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.spki.as_slice().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.kind.tls()
    }
}

#[derive(Debug)]
struct TokenSigner {
    token: Arc<Token>,
    scheme: SignatureScheme,
}

impl Signer for TokenSigner {
    /// Blocks: see [`dial`](crate::connector::dial).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.token.sign(self.scheme, message).map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// What rcgen signs a request with. Its errors have no room for ours.
struct Requesting<'a> {
    key: &'a TokenKey,
    public: Vec<u8>,
    error: RefCell<Option<TokenError>>,
}

impl PublicKeyData for Requesting<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.key.kind.x509()
    }
}

impl rcgen::SigningKey for Requesting<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let scheme = self.key.kind.request_scheme();
        let signed = self.key.token.sign(scheme, message).and_then(|signature| {
            let fits = verifies(scheme, &self.public, message, &signature);
            if fits { Ok(signature) } else { Err(self.key.other()) }
        });
        signed.map_err(|error| {
            *self.error.borrow_mut() = Some(error);
            rcgen::Error::RemoteKeyError
        })
    }
}

/// Whether a signature was made by the private half of this key.
fn verifies(scheme: SignatureScheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let known = default_provider().signature_verification_algorithms.mapping;
    let mut algorithms = known.iter().filter(|(one, _)| *one == scheme).flat_map(|(_, algorithms)| *algorithms);
    algorithms.any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
}

/// The key in a SubjectPublicKeyInfo, without its type.
fn public_bits(spki: &[u8]) -> Vec<u8> {
    SubjectPublicKeyInfo::from_der(spki).map(|(_, info)| info.subject_public_key.data.to_vec()).unwrap_or_default()
}
