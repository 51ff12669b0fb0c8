//! The search for the path from a client's certificate to a trust anchor, among the certificates that the client sent.
//!
//! webpki tries every order of what it is given, and its own limits (100 signatures) are no protection before a client is
//! authenticated: eight certificates of the trust anchor's name cost it milliseconds. Here paths are found by name, the
//! signatures on one are checked from the trust anchor down, and only a path on which all of them are right is given to
//! webpki, which judges everything else. So no key that a stranger made up is ever computed with, and a chain that no trust
//! anchor vouches for costs one or two signatures, see [`super::budget`].

use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};

use super::anchors::{Anchor, Anchors, fit};
use super::budget::{Allowance, Budget};
use crate::model::identity::key;
use crate::pki::{self, NotSigned, Parts, Signed};

/// The most intermediates between a client's certificate and a trust anchor. webpki follows no more.
const INTERMEDIATES_MAX: usize = 6;
/// The most signatures that are checked for a client, right or wrong. The longest path has seven.
const CHECKS_MAX: usize = 16;
/// The most steps through what a client sent.
const STEPS_MAX: usize = 64;
/// The most paths that webpki is asked about.
const JUDGED_MAX: usize = 4;

/// A path that webpki has accepted.
#[derive(Debug)]
pub(super) struct Path<'a> {
    /// The client's own certificate first, then those of the issuers, without the trust anchor's.
    pub(super) certificates: Vec<Parts<'a>>,
    pub(super) anchor: &'a Anchor,
}

/// Why there is no path: as webpki has it, and how much that says.
#[derive(Debug)]
pub(super) struct NoPath<'a> {
    weight: u8,
    pub(super) error: webpki::Error,
    /// The SubjectPublicKeyInfo with which a signature could not be checked, if that is the error. An authority in trust
    /// vouches for it.
    pub(super) key: Option<&'a [u8]>,
    /// On some path all signatures are right, from a trust anchor down to the client's certificate, and all issuers are
    /// authorities.
    pub(super) anchored: bool,
}

/// Finds a path for the certificate `leaf`, with what the client sent beside it.
pub(super) fn find<'a>(
    leaf: Parts<'a>,
    sent: &'a [CertificateDer<'_>],
    anchors: &'a Anchors,
    algorithms: pki::Algorithms<'a>,
    vouched: &'a KnownIntermediates,
    allowance: &'a Allowance,
    now: UnixTime,
) -> Result<Path<'a>, NoPath<'a>> {
    let mut certificates = vec![leaf];
    for der in sent {
        // What is no certificate, is there already, or is trusted anyway, leads nowhere.
        let Some(parts) = Parts::read(der).filter(|parts| !parts.has_too_many_extensions()) else { continue };
        if !anchors.has(&parts) && certificates.iter().all(|one| one.der != parts.der) {
            certificates.push(parts);
        }
    }
    let bytes: usize = certificates.iter().map(|one| one.der.len()).sum();
    let mut search = Search {
        certificates,
        anchors,
        algorithms,
        vouched,
        now,
        checked: Vec::new(),
        budget: Budget::new(bytes, allowance),
        steps: STEPS_MAX,
        judged: 0,
        no_path: NoPath { weight: 0, error: webpki::Error::UnknownIssuer, key: None, anchored: false },
    };
    search.extend(&mut vec![0]).ok_or(search.no_path)
}

/// What is wrong with a certificate, whatever issued it. A certificate that nothing vouches for is refused for that, if for
/// anything: dates, purpose and the like come before the signature, as webpki has it.
pub(super) fn alone(leaf: &webpki::EndEntityCert<'_>, now: UnixTime) -> Result<(), webpki::Error> {
    match leaf.verify_for_usage(&[], &[], &[], now, ForClients, None, None) {
        Ok(_) | Err(webpki::Error::UnknownIssuer) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The purpose of a client's certificate, if it has any: clientAuth. As webpki's own, but that its refusal does not name
/// thousands of purposes.
struct ForClients;

impl webpki::ExtendedKeyUsageValidator for ForClients {
    fn validate(&self, purposes: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        /// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2.
        const CLIENT_AUTH: webpki::KeyPurposeId<'_> =
            webpki::KeyPurposeId::new(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]);
        const NAMED_MAX: usize = 8;
        let (mut any, mut present) = (false, Vec::new());
        for purpose in purposes {
            let purpose = purpose?;
            if purpose == CLIENT_AUTH {
                return Ok(());
            }
            any = true;
            if present.len() < NAMED_MAX {
                present.push(purpose.to_decoded_oid());
            }
        }
        let required = webpki::KeyUsage::client_auth();
        let missing = webpki::RequiredEkuNotFoundContext { required, present };
        if any { Err(webpki::Error::RequiredEkuNotFoundContext(missing)) } else { Ok(()) }
    }
}

/// Certificates of intermediates that a trust anchor signed, as they were seen before. Strangers can send a genuine
/// intermediate as well, which must not add to the cost of the rest.
#[derive(Debug, Default)]
pub(super) struct KnownIntermediates {
    /// The anchor's key and the certificate. Compared byte by byte: hashing what strangers send costs more.
    seen: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl KnownIntermediates {
    /// The most that are kept. Only what a trust anchor signed gets here.
    const MAX: usize = 64;
    /// The longest certificate, in bytes, that is kept.
    const LONGEST: usize = 4 * 1024;

    fn has(&self, issued: &Parts<'_>, key: &[u8]) -> bool {
        self.seen().iter().any(|(anchor, certificate)| certificate == issued.der && anchor == key)
    }

    /// Keeps one whose signature is right.
    fn keep(&self, issued: &Parts<'_>, key: &[u8]) {
        let mut seen = self.seen();
        if seen.len() < Self::MAX && issued.der.len() <= Self::LONGEST && issued.is_authority() {
            seen.push((key.to_vec(), issued.der.to_vec()));
        }
    }

    fn seen(&self) -> MutexGuard<'_, Vec<(Vec<u8>, Vec<u8>)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Search<'a> {
    /// The client's own first.
    certificates: Vec<Parts<'a>>,
    anchors: &'a Anchors,
    algorithms: pki::Algorithms<'a>,
    vouched: &'a KnownIntermediates,
    now: UnixTime,
    checked: Vec<Checked<'a>>,
    budget: Budget<'a>,
    steps: usize,
    judged: usize,
    /// The best that is known in case there is none.
    no_path: NoPath<'a>,
}

/// A signature that was checked.
#[derive(Clone, Copy, Debug)]
struct Checked<'a> {
    signature: Signed<'a>,
    key: &'a [u8],
    by: Result<&'a dyn SignatureVerificationAlgorithm, NotSigned>,
}

impl<'a> Search<'a> {
    /// Goes on from the last certificate of `path`, which are places in `certificates`.
    fn extend(&mut self, path: &mut Vec<usize>) -> Option<Path<'a>> {
        let last = self.certificate(*path.last()?)?;
        for anchor in self.anchors.that_may_have_issued(&last) {
            // What renews certificates signs those of devices, and no authority.
            if anchor.renews && path.len() > 1 {
                continue;
            }
            if self.is_vouched_for(path, anchor) {
                match self.judge(path, anchor) {
                    Ok(found) => return Some(found),
                    Err(error) => self.note(JUDGED, error, None),
                }
            }
        }
        if path.len() > INTERMEDIATES_MAX {
            return None;
        }
        for place in self.may_have_issued(&last, path) {
            self.steps = self.steps.checked_sub(1)?;
            path.push(place);
            if let Some(found) = self.extend(path) {
                return Some(found);
            }
            path.pop();
        }
        None
    }

    fn certificate(&self, place: usize) -> Option<Parts<'a>> {
        self.certificates.get(place).copied()
    }

    /// The certificates that have the name of `issued`'s issuer, first those whose key has the right identifier, if any.
    fn may_have_issued(&self, issued: &Parts<'a>, path: &[usize]) -> Vec<usize> {
        let on_path = |one: &Parts<'_>| {
            path.iter()
                .filter_map(|place| self.certificate(*place))
                .any(|on| on.subject == one.subject && on.key == one.key)
        };
        let fits = |one: &Parts<'a>| {
            one.subject == issued.issuer && !on_path(one) && self.verdict(issued, one.key) != Some(false)
        };
        let all = self.certificates.iter().enumerate().skip(1);
        let mut places: Vec<_> = all.filter(|(_, one)| fits(one)).map(|(place, one)| (place, one.key_id())).collect();
        if places.len() > 1 {
            let wanted = issued.authority_key_id();
            places.sort_by_key(|(_, id)| fit(wanted, *id));
        }
        places.into_iter().map(|(place, _)| place).collect()
    }

    /// What is known about the signature on `issued` by this key.
    fn verdict(&self, issued: &Parts<'a>, key: &[u8]) -> Option<bool> {
        let known = self.checked.iter().find(|one| one.signature == issued.signature && one.key == key);
        known.map(|one| one.by.is_ok())
    }

    /// Whether every signature on the path is right, from the trust anchor down: no key is used that is not vouched for.
    fn is_vouched_for(&mut self, path: &[usize], anchor: &'a Anchor) -> bool {
        let (mut key, mut of_anchor) = (anchor.key.as_slice(), true);
        for place in path.iter().rev() {
            let Some(issued) = self.certificate(*place) else { return false };
            let is_known = of_anchor && *place != 0 && self.vouched.has(&issued, key);
            if is_known {
                self.recall(&issued, key);
            }
            if !self.is_signed(&issued, key, of_anchor, path.len() == 1) {
                return false;
            }
            if of_anchor && *place != 0 && !is_known {
                self.vouched.keep(&issued, key);
            }
            (key, of_anchor) = (issued.key, false);
        }
        true
    }

    /// Takes over that this signature was right before.
    fn recall(&mut self, issued: &Parts<'a>, key: &'a [u8]) {
        if self.verdict(issued, key).is_none()
            && let Ok((by, _)) = pki::choose(self.algorithms, key, &issued.signature)
        {
            self.checked.push(Checked { signature: issued.signature, key, by: Ok(by) });
        }
    }

    fn is_signed(&mut self, issued: &Parts<'a>, key: &'a [u8], of_anchor: bool, in_any_case: bool) -> bool {
        if let Some(verdict) = self.verdict(issued, key) {
            return verdict;
        }
        // Each trust anchor that bears the name of the issuer of the client's own certificate is asked in any case.
        if (!in_any_case && !self.budget.allows(key, of_anchor)) || self.checked.len() >= CHECKS_MAX {
            self.note(TOO_MUCH, webpki::Error::MaximumSignatureChecksExceeded, None);
            return false;
        }
        let by = pki::verify(self.algorithms, key, &issued.signature);
        self.checked.push(Checked { signature: issued.signature, key, by });
        if let Err(why) = by {
            if why == NotSigned::Wrong {
                self.budget.charge(key, of_anchor);
            }
            let (weight, error) = not_signed(why, &issued.signature, key);
            self.note(weight, error, Some(key));
        }
        by.is_ok()
    }

    /// Asks webpki about a path on which all signatures are right.
    fn judge(&mut self, path: &[usize], anchor: &'a Anchor) -> Result<Path<'a>, webpki::Error> {
        self.judged += 1;
        let certificates: Vec<_> = path.iter().filter_map(|place| self.certificate(*place)).collect();
        // A device's key makes no authority: what it signs is not anchored, though its own certificate is.
        self.no_path.anchored |= certificates.iter().skip(1).all(Parts::is_authority);
        if self.judged > JUDGED_MAX {
            return Err(webpki::Error::MaximumPathBuildCallsExceeded);
        }
        let ders: Vec<_> = certificates.iter().map(|one| CertificateDer::from(one.der)).collect();
        let (leaf, intermediates) = ders.split_first().ok_or(webpki::Error::UnknownIssuer)?;
        let known: Vec<_> = self
            .checked
            .iter()
            .filter_map(|one| Some(CheckedSignature { by: one.by.ok()?, all: &self.checked }))
            .collect();
        let algorithms: Vec<_> = known.iter().map(|one| one as &dyn SignatureVerificationAlgorithm).collect();
        let end_entity = webpki::EndEntityCert::try_from(leaf)?;
        let anchors: &[TrustAnchor<'_>] = slice::from_ref(&anchor.trust);
        let verified =
            end_entity.verify_for_usage(&algorithms, anchors, intermediates, self.now, ForClients, None, None)?;
        // It had no other choice; that it made this one is what everything after relies on.
        if verified.intermediate_certificates().map(webpki::Cert::der).ne(intermediates.iter().cloned()) {
            return Err(webpki::Error::UnknownIssuer);
        }
        Ok(Path { certificates, anchor })
    }

    /// Keeps what says most.
    fn note(&mut self, weight: u8, error: webpki::Error, key: Option<&'a [u8]>) {
        if weight > self.no_path.weight {
            self.no_path = NoPath { weight, error, key, ..self.no_path };
        }
    }
}

/// How much an error says: that too much was sent least, what webpki says of a path with right signatures most.
const TOO_MUCH: u8 = 1;
const JUDGED: u8 = 5;

/// A signature that does not count, as webpki has it.
fn not_signed(why: NotSigned, signature: &Signed<'_>, spki: &[u8]) -> (u8, webpki::Error) {
    let signature_algorithm_id = signature.algorithm.to_vec();
    let of_key = |signature_algorithm_id| {
        let public_key_algorithm_id =
            pki::public_key(spki).map(|(algorithm, _)| algorithm.to_vec()).unwrap_or_default();
        let context = webpki::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            public_key_algorithm_id,
        };
        webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(context)
    };
    match why {
        NotSigned::OtherKind => (2, of_key(signature_algorithm_id)),
        // aws-lc refuses keys of sizes that it does not take by the same error.
        NotSigned::Wrong if key::unsupported(spki).is_some() => (4, webpki::Error::InvalidSignatureForPublicKey),
        NotSigned::Wrong => (3, webpki::Error::InvalidSignatureForPublicKey),
        NotSigned::Key => (4, of_key(signature_algorithm_id)),
        NotSigned::Algorithm => {
            let supported_algorithms = Vec::new();
            let context = webpki::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, supported_algorithms };
            (4, webpki::Error::UnsupportedSignatureAlgorithmContext(context))
        }
    }
}

/// Tells webpki what was found out about the signatures of a path by this algorithm: they need not be checked twice.
#[derive(Debug)]
struct CheckedSignature<'a> {
    by: &'a dyn SignatureVerificationAlgorithm,
    all: &'a [Checked<'a>],
}

impl SignatureVerificationAlgorithm for CheckedSignature<'_> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let is_this = |one: &&Checked<'_>| {
            one.by.is_ok_and(|by| {
                by.signature_alg_id() == self.by.signature_alg_id()
                    && by.public_key_alg_id() == self.by.public_key_alg_id()
            }) && one.signature.message == message
                && one.signature.value == signature
                && pki::public_key(one.key).is_some_and(|(_, one)| one == key)
        };
        self.all.iter().find(is_this).map(drop).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.by.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.by.signature_alg_id()
    }
}
