//! What the gate has against a certificate: the one place where errors of the path validation become reasons and words.
//!
//! The gate, `doorward explain`, `check` and `ca inspect` all ask here, so that they cannot disagree.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, Der, TrustAnchor, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::parts::{EXTENSIONS_MAX, Parts};
use crate::model::identity::{Identity, key};
use crate::model::rejection::Reason;

/// Why a certificate is refused.
#[derive(Clone, Debug)]
pub struct Objection {
    /// The reason that is counted.
    pub reason: Reason,
    /// The cause in words.
    pub detail: String,
    /// For rustls, which picks the alert by it.
    pub error: CertificateError,
}

impl Objection {
    /// A certificate that cannot be read as X.509.
    pub fn unreadable() -> Self {
        Self::invalid("it cannot be read as an X.509 certificate")
    }

    /// A certificate that no device may show, for a cause without a reason of its own.
    pub fn invalid(detail: impl Into<String>) -> Self {
        // rustls would send some of these as certificate_unknown.
        Self { reason: Reason::CertificateInvalid, detail: detail.into(), error: CertificateError::BadEncoding }
    }

    /// `what`: the key that the gate cannot check a signature with.
    fn unsupported_key(what: &str) -> Self {
        Self::unsupported(what, key::SUPPORTED)
    }

    fn unsupported(what: &str, supported: &str) -> Self {
        Self {
            reason: Reason::UnsupportedKey,
            detail: format!("{what}; the gate takes {supported}"),
            // The one error that reaches the client as unsupported_certificate.
            error: CertificateError::InvalidPurpose,
        }
    }

    /// No trust anchor's key made the signature, though one has the issuer's name.
    fn another_key() -> Self {
        Self {
            reason: Reason::UnknownCa,
            detail: "an authority of that name is in trust, but another key signed the certificate".to_owned(),
            error: CertificateError::UnknownIssuer,
        }
    }
}

/// What is wrong with a path that the validation refused.
///
/// `issuer_key` is the SubjectPublicKeyInfo with which a signature could not be checked, if there is one: it tells a signature
/// by another key from a key that nothing can be checked with. Nothing else that a client sent is parsed.
pub fn objection(error: Error, end_entity: &CertificateDer<'_>, issuer_key: Option<&[u8]>) -> Objection {
    let error = match error {
        Error::InvalidCertificate(error) => error,
        // webpki gives nothing else; if it ever does, it is a refusal all the same.
        other => return Objection::invalid(other.to_string()),
    };
    match &error {
        // An authority of the same name, with another key: one that was made anew, or a forged one. Or the issuer's key is of
        // a kind whose signatures cannot be checked. `bad_signature` is left for a client that cannot prove that it holds its key.
        CertificateError::BadSignature => {
            unsupported_issuer(issuer_key).map_or_else(Objection::another_key, |what| Objection::unsupported_key(&what))
        }
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { public_key_algorithm_id, .. } => {
            if key::is_known_algorithm(public_key_algorithm_id) {
                return Objection::another_key();
            }
            let what = unsupported_issuer(issuer_key);
            Objection::unsupported_key(what.as_deref().unwrap_or("an issuer's key is of an unknown kind"))
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            let own = Parts::read(end_entity).is_some_and(|own| own.signature.algorithm == signature_algorithm_id);
            let whose = if own { "the certificate" } else { "an intermediate certificate" };
            Objection::unsupported(
                &format!("{whose} is signed with {}", key::signature(signature_algorithm_id)),
                key::SUPPORTED_SIGNATURES,
            )
        }
        _ => {
            let (reason, detail) = (reason_of(&error), words(&error));
            if reason == Reason::CertificateInvalid {
                Objection::invalid(detail)
            } else {
                Objection { reason, detail, error }
            }
        }
    }
}

/// Our reason for a certificate that the validation of its path refuses.
fn reason_of(error: &CertificateError) -> Reason {
    match error {
        CertificateError::UnknownIssuer => Reason::UnknownCa,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Reason::NotYetValid,
        CertificateError::Revoked => Reason::Revoked,
        CertificateError::UnknownRevocationStatus => Reason::RevocationUnknown,
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            Reason::RevocationListExpired
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Reason::WrongPurpose,
        CertificateError::ApplicationVerificationFailure => Reason::IdentityNotAllowed,
        // rustls' enum is not exhaustive. What has no reason of its own is refused like the rest.
        _ => Reason::CertificateInvalid,
    }
}

/// An error in words for somebody who made a certificate with OpenSSL.
fn words(error: &CertificateError) -> String {
    use webpki::Error as Path;
    let text = match error {
        CertificateError::BadEncoding => "it is not encoded as DER requires",
        CertificateError::UnknownIssuer => {
            "no authority in trust has issued it, or an intermediate certificate was not sent"
        }
        CertificateError::UnknownRevocationStatus => {
            "revocation_lists lacks the list of the authority that issued it, or of one above"
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<Path>() {
            Some(Path::UnsupportedCertVersion) => {
                "it is an X.509 version 1 certificate, as \"openssl x509 -req\" makes them without -extfile, and version 3 is \
                 needed"
            }
            Some(Path::CaUsedAsEndEntity) => {
                "it is the certificate of an authority (CA:TRUE), and no device may show one"
            }
            Some(Path::EndEntityUsedAsCa) => "its issuer is not an authority (the issuer's certificate lacks CA:TRUE)",
            Some(Path::PathLenConstraintViolated) => {
                "more authorities are between it and trust than one of them permits (pathlen)"
            }
            Some(Path::NameConstraintViolation) => {
                "its names are outside those that an authority above it may vouch for"
            }
            Some(Path::UnsupportedCriticalExtension) => {
                "it, or one above it, has a critical extension that is not known here"
            }
            Some(Path::EmptyEkuExtension) => "its extended key usage is empty",
            Some(Path::SignatureAlgorithmMismatch) => "it names two different signature algorithms",
            Some(Path::ExtensionValueInvalid | Path::MalformedExtensions) => {
                "one of its extensions is there twice or cannot be read"
            }
            Some(Path::InvalidCertValidity) => "it expires before it begins to be valid",
            Some(Path::MaximumPathDepthExceeded) => "more than six authorities are between it and trust",
            Some(
                Path::MaximumPathBuildCallsExceeded
                | Path::MaximumSignatureChecksExceeded
                | Path::MaximumNameConstraintComparisonsExceeded,
            ) => "finding its way to trust takes too much work",
            _ => return other.to_string(),
        },
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// What the issuer's key is, if it is of a kind whose signatures the gate cannot check.
fn unsupported_issuer(key: Option<&[u8]>) -> Option<String> {
    Some(format!("its issuer's key is {}", key::unsupported(key?)?))
}

/// A path validation of its own for [`alone`], with the gate's algorithms.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The P-256 key of [`alone`]'s authority: nothing was ever signed with it.
const NO_ISSUER: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x02\x00\x04";

/// What the gate has against this certificate, whatever issued it, if a device shows it at `now`.
///
/// The same validation is asked as for a connection, with an authority that has the issuer's name and a key that signed
/// nothing. All that does not depend on the issuer is looked at before the signature.
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
        // Neither can be: there is one anchor, and it has signed nothing.
        Ok(Ok(_)) | Err(_) => return Err(Objection::unreadable()),
    }
    own_key(&identity)
}

/// What the gate has against a certificate that takes too much work to read, whatever it says.
pub fn unwieldy(certificate: &Parts<'_>) -> Option<Objection> {
    certificate
        .has_too_many_extensions()
        .then(|| Objection::invalid(format!("it has more than {EXTENSIONS_MAX} extensions")))
}

/// What the gate has against the key of the device itself.
pub fn own_key(identity: &Identity) -> Result<(), Objection> {
    match &identity.unsupported_key {
        Some(what) => Err(Objection::unsupported_key(&format!("its key is {what}"))),
        None => Ok(()),
    }
}

/// The contents of a SEQUENCE.
fn contents(der: &[u8]) -> &[u8] {
    x509_parser::der_parser::asn1_rs::Any::from_der(der).map_or(der, |(_, any)| any.data)
}
