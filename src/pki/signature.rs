//! Verifies the signature of a certificate or a revocation list.

use rustls::pki_types::SignatureVerificationAlgorithm;

use super::der_fields::{Signed, public_key};

/// The algorithms that are accepted.
pub type Algorithms<'a> = &'a [&'a dyn SignatureVerificationAlgorithm];

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSigned {
    /// Its algorithm is not accepted.
    Algorithm,
    /// The type of the key is not accepted.
    Key,
    /// The type of the key does not fit the algorithm.
    OtherKind,
    /// Another key made it, or the data was changed. Only this error needs a verification.
    Wrong,
}

/// Verifies that the key in `spki` (SubjectPublicKeyInfo) made this signature, and returns the algorithm.
pub fn verify<'a>(
    algorithms: Algorithms<'a>,
    spki: &[u8],
    signed: &Signed<'_>,
) -> Result<&'a dyn SignatureVerificationAlgorithm, NotSigned> {
    let (algorithm, key) = choose(algorithms, spki, signed)?;
    let verdict = algorithm.verify_signature(key, signed.message, signed.value);
    verdict.map(|()| algorithm).map_err(|_| NotSigned::Wrong)
}

/// The algorithm for verifying this signature with the key in `spki`, and the key. Verifies nothing.
pub fn choose<'a, 'b>(
    algorithms: Algorithms<'a>,
    spki: &'b [u8],
    signed: &Signed<'_>,
) -> Result<(&'a dyn SignatureVerificationAlgorithm, &'b [u8]), NotSigned> {
    let (kind, key) = public_key(spki).ok_or(NotSigned::Key)?;
    let mut fit = algorithms.iter().filter(|one| one.signature_alg_id().as_ref() == signed.algorithm).peekable();
    fit.peek().ok_or(NotSigned::Algorithm)?;
    let Some(algorithm) = fit.find(|one| one.public_key_alg_id().as_ref() == kind) else {
        let known = algorithms.iter().any(|one| one.public_key_alg_id().as_ref() == kind);
        return Err(if known { NotSigned::OtherKind } else { NotSigned::Key });
    };
    Ok((*algorithm, key))
}
