//! A backend with TLS, for tests.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server};

use super::BackendTls;
use crate::config::checked::{self, BackendTrust, HeaderPlace};
use crate::model::identity::Sha256;

/// The name in the certificate.
pub(crate) const NAME: &str = "nas.local";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificate of a backend with its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Self-signed, with what `adjust` makes of it.
    pub(crate) fn self_signed(adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, "nas");
        adjust(&mut params);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        }
    }

    /// Signed by an authority, with what `adjust` makes of it. With the certificate of the authority.
    pub(crate) fn signed(adjust: impl FnOnce(&mut CertificateParams)) -> (Self, CertificateDer<'static>) {
        let mut authority = CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "an authority");
        let authority_key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&authority_key).expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        adjust(&mut params);
        let certificate =
            params.signed_by(&key, &Issuer::from_params(&authority, &authority_key)).expect("a certificate");
        let identity = Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        };
        (identity, root.der().clone())
    }

    pub(crate) fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.chain[0])
    }

    /// The settings of a server that shows it.
    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("a certificate")
    }
}

/// What is written in `backend_tls`.
pub(crate) fn config(trust: BackendTrust) -> checked::BackendTls {
    checked::BackendTls {
        trust,
        server_names: vec![ServerName::try_from(NAME).expect("a name")],
        certificate: None,
        header: HeaderPlace::Before,
        files: Vec::new(),
    }
}

/// TLS to a backend that is trusted like this.
pub(crate) fn trusting(trust: BackendTrust) -> BackendTls {
    BackendTls::new(&Arc::new(config(trust)), &provider()).expect("settings")
}

/// TLS to a backend that shows this certificate.
pub(crate) fn pinning(identity: &Identity) -> BackendTls {
    trusting(BackendTrust::Fingerprint(identity.fingerprint()))
}

/// The backend's side of a handshake.
pub(crate) async fn accept(stream: TcpStream, server: ServerConfig) -> std::io::Result<server::TlsStream<TcpStream>> {
    TlsAcceptor::from(Arc::new(server)).accept(stream).await
}
