//! Which certificates a backend may show.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use crate::config::checked::BackendTrust;
use crate::model::identity::Sha256;
use crate::model::rejection::{BackendCertificateFault, BackendTlsFault, Text};

/// The most names of a certificate that are told.
const NAMES_MAX: usize = 5;

/// Judges the certificates of backends. The proof that a backend has the key is rustls' to demand, whatever is judged here.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Trust {
    /// The certificate with this fingerprint. Its names and dates say nothing that the fingerprint does not: the owner has named this
    /// very key, and a service at home whose certificate expires unnoticed is still that service.
    Fingerprint(Sha256),
    /// One of these, for which the same holds, or one that an authority signed.
    Certificates { own: Vec<CertificateDer<'static>>, authorities: Option<Arc<WebPkiServerVerifier>> },
    /// Every one.
    All(Mutex<Option<Seen>>),
}

/// A certificate that a backend has shown, with those that it sent along.
pub type Seen = Vec<CertificateDer<'static>>;

/// Why a certificate is not accepted, as an error of rustls'.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    seen: Sha256,
    fault: BackendCertificateFault,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate of the backend is not accepted")
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// That in an error of rustls'.
    pub(super) fn of(error: &CertificateError) -> Option<&Self> {
        match error {
            CertificateError::Other(OtherError(error)) => error.downcast_ref(),
            _ => None,
        }
    }

    pub(super) fn into_fault(self) -> BackendTlsFault {
        BackendTlsFault::Certificate { seen: self.seen, fault: self.fault }
    }
}

impl Verifier {
    pub(super) fn new(trust: &BackendTrust, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let chains = |authorities: &[CertificateDer<'static>]| {
            let mut roots = RootCertStore::empty();
            // Of the system's list, some may be of a form that rustls does not take: they vouch for nothing.
            roots.add_parsable_certificates(authorities.iter().cloned());
            if roots.is_empty() {
                return Ok(None);
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map(Some)
                .map_err(|error| Error::General(error.to_string()))
        };
        let trust = match trust {
            BackendTrust::Fingerprint(fingerprint) => Trust::Fingerprint(*fingerprint),
            BackendTrust::Certificates { own, authorities } => {
                Trust::Certificates { own: own.clone(), authorities: chains(authorities)? }
            }
            BackendTrust::System(authorities) => {
                Trust::Certificates { own: Vec::new(), authorities: chains(authorities)? }
            }
        };
        Ok(Self { trust, provider })
    }

    /// One that accepts every certificate and keeps the last one.
    pub(super) fn accepting_all(provider: Arc<CryptoProvider>) -> Self {
        Self { trust: Trust::All(Mutex::default()), provider }
    }

    /// The last certificates that were shown, if all are accepted.
    pub(super) fn seen(&self) -> Option<Seen> {
        match &self.trust {
            Trust::All(last) => last.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Trust::Fingerprint(_) | Trust::Certificates { .. } => None,
        }
    }

    /// Whether a backend of this name may show these certificates, its own first.
    pub(super) fn verify(&self, shown: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Refused> {
        let (own, sent_along) = match shown {
            [own, rest @ ..] => (own, rest),
            [] => (&CertificateDer::from_slice(&[]), &[][..]),
        };
        self.judge(own, sent_along, name, &[], UnixTime::now())
    }

    fn judge(
        &self,
        own: &CertificateDer<'_>,
        sent_along: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<(), Refused> {
        let seen = Sha256::of(own);
        let refused = |fault| Err(Refused { seen, fault });
        match &self.trust {
            Trust::All(last) => {
                let shown = [own].into_iter().chain(sent_along).map(|one| one.clone().into_owned()).collect();
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
                Ok(())
            }
            Trust::Fingerprint(fingerprint) if *fingerprint == seen => Ok(()),
            Trust::Fingerprint(_) => refused(BackendCertificateFault::OtherFingerprint),
            Trust::Certificates { own: trusted, .. } if trusted.iter().any(|one| one == own) => Ok(()),
            Trust::Certificates { authorities: None, .. } => refused(BackendCertificateFault::NotTrusted),
            Trust::Certificates { authorities: Some(chains), .. } => {
                match chains.verify_server_cert(own, sent_along, name, ocsp_response, now) {
                    Ok(_) => Ok(()),
                    Err(error) => refused(fault_of(&error)),
                }
            }
        }
    }
}

/// What rustls says of a certificate, in the words of the gate.
fn fault_of(error: &Error) -> BackendCertificateFault {
    let seconds = |time: &UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let Error::InvalidCertificate(fault) = error else { return BackendCertificateFault::Other(Text::new(error)) };
    match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => BackendCertificateFault::NotTrusted,
        CertificateError::ExpiredContext { not_after, .. } => {
            BackendCertificateFault::Expired { not_after: seconds(not_after) }
        }
        CertificateError::Expired => BackendCertificateFault::Expired { not_after: 0 },
        CertificateError::NotValidYetContext { not_before, .. } => {
            BackendCertificateFault::NotYetValid { not_before: seconds(not_before) }
        }
        CertificateError::NotValidYet => BackendCertificateFault::NotYetValid { not_before: 0 },
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match presented.get(..presented.len().min(NAMES_MAX)).unwrap_or_default() {
                [] => "no name at all".to_owned(),
                names => names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", "),
            };
            BackendCertificateFault::Name { expected: Text::new(expected.to_str()), names: Text::new(names) }
        }
        other => BackendCertificateFault::Other(Text::new(Error::InvalidCertificate(other.clone()))),
    }
}

/// A name as it is written, of one that rustls shows as `DnsName("nas.local")`.
fn shown(name: &str) -> String {
    match name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')) {
        Some(inside) => inside.trim_matches('"').to_owned(),
        None => name.to_owned(),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.judge(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refused) => Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
