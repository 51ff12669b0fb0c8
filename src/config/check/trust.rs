//! What a certificate in `trust` vouches for, and which of them signed a revocation list.

use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::config::checked::{RevocationList, TrustAnchor, TrustKind};
use crate::config::report::At;
use crate::identity::Sha256;
use crate::pki;

/// What this certificate vouches for in `trust`. `None` if that cannot be told, so that it must not be there.
///
/// A device's own certificate must not make its key an authority: its holder could name other devices. So only a
/// certificate that says that it is an authority's counts as one. Certificates of version 1 cannot say so; roots of old PKIs
/// are of that form, and a device cannot use one here at all, so one that names itself as its issuer is taken for a root.
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
