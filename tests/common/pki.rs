//! Certificates, proper ones and odd ones.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// Now and `days` days: what validity dates are given in.
pub(crate) fn days_from_now(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(days)
}

/// The public half of an RSA key of 1024 bits, which no TLS library of today makes or checks.
const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDCECJh9OphwOoBIlh2JQA6qq5V
gObSdrFVHksLsuYwCmrfLyiwcDAj8JPSHZ819WMF9qnSwXV9zJgo+qgVnnCt7JT8
/kJbCORRolKsc0UNeUIlYr9FXKEhOZTrmop16XbNLGOpDqgWSTNE+N2PVvPuQcnz
98vjFygxMP9Y+PS+JwIDAQAB
-----END PUBLIC KEY-----
";

/// A folder with what a gate under test needs: an authority for its clients and one for its own certificate, which
/// names `*.home.example` and `home.example`.
///
/// Its files: `clients.pem` (trust anchor for clients), `servers.pem` (trust anchor of the gate's certificate),
/// `server.pem` and `server-key.pem`, and whatever else [`TestPki::write`] is given.
pub(crate) struct TestPki {
    folder: TempDir,
    /// Issues client certificates.
    pub(crate) clients: Authority,
    /// Issues the gate's own certificate.
    pub(crate) servers: Authority,
}

impl TestPki {
    /// Makes both authorities and the gate's certificate.
    pub(crate) fn new() -> Self {
        let pki = Self {
            folder: tempfile::tempdir().unwrap(),
            clients: Authority::new("Clients of home.example"),
            servers: Authority::new("Servers of home.example"),
        };
        pki.write("clients.pem", pki.clients.pem());
        pki.write("servers.pem", pki.servers.pem());
        let server = pki.servers.issue(Certified::for_servers(&["home.example", "*.home.example"]));
        pki.write("server.pem", server.chain_pem());
        pki.write("server-key.pem", server.key_pem());
        pki
    }

    /// `[certificate]` and `[client_auth]` (mode `require_and_verify`) of a configuration, on these files.
    pub(crate) fn config(&self) -> String {
        format!(
            "[certificate]\nchain = {:?}\nkey = {:?}\n\n[client_auth]\nmode = \"require_and_verify\"\ntrust = [{:?}]\n",
            self.path("server.pem"),
            self.path("server-key.pem"),
            self.path("clients.pem")
        )
    }

    /// A client certificate of the trusted authority, with this common name and nothing odd.
    pub(crate) fn client(&self, name: &str) -> Certified {
        self.clients.issue(Certified::for_clients(name))
    }

    /// Where a file of this name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and says where.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// A rustls client that trusts the gate's certificate and always sends this one of its own.
    pub(crate) fn client_config(
        &self,
        identity: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        self.client_config_with(rustls::crypto::aws_lc_rs::default_provider(), identity, versions)
    }

    /// The same, with another cryptography.
    pub(crate) fn client_config_with(
        &self,
        provider: CryptoProvider,
        identity: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.servers.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key()).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }
}

/// A certificate authority: a root, or an intermediate.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// What its certificates send along: its own certificate and those above it, without the root's.
    above: Vec<Certificate>,
}

impl Authority {
    /// A root that may sign certificates and revocation lists.
    pub(crate) fn new(name: &str) -> Self {
        Self::custom(Self::for_authorities(name))
    }

    /// A root of the caller's own taste.
    pub(crate) fn custom(params: CertificateParams) -> Self {
        Self::with_key(params, KeyPair::generate().unwrap())
    }

    /// A root with this key.
    pub(crate) fn with_key(params: CertificateParams, key: KeyPair) -> Self {
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key), above: Vec::new() }
    }

    /// An authority that exists as two files, such as mkcert's `rootCA.pem` and `rootCA-key.pem`.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Self {
        let pem = std::fs::read_to_string(certificate).unwrap();
        let key = KeyPair::from_pem(&std::fs::read_to_string(key).unwrap()).unwrap();
        Self { issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(), pem, above: Vec::new() }
    }

    /// The parameters of roots and intermediates, before a test changes them.
    pub(crate) fn for_authorities(name: &str) -> CertificateParams {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, params: CertificateParams) -> Self {
        self.intermediate_with_key(params, KeyPair::generate().unwrap())
    }

    /// An authority below this one, with this key.
    pub(crate) fn intermediate_with_key(&self, params: CertificateParams, key: KeyPair) -> Self {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pem = certificate.pem();
        let above = iter::once(certificate).chain(self.above.iter().cloned()).collect();
        Self { pem, issuer: Issuer::new(params, key), above }
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate with a new P-256 key. Start from [`Certified::for_clients`] or [`Certified::for_servers`]
    /// and change what should be odd.
    pub(crate) fn issue(&self, params: CertificateParams) -> Certified {
        self.issue_for_key(params, KeyPair::generate().unwrap())
    }

    /// Issues a certificate for this key.
    pub(crate) fn issue_for_key(&self, params: CertificateParams, key: KeyPair) -> Certified {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certified { chain: iter::once(certificate).chain(self.above.iter().cloned()).collect(), key }
    }

    /// A client certificate for an RSA key of 1024 bits, and a key that is not its own: no gate looks that far.
    pub(crate) fn issue_for_small_rsa(&self, params: CertificateParams) -> Certified {
        let key = SubjectPublicKeyInfo::from_pem(RSA_1024).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = iter::once(certificate).chain(self.above.iter().cloned()).collect();
        Certified { chain, key: KeyPair::generate().unwrap() }
    }

    /// Certifies a key that is somewhere else: the chain in PEM.
    pub(crate) fn certify(&self, params: CertificateParams, key: &SubjectPublicKeyInfo) -> String {
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        iter::once(&certificate).chain(&self.above).map(Certificate::pem).collect()
    }

    /// A revocation list in PEM that names these serial numbers.
    pub(crate) fn revocation_list(
        &self,
        revoked: &[SerialNumber],
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> String {
        self.sign_list(Self::for_lists(revoked, this_update, next_update))
    }

    /// The parameters of revocation lists with these serial numbers, before a test changes them.
    pub(crate) fn for_lists(
        revoked: &[SerialNumber],
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> CertificateRevocationListParams {
        let revoked_certs = revoked.iter().map(|serial_number| RevokedCertParams {
            serial_number: serial_number.clone(),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        });
        CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
    }

    /// A revocation list of the caller's own taste, in PEM.
    pub(crate) fn sign_list(&self, list: CertificateRevocationListParams) -> String {
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// An end-entity certificate, what its holder sends along with it, and its key.
pub(crate) struct Certified {
    /// The certificate first, then those above it, without the root's.
    chain: Vec<Certificate>,
    key: KeyPair,
}

impl Certified {
    /// The parameters of client certificates, before a test changes them: this common name, clientAuth, valid from
    /// yesterday for a month.
    pub(crate) fn for_clients(name: &str) -> CertificateParams {
        let mut params = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    /// The parameters of server certificates, before a test changes them: these DNS names, serverAuth, valid from
    /// yesterday for a month.
    pub(crate) fn for_servers(names: &[&str]) -> CertificateParams {
        let mut params = named(names[0]);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names =
            names.iter().map(|&name| SanType::DnsName(name.to_owned().try_into().unwrap())).collect();
        params
    }

    /// The chain in PEM.
    pub(crate) fn chain_pem(&self) -> String {
        self.chain.iter().map(Certificate::pem).collect()
    }

    /// The chain as rustls takes it.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.iter().map(|certificate| certificate.der().clone()).collect()
    }

    /// The key in PEM (PKCS#8).
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The key as rustls takes it.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = days_from_now(-1);
    params.not_after = days_from_now(30);
    params.use_authority_key_identifier_extension = true;
    params
}
