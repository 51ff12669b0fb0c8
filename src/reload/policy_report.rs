//! Who may go where by a configuration, and what another one would change about that. Nothing here decides about a
//! connection: it asks the functions that do.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use crate::authorize::{Policy, decide};
use crate::config::checked::{ClientAuthMode, Config, RevocationList, Route, RouteMode, Selector, Terminate};
use crate::model::identity::{Chain, Identity, Serial, Sha256, Twins};
use crate::model::names::printable;
use crate::snapshot::{Access, Snapshot};

/// The longest name of somebody, in characters.
const NAME_MAX: usize = 128;
/// The most of those who are in that are compared one by one: each costs a look at its chain for every route.
const GUESTS_MAX: usize = 64;
/// The most of those whom a list of a route revokes that are named, each way.
const REVOKED_MAX: usize = 100;
/// The most changes that are told, each way.
const TOLD_MAX: usize = 1000;

/// What somebody finds at a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// He is let in.
    Yes,
    /// He is not.
    No,
    /// The backend decides: it does TLS itself.
    Backend,
}

impl Way {
    /// The word in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Backend => "backend decides",
        }
    }
}

/// Somebody whom a configuration tells from others.
#[derive(Clone, Debug)]
pub struct Person {
    /// What he is called.
    pub name: String,
    /// What he shows; `None` is nothing.
    identity: Option<Identity>,
}

impl Person {
    /// A verified certificate that matches `selector` and no other.
    fn named(selector: &Selector) -> Self {
        let mut identity = nobody();
        match selector {
            Selector::AnyName(name) | Selector::CommonName(name) => identity.common_name = Some(name.clone()),
            Selector::OrganizationalUnit(unit) => identity.organizational_units.push(unit.clone()),
            Selector::Dns(name) => identity.dns_names.push(name.clone()),
            Selector::Email(name) => identity.emails.push(name.clone()),
            Selector::Uri(name) => identity.uris.push(name.clone()),
            Selector::Ip(address) => identity.ips.push(*address),
            Selector::Fingerprint(digest) => identity.fingerprint = *digest,
            Selector::Spki(digest) => identity.spki = *digest,
        }
        Self { name: selector.to_string(), identity: Some(identity) }
    }

    fn numbered(serial: &Serial) -> Self {
        Self { name: format!("serial:{serial}"), identity: Some(Identity { serial: serial.clone(), ..nobody() }) }
    }

    /// What he finds at `route`.
    pub fn way(&self, route: &Route) -> Way {
        self.way_by(Rules::of(route).as_ref())
    }

    fn way_by(&self, rules: Option<&Rules>) -> Way {
        let Some(Rules { mode, policy }) = rules else { return Way::Backend };
        // What the verifier does before it asks the policy.
        let admitted = match &self.identity {
            None => !mode.requires() && decide(None, policy).is_ok(),
            Some(identity) if mode.verifies() => identity.verified && decide(Some(identity), policy).is_ok(),
            Some(identity) => decide(Some(&Identity { verified: false, ..identity.clone() }), policy).is_ok(),
        };
        if admitted { Way::Yes } else { Way::No }
    }
}

/// By what a route that is no passthrough decides.
struct Rules {
    mode: ClientAuthMode,
    policy: Policy,
}

impl Rules {
    fn of(route: &Route) -> Option<Self> {
        let RouteMode::Terminate(terminate) = &route.mode else { return None };
        let policy = Policy { allow: terminate.allow.clone(), deny: terminate.client_auth.deny.clone() };
        Some(Self { mode: terminate.client_auth.mode, policy })
    }
}

/// A verified certificate without a name.
fn nobody() -> Identity {
    Identity {
        verified: true,
        anchored: true,
        emails: Vec::new(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        ips: Vec::new(),
        common_name: None,
        organizational_units: Vec::new(),
        name_constrained: false,
        fingerprint: Sha256([0; 32]),
        twins: Twins::known(Vec::new()),
        unsupported_key: None,
        spki: Sha256([0; 32]),
        serial: Serial::from_be_bytes(&[]),
        issuer: String::new(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

/// Everybody whom `allow` tells from others, and those whom it does not.
pub fn people(config: &Config) -> Vec<Person> {
    let mut people = selected([config].into_iter());
    people.extend(the_rest(people.is_empty()));
    people
}

fn selected<'a>(configs: impl Iterator<Item = &'a Config>) -> Vec<Person> {
    let selectors = configs.flat_map(terminating).flat_map(|(_, route)| &route.allow.selectors);
    let mut seen = HashSet::new();
    selectors.filter(|selector| seen.insert(*selector)).map(Person::named).collect()
}

fn the_rest(all: bool) -> [Person; 3] {
    let any = if all { "any verified certificate" } else { "any other verified certificate" };
    let unverified = Identity { verified: false, ..nobody() };
    [(any, Some(nobody())), ("a certificate nobody vouches for", Some(unverified)), ("no certificate", None)]
        .map(|(name, identity)| Person { name: name.to_owned(), identity })
}

fn terminating(config: &Config) -> impl Iterator<Item = (&Route, &Terminate)> {
    config.routes.iter().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some((route, &**terminate)),
        RouteMode::Passthrough => None,
    })
}

/// Somebody, and where he may go, or may go no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Who.
    pub who: String,
    /// The names of the routes.
    pub routes: Vec<String>,
}

/// What another configuration changes about who may go where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Who may go where he could not before.
    pub gained: Vec<Change>,
    /// Who may no longer go where he could.
    pub lost: Vec<Change>,
}

/// A configuration, and what is built from it.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// What it says.
    pub config: &'a Config,
    /// What judges.
    pub snapshot: &'a Snapshot,
}

/// Somebody who is in.
pub type Guest = (Arc<Identity>, Arc<Chain>);

/// What changes from `old` to `new`: for everybody whom `allow` or `deny` of one of them names, for those who are in, for
/// whoever an authority vouches for, and for those whom a list revokes.
pub fn difference(old: State<'_>, new: State<'_>, guests: &[Guest], now: UnixTime) -> Difference {
    let mut ways = Ways::default();
    let mut people = selected([old.config, new.config].into_iter());
    people.extend(denied(&[old.config, new.config]));
    let nobody_is_named = people.is_empty();
    people.extend(the_rest(nobody_is_named));
    // Once: there may be thousands in them.
    let rules = |config: &Config| -> Vec<(String, Option<Rules>)> {
        config.routes.iter().map(|route| (route.name.to_string(), Rules::of(route))).collect()
    };
    let (before, after) = (rules(old.config), rules(new.config));
    for person in &people {
        let open = |routes: &[(String, Option<Rules>)]| -> BTreeSet<String> {
            let open = routes.iter().filter(|(_, rules)| person.way_by(rules.as_ref()) != Way::No);
            open.map(|(name, _)| name.clone()).collect()
        };
        ways.compare(&person.name, &open(&before), &open(&after));
    }
    for (identity, chain) in guests.iter().take(GUESTS_MAX) {
        let name = printable(&identity.display_name(), NAME_MAX);
        ways.compare(&name, &open_to(old.snapshot, chain, now), &open_to(new.snapshot, chain, now));
    }
    authorities(&mut ways, old.config, new.config);
    revoked(&mut ways, old.snapshot, new.snapshot, guests);
    ways.into_difference()
}

/// A revocation list in the place of one that was made later, as a restored backup has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OlderList {
    /// The file it came from.
    pub file: PathBuf,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// When the one before was made.
    pub before: i64,
}

/// Lists that take the place of newer ones of the same authority, by name and key: what was revoked in between is allowed again.
pub fn older_lists(old: &Config, new: &Config) -> BTreeSet<OlderList> {
    let lists = |config| terminating(config).flat_map(|(_, route)| route.client_auth.all_lists());
    // Several of one authority may each speak for a part.
    let newest = |config, one: &RevocationList| {
        let same = lists(config).filter(|list| list.issuer == one.issuer && list.signer == one.signer);
        same.map(|list| list.this_update).max()
    };
    let older = lists(new).filter_map(|list| {
        let (before, made) = (newest(old, list)?, newest(new, list)?);
        (made < before).then(|| OlderList { file: list.file.clone(), made, before })
    });
    older.collect()
}

/// The `deny` entries that `new` has and `old` does not, as they are written.
pub fn newly_denied(old: &Config, new: &Config) -> BTreeSet<String> {
    let entries = |config: &Config| denied(&[config]).into_iter().map(|person| person.name).collect::<BTreeSet<_>>();
    let before = entries(old);
    entries(new).into_iter().filter(|entry| !before.contains(entry)).map(|entry| format!("deny = {entry:?}")).collect()
}

/// Everybody whom one of these denies.
fn denied(configs: &[&Config]) -> Vec<Person> {
    let lists = || configs.iter().flat_map(|config| terminating(config)).map(|(_, route)| &route.client_auth.deny);
    let fingerprints: BTreeSet<&Sha256> = lists().flat_map(|deny| &deny.fingerprints).collect();
    let serials: BTreeSet<&Serial> = lists().flat_map(|deny| &deny.serials).collect();
    let by_fingerprint = fingerprints.into_iter().map(|digest| Person::named(&Selector::Fingerprint(*digest)));
    by_fingerprint.chain(serials.into_iter().map(Person::numbered)).collect()
}

fn open_to(snapshot: &Snapshot, chain: &Chain, now: UnixTime) -> BTreeSet<String> {
    let open = snapshot.in_order.iter().filter(|route| snapshot.keeps(&route.name, Some(chain), now).is_ok());
    open.map(|route| route.name.to_string()).collect()
}

/// Routes that ask for the certificates of other authorities than before. Of a route that is new or gone, everything has
/// been said.
fn authorities(ways: &mut Ways, old: &Config, new: &Config) {
    for (route, after) in terminating(new) {
        let Some((_, before)) = terminating(old).find(|(other, _)| other.name == route.name) else { continue };
        let anchors = |route: &Terminate| -> BTreeSet<Vec<u8>> {
            let verifies = route.client_auth.mode.verifies() && (route.allow.any || !route.allow.selectors.is_empty());
            let anchors = route.client_auth.trust.iter().filter(|_| verifies);
            anchors.map(|anchor| anchor.certificate.to_vec()).collect()
        };
        let (before, after) = (anchors(before), anchors(after));
        let name = |anchor: &Vec<u8>| {
            let anchor = Identity::from_certificate(&CertificateDer::from(anchor.as_slice()), false).ok()?;
            Some(format!("whoever {} vouches for", printable(&anchor.display_name(), NAME_MAX)))
        };
        for who in after.difference(&before).filter_map(name) {
            ways.gain(&who, route.name.as_str());
        }
        for who in before.difference(&after).filter_map(name) {
            ways.lose(&who, route.name.as_str());
        }
    }
}

/// Whom a list revokes that did not before, and the other way round. Who is in is called by his name.
fn revoked(ways: &mut Ways, old: &Snapshot, new: &Snapshot, guests: &[Guest]) {
    for route in &new.in_order {
        let Some(before) = old.route(&route.name) else { continue };
        let (Access::Certificate { tls: before, .. }, Access::Certificate { tls: after, .. }) =
            (&before.access, &route.access)
        else {
            continue;
        };
        let who = |issuer: &str, serial: &Serial| {
            let guest = guests.iter().find(|(guest, _)| guest.serial == *serial && guest.issuer == issuer);
            match guest {
                Some((guest, _)) => printable(&guest.display_name(), NAME_MAX),
                None => format!("serial:{serial} of {}", printable(issuer, NAME_MAX)),
            }
        };
        let others = |more: usize| format!("{more} more whose serial numbers a list has");
        let (first, more) = after.authorities().revoked_beside(before.authorities(), REVOKED_MAX);
        first.iter().for_each(|(issuer, serial)| ways.lose(&who(issuer, serial), route.name.as_str()));
        if more > 0 {
            ways.lose(&others(more), route.name.as_str());
        }
        let (first, more) = before.authorities().revoked_beside(after.authorities(), REVOKED_MAX);
        first.iter().for_each(|(issuer, serial)| ways.gain(&who(issuer, serial), route.name.as_str()));
        if more > 0 {
            ways.gain(&others(more), route.name.as_str());
        }
    }
}

/// Changes in the making: each who is told once.
#[derive(Default)]
struct Ways {
    gained: Changes,
    lost: Changes,
}

#[derive(Default)]
struct Changes {
    order: Vec<String>,
    routes: BTreeMap<String, BTreeSet<String>>,
}

impl Ways {
    fn compare(&mut self, who: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        after.difference(before).for_each(|route| self.gain(who, route));
        before.difference(after).for_each(|route| self.lose(who, route));
    }

    fn gain(&mut self, who: &str, route: &str) {
        self.gained.add(who, route);
    }

    fn lose(&mut self, who: &str, route: &str) {
        self.lost.add(who, route);
    }

    fn into_difference(self) -> Difference {
        Difference { gained: self.gained.into_changes(), lost: self.lost.into_changes() }
    }
}

impl Changes {
    fn add(&mut self, who: &str, route: &str) {
        if !self.routes.contains_key(who) {
            self.order.push(who.to_owned());
        }
        self.routes.entry(who.to_owned()).or_default().insert(route.to_owned());
    }

    fn into_changes(self) -> Vec<Change> {
        let Self { mut order, mut routes } = self;
        let more = order.len().saturating_sub(TOLD_MAX);
        order.truncate(TOLD_MAX);
        let rest = (more > 0).then(|| Change { who: format!("and {more} more"), routes: Vec::new() });
        let told = order.into_iter().map(|who| {
            let routes = routes.remove(&who).unwrap_or_default().into_iter().collect();
            Change { who, routes }
        });
        told.chain(rest).collect()
    }
}
