//! Revocation lists as such: reading them, whose they are, which of two is newer, and lists that came another way than by
//! the files of the configuration.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_X509_EXT_DELTA_CRL_INDICATOR, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::ConfigError;
use super::checked::{ClientAuth, Config, DenyList, NewerList, Renewal, RevocationList, RouteMode, TrustKind};
use crate::model::identity::{Serial, Sha256, text};
use crate::model::names::Name;
use crate::pki;

/// Entries of `deny` that are kept beside those that were loaded, while a configuration stays broken and its file is changed
/// again and again. More of them count if the file has more at once.
const ADDED_MAX: usize = 10_000;

impl RevocationList {
    /// Reads a list in binary form that came from `file`. Whether it is of a kind that a handshake can use is not asked.
    pub fn read(der: Vec<u8>, file: &Path) -> Option<Self> {
        let sha256 = Sha256::of(&der);
        let list = CertificateRevocationListDer::from(der);
        let Ok(([], read)) = CertificateRevocationList::from_der(&list) else { return None };
        let (issuer, this_update) = (read.issuer().as_raw().to_vec(), read.last_update().timestamp());
        let next_update = read.next_update().map(|time| time.timestamp());
        let number = read.crl_number().map(|number| Serial::from_be_bytes(&number.to_bytes_be()));
        let limits = [OID_X509_EXT_ISSUER_DISTRIBUTION_POINT, OID_X509_EXT_DELTA_CRL_INDICATOR];
        let limits = read.extensions().iter().filter(|extension| limits.contains(&extension.oid));
        let part: Vec<Vec<u8>> = limits.map(|extension| extension.value.to_vec()).collect();
        let whole = part.is_empty();
        Some(Self {
            file: file.to_owned(),
            list,
            issuer,
            signer: None,
            this_update,
            next_update,
            number,
            sha256,
            whole,
            part,
        })
    }

    /// Whether this list was made after `other`, which is of the same authority: by the CRL number (RFC 5280 section
    /// 5.2.3), then by `thisUpdate`.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let order = |list: &Self| {
            let number = list.number.as_ref().map(|number| (number.as_bytes().len(), number.as_bytes().to_vec()));
            (number, list.this_update)
        };
        order(self) > order(other)
    }

    /// Its CRL number in decimal digits, as OpenSSL shows it; in hexadecimal ones if it has more than 128 bits.
    pub fn number_in_words(&self) -> Option<String> {
        let number = self.number.as_ref()?;
        let bytes = number.as_bytes();
        if bytes.len() > size_of::<u128>() {
            return Some(format!("0x{number}"));
        }
        Some(bytes.iter().fold(0_u128, |number, byte| (number << 8) | u128::from(*byte)).to_string())
    }

    /// The name of its authority, for people.
    pub fn issuer_in_words(&self) -> String {
        X509Name::from_der(&self.issuer).map(|(_, name)| text::name(&name)).unwrap_or_default()
    }

    /// Whether it can be told for which certificates it speaks. webpki takes some issuing distribution points that cannot be
    /// read here.
    pub(crate) fn has_readable_scope(&self) -> bool {
        let Ok((_, read)) = CertificateRevocationList::from_der(&self.list) else { return false };
        let points = read.extensions().iter().filter(|one| one.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        points.into_iter().all(|one| matches!(one.parsed_extension(), ParsedExtension::IssuingDistributionPoint(_)))
    }

    /// Whether the key of `authority` made its signature, and it bears the name of that authority.
    pub fn is_of(&self, authority: &CertificateDer<'_>) -> bool {
        pki::has_signed_list(authority, &self.list)
    }
}

impl NewerList {
    /// A list that this authority signed.
    pub fn new(mut list: RevocationList, authority: Option<CertificateDer<'static>>) -> Self {
        let key = authority.as_ref().and_then(|authority| X509Certificate::from_der(authority).ok());
        list.signer = key.map(|(_, certificate)| Sha256::of(certificate.public_key().raw));
        Self { list, authority }
    }

    /// Whether this list takes the place of `other`.
    fn supersedes(&self, other: &RevocationList) -> bool {
        self.is_comparable(other) && self.list.is_newer_than(other)
    }

    /// Whether both speak for the same certificates of one authority.
    fn is_comparable(&self, other: &RevocationList) -> bool {
        let same_authority = || match &self.authority {
            Some(authority) => other.is_of(authority),
            // Read from a file of the configuration, by an authority that is known to clients only.
            None => self.list.file == other.file,
        };
        self.list.part == other.part && self.list.issuer == other.issuer && same_authority()
    }
}

impl ClientAuth {
    /// Whether lists of an authority concern clients here: it is in `trust`, under this certificate or another one of the same
    /// name and key; an authority in `trust` has signed its certificate; or it has signed a device's certificate in `trust`.
    pub fn trusts(&self, authority: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(authority) else { return false };
        self.mode.verifies()
            && self.trust.iter().any(|trusted| {
                let Ok((_, anchor)) = X509Certificate::from_der(&trusted.certificate) else { return false };
                if trusted.kind == TrustKind::Pinned {
                    return pki::has_signed(authority, &anchor);
                }
                let same = anchor.subject().as_raw() == parsed.subject().as_raw()
                    && anchor.public_key().raw == parsed.public_key().raw;
                let below = || {
                    parsed.is_ca()
                        && parsed.issuer().as_raw() == anchor.subject().as_raw()
                        && pki::has_signed(&trusted.certificate, &parsed)
                };
                same || below()
            })
    }

    /// The lists that say what is known of a certificate: those of the files, each replaced by a newer one of its authority
    /// if there is one.
    pub fn current_lists(&self) -> Vec<&RevocationList> {
        let newest = |list| {
            let newer = self.newer_lists.iter().filter(|newer| newer.supersedes(list)).map(|newer| &newer.list);
            newer.fold(list, |newest, newer| if newer.is_newer_than(newest) { newer } else { newest })
        };
        let mut current: Vec<&RevocationList> = Vec::new();
        for list in &self.revocation_lists {
            let list = newest(list);
            if !current.iter().any(|other| other.sha256 == list.sha256) {
                current.push(list);
            }
        }
        current
    }

    /// Every list that revokes: what is on one from the files stays revoked until the configuration is loaded anew.
    pub fn all_lists(&self) -> impl Iterator<Item = &RevocationList> {
        self.revocation_lists.iter().chain(self.newer_lists.iter().map(|newer| &newer.list))
    }
}

/// What takes rights away and came another way than by loading a configuration.
#[derive(Clone, Debug, Default)]
pub struct Tightening {
    /// Revocation lists.
    pub lists: Vec<Arc<NewerList>>,
    /// What is denied on every route.
    pub deny: DenyList,
    /// What is denied on one route.
    pub deny_on: HashMap<Name, DenyList>,
    /// Keys of session tickets that no file has any more.
    pub withdrawn_keys: HashSet<Sha256>,
}

/// What was found of it where a configuration could not be loaded.
#[derive(Clone, Debug, Default)]
pub struct Salvaged {
    /// What takes rights away.
    pub tightening: Tightening,
    /// What is wrong with files of lists. The load that failed may not have come to them.
    pub errors: Vec<ConfigError>,
    /// Files of lists that could not be read to the end, by a fault of the program.
    pub faults: Vec<PathBuf>,
}

impl Tightening {
    /// Adds the entries of another one.
    pub fn extend(&mut self, other: Self) {
        for list in other.lists {
            if !self.lists.iter().any(|known| known.list.sha256 == list.list.sha256) {
                self.lists.push(list);
            }
        }
        self.deny.extend(other.deny);
        for (route, deny) in other.deny_on {
            self.deny_on.entry(route).or_default().extend(deny);
        }
        self.withdrawn_keys.extend(other.withdrawn_keys);
    }
}

impl DenyList {
    /// Adds the entries of another one.
    pub fn extend(&mut self, other: Self) {
        self.fingerprints.extend(other.fingerprints);
        self.serials.extend(other.serials);
    }

    fn len(&self) -> usize {
        self.fingerprints.len() + self.serials.len()
    }

    fn covers(&self, other: &Self) -> bool {
        other.fingerprints.is_subset(&self.fingerprints) && other.serials.is_subset(&self.serials)
    }
}

impl Config {
    /// The same configuration with `tightening` added. A list counts on every route that trusts its authority, whichever
    /// lists that route names, unless the route's own files have the same list or a newer one. `None` if nothing is added.
    #[must_use]
    pub fn tightened(&self, tightening: &Tightening) -> Option<Self> {
        // Routes that share a [client_auth] go on sharing it.
        let mut made: HashMap<(*const ClientAuth, Option<&Name>), Arc<ClientAuth>> = HashMap::new();
        let mut routes = Vec::with_capacity(self.routes.len());
        let mut changed = false;
        for route in self.served() {
            let mut route = route.clone();
            if let RouteMode::Terminate(terminate) = &mut route.mode {
                let own = tightening.deny_on.get_key_value(&route.name);
                let key = (Arc::as_ptr(&terminate.client_auth), own.map(|(name, _)| name));
                let tightened = made.entry(key).or_insert_with(|| {
                    let own = own.map(|(_, deny)| deny);
                    terminate
                        .client_auth
                        .tightened(tightening, own)
                        .unwrap_or_else(|| Arc::clone(&terminate.client_auth))
                });
                changed |= !Arc::ptr_eq(tightened, &terminate.client_auth);
                terminate.client_auth = Arc::clone(tightened);
            }
            routes.push(route);
        }
        let mut tickets = self.tickets.clone();
        tickets.keys.retain(|key| !tightening.withdrawn_keys.contains(&key.id));
        changed |= tickets != self.tickets;
        let renewal =
            self.renewal.as_ref().and_then(|renewal| Some(Renewal { route: routes.pop()?, ..renewal.clone() }));
        changed.then(|| Self { routes, renewal, tickets, ..self.clone() })
    }
}

impl ClientAuth {
    /// Whether a list counts here and neither it nor a newer one is in force.
    pub(super) fn lacks(&self, newer: &NewerList) -> bool {
        let known = self.all_lists().any(|list| list.sha256 == newer.list.sha256);
        let concerned = || {
            self.mode.verifies()
                && match &newer.authority {
                    Some(authority) => self.trusts(authority),
                    None => self.revocation_lists.iter().any(|list| list.file == newer.list.file),
                }
        };
        let late = || self.all_lists().any(|list| newer.is_comparable(list) && !newer.list.is_newer_than(list));
        !known && concerned() && !late()
    }

    fn tightened(self: &Arc<Self>, tightening: &Tightening, own: Option<&DenyList>) -> Option<Arc<Self>> {
        let lists: Vec<_> = tightening.lists.iter().filter(|newer| self.lacks(newer)).cloned().collect();
        let mut deny = tightening.deny.clone();
        deny.extend(own.cloned().unwrap_or_default());
        if lists.is_empty() && self.deny.covers(&deny) {
            return None;
        }
        let mut client_auth = Self::clone(self);
        for newer in lists {
            // Another one of these may be newer.
            if client_auth.lacks(&newer) {
                // One for each authority: while a configuration stays broken, each revocation brings another list.
                client_auth.newer_lists.retain(|other| !newer.supersedes(&other.list));
                client_auth.newer_lists.push(newer);
            }
        }
        if !client_auth.deny.covers(&deny) {
            let loaded = client_auth.loaded_deny.get_or_insert_with(|| Arc::new(self.deny.clone()));
            client_auth.deny.extend(deny.clone());
            if client_auth.deny.len() > loaded.len() + ADDED_MAX {
                // The file may change without end. What it says now counts, and what was loaded.
                client_auth.deny = DenyList::clone(loaded);
                client_auth.deny.extend(deny);
            }
        }
        Some(Arc::new(client_auth))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
        CrlIssuingDistributionPoint, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    };
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::config::checked::{ClientAuthMode, ExpiredRevocationList, ExpiredSession, RevocationCheck, TrustAnchor};

    struct Authority {
        certificate: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        /// All of these have the same name.
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate").der().clone();
            Self { certificate, issuer: Issuer::new(params, key) }
        }

        /// List `number`, which revokes the serial numbers from 1 to `number`.
        fn list(&self, number: u64, point: Option<&str>) -> Arc<NewerList> {
            let now = OffsetDateTime::now_utc();
            let revoked = |serial| RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            };
            let list = CertificateRevocationListParams {
                this_update: now,
                next_update: now + Duration::DAY,
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: point.map(|uri| CrlIssuingDistributionPoint {
                    distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
                    scope: None,
                }),
                revoked_certs: (1..=number).map(revoked).collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&self.issuer).expect("a list").der().to_vec();
            let list = RevocationList::read(list, Path::new("")).expect("a list");
            Arc::new(NewerList::new(list, Some(self.certificate.clone())))
        }
    }

    fn trusting(authorities: &[&Authority]) -> Arc<ClientAuth> {
        let anchor = |authority: &&Authority| TrustAnchor {
            file: "clients.pem".into(),
            certificate: authority.certificate.clone(),
            kind: TrustKind::Authority,
        };
        Arc::new(ClientAuth {
            mode: ClientAuthMode::RequireAndVerify,
            trust: authorities.iter().map(anchor).collect(),
            revocation_lists: Vec::new(),
            newer_lists: Vec::new(),
            deny: DenyList::default(),
            loaded_deny: None,
            expired_revocation_list: ExpiredRevocationList::Deny,
            revocation_check: RevocationCheck::Chain,
            expired_session: ExpiredSession::Cut,
            announce_trust: true,
        })
    }

    fn held(auth: &ClientAuth) -> Vec<String> {
        auth.newer_lists.iter().filter_map(|newer| newer.list.number_in_words()).collect()
    }

    fn with(auth: &Arc<ClientAuth>, lists: Vec<Arc<NewerList>>) -> Option<Arc<ClientAuth>> {
        auth.tightened(&Tightening { lists, ..Tightening::default() }, None)
    }

    #[test]
    fn only_the_newest_list_of_each_authority_is_held() {
        let (own, other) = (Authority::new(), Authority::new());
        let mut auth = trusting(&[&own, &other]);
        for number in 1..=50 {
            auth = with(&auth, vec![own.list(number, None)]).expect("it is new");
            assert_eq!(held(&auth), [number.to_string()]);
        }
        // Another authority of the same name has another key.
        auth = with(&auth, vec![other.list(7, None)]).expect("it is new");
        assert_eq!(held(&auth), ["50", "7"]);
        assert!(with(&auth, vec![own.list(49, None), other.list(6, None)]).is_none(), "they are older");
        // Whichever comes first.
        for numbers in [[51, 52], [52, 51]] {
            let auth = with(&auth, numbers.map(|number| own.list(number, None)).to_vec()).expect("they are new");
            assert_eq!(held(&auth), ["7", "52"]);
        }
    }

    #[test]
    fn denied_entries_added_repeatedly_do_not_pile_up() {
        let serials = |numbers: std::ops::Range<u32>| DenyList {
            serials: numbers.map(|number| Serial::from_be_bytes(&number.to_be_bytes())).collect(),
            ..DenyList::default()
        };
        let denying = |auth: &Arc<ClientAuth>, numbers| {
            let deny = serials(numbers);
            // As a route has them that repeats those of the default.
            auth.tightened(&Tightening { deny: deny.clone(), ..Tightening::default() }, Some(&deny))
        };
        let mut auth = trusting(&[&Authority::new()]);
        Arc::make_mut(&mut auth).deny = serials(0..10);
        auth = denying(&auth, 5..20).expect("some are new");
        assert!(auth.deny.len() == 20 && auth.deny.covers(&serials(0..20)));
        assert!(denying(&auth, 5..20).is_none(), "they are known");
        // The file is changed more often than an owner would, and its configuration cannot be loaded each time.
        let most = u32::try_from(ADDED_MAX).expect("it is small");
        for step in 0..50 {
            let latest = 1000 * (step + 1)..1000 * (step + 1) + 1500;
            auth = denying(&auth, latest.clone()).expect("some are new");
            assert!(auth.deny.covers(&serials(0..10)) && auth.deny.covers(&serials(latest)), "step {step}");
            assert!(auth.deny.len() <= 10 + ADDED_MAX, "step {step}: {}", auth.deny.len());
        }
        // All that the file says at once counts.
        auth = denying(&auth, 0..2 * most).expect("some are new");
        assert!(auth.deny.len() == 2 * ADDED_MAX && auth.deny.covers(&serials(0..2 * most)));
    }

    #[test]
    fn lists_for_a_part_are_replaced_by_those_for_the_same_part() {
        let own = Authority::new();
        let mut auth = with(&trusting(&[&own]), vec![own.list(1, None)]).expect("it is new");
        for number in 2..=20 {
            for point in ["http://one.example/", "http://two.example/"] {
                auth = with(&auth, vec![own.list(number, Some(point))]).expect("it is new");
            }
        }
        assert_eq!(held(&auth), ["1", "20", "20"]);
    }

    #[test]
    fn list_with_unreadable_distribution_point_has_no_scope() {
        let own = Authority::new();
        let uri = "http://one.example/";
        assert!(own.list(1, None).list.has_readable_scope());
        let ordinary = own.list(1, Some(uri));
        assert!(ordinary.list.has_readable_scope());
        // The SEQUENCE (RFC 5280 section 5.2.5) becomes a SET.
        let mut odd = ordinary.list.list.to_vec();
        let uri_at = odd.windows(uri.len()).position(|bytes| bytes == uri.as_bytes()).expect("the URI");
        assert_eq!(odd[uri_at - 8], 0x30, "{:x?}", &odd[uri_at - 8..uri_at]);
        odd[uri_at - 8] = 0x31;
        assert!(!RevocationList::read(odd, Path::new("")).expect("a list").has_readable_scope());
    }
}
