//! Handshakes in memory, and a client that can seal illegal records.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::aead::{Aad, Nonce};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::client::ClientConnection;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{CipherSuite, ClientConfig, ExtractedSecrets, RootCertStore, ServerConfig, SupportedCipherSuite};

use super::{HEADER, Keys, Session, TrafficKey, content};

/// Every combination of version and cipher that the record layer supports.
pub(crate) const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];
/// One suite of each version, for tests that do not depend on the cipher.
pub(crate) const TLS13: CipherSuite = SUITES[0];
pub(crate) const TLS12: CipherSuite = SUITES[3];

/// Whether the suite is one of TLS 1.3.
pub(crate) fn is_tls13(suite: CipherSuite) -> bool {
    SUITES[..3].contains(&suite)
}

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs(suite: CipherSuite) -> Configs {
    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("a key"));
    let provider = crypto::aws_lc_rs::default_provider();
    let cipher_suites: Vec<SupportedCipherSuite> =
        provider.cipher_suites.iter().copied().filter(|one| one.suite() == suite).collect();
    let provider = Arc::new(CryptoProvider { cipher_suites, ..provider });
    let versions: &[_] = if is_tls13(suite) { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS12] };

    let params = CertificateParams::new(["gate.test".to_owned()]).expect("a name");
    let certificate = params.signed_by(&*KEY, &Issuer::from_params(&params, &*KEY)).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a trust anchor");

    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(KEY.serialize_der()).expect("a key"))
        .expect("a certificate");
    server.enable_secret_extraction = true;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    Configs { server: Arc::new(server), client: Arc::new(client) }
}

/// Completes a handshake. Returns the gate's keys and rustls' client.
pub(crate) fn handshake(suite: CipherSuite) -> (Keys, ClientConnection) {
    let Configs { server, client } = configs(suite);
    let mut server = UnbufferedServerConnection::new(server).expect("a server");
    let mut client = ClientConnection::new(client, "gate.test".try_into().expect("a name")).expect("a client");
    client.set_buffer_limit(None);
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut open = false;
    while !open || client.is_handshaking() {
        while client.wants_write() {
            client.write_tls(&mut to_server).expect("memory");
        }
        loop {
            let UnbufferedStatus { discard, state } = server.process_tls_records(&mut to_server);
            let mut blocked = false;
            match state.expect("a handshake") {
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = to_client.len();
                    to_client.resize(start + 16_384, 0);
                    let written = data.encode(&mut to_client[start..]).expect("room");
                    to_client.truncate(start + written);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => blocked = true,
                ConnectionState::WriteTraffic(_) => (open, blocked) = (true, true),
                other => panic!("{other:?}"),
            }
            to_server.drain(..discard);
            if blocked {
                break;
            }
        }
        let mut rest = to_client.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("a handshake");
        }
        to_client.clear();
    }
    assert!(to_server.is_empty() && !client.wants_write(), "no bytes are left after the handshake");
    let (secrets, schedule) = server.dangerous_into_kernel_connection().expect("keys");
    (Keys::new(secrets, schedule), client)
}

/// A session and its client.
pub(crate) fn established(suite: CipherSuite) -> (Session, ClientConnection) {
    let (keys, client) = handshake(suite);
    (Session::new(keys).expect("a session"), client)
}

/// A session, and a [`Forger`] with the client's keys.
pub(crate) fn forged(suite: CipherSuite) -> (Session, Forger) {
    let (keys, forger) = forged_keys(suite);
    (Session::new(keys).expect("a session"), forger)
}

/// The gate's keys, and a [`Forger`] with the client's.
pub(crate) fn forged_keys(suite: CipherSuite) -> (Keys, Forger) {
    let (keys, client) = handshake(suite);
    let secrets = client.dangerous_extract_secrets().expect("keys");
    (keys, Forger::new(secrets, is_tls13(suite)))
}

/// Seals any record, legal or not.
pub(crate) struct Forger {
    send_key: TrafficKey,
    /// The gate's sending key.
    gate_key: TrafficKey,
    tls13: bool,
}

impl Forger {
    /// With the secrets of either side.
    pub(crate) fn new(secrets: ExtractedSecrets, tls13: bool) -> Self {
        let [send_key, gate_key] =
            [secrets.tx, secrets.rx].map(|secrets| TrafficKey::new(&secrets.into(), tls13).expect("a key"));
        Self { send_key, gate_key, tls13 }
    }

    /// The sequence number of the next record.
    pub(crate) fn sequence(&self) -> u64 {
        self.send_key.sequence
    }

    /// The sequence number, to be changed.
    pub(crate) fn sequence_mut(&mut self) -> &mut u64 {
        &mut self.send_key.sequence
    }

    /// The length of a record of the gate with `content` bytes of content.
    pub(crate) fn length_of(&self, content: usize) -> usize {
        HEADER + self.gate_key.explicit_nonce + content + usize::from(self.tls13) + 16
    }

    /// Opens records of the gate: their content types and contents. Follows no KeyUpdate.
    pub(crate) fn open_records(&mut self, wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let (mut gate_key, mut rest) = (Vec::new(), wire);
        while let &[kind, _, _, high, low, ..] = rest {
            let (record, behind) = rest.split_at(HEADER + usize::from(u16::from_be_bytes([high, low])));
            let mut record = record.to_vec();
            let (kind, content) = self.gate_key.open(self.tls13, kind, &mut record).expect("a record of the gate");
            gate_key.push((kind, record[content].to_vec()));
            rest = behind;
        }
        assert!(rest.is_empty(), "half a header: {rest:?}");
        gate_key
    }

    /// A record that is authentic.
    pub(crate) fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.padded(kind, content, 0)
    }

    /// A record with padding, which only TLS 1.3 has.
    pub(crate) fn padded(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        if self.tls13 {
            return self.inner(&[content, &[kind], &vec![0; padding]].concat());
        }
        assert_eq!(padding, 0, "TLS 1.2 has no padding with these suites");
        let nonce = self.send_key.nonce();
        let mut sealed = content.to_vec();
        let additional = self.send_key.additional_data_12(kind, content.len()).expect("a length");
        let tag = self
            .send_key
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(additional), &mut sealed)
            .expect("sealed");
        self.send_key.sequence = self.send_key.sequence.wrapping_add(1);
        let explicit = if self.send_key.explicit_nonce > 0 { &nonce[4..] } else { &[] };
        let length = u16::try_from(explicit.len() + sealed.len() + tag.as_ref().len()).expect("a length");
        [&[kind, 3, 3], &length.to_be_bytes()[..], explicit, &sealed, tag.as_ref()].concat()
    }

    /// A TLS 1.3 record with this TLSInnerPlaintext (RFC 8446 section 5.2).
    pub(crate) fn inner(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + 16).expect("a length").to_be_bytes();
        let header: [u8; HEADER] = [content::APPLICATION_DATA, 3, 3, length[0], length[1]];
        let mut sealed = inner.to_vec();
        let nonce = Nonce::assume_unique_for_key(self.send_key.nonce());
        let tag = self.send_key.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut sealed).expect("sealed");
        self.send_key.sequence = self.send_key.sequence.wrapping_add(1);
        [&header, sealed.as_slice(), tag.as_ref()].concat()
    }
}

/// A random number generator with a fixed seed (xorshift64*), for repeatable runs.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % bound
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}
