//! Revocation lists, by the name and the key of the authority that made them.
//!
//! A name alone does not tell two authorities apart: one that was made anew has the old one's, and often another household's
//! has the same. webpki takes the first list that bears the issuer's name, and hashes all of it for every chain. Here a list
//! belongs to one key, and what it revokes is looked up.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use rustls::CertificateError;
use rustls::pki_types::{CertificateRevocationListDer, UnixTime};
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::{Refused, revoked};
use crate::config::checked::{ClientAuth, ExpiredRevocationList, RevocationCheck, RevocationList};
use crate::model::identity::{Chain, Issued, IssuerKey, Serial, Sha256, text};
use crate::model::rejection::{Cause, ListFault, Text};
use crate::pki::{self, Signed};

/// The revocation lists of one `[client_auth]`.
#[derive(Debug)]
pub(super) struct Lists {
    /// By the issuer's distinguished name (DER).
    by_issuer: HashMap<Vec<u8>, Vec<List>>,
    /// Whether each certificate needs a list that speaks for it: the configuration names lists.
    required: bool,
    /// Whether intermediates need one as well. One that names an intermediate revokes it in any case.
    depth: RevocationCheck,
    /// Whether an expired list says nothing any more.
    expire: bool,
    algorithms: pki::Algorithms<'static>,
}

#[derive(Debug)]
struct List {
    /// Whether it says what is known of a certificate, and does not only revoke.
    is_current: bool,
    revoked: HashSet<Serial>,
    /// `nextUpdate`, in seconds since 1970.
    until: u64,
    /// Of which of the issuer's certificates it speaks; all of them if there is none.
    scope: Option<Scope>,
    signer: Signer,
}

/// Whose key signed a list.
#[derive(Debug)]
enum Signer {
    /// That of a trust anchor: found when the configuration was read.
    Anchor(Sha256),
    /// That of an intermediate, which only clients send. The answers are kept by key: hashing a long list takes
    /// milliseconds. Only issuers that a trust anchor vouches for are asked about, so there are few.
    Intermediate { list: CertificateRevocationListDer<'static>, answers: Mutex<HashMap<Sha256, bool>> },
}

/// An issuing distribution point (RFC 5280 section 5.2.5).
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    devices: bool,
    authorities: bool,
    uris: Vec<String>,
}

impl Lists {
    /// The lists of `client_auth`. Where no certificate is verified, lists have no effect.
    pub(super) fn new(client_auth: &ClientAuth, algorithms: pki::Algorithms<'static>) -> Result<Self, webpki::Error> {
        let mut by_issuer: HashMap<Vec<u8>, Vec<List>> = HashMap::new();
        let current = client_auth.current_lists();
        for list in client_auth.all_lists().filter(|_| client_auth.mode.verifies()) {
            let is_current = current.iter().any(|one| one.sha256 == list.sha256);
            by_issuer.entry(list.issuer.clone()).or_default().push(List::new(list, is_current)?);
        }
        let required = !current.is_empty() && client_auth.mode.verifies();
        Ok(Self {
            by_issuer,
            required,
            depth: client_auth.revocation_check,
            expire: client_auth.expired_revocation_list == ExpiredRevocationList::Deny,
            algorithms,
        })
    }

    /// Whether a list revokes a certificate of this chain. Look-ups only: what a client sent does not matter, nor do dates.
    pub(super) fn revoke(&self, chain: &Chain) -> bool {
        !self.by_issuer.is_empty() && chain.issued.iter().any(|issued| self.of(issued).any(|list| list.has(issued)))
    }

    /// Up to which second, since 1970, the lists say that no certificate of this chain is revoked. With any list at all,
    /// each certificate needs one that speaks for it.
    pub(super) fn clear(&self, chain: &Chain, now: UnixTime) -> Result<u64, Refused> {
        let mut until = u64::MAX;
        if self.by_issuer.is_empty() {
            return Ok(until);
        }
        // A trust anchor needs no list, but is revoked by one of an authority above it that is in trust as well.
        if chain.issued.iter().skip(chain.certificates.len()).any(|issued| self.of(issued).any(|list| list.has(issued)))
        {
            return Err(revoked());
        }
        // From the trust anchor down, so that what is wrong with an issuer comes before what is wrong below it.
        for (place, (issued, der)) in chain.issued.iter().zip(&chain.certificates).enumerate().rev() {
            // A certificate that is trusted itself needs no list, but one that names it counts.
            if let Some(key) =
                issued.key.as_ref().filter(|_| self.required && (place == 0 || self.depth == RevocationCheck::Chain))
            {
                let speak: Vec<_> = self
                    .of(issued)
                    .filter(|list| list.is_current && list.speaks_for(der, place > 0) && key.signs_lists)
                    .collect();
                if speak.is_empty() {
                    return Err(self.unknown(issued, key));
                }
                // Of several lists of one scope the last one counts; each scope that has the certificate must be current.
                let last = |list: &List| speak.iter().filter(|one| one.scope == list.scope).map(|one| one.until).max();
                until = speak.iter().filter_map(|list| last(list)).chain([until]).min().unwrap_or(until);
                if self.expire && now.as_secs() >= until {
                    let next_update = UnixTime::since_unix_epoch(std::time::Duration::from_secs(until));
                    let error = CertificateError::ExpiredRevocationListContext { time: now, next_update };
                    let seconds = |seconds| i64::try_from(seconds).unwrap_or(i64::MAX);
                    let cause =
                        Cause::RevocationListExpired { next_update: seconds(until), now: seconds(now.as_secs()) };
                    return Err(Refused { cause, error });
                }
            }
            if self.of(issued).any(|list| list.has(issued)) {
                return Err(revoked());
            }
        }
        Ok(if self.expire { until } else { u64::MAX })
    }

    fn unknown(&self, issued: &Issued, key: &IssuerKey) -> Refused {
        let error = CertificateError::UnknownRevocationStatus;
        let fault = if !self.by_issuer.contains_key(&issued.issuer) {
            ListFault::Missing
        } else if self.of(issued).next().is_none() {
            ListFault::OtherAuthority
        } else if !key.signs_lists {
            ListFault::NotPermitted
        } else {
            ListFault::OtherScope
        };
        Refused { cause: Cause::RevocationUnknown { issuer: Some(Text::new(name(&issued.issuer))), fault }, error }
    }

    /// The lists of the authority that issued a certificate.
    fn of(&self, issued: &Issued) -> impl Iterator<Item = &List> {
        let lists = self.by_issuer.get(&issued.issuer).map(Vec::as_slice).unwrap_or_default();
        // Of a certificate that is trusted itself the issuer's key is not known: every list of the name counts.
        lists.iter().filter(|list| issued.key.as_ref().is_none_or(|key| list.is_signed_by(key, self.algorithms)))
    }

    /// What the lists here revoke and those of `other` do not: the first `most` (issuer and serial number), and how many
    /// more.
    pub(super) fn beside(&self, other: &Self, most: usize) -> (Vec<(String, Serial)>, usize) {
        let (mut first, mut count) = (BTreeSet::new(), 0);
        for (issuer, lists) in &self.by_issuer {
            let theirs = other.by_issuer.get(issuer).map(Vec::as_slice).unwrap_or_default();
            let known = |list: &List, serial| {
                theirs.iter().any(|one| one.signer.is_same(&list.signer) && one.revoked.contains(serial))
            };
            for list in lists {
                for serial in list.revoked.iter().filter(|serial| !known(list, serial)) {
                    count += 1;
                    first.insert((issuer, serial));
                    if first.len() > most {
                        first.pop_last();
                    }
                }
            }
        }
        let more = count - first.len();
        (first.into_iter().map(|(issuer, serial)| (name(issuer), serial.clone())).collect(), more)
    }
}

fn name(der: &[u8]) -> String {
    X509Name::from_der(der).map(|(_, name)| text::name(&name)).unwrap_or_default()
}

impl List {
    /// webpki says whether a list can be used: of version 2, not a delta, not indirect, without unknown critical extensions,
    /// and so each of its entries.
    fn new(list: &RevocationList, is_current: bool) -> Result<Self, webpki::Error> {
        for entry in &webpki::BorrowedCertRevocationList::from_der(&list.list)? {
            entry?;
        }
        let (_, parsed) = CertificateRevocationList::from_der(&list.list).map_err(|_| webpki::Error::BadDer)?;
        let scope = match find(parsed.extensions(), &OID_X509_EXT_ISSUER_DISTRIBUTION_POINT) {
            None => None,
            Some(ParsedExtension::IssuingDistributionPoint(point)) => Some(Scope {
                devices: !point.only_contains_ca_certs,
                authorities: !point.only_contains_user_certs,
                uris: point.distribution_point.as_ref().map(uris).unwrap_or_default(),
            }),
            // It speaks for a part of the certificates, and for which is not known. `check` takes no such list; where one is
            // read although the configuration could not be loaded, it revokes what it names and speaks for nothing.
            Some(_) => Some(Scope { devices: false, authorities: false, uris: Vec::new() }),
        };
        let signer = match list.signer {
            Some(key) => Signer::Anchor(key),
            None => Signer::Intermediate { list: list.list.clone(), answers: Mutex::default() },
        };
        let revoked =
            parsed.iter_revoked_certificates().map(|entry| Serial::from_be_bytes(entry.raw_serial())).collect();
        let until = list.next_update.and_then(|time| u64::try_from(time).ok()).unwrap_or_default();
        Ok(Self { is_current, revoked, until, scope, signer })
    }

    fn has(&self, issued: &Issued) -> bool {
        self.revoked.contains(&issued.serial)
    }

    fn is_signed_by(&self, key: &IssuerKey, algorithms: pki::Algorithms<'_>) -> bool {
        match &self.signer {
            Signer::Anchor(signer) => *signer == key.digest,
            Signer::Intermediate { list, answers } => {
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                *answers.entry(key.digest).or_insert_with(|| {
                    Signed::read(list).is_some_and(|list| pki::verify(algorithms, &key.spki, &list).is_ok())
                })
            }
        }
    }

    /// Whether it speaks for a certificate of its issuer. One with distribution points needs one of them in the list's
    /// scope.
    fn speaks_for(&self, certificate: &[u8], is_authority: bool) -> bool {
        let Some(scope) = &self.scope else { return true };
        if !(if is_authority { scope.authorities } else { scope.devices }) {
            return false;
        }
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
        match find(certificate.extensions(), &OID_X509_EXT_CRL_DISTRIBUTION_POINTS) {
            None => true,
            Some(ParsedExtension::CRLDistributionPoints(points)) => {
                // A point of another issuer, or for some reasons only, is not this list's.
                let own = points.points.iter().filter(|point| point.crl_issuer.is_none() && point.reasons.is_none());
                own.filter_map(|point| point.distribution_point.as_ref())
                    .any(|point| uris(point).iter().any(|uri| scope.uris.contains(uri)))
            }
            Some(_) => false,
        }
    }
}

impl Signer {
    /// Whether two lists are of one authority, as far as is known.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anchor(one), Self::Anchor(other)) => one == other,
            (Self::Intermediate { .. }, Self::Intermediate { .. }) => true,
            _ => false,
        }
    }
}

fn find<'a, 'b>(extensions: &'a [X509Extension<'b>], id: &Oid<'_>) -> Option<&'a ParsedExtension<'b>> {
    extensions.iter().find(|extension| extension.oid == *id).map(X509Extension::parsed_extension)
}

fn uris(point: &DistributionPointName<'_>) -> Vec<String> {
    let DistributionPointName::FullName(names) = point else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None };
    names.iter().filter_map(uri).collect()
}
