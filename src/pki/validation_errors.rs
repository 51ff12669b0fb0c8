//! Why the gate rejects a certificate: the one place that turns errors of the path validation into causes.
//!
//! The gate, `doorward explain`, `check` and `ca inspect` all use it, so that they cannot disagree.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, Der, TrustAnchor, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::der_fields::{EXTENSIONS_MAX, Parts};
use crate::model::identity::{Identity, key};
use crate::model::rejection::{Cause, CertificateFault, ListFault, Signer, Text};

/// Why a certificate is rejected.
#[derive(Clone, Debug)]
pub struct Objection {
    /// The cause.
    pub cause: Cause,
    /// The error for rustls, which chooses the alert by it.
    pub error: CertificateError,
}

impl Objection {
    /// A certificate that cannot be read as X.509.
    pub fn unreadable() -> Self {
        Self::invalid(CertificateFault::Unreadable)
    }

    /// An invalid certificate, with a fault that has no reason of its own.
    pub fn invalid(fault: CertificateFault) -> Self {
        // rustls would send some of these as certificate_unknown.
        Self { cause: Cause::InvalidCertificate(fault), error: CertificateError::BadEncoding }
    }

    /// `key`: the type of the key whose signatures the gate cannot verify, if it is known.
    fn unsupported_key(signer: Signer, key: Option<String>) -> Self {
        Self::unsupported(Cause::UnsupportedKey { signer, key: key.map(Text::new) })
    }

    const fn unsupported(cause: Cause) -> Self {
        // The one error that reaches the client as unsupported_certificate.
        Self { cause, error: CertificateError::InvalidPurpose }
    }

    /// No trust anchor's key made the signature, though one has the issuer's name.
    const fn another_key() -> Self {
        Self { cause: Cause::IssuerKeyDiffers, error: CertificateError::UnknownIssuer }
    }
}

/// Why the validation rejected a path.
///
/// `issuer_key` is the SubjectPublicKeyInfo with which a signature could not be verified, if there is one: it distinguishes
/// a signature by another key from a key of an unsupported type. Nothing else that a client sent is parsed.
pub fn objection(error: Error, end_entity: &CertificateDer<'_>, issuer_key: Option<&[u8]>) -> Objection {
    let error = match error {
        Error::InvalidCertificate(error) => error,
        // webpki returns nothing else today; any other error is a rejection too.
        other => return Objection::invalid(CertificateFault::Other(Text::new(other))),
    };
    match &error {
        // An authority of the same name, with another key: one that was made anew, or a forged one. Or the issuer's key is of
        // a kind whose signatures cannot be checked. `bad_signature` is left for a client that cannot prove that it holds its key.
        CertificateError::BadSignature => unsupported_issuer(issuer_key)
            .map_or_else(Objection::another_key, |key| Objection::unsupported_key(Signer::Issuer, Some(key))),
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { public_key_algorithm_id, .. } => {
            if key::is_known_algorithm(public_key_algorithm_id) {
                return Objection::another_key();
            }
            Objection::unsupported_key(Signer::Issuer, unsupported_issuer(issuer_key))
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            let own = Parts::read(end_entity).is_some_and(|own| own.signature.algorithm == signature_algorithm_id);
            let signer = if own { Signer::Device } else { Signer::Issuer };
            let algorithm = Text::new(key::signature(signature_algorithm_id));
            Objection::unsupported(Cause::UnsupportedSignature { signer, algorithm })
        }
        _ => match cause_of(&error) {
            Cause::InvalidCertificate(fault) => Objection::invalid(fault),
            cause => Objection { cause, error },
        },
    }
}

/// The cause for a certificate whose path validation fails.
fn cause_of(error: &CertificateError) -> Cause {
    let fault = match error {
        CertificateError::UnknownIssuer => return Cause::UnknownIssuer,
        CertificateError::ExpiredContext { time, not_after } => {
            return Cause::Expired { not_after: seconds(*not_after), now: seconds(*time) };
        }
        // Without dates of its own only where the certificate's contradict each other.
        CertificateError::Expired => return Cause::ValidityReversed,
        CertificateError::NotValidYetContext { time, not_before } => {
            return Cause::NotYetValid { not_before: seconds(*not_before), now: seconds(*time) };
        }
        CertificateError::Revoked => return Cause::Revoked,
        CertificateError::UnknownRevocationStatus => {
            return Cause::RevocationUnknown { issuer: None, fault: ListFault::Missing };
        }
        CertificateError::ExpiredRevocationListContext { time, next_update } => {
            return Cause::RevocationListExpired { next_update: seconds(*next_update), now: seconds(*time) };
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            return Cause::WrongPurpose;
        }
        CertificateError::BadEncoding => CertificateFault::BadEncoding,
        CertificateError::Other(other) => match other.0.downcast_ref() {
            Some(error) => path_fault(error),
            None => CertificateFault::Other(Text::new(other)),
        },
        // rustls' enum is not exhaustive. What has no cause of its own is refused like the rest.
        _ => CertificateFault::Other(Text::new(error)),
    };
    Cause::InvalidCertificate(fault)
}

/// The cause of a webpki error that rustls has no error for.
fn path_fault(error: &webpki::Error) -> CertificateFault {
    use webpki::Error as Path;
    match error {
        Path::UnsupportedCertVersion => CertificateFault::Version1,
        Path::CaUsedAsEndEntity => CertificateFault::AuthorityAsDevice,
        Path::EndEntityUsedAsCa => CertificateFault::IssuerNotAuthority,
        Path::PathLenConstraintViolated => CertificateFault::PathLength,
        Path::NameConstraintViolation => CertificateFault::NameConstraints,
        Path::UnsupportedCriticalExtension => CertificateFault::CriticalExtension,
        Path::EmptyEkuExtension => CertificateFault::EmptyUsage,
        Path::SignatureAlgorithmMismatch => CertificateFault::AlgorithmMismatch,
        Path::ExtensionValueInvalid | Path::MalformedExtensions => CertificateFault::Extension,
        Path::InvalidCertValidity => CertificateFault::Validity,
        Path::MaximumPathDepthExceeded => CertificateFault::PathDepth,
        Path::MaximumPathBuildCallsExceeded
        | Path::MaximumSignatureChecksExceeded
        | Path::MaximumNameConstraintComparisonsExceeded => CertificateFault::TooMuchWork,
        other => CertificateFault::Other(Text::new(other)),
    }
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// The type of the issuer's key, if the gate cannot verify its signatures.
fn unsupported_issuer(key: Option<&[u8]>) -> Option<String> {
    key::unsupported(key?)
}

/// A path validation of its own for [`alone`], with the gate's algorithms.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The P-256 key of [`alone`]'s authority: nothing was ever signed with it.
const NO_ISSUER: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x02\x00\x04";

/// Whether the gate accepts this certificate at `now`, apart from its issuer.
///
/// Runs the same validation as for a connection, with an authority that has the issuer's name and a key that signed nothing.
/// Everything that does not depend on the issuer is checked before the signature.
pub fn alone(end_entity: &CertificateDer<'_>, now: UnixTime) -> Result<(), Objection> {
    let Ok(identity) = Identity::from_certificate(end_entity, false) else { return Err(Objection::unreadable()) };
    let Ok((_, certificate)) = X509Certificate::from_der(end_entity) else { return Err(Objection::unreadable()) };
    if let Some(objection) = Parts::read(end_entity).and_then(|parts| unwieldy(&parts)) {
        return Err(objection);
    }
    let mut roots = RootCertStore::empty();
    roots.roots.push(TrustAnchor {
        subject: Der::from(contents(certificate.issuer().as_raw()).to_vec()),
        subject_public_key_info: Der::from_slice(NO_ISSUER),
        name_constraints: None,
    });
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER)).build();
    let verdict = verifier.map(|verifier| verifier.verify_client_cert(end_entity, &[], now));
    match verdict {
        Ok(Err(Error::InvalidCertificate(
            CertificateError::BadSignature | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ))) => {}
        Ok(Err(error)) => return Err(objection(error, end_entity, None)),
        // Impossible: there is one trust anchor, and it signed nothing.
        Ok(Ok(_)) | Err(_) => return Err(Objection::unreadable()),
    }
    own_key(&identity)
}

/// Rejects a certificate that takes too much work to parse.
pub fn unwieldy(certificate: &Parts<'_>) -> Option<Objection> {
    certificate
        .has_too_many_extensions()
        .then(|| Objection::invalid(CertificateFault::TooManyExtensions(EXTENSIONS_MAX)))
}

/// Rejects a key of the device that the gate does not support.
pub fn own_key(identity: &Identity) -> Result<(), Objection> {
    match &identity.unsupported_key {
        Some(what) => Err(Objection::unsupported_key(Signer::Device, Some(what.to_string()))),
        None => Ok(()),
    }
}

/// The contents of a SEQUENCE.
fn contents(der: &[u8]) -> &[u8] {
    x509_parser::der_parser::asn1_rs::Any::from_der(der).map_or(der, |(_, any)| any.data)
}
