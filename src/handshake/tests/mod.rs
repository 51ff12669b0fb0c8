//! Handshakes in memory, without sockets: a client of rustls, and a route from a configuration.

mod resumption;
mod settings;
mod shared_tickets;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::config::{RouteTls, TicketSource};
use super::observation::{Observation, observe};
use super::suites::{PROVIDER, Suites};
use super::trust::Authorities;
use crate::authorize::Policy;
use crate::config::checked::{CipherStrength, RouteMode, Terminate, TicketSecret};
use crate::model::names::Name;
use crate::tls::driver::{Facts, Failure, Handshake, Wants};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// The number of the device that [`Scene::list`] and `deny` name.
const LOST: u64 = 7;

/// Files of a configuration, and the authority that has signed all certificates in them but those of `other.pem`.
struct Scene {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Certified {
    der: CertificateDer<'static>,
    key: KeyPair,
}

/// What a client shows, which may change between two handshakes: rustls' clients send no ticket that another certificate
/// resolver has got.
#[derive(Debug)]
struct Shown(Mutex<Option<Arc<CertifiedKey>>>);

impl Shown {
    fn new(certified: &Certified) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(certified.certified_key()))))
    }

    fn set(&self, certified: Option<&Certified>) {
        *self.0.lock().expect("it") = certified.map(Certified::certified_key);
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.lock().expect("it").clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Certified {
    fn certified_key(&self) -> Arc<CertifiedKey> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let key = PROVIDER.key_provider.load_private_key(key.into()).expect("a key");
        Arc::new(CertifiedKey::new(vec![self.der.clone()], key))
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    (Issuer::new(params, key), pem)
}

fn days(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(days)
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (issuer, pem) = authority("Devices");
        let scene = Self { folder, issuer };
        scene.write("clients.pem", &pem);
        scene.write("other.pem", &authority("Other devices").1);
        for name in ["server", "server2"] {
            let mut params = CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &scene.issuer).expect("a certificate");
            scene.write(&format!("{name}.pem"), &certificate.pem());
            scene.write(&format!("{name}-key.pem"), &key.serialize_pem());
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    /// A device with this name and number whose certificate is valid up to so many days from now.
    fn device(&self, name: &str, number: u64, until: i64) -> Certified {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(number));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (days(-9), days(until));
        let key = KeyPair::generate().expect("a key");
        Certified { der: params.signed_by(&key, &self.issuer).expect("a certificate").der().clone(), key }
    }

    /// Writes a revocation list of the authority, valid up to so many days from now.
    fn list(&self, name: &str, revoked: u64, until: i64) {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(revoked),
            revocation_time: days(-9),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: days(-9),
            next_update: days(until),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write(name, &list.signed_by(&self.issuer).expect("a list").pem().expect("a list"));
    }

    /// A route with these keys.
    fn route(&self, keys: &str) -> Terminate {
        let text = format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[certificate]\nchain = \"server.pem\"\n\
             key = \"server-key.pem\"\n[client_auth]\ntrust = [\"clients.pem\"]\n[[route]]\nname = \"nas\"\n\
             server_names = [\"nas.home.example\", \"ssh.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n{keys}\n"
        );
        let config = crate::config::parse(&text, &self.path("doorward.toml"));
        let config = config.unwrap_or_else(|errors| panic!("{keys}: {errors:?}"));
        match &config.routes[0].mode {
            RouteMode::Terminate(terminate) => Terminate::clone(terminate),
            RouteMode::Passthrough => panic!("it asks for certificates"),
        }
    }

    /// What the handshakes of such a route are made with, after a configuration in which `former` was of that name.
    fn tls(&self, keys: &str, former: Option<&RouteTls>) -> RouteTls {
        self.tls_with(keys, TicketSource { route: &name("nas"), shared: &[], former })
    }

    /// The same, with tickets of this source.
    fn tls_with(&self, keys: &str, tickets: TicketSource<'_>) -> RouteTls {
        let route = self.route(keys);
        let authorities = Arc::new(Authorities::new(&route.client_auth).expect("authorities"));
        let policy = Arc::new(Policy::of(&name("nas"), &route));
        RouteTls::new(&route, &Suites::new(CipherStrength::Bits128), authorities, policy, tickets)
            .expect("a configuration")
    }

    /// A client that shows this certificate and keeps its sessions.
    fn client(&self, certified: &Certified, version: &'static SupportedProtocolVersion) -> ClientConfig {
        use rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("clients.pem")).expect("it")).expect("a root");
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_client_cert_resolver(Shown::new(certified));
        client.resumption = Resumption::in_memory_sessions(8);
        client
    }
}

/// The name of a route.
fn name(name: &str) -> Name {
    Name::parse(name).expect("a name")
}

/// A key that gates share.
fn secret() -> TicketSecret {
    TicketSecret::new(PathBuf::new(), &TicketSecret::generate().expect("random bytes")).expect("a key")
}

/// What is left of a handshake.
struct Shaken {
    facts: Facts,
    /// The client's, as rustls reports it.
    chain: Vec<CertificateDer<'static>>,
}

/// A handshake for this server name, to the end.
fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> (Result<Shaken, Failure>, Observation) {
    let name = ServerName::try_from(name).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut handshake = Handshake::new(Arc::clone(server)).expect("a handshake");
    let (mut received, mut out, mut observation) = (Vec::new(), Vec::new(), Observation::default());
    loop {
        while client.wants_write() {
            client.write_tls(&mut received).expect("memory");
        }
        let mut shown = received.len();
        match observe(&mut observation, || handshake.advance(&mut received, &mut shown, &mut out)) {
            Ok(Wants::Nothing) => break,
            Ok(Wants::Send | Wants::Receive) => {}
            Err(failure) => return (Err(failure), observation),
        }
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("a good server");
        }
        out.clear();
    }
    let chain = handshake.client_chain().to_vec();
    (Ok(Shaken { chain, facts: handshake.finish().facts }), observation)
}
