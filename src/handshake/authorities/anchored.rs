//! Whether a trust anchor signed a certificate that is refused: what happens to the owner's own devices is told apart from
//! what strangers make up.

use std::collections::HashMap;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::checked::{TrustAnchor, TrustKind};
use crate::pki;

/// The most signatures that are verified for one certificate. The certificates of the gate's own authority need one.
const SIGNATURES_MAX: usize = 4;

/// Trust anchors by their subject.
#[derive(Debug, Default)]
pub(super) struct Signers {
    by_subject: HashMap<Vec<u8>, Vec<CertificateDer<'static>>>,
}

impl Signers {
    pub(super) fn new(trust: &[TrustAnchor]) -> Self {
        let mut anchors = Self::default();
        for anchor in trust.iter().filter(|anchor| anchor.kind == TrustKind::Authority) {
            // One that cannot be read is refused elsewhere.
            let Ok((_, certificate)) = X509Certificate::from_der(&anchor.certificate) else { continue };
            let of_subject = anchors.by_subject.entry(certificate.subject().as_raw().to_vec()).or_default();
            of_subject.push(anchor.certificate.clone());
        }
        anchors
    }

    /// Whether an anchor signed this certificate, over some of these intermediates if need be. Only signatures are looked
    /// at: not dates, not purposes, not revocation lists. Nothing is verified unless the names lead to an anchor, and
    /// an intermediate's key only after an anchor has signed for it.
    pub(super) fn signed(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(end_entity) else { return false };
        let mut left = SIGNATURES_MAX;
        let issuer = certificate.issuer().as_raw();
        if self.by_subject.get(issuer).is_some_and(|anchors| one_signed(anchors, &certificate, &mut left)) {
            return true;
        }
        // Of the intermediates, those by whose names a path leads up from the certificate.
        let read = intermediates.iter().filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1)));
        let mut others: Vec<_> = read.filter(|(_, one)| one.is_ca()).collect();
        let (mut wanted, mut path) = (vec![issuer.to_vec()], Vec::new());
        while let Some(name) = wanted.pop() {
            for (der, one) in others.extract_if(.., |(_, one)| one.subject().as_raw() == name) {
                wanted.push(one.issuer().as_raw().to_vec());
                path.push((der, one));
            }
        }
        // From the anchors down: a key is used only once a key above it has signed for it. The topmost were found last.
        let mut vouched: Vec<(Vec<u8>, &CertificateDer<'_>)> = Vec::new();
        while let Some(index) = path.iter().rposition(|(_, one)| {
            let name = one.issuer().as_raw();
            self.by_subject.contains_key(name) || vouched.iter().any(|(subject, _)| subject == name)
        }) {
            let (der, one) = path.remove(index);
            let anchors = self.by_subject.get(one.issuer().as_raw()).map_or(&[][..], Vec::as_slice);
            let above = vouched.iter().filter(|(subject, _)| subject == one.issuer().as_raw()).map(|(_, above)| *above);
            if one_signed(anchors.iter().chain(above), &one, &mut left) {
                if one.subject().as_raw() == issuer && one_signed([der], &certificate, &mut left) {
                    return true;
                }
                vouched.push((one.subject().as_raw().to_vec(), der));
            }
        }
        false
    }
}

/// Whether one of these issuers signed a certificate, as long as there are signatures left to verify.
fn one_signed<'a>(
    issuers: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    certificate: &X509Certificate<'_>,
    left: &mut usize,
) -> bool {
    issuers.into_iter().any(|issuer| {
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        pki::has_signed(issuer, certificate)
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn params(name: &str, authority: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn root(name: &str) -> Issuer {
        CertifiedIssuer::self_signed(params(name, true), KeyPair::generate().expect("a key")).expect("a root")
    }

    fn below(issuer: &Issuer, name: &str) -> Issuer {
        let key = KeyPair::generate().expect("a key");
        CertifiedIssuer::signed_by(params(name, true), key, issuer).expect("an intermediate")
    }

    fn leaf(issuer: &Issuer) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        params("phone", false).signed_by(&key, issuer).expect("a leaf").der().clone()
    }

    #[test]
    fn a_certificate_is_anchored_by_signatures_not_by_names() {
        let (home, forged) = (root("home"), root("home"));
        let anchor =
            TrustAnchor { file: "clients.pem".into(), certificate: home.der().clone(), kind: TrustKind::Authority };
        let anchors = Signers::new(&[anchor]);
        let (middle, other) = (below(&home, "middle"), below(&home, "middle"));
        let (low, false_middle, self_made) = (below(&middle, "low"), below(&forged, "middle"), root("middle"));
        for (case, leaf, sent, expected) in [
            ("by the anchor", leaf(&home), vec![], true),
            ("by the anchor, which is sent along", leaf(&home), vec![home.der()], true),
            ("by another key of that name", leaf(&forged), vec![], false),
            ("by another key of that name, sent along", leaf(&forged), vec![forged.der()], false),
            ("by an intermediate", leaf(&middle), vec![middle.der()], true),
            ("by an intermediate that is not sent", leaf(&middle), vec![], false),
            ("by two intermediates", leaf(&low), vec![middle.der(), low.der()], true),
            ("by two intermediates in the other order", leaf(&low), vec![low.der(), middle.der()], true),
            ("by the second of two of one name", leaf(&middle), vec![middle.der(), other.der()], true),
            ("beside one that is not signed", leaf(&middle), vec![false_middle.der(), middle.der()], true),
            ("beside one of a root of that name", leaf(&middle), vec![middle.der(), self_made.der()], true),
            ("by an intermediate that is not signed", leaf(&false_middle), vec![false_middle.der()], false),
            ("by another intermediate of that name", leaf(&false_middle), vec![middle.der()], false),
            ("by a root that calls itself so", leaf(&self_made), vec![self_made.der(), middle.der()], false),
        ] {
            let sent: Vec<_> = sent.into_iter().cloned().collect();
            assert_eq!(anchors.signed(&leaf, &sent), expected, "{case}");
        }
    }

    #[test]
    fn no_chain_costs_more_than_a_few_signatures() {
        let (home, forged) = (root("home"), root("home"));
        let mut left = SIGNATURES_MAX;
        let many = vec![home.der().clone(); 20];
        let certificate = leaf(&forged);
        let (_, certificate) = X509Certificate::from_der(&certificate).expect("a certificate");
        assert!(!one_signed(&many, &certificate, &mut left));
        assert_eq!(left, 0);
        let true_leaf = leaf(&home);
        let (_, certificate) = X509Certificate::from_der(&true_leaf).expect("a certificate");
        assert!(!one_signed(&many, &certificate, &mut left), "none is verified any more");
    }
}
