//! The certificates in `trust`: authorities, and devices that are trusted themselves.

use std::collections::HashMap;

use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::{DistinguishedName, Error};

use crate::config::checked::{ClientAuth, TrustKind};
use crate::model::identity::{Issued, IssuerKey, Serial, Sha256};
use crate::pki::{self, Parts};

/// The authorities and certificates that are trusted.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    /// Authorities, by name.
    authorities: HashMap<Vec<u8>, Vec<Anchor>>,
    /// Certificates that are trusted themselves, and vouch for no other.
    pinned: Vec<CertificateDer<'static>>,
    /// The names of the authorities that clients' certificates come from.
    pub(super) names: Vec<DistinguishedName>,
}

/// An authority in `trust`.
#[derive(Debug)]
pub(super) struct Anchor {
    /// It, as webpki takes it.
    pub(super) trust: TrustAnchor<'static>,
    /// SHA-256 of its certificate.
    pub(super) certificate: Sha256,
    /// Its distinguished name.
    pub(super) name: Vec<u8>,
    /// Its SubjectPublicKeyInfo.
    pub(super) key: Vec<u8>,
    key_id: Option<Vec<u8>>,
    /// Whether it may vouch for certain names only.
    pub(super) constrains_names: bool,
    /// Who issued its certificate, and those above it, as far as these issuers are in `trust` as well: a list of theirs may
    /// name it.
    pub(super) issued: Vec<Issued>,
    /// Whether it vouches for renewed certificates only: see [`super::renewed`].
    pub(super) renews: bool,
}

impl Anchor {
    /// One that vouches for devices itself, as if no other authority had issued its certificate.
    fn of(certificate: &CertificateDer<'_>, parts: &Parts<'_>) -> Result<Self, Error> {
        let trust = webpki::anchor_from_trusted_cert(certificate)
            .map_err(|error| Error::General(error.to_string()))?
            .to_owned();
        Ok(Self {
            trust,
            certificate: Sha256::of(certificate),
            name: parts.subject.to_vec(),
            key: parts.key.to_vec(),
            key_id: parts.key_id().map(<[u8]>::to_vec),
            constrains_names: parts.constrains_names(),
            issued: Vec::new(),
            renews: false,
        })
    }
}

impl Anchors {
    pub(super) fn new(client_auth: &ClientAuth, algorithms: pki::Algorithms<'_>) -> Result<Self, Error> {
        let mut anchors = Self::default();
        let authorities = client_auth.trust.iter().filter(|trusted| trusted.kind == TrustKind::Authority);
        let authorities: Vec<_> = authorities.filter_map(|trusted| Parts::read(&trusted.certificate)).collect();
        for trusted in &client_auth.trust {
            let certificate = &trusted.certificate;
            let parts = Parts::read(certificate).ok_or(Error::General("not a certificate".to_owned()))?;
            let name = match trusted.kind {
                TrustKind::Authority => {
                    let anchor = Anchor::of(certificate, &parts)?;
                    let issued = issued(parts, &authorities, algorithms);
                    anchors.add(Anchor { issued, ..anchor })
                }
                TrustKind::Pinned => {
                    anchors.pinned.push(certificate.clone());
                    DistinguishedName::from(parts.issuer.to_vec())
                }
            };
            if client_auth.announce_trust && !anchors.names.iter().any(|one| one.as_ref() == name.as_ref()) {
                anchors.names.push(name);
            }
        }
        Ok(anchors)
    }

    /// Adds the authority that renews certificates of the others. Clients are told its name if they are told those.
    pub(super) fn add_renewing(&mut self, certificate: &CertificateDer<'static>) -> Result<(), Error> {
        let parts = Parts::read(certificate).ok_or(Error::General("not a certificate".to_owned()))?;
        let name = self.add(Anchor { renews: true, ..Anchor::of(certificate, &parts)? });
        if !self.names.is_empty() && !self.names.iter().any(|one| one.as_ref() == name.as_ref()) {
            self.names.push(name);
        }
        Ok(())
    }

    /// Adds an authority. Returns its name as clients are told it.
    fn add(&mut self, anchor: Anchor) -> DistinguishedName {
        let name = DistinguishedName::in_sequence(anchor.trust.subject.as_ref());
        self.authorities.entry(anchor.name.clone()).or_default().push(anchor);
        name
    }

    /// The authority with this certificate (SHA-256) that vouches for devices itself.
    pub(super) fn of_certificate(&self, digest: &Sha256) -> Option<&Anchor> {
        self.authorities.values().flatten().find(|anchor| !anchor.renews && anchor.certificate == *digest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.pinned.is_empty()
    }

    /// Whether this very certificate is in `trust`.
    pub(super) fn pins(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.contains(certificate)
    }

    /// Whether it is the certificate of an authority, by name and key.
    pub(super) fn has(&self, certificate: &Parts<'_>) -> bool {
        let named = self.authorities.get(certificate.subject);
        named.is_some_and(|named| named.iter().any(|anchor| anchor.key == certificate.key))
    }

    /// The authorities that have the name of the certificate's issuer, first those whose key has the right identifier, if
    /// any.
    pub(super) fn that_may_have_issued(&self, certificate: &Parts<'_>) -> Vec<&Anchor> {
        let named = self.authorities.get(certificate.issuer).map(Vec::as_slice).unwrap_or_default();
        let mut anchors: Vec<&Anchor> = named.iter().collect();
        if anchors.len() > 1 {
            let wanted = certificate.authority_key_id();
            anchors.sort_by_key(|anchor| fit(wanted, anchor.key_id.as_deref()));
        }
        anchors
    }
}

/// Who issued a certificate, and those above it, among these authorities.
fn issued<'a>(mut certificate: Parts<'a>, authorities: &[Parts<'a>], algorithms: pki::Algorithms<'_>) -> Vec<Issued> {
    let mut all = Vec::new();
    // Authorities may have certified each other.
    for _ in 0..authorities.len() {
        let signed = |above: &&Parts<'_>| {
            above.subject == certificate.issuer
                && above.key != certificate.key
                && pki::verify(algorithms, above.key, &certificate.signature).is_ok()
        };
        let Some(above) = authorities.iter().find(signed) else { break };
        let key = IssuerKey { spki: above.key.to_vec(), digest: Sha256::of(above.key), signs_lists: true };
        let serial = Serial::from_be_bytes(certificate.serial);
        all.push(Issued { issuer: certificate.issuer.to_vec(), key: Some(key), serial });
        certificate = *above;
    }
    all
}

/// How well a key's identifier fits the one that is wanted: better the less it is. Identifiers are hints (RFC 5280 section
/// 4.2.1.1): a key that was certified anew may have another one.
pub(super) fn fit(wanted: Option<&[u8]>, id: Option<&[u8]>) -> u8 {
    match (wanted, id) {
        (Some(wanted), Some(id)) if wanted == id => 0,
        (Some(_), Some(_)) => 2,
        _ => 1,
    }
}
