//! Who vouches for client certificates, and who is revoked: trust anchors and revocation lists, and what was found out by them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::chains::{self, Chains, Followed, Validity};
use super::config::PROVIDER;
use crate::config::checked::{ClientAuth, ExpiredRevocationList, RevocationCheck, RevocationList};
use crate::identity::{Identity, Serial, text};
use crate::pki::acceptance::{self, Objection as Refused};
use crate::rejection::Reason;

/// The most certificates a client may send beside its own. webpki follows no chain of more than six, but tries every order
/// of those it is given: thirty of one name, which anybody can make, cost it seconds.
const INTERMEDIATES_MAX: usize = 8;

/// The authorities of one `[client_auth]`. Routes that have the same one share them: lists may be long, and a device that was
/// seen on one route is known on the others.
#[derive(Debug)]
pub struct Authorities {
    /// Follows the chain to a trust anchor (RFC 5280 section 6). Absent in the modes that do not verify.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    /// The trust anchors' certificates, to tell why one of them has not verified a signature.
    anchors: Vec<CertificateDer<'static>>,
    /// What all revocation lists together revoke: issuer and serial number. webpki asks the first list that speaks for
    /// an issuer and no other, so a list that was put beside an older one would have no effect.
    revoked: HashMap<Vec<u8>, HashSet<Serial>>,
    /// The first moment, in seconds since 1970, at which a revocation list expires and with it every verdict.
    lists_good_until: Option<u64>,
    /// Whether the lists are asked about the certificates above the client's own.
    revocation_check: RevocationCheck,
    known: Chains,
}

/// The trust anchors or revocation lists cannot be used.
#[derive(Debug)]
pub enum UnusableTrust {
    /// A certificate is no trust anchor.
    Anchor(Error),
    /// webpki refuses the set: it is empty, or a revocation list cannot be read.
    Builder(VerifierBuilderError),
}

impl fmt::Display for UnusableTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anchor(error) => error.fmt(f),
            Self::Builder(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UnusableTrust {}

impl Authorities {
    /// Those that `client_auth` names. Where it verifies nobody, there are none.
    pub fn new(client_auth: &ClientAuth) -> Result<Self, UnusableTrust> {
        let chain = if client_auth.mode.verifies() { Some(chain_verifier(client_auth)?) } else { None };
        let lists_good_until = match client_auth.expired_revocation_list {
            ExpiredRevocationList::Warn => None,
            ExpiredRevocationList::Deny => {
                client_auth.revocation_lists.iter().filter_map(|list| u64::try_from(list.next_update?).ok()).min()
            }
        };
        let anchors = client_auth.trust.iter().map(|anchor| anchor.certificate.clone()).collect();
        let revoked = revoked(&client_auth.revocation_lists);
        Ok(Self {
            chain,
            anchors,
            revoked,
            lists_good_until,
            revocation_check: client_auth.revocation_check,
            known: Chains::default(),
        })
    }

    /// The names of the trust anchors, for the CertificateRequest.
    pub(super) fn names(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    /// Whether chains are followed to a trust anchor.
    pub fn verifies(&self) -> bool {
        self.chain.is_some()
    }

    /// Whom the lists here revoke and those of `other` do not: the first `most` of them, and how many more there are.
    pub fn revoked_beside(&self, other: &Self, most: usize) -> (Vec<(String, Serial)>, usize) {
        let (mut first, mut count) = (BTreeSet::new(), 0);
        // Where nobody is verified, lists have no effect.
        for (issuer, serials) in self.revoked.iter().filter(|_| self.chain.is_some()) {
            let known = other.revoked.get(issuer);
            for serial in serials.iter().filter(|serial| known.is_none_or(|known| !known.contains(*serial))) {
                count += 1;
                first.insert((issuer, serial));
                if first.len() > most {
                    first.pop_last();
                }
            }
        }
        let name = |issuer| X509Name::from_der(issuer).map(|(_, name)| text::name(&name)).unwrap_or_default();
        let more = count - first.len();
        (first.into_iter().map(|(issuer, serial)| (name(issuer), serial.clone())).collect(), more)
    }

    /// Follows a chain to a trust anchor, or recalls that it was followed before.
    pub(super) fn follow(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Followed, (Option<Arc<Identity>>, Refused)> {
        let Some(chain) = &self.chain else {
            // Nobody looks at the dates, so they do not end anything either, unless a reload changes the mode.
            let identity = Identity::from_certificate(end_entity, false).map_err(|_| (None, Refused::unreadable()))?;
            let chain = chains::kept(end_entity, intermediates, validity(&identity, intermediates, now).until);
            let validity = Validity { from: 0, until: u64::MAX };
            return Ok(Followed { identity: Arc::new(identity), chain, validity, revoked: false });
        };
        let key = chains::key(end_entity, intermediates);
        if let Some(followed) = self.known.recall(&key, now) {
            return Ok(followed);
        }
        let identity = Identity::from_certificate(end_entity, true).map_err(|_| (None, Refused::unreadable()))?;
        let identity = Arc::new(identity);
        let revoked = match self.follow_anew(&**chain, end_entity, intermediates, now) {
            Ok(()) => false,
            // webpki looks for that last, behind all that could be wrong with the chain.
            Err(refused) if refused.reason == Reason::Revoked => true,
            Err(refused) => return Err((Some(identity), refused)),
        };
        let Validity { from, until } = validity(&identity, intermediates, now);
        let chain = chains::kept(end_entity, intermediates, until);
        let until = self.lists_good_until.map_or(until, |lists| lists.min(until));
        let followed = Followed { identity, chain, validity: Validity { from, until }, revoked };
        self.known.remember(key, followed.clone());
        Ok(followed)
    }

    fn follow_anew(
        &self,
        chain: &dyn ClientCertVerifier,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refused> {
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(Refused::invalid(format!("{} certificates beside the client's own", intermediates.len())));
        }
        match chain.verify_client_cert(end_entity, intermediates, now) {
            Ok(_) => self.ask_every_list(end_entity, intermediates),
            Err(error) => Err(acceptance::objection(error, end_entity, intermediates, &self.anchors)),
        }
    }

    fn ask_every_list(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Refused> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        let above = if self.revocation_check == RevocationCheck::Leaf { &[] } else { intermediates };
        for certificate in [end_entity].into_iter().chain(above) {
            // What cannot be read here was read by webpki, or is no part of the chain.
            let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { continue };
            let serials = self.revoked.get(certificate.issuer().as_raw());
            if serials.is_some_and(|serials| serials.contains(&Serial::from_be_bytes(certificate.raw_serial()))) {
                return Err(revoked_by_a_list());
            }
        }
        Ok(())
    }
}

/// When all certificates of a chain are valid that is good `now`.
pub(super) fn validity(identity: &Identity, intermediates: &[CertificateDer<'_>], now: UnixTime) -> Validity {
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let mut validity = Validity { from: seconds(identity.not_before), until: seconds(identity.not_after) };
    for certificate in intermediates {
        // One that cannot be read is no part of the chain.
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { continue };
        let dates = certificate.validity();
        let (from, until) = (seconds(dates.not_before.timestamp()), seconds(dates.not_after.timestamp()));
        // Nor is one that is not valid now: many clients send their authority along, which is trusted whatever its dates.
        if from <= now.as_secs() && now.as_secs() <= until {
            validity = Validity { from: validity.from.max(from), until: validity.until.min(until) };
        }
    }
    validity
}

/// A refusal of a chain that leads to a trust anchor and is revoked.
pub(super) fn revoked_by_a_list() -> Refused {
    let error = CertificateError::Revoked;
    Refused { reason: Reason::Revoked, detail: error.to_string(), error }
}

/// Lists that cannot be read are refused by webpki.
fn revoked(lists: &[RevocationList]) -> HashMap<Vec<u8>, HashSet<Serial>> {
    let mut revoked: HashMap<Vec<u8>, HashSet<Serial>> = HashMap::new();
    for list in lists {
        let Ok((_, list)) = CertificateRevocationList::from_der(&list.list) else { continue };
        let serials = list.iter_revoked_certificates().map(|entry| Serial::from_be_bytes(entry.raw_serial()));
        revoked.entry(list.issuer().as_raw().to_vec()).or_default().extend(serials);
    }
    revoked
}

fn chain_verifier(client_auth: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, UnusableTrust> {
    let mut roots = RootCertStore::empty();
    for anchor in &client_auth.trust {
        roots.add(anchor.certificate.clone()).map_err(UnusableTrust::Anchor)?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
    if !client_auth.revocation_lists.is_empty() {
        builder = builder.with_crls(client_auth.revocation_lists.iter().map(|list| list.list.clone()));
    }
    if client_auth.revocation_check == RevocationCheck::Leaf {
        builder = builder.only_check_end_entity_revocation();
    }
    if !client_auth.announce_trust {
        builder = builder.clear_root_hint_subjects();
    }
    // webpki's own default takes an expired list for a good one.
    if client_auth.expired_revocation_list == ExpiredRevocationList::Deny {
        builder = builder.enforce_revocation_expiration();
    }
    builder.build().map_err(UnusableTrust::Builder)
}
