//! Certificates, all ECDSA P-256: the gate's, and those of many clients.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::Result;

/// The server names of the terminating and of the passthrough route.
pub(crate) const TERMINATED: &str = "nas.bench.example";
/// See [`TERMINATED`].
pub(crate) const PASSTHROUGH: &str = "mail.bench.example";

/// A folder with the files that the gates need, and an authority that issues client certificates.
#[derive(Debug)]
pub(crate) struct Pki {
    folder: TempDir,
    clients: Authority,
    others: Authority,
}

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct Certified {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Certified {
    /// The key, for rustls.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

#[derive(Debug)]
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut params = params(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    fn client(&self, name: &str) -> Result<Certified> {
        let mut params = params(name)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certified { chain: vec![certificate.der().clone()], key })
    }
}

fn params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(30);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl Pki {
    /// Creates the folder: `server.pem`, `server-key.pem`, both together in `both.pem`, `clients.pem`, and `servers.pem`
    /// with the authority of `server.pem`.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let pki = Self {
            folder,
            clients: Authority::new("Clients of the bench")?,
            others: Authority::new("Another authority")?,
        };
        let mut params = params("bench.example")?;
        params.subject_alt_names = CertificateParams::new(vec![TERMINATED.to_owned()])?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let servers = Authority::new("Servers of the bench")?;
        let server = params.signed_by(&key, &servers.issuer)?;
        pki.write("clients.pem", &pki.clients.pem)?;
        pki.write("servers.pem", &servers.pem)?;
        pki.write("server.pem", &server.pem())?;
        let key_file = pki.write("server-key.pem", &key.serialize_pem())?;
        let both = pki.write("both.pem", &(server.pem() + &key.serialize_pem()))?;
        for secret in [key_file, both] {
            fs::set_permissions(secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        }
        Ok(pki)
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, contents: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, contents)?;
        Ok(path)
    }

    /// A client that the gates admit.
    pub(crate) fn client(&self, name: &str) -> Result<Certified> {
        self.clients.client(name)
    }

    /// A client of an authority that the gates do not trust.
    pub(crate) fn other_client(&self) -> Result<Certified> {
        self.others.client("untrusted")
    }

    /// Writes a revocation list with `count` serial numbers that no client has, and returns its path.
    pub(crate) fn revocation_list(&self, count: usize) -> Result<PathBuf> {
        let now = OffsetDateTime::now_utc();
        let revoked = |index: usize| {
            // 20 bytes, as authorities use (RFC 5280 section 4.1.2.2), spread like random ones.
            let mut serial = [0x5a; 20];
            let spread = u64::try_from(index).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            for (slot, byte) in serial.iter_mut().skip(1).zip(spread) {
                *slot = byte;
            }
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(1),
            next_update: now + Duration::days(30),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: (0..count).map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.clients.issuer)?;
        self.write(&format!("revoked-{count}.crl"), &list.pem()?)
    }
}
