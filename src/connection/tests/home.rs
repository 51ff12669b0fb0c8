//! The files of a gate, made by an authority of their own, and a device.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::config::{self, checked::Config};

/// What belongs into the configuration: the gate's certificate, and the authority of its devices.
pub(super) const CERTIFICATES: &str =
    "[certificate]\nchain = \"gate.pem\"\nkey = \"key.pem\"\n[client_auth]\ntrust = [\"ca.pem\"]\n";

pub(super) struct Home {
    folder: tempfile::TempDir,
    pub(super) authority: CertificateDer<'static>,
    /// The certificate and the key (PKCS#8) of the device alice-phone, in DER.
    pub(super) device: (CertificateDer<'static>, Vec<u8>),
}

impl Home {
    /// The gate's certificate is for this name.
    pub(super) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let leaf = |name: &str, usage| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            params.extended_key_usages = vec![usage];
            (params.signed_by(&key, &issuer).expect("a certificate"), key)
        };
        let (server, server_key) = leaf(name, ExtendedKeyUsagePurpose::ServerAuth);
        let (device, device_key) = leaf("alice-phone", ExtendedKeyUsagePurpose::ClientAuth);
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        write("ca.pem", authority.pem());
        write("gate.pem", server.pem());
        write("key.pem", server_key.serialize_pem());
        let device = (device.der().clone(), device_key.serialize_der());
        Self { folder, authority: authority.der().clone(), device }
    }

    /// The configuration of this text, which has [`CERTIFICATES`] in it.
    pub(super) fn config(&self, text: &str) -> Config {
        let config = config::parse(text, &self.folder.path().join("doorward.toml"));
        config.unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
    }
}
