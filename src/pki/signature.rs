//! Whether a key made a signature on a certificate or a revocation list.

use rustls::pki_types::SignatureVerificationAlgorithm;

use super::parts::{Signed, public_key};

/// The algorithms that are accepted.
pub type Algorithms<'a> = &'a [&'a dyn SignatureVerificationAlgorithm];

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSigned {
    /// It was made with an algorithm that is not accepted, whatever the key.
    Algorithm,
    /// The key is of a kind that is not accepted.
    Key,
    /// The key is of another kind than the signature.
    OtherKind,
    /// Another key made it, or what was signed has changed. The only answer, but for success, that takes computing.
    Wrong,
}

/// Whether the key in `spki`, a SubjectPublicKeyInfo, made this signature; if so, by which algorithm.
pub fn verify<'a>(
    algorithms: Algorithms<'a>,
    spki: &[u8],
    signed: &Signed<'_>,
) -> Result<&'a dyn SignatureVerificationAlgorithm, NotSigned> {
    let (algorithm, key) = choose(algorithms, spki, signed)?;
    let verdict = algorithm.verify_signature(key, signed.message, signed.value);
    verdict.map(|()| algorithm).map_err(|_| NotSigned::Wrong)
}

/// The algorithm by which the key in `spki` would have made this signature, which is not checked; and the key itself.
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
