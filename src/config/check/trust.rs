//! What a certificate in `trust` vouches for, and which of them signed a revocation list.

use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::config::checked::{RevocationCheck, RevocationList, TrustAnchor, TrustKind};
use crate::config::report::At;
use crate::model::identity::Sha256;
use crate::pki;

/// What this certificate vouches for in `trust`. `None` if that cannot be told, so that it must not be there.
///
/// A device's own certificate must not make its key an authority: its holder could name other devices. So only a
/// certificate that says that it is an authority's counts as one. Certificates of version 1 cannot say so; roots of old PKIs
/// are of that form, and a device cannot use one here, so one that names itself as its issuer is taken for a root.
pub(super) fn kind(certificate: &X509Certificate<'_>) -> Option<TrustKind> {
    if certificate.version() != X509Version::V3 {
        let is_root = certificate.subject().as_raw() == certificate.issuer().as_raw();
        return is_root.then_some(TrustKind::Authority);
    }
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    let is_authority = certificate.basic_constraints().ok().flatten().is_some_and(|basic| basic.value.ca);
    Some(if is_authority && signs { TrustKind::Authority } else { TrustKind::Pinned })
}

/// Finds out for each list which authority in `trust` signed it. Names alone do not tell authorities apart.
pub(super) fn attribute(lists: &mut [At<RevocationList>], anchors: &[At<TrustAnchor>]) {
    for At { value: list, .. } in lists {
        let mut authorities = anchors.iter().map(|anchor| &anchor.value).filter(|one| one.kind == TrustKind::Authority);
        let signer = authorities.find(|anchor| pki::has_signed_list(&anchor.certificate, &list.list));
        list.signer = signer.and_then(|anchor| key_digest(&anchor.certificate));
    }
}

/// SHA-256 of the key in a certificate.
pub(super) fn key_digest(certificate: &[u8]) -> Option<Sha256> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(Sha256::of(certificate.public_key().raw))
}

/// The authorities in trust of which there is no list. With any list at all, what they signed is of unknown status and turned
/// away.
pub(super) fn unlisted<'a>(
    lists: &[At<RevocationList>],
    anchors: &'a [At<TrustAnchor>],
    depth: RevocationCheck,
) -> Vec<&'a At<TrustAnchor>> {
    let has_list = |anchor: &TrustAnchor| {
        let Ok((_, certificate)) = X509Certificate::from_der(&anchor.certificate) else { return true };
        let signer = key_digest(&anchor.certificate);
        lists.iter().any(|list| list.value.issuer == certificate.subject().as_raw() && list.value.signer == signer)
    };
    // Where only a device's own certificate is asked for, a list of an authority below is all that its devices need.
    let below = |list: &At<RevocationList>| list.value.signer.is_none();
    if depth == RevocationCheck::Leaf && lists.iter().any(below) {
        return Vec::new();
    }
    // A root beside the intermediate that it signed: devices find their way to the intermediate first.
    let stands_above = |anchor: &TrustAnchor| {
        anchors.iter().any(|other| {
            has_list(&other.value)
                && X509Certificate::from_der(&other.value.certificate).is_ok_and(|(_, other)| {
                    other.subject().as_raw() != other.issuer().as_raw() && pki::has_signed(&anchor.certificate, &other)
                })
        })
    };
    let without = |anchor: &&At<TrustAnchor>| {
        anchor.value.kind == TrustKind::Authority && !has_list(&anchor.value) && !stands_above(&anchor.value)
    };
    anchors.iter().filter(without).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
        KeyPair, KeyUsagePurpose, SerialNumber,
    };
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::config::report::Place;

    fn params(is_ca: IsCa, key_usages: &[KeyUsagePurpose]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Devices");
        (params.is_ca, params.key_usages) = (is_ca, key_usages.to_vec());
        params
    }

    fn at<T>(value: T) -> At<T> {
        At { value, place: Place { line: None, key: "client_auth".to_owned() } }
    }

    #[test]
    fn only_certificates_with_ca_rights_are_authorities() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        for (what, params, expected) in [
            ("an authority", params(ca(), &[KeyCertSign, CrlSign]), TrustKind::Authority),
            ("one that says nothing of its key", params(ca(), &[]), TrustKind::Authority),
            ("one whose key may not sign certificates", params(ca(), &[DigitalSignature]), TrustKind::Pinned),
            ("a device", params(IsCa::ExplicitNoCa, &[DigitalSignature]), TrustKind::Pinned),
            ("a device whose key may sign", params(IsCa::ExplicitNoCa, &[KeyCertSign]), TrustKind::Pinned),
            ("one that says nothing", params(IsCa::NoCa, &[]), TrustKind::Pinned),
        ] {
            let der = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone();
            let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
            assert_eq!(kind(&certificate), Some(expected), "{what}");
        }
    }

    #[test]
    fn authorities_of_one_name_each_need_their_own_list() {
        let authority = || {
            let params = params(IsCa::Ca(BasicConstraints::Unconstrained), &[]);
            let key = KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate").der().clone();
            let list = CertificateRevocationListParams {
                this_update: OffsetDateTime::now_utc(),
                next_update: OffsetDateTime::now_utc() + Duration::DAY,
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&Issuer::new(params, key)).expect("a list").der().to_vec();
            let anchor = TrustAnchor { file: "clients.pem".into(), certificate, kind: TrustKind::Authority };
            (at(anchor), RevocationList::read(list, Path::new("clients.crl")).expect("a list"))
        };
        let ((own, own_list), (other, other_list)) = (authority(), authority());
        let anchors = [own, other];
        for (lists, without) in [
            (vec![own_list.clone()], &anchors[1..]),
            (vec![other_list.clone()], &anchors[..1]),
            (vec![other_list, own_list], &[]),
        ] {
            let mut lists: Vec<_> = lists.into_iter().map(at).collect();
            attribute(&mut lists, &anchors);
            for depth in [RevocationCheck::Chain, RevocationCheck::Leaf] {
                let found = unlisted(&lists, &anchors, depth);
                let certificate = |one: &At<TrustAnchor>| one.value.certificate.clone();
                assert!(found.into_iter().map(certificate).eq(without.iter().map(certificate)), "{depth:?}");
            }
        }
    }
}
