//! How the gate is spoken to: which certificate is shown to it, and which of its own is trusted.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::token::{Token, TokenError, TokenKey};

/// The TLS settings of one device at one home. The sessions of its connections are resumed if the gate permits it.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    refused: Arc<Mutex<Option<CertificateDer<'static>>>>,
    token: Option<TokenKey>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// Why the files of a home cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No authority was given.
    #[error(
        "the file names no authority that signs the gate's certificate\n  join again with a new file from the owner"
    )]
    NoAuthority,
    /// The key is no key, or not that of the certificate.
    #[error("the device's certificate and key cannot be used: {0}\n  join again with a new file from the owner")]
    Identity(rustls::Error),
    /// The authorities that this system trusts cannot be read.
    #[error("the authorities that this system trusts cannot be read: {0}")]
    System(rustls::Error),
    /// A setting of rustls.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
    /// The token with the key.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Tls {
    /// Shows this certificate, and trusts these authorities alone, or those of the system if there are none (`None`).
    pub fn new(
        authorities: Option<&[CertificateDer<'static>]>,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, TlsError> {
        let signer = aws_lc_rs::sign::any_supported_type(key).map_err(TlsError::Identity)?;
        let identity = CertifiedKey::new(chain, signer);
        identity.keys_match().map_err(TlsError::Identity)?;
        Self::with_identity(authorities, identity)
    }

    /// The same with a key in a token, which is not asked yet.
    pub fn with_token(
        authorities: Option<&[CertificateDer<'static>]>,
        chain: Vec<CertificateDer<'static>>,
        token: Arc<Token>,
    ) -> Result<Self, TlsError> {
        let none = || TlsError::Identity(rustls::Error::NoCertificatesPresented);
        let key = TokenKey::of_certificate(token, chain.first().ok_or_else(none)?)?;
        let tls = Self::with_identity(authorities, CertifiedKey::new(chain, Arc::new(key.clone())))?;
        Ok(Self { token: Some(key), ..tls })
    }

    /// The same with a key that signs elsewhere.
    pub fn with_identity(
        authorities: Option<&[CertificateDer<'static>]>,
        identity: CertifiedKey,
    ) -> Result<Self, TlsError> {
        // X25519MLKEM768 comes first: a feature of rustls.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let refused = Arc::default();
        let verifier = Verifier { inner: verifier(authorities, &provider)?, refused: Arc::clone(&refused) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        Ok(Self { config: Arc::new(config), refused, token: None })
    }

    /// Makes the key ready to sign, and asks the user for the PIN of its token if that is needed. Blocks.
    ///
    /// # Errors
    /// Why the token cannot be used.
    pub fn unlock(&self) -> Result<(), TokenError> {
        self.token.as_ref().map_or(Ok(()), TokenKey::unlock)
    }

    /// Whether the key can be used without asking the user.
    pub fn is_unattended(&self) -> bool {
        self.token.as_ref().is_none_or(|key| key.token().is_unattended())
    }

    /// The key, if it is in a token.
    pub(super) const fn token(&self) -> Option<&TokenKey> {
        self.token.as_ref()
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The last certificate of a server that was not trusted.
    pub(super) fn refused(&self) -> Option<CertificateDer<'static>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn verifier(
    authorities: Option<&[CertificateDer<'static>]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let Some(authorities) = authorities else {
        // Asks Windows, macOS and Android themselves, with all that their owners decided there; elsewhere it reads the system's files.
        let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(provider));
        return Ok(Arc::new(verifier.map_err(TlsError::System)?));
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|_| TlsError::NoAuthority)?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    Ok(verifier.map_err(|_| TlsError::NoAuthority)?)
}

/// Decides as another does, and keeps what that one refused, so that the user can be told who answered. rustls keeps verified
/// certificates only.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    refused: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if verified.is_err() {
            let refused = end_entity.clone().into_owned();
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}
