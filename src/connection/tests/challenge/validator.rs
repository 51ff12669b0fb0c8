//! A validator, as an ACME server has it, and a stranger or device that makes the same handshake.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    SupportedProtocolVersion,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::live::DIGEST;

pub(super) const ACME: &[u8] = b"acme-tls/1";

/// id-pe-acmeIdentifier, 1.3.6.1.5.5.7.1.31 (RFC 8737 section 6.1), in DER.
pub(super) const ACME_IDENTIFIER: &[u8] = &[0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 1, 0x1f];

/// Takes any certificate whose key has signed the handshake, and keeps it.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Mutex<Vec<CertificateDer<'static>>>, Arc<CryptoProvider>);

impl Shown {
    /// By an algorithm of the key in this certificate. webpki would read the certificate, and refuse the critical extension.
    fn is_signed(&self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct) -> bool {
        let (_, parsed) = X509Certificate::from_der(certificate).expect("a certificate");
        let key = parsed.public_key().subject_public_key.data.as_ref();
        self.verifies(signed.scheme, key, message, signed.signature())
    }

    fn verifies(&self, scheme: SignatureScheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let known = self.1.signature_verification_algorithms.mapping;
        let algorithms = known.iter().find(|(of, _)| *of == scheme).map(|(_, algorithms)| *algorithms);
        algorithms.unwrap_or_default().iter().any(|one| one.verify_signature(key, message, signature).is_ok())
    }

    /// What a server checks (RFC 8737 section 3): one certificate, signed by its own key, with the name and nothing else as
    /// subjectAltName, and the digest in a critical extension.
    pub(super) fn assert_is_challenge(&self, name: &str) {
        let shown = self.0.lock().expect("it");
        let [certificate] = shown.as_slice() else { panic!("{} certificates", shown.len()) };
        let (rest, parsed) = X509Certificate::from_der(certificate).expect("a certificate");
        assert!(rest.is_empty());
        assert_eq!(parsed.subject().as_raw(), parsed.issuer().as_raw(), "self-signed");
        let key = parsed.public_key().subject_public_key.data.as_ref();
        let (message, signature) = (parsed.tbs_certificate.as_ref(), parsed.signature_value.data.as_ref());
        assert!(self.verifies(SignatureScheme::ECDSA_NISTP256_SHA256, key, message, signature), "self-signed");
        let value = |oid: &str| {
            let found: Vec<_> = parsed.extensions().iter().filter(|one| one.oid.to_id_string() == oid).collect();
            let [extension] = found.as_slice() else { panic!("{oid}: {found:?}") };
            (extension.critical, extension.value)
        };
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short one");
        let dns_name = [&[0x82, length(name.as_bytes())], name.as_bytes()].concat();
        assert_eq!(value("2.5.29.17"), (false, [&[0x30, length(&dns_name)], &dns_name[..]].concat().as_slice()));
        assert_eq!(value("1.3.6.1.5.5.7.1.31"), (true, [&[4, 32], &DIGEST.0[..]].concat().as_slice()));
        assert_eq!(parsed.extensions().len(), 2, "{:?}", parsed.extensions());
        assert!(parsed.validity().is_valid());
    }
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = [std::slice::from_ref(certificate), others].concat();
        *self.0.lock().expect("it") = all.into_iter().map(CertificateDer::into_owned).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        assert!(self.is_signed(message, certificate, signed));
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls12_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's certificate, and how often it was asked for.
#[derive(Debug)]
struct Own(Option<Arc<CertifiedKey>>, AtomicUsize);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A client, which keeps its sessions from one connection to the next.
pub(super) struct Client {
    config: ClientConfig,
    pub(super) shown: Arc<Shown>,
    own: Arc<Own>,
}

/// What came of a connection.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: Seen,
    /// How its handshake went, if it is over.
    pub(super) kind: Option<HandshakeKind>,
    pub(super) protocol: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

/// How a client saw the connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Alert(AlertDescription),
    CloseNotify,
    End,
    Reset,
}

impl Client {
    /// One with this certificate, or without.
    pub(super) fn new(version: &'static SupportedProtocolVersion, own: Option<&(Vec<u8>, Vec<u8>)>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = own.map(|(certificate, key)| {
            let key = PrivateKeyDer::try_from(key.clone()).expect("a key");
            let key = provider.key_provider.load_private_key(key).expect("a key");
            Arc::new(CertifiedKey::new(vec![certificate.clone().into()], key))
        });
        let own = Arc::new(Own(own, AtomicUsize::new(0)));
        let shown = Arc::new(Shown(Mutex::default(), Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&shown) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::clone(&own) as Arc<dyn ResolvesClientCert>);
        config.resumption = Resumption::in_memory_sessions(32);
        Self { config, shown, own }
    }

    /// How often it was asked for a certificate.
    pub(super) fn asked(&self) -> usize {
        self.own.1.load(Ordering::Relaxed)
    }

    /// A handshake for this name, with these protocols, before its first byte.
    pub(super) fn begin(&self, name: &str, protocols: &[&[u8]]) -> ClientConnection {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("a client")
    }

    /// Makes a handshake, sends `payload` right behind it, and reads to the end.
    pub(super) fn run(&self, stream: TcpStream, name: &str, protocols: &[&[u8]], payload: &[u8]) -> Outcome {
        go_on(self.begin(name, protocols), stream, payload)
    }

    /// The same as a validator.
    pub(super) fn validate(&self, stream: TcpStream, name: &str) -> Outcome {
        self.run(stream, name, &[ACME], b"")
    }
}

/// Goes on with a handshake, to the end of the connection. Ends a session whose payload has come back.
pub(super) fn go_on(mut tls: ClientConnection, mut stream: TcpStream, payload: &[u8]) -> Outcome {
    if !payload.is_empty() {
        tls.writer().write_all(payload).expect("memory");
    }
    let (mut received, mut room) = (Vec::new(), [0; 4096]);
    let end = 'all: loop {
        while tls.wants_write() {
            let mut out = Vec::new();
            tls.write_tls(&mut out).expect("memory");
            // Where that fails, what was received says why.
            let _ = stream.write_all(&out);
        }
        let read = match stream.read(&mut room) {
            Ok(0) => break Seen::End,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break Seen::Reset,
            Err(error) => panic!("{error}"),
        };
        let mut rest = room.get(..read).expect("what was read");
        while !rest.is_empty() {
            tls.read_tls(&mut rest).expect("memory");
            match tls.process_new_packets() {
                Ok(state) => {
                    let mut part = vec![0; state.plaintext_bytes_to_read()];
                    tls.reader().read_exact(&mut part).expect("what is there");
                    received.extend(part);
                    if state.peer_has_closed() {
                        break 'all Seen::CloseNotify;
                    }
                }
                Err(Error::AlertReceived(alert)) => break 'all Seen::Alert(alert),
                Err(error) => panic!("{error}"),
            }
        }
        if !payload.is_empty() && received == payload {
            tls.send_close_notify();
        }
    };
    let (kind, protocol) = (tls.handshake_kind(), tls.alpn_protocol().map(<[u8]>::to_vec));
    Outcome { end, kind: kind.filter(|_| !tls.is_handshaking()), protocol, payload: received }
}
