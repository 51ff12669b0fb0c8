//! Which clients may use which routes by a configuration, and what another configuration changes about that. Nothing is
//! decided here: every answer comes from [`decide`], as for a connection.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use crate::authorize::{Policy, decide};
use crate::config::checked::{Allow, Config, DeviceCertificate, RevocationList, Route, RouteMode, Selector, Terminate};
use crate::model::identity::{Chain, GuestPass, Identity, Serial, Sha256, Twins};
use crate::model::names::printable;
use crate::model::rejection::Cause;
use crate::snapshot::{RouteAccess, Snapshot};

/// The longest name of a client, in characters.
const NAME_MAX: usize = 128;
/// The most connected devices that are compared: each costs a look at its chain for every route.
const DEVICES_MAX: usize = 64;
/// The most newly revoked certificates of a route that are listed one by one, each way.
const REVOKED_MAX: usize = 100;
/// The most changes that are listed, each way.
const CHANGES_MAX: usize = 1000;

/// The answer of a route to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The route admits the client.
    Admitted,
    /// The route refuses the client.
    Refused,
    /// The backend decides: the route is passthrough.
    Backend,
}

impl Decision {
    /// The word in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admitted => "yes",
            Self::Refused => "no",
            Self::Backend => "backend decides",
        }
    }
}

/// An example of the clients that a configuration treats alike.
#[derive(Clone, Debug)]
pub struct SampleClient {
    /// What these clients are called.
    pub name: String,
    /// The certificate they show; `None` is no certificate.
    identity: Option<Identity>,
}

impl SampleClient {
    /// A verified certificate that matches `selector` and no other.
    pub(super) fn selected_by(selector: &Selector) -> Self {
        let mut identity = nameless_identity();
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

    /// A device of the owner's: a verified certificate with this common name, which may be a guest pass.
    pub fn device(name: &str, guest_pass: Option<GuestPass>) -> Self {
        let identity = Identity { common_name: Some(name.to_owned()), guest_pass, ..nameless_identity() };
        Self { name: name.to_owned(), identity: Some(identity) }
    }

    /// A device with this certificate, if an authority that the route trusts has signed it.
    pub fn holder_of(identity: Identity) -> Self {
        let identity = Identity { verified: true, anchored: true, ..identity };
        Self { name: identity.display_name(), identity: Some(identity) }
    }

    fn with_serial(serial: &Serial) -> Self {
        let identity = Identity { serial: serial.clone(), ..nameless_identity() };
        Self { name: format!("serial:{serial}"), identity: Some(identity) }
    }

    /// The same client with this certificate.
    pub(super) fn with_certificate(&self, certificate: &DeviceCertificate) -> Self {
        let DeviceCertificate { fingerprint, serial, guest_pass, .. } = certificate;
        let with = |identity: &Identity| Identity {
            fingerprint: *fingerprint,
            serial: serial.clone(),
            guest_pass: guest_pass.clone(),
            ..identity.clone()
        };
        Self { name: self.name.clone(), identity: self.identity.as_ref().map(with) }
    }

    /// The clients that no selector matches, each with whether its certificate is verified.
    pub(super) fn others() -> [(bool, Self); 3] {
        other_clients(false).map(|client| (client.identity.as_ref().is_some_and(|identity| identity.verified), client))
    }

    /// Whether `route` would admit such a client if its `allow` were this one.
    pub(super) fn is_admitted_by(&self, route: &Route, allow: &Allow) -> bool {
        let policy = policy(route).map(|policy| Policy { allow: allow.clone(), ..policy });
        self.decision_by(policy.as_ref()) == Decision::Admitted
    }

    /// Why `route` refuses such a client, if it does.
    pub(super) fn refusal(&self, route: &Route) -> Option<Cause> {
        decide(self.identity.as_ref(), &policy(route)?).err()
    }

    /// Whether `deny` of the route names the certificate.
    pub(super) fn is_denied(&self, route: &Route) -> bool {
        matches!(self.refusal(route), Some(Cause::Denied(_)))
    }

    /// What `route` answers to such a client.
    pub fn decision(&self, route: &Route) -> Decision {
        self.decision_by(policy(route).as_ref())
    }

    fn decision_by(&self, policy: Option<&Policy>) -> Decision {
        match policy.map(|policy| decide(self.identity.as_ref(), policy)) {
            None => Decision::Backend,
            Some(Ok(())) => Decision::Admitted,
            Some(Err(_)) => Decision::Refused,
        }
    }
}

/// The policy of a route; `None` if the route is passthrough.
fn policy(route: &Route) -> Option<Policy> {
    match &route.mode {
        RouteMode::Terminate(terminate) => Some(Policy::of(&route.name, terminate)),
        RouteMode::Passthrough => None,
    }
}

/// A verified certificate that no selector matches.
fn nameless_identity() -> Identity {
    Identity {
        verified: true,
        anchored: true,
        of_other_authority: false,
        emails: Vec::new(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        ips: Vec::new(),
        common_name: None,
        organizational_units: Vec::new(),
        name_constrained: false,
        guest_pass: None,
        origin: None,
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

/// One sample for each selector in `allow`, and samples for the clients that no selector matches. Devices that have a guest pass,
/// by the inventory, are limited to its routes.
pub fn sample_clients(config: &Config) -> Vec<SampleClient> {
    let mut clients = selected_clients([config].into_iter());
    for client in &mut clients {
        let Some(identity) = &mut client.identity else { continue };
        let issued = config.metrics.inventory.iter().flat_map(|inventory| &inventory.certificates);
        let newest = issued.rev().find(|own| identity.common_name.as_ref() == Some(&own.device));
        if let Some(pass) = newest.and_then(|own| own.guest_pass.clone()) {
            client.name = format!("{} (guest)", client.name);
            identity.guest_pass = Some(pass);
        }
    }
    clients.extend(other_clients(clients.is_empty()));
    clients
}

fn selected_clients<'a>(configs: impl Iterator<Item = &'a Config>) -> Vec<SampleClient> {
    let selectors = configs.flat_map(terminating).flat_map(|(_, route)| &route.allow.selectors);
    let mut seen = HashSet::new();
    selectors.filter(|selector| seen.insert(*selector)).map(SampleClient::selected_by).collect()
}

/// The clients that no selector matches; `all` if there are no selectors.
fn other_clients(all: bool) -> [SampleClient; 3] {
    let verified = if all { "any verified certificate" } else { "any other verified certificate" };
    let unverified = Identity { verified: false, ..nameless_identity() };
    [(verified, Some(nameless_identity())), ("an unverified certificate", Some(unverified)), ("no certificate", None)]
        .map(|(name, identity)| SampleClient { name: name.to_owned(), identity })
}

fn terminating(config: &Config) -> impl Iterator<Item = (&Route, &Terminate)> {
    config.served().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some((route, &**terminate)),
        RouteMode::Passthrough => None,
    })
}

/// Clients that gained or lost access to routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The clients.
    #[serde(rename = "who")]
    pub client: String,
    /// The names of the routes.
    pub routes: Vec<String>,
}

/// What another configuration changes about which clients may use which routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Access that was gained.
    pub gained: Vec<Change>,
    /// Access that was lost.
    pub lost: Vec<Change>,
}

/// A configuration, and the snapshot built from it.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The snapshot.
    pub snapshot: &'a Snapshot,
}

/// A device with an open session.
pub type ConnectedDevice = (Arc<Identity>, Arc<Chain>);

/// What changes from `old` to `new`: for the clients that `allow` or `deny` of either names, for the connected devices, for
/// everything that a trust anchor issued, and for what a revocation list names.
pub fn difference(old: State<'_>, new: State<'_>, devices: &[ConnectedDevice], now: UnixTime) -> Difference {
    let mut changes = DifferenceBuilder::default();
    let mut clients = selected_clients([old.config, new.config].into_iter());
    clients.extend(denied_clients(&[old.config, new.config]));
    clients.extend(other_clients(clients.is_empty()));
    // Built once for all clients: `deny` may have thousands of entries.
    let policies = |config: &Config| -> Vec<(String, Option<Policy>)> {
        config.routes.iter().map(|route| (route.name.to_string(), policy(route))).collect()
    };
    let (before, after) = (policies(old.config), policies(new.config));
    for client in &clients {
        let open = |routes: &[(String, Option<Policy>)]| -> BTreeSet<String> {
            let open = routes.iter().filter(|(_, policy)| client.decision_by(policy.as_ref()) != Decision::Refused);
            open.map(|(name, _)| name.clone()).collect()
        };
        changes.compare(&client.name, &open(&before), &open(&after));
    }
    for (identity, chain) in devices.iter().take(DEVICES_MAX) {
        let name = printable(&identity.display_name(), NAME_MAX);
        changes.compare(&name, &open_to(old.snapshot, chain, now), &open_to(new.snapshot, chain, now));
    }
    compare_trust(&mut changes, old.config, new.config);
    compare_revoked(&mut changes, old.snapshot, new.snapshot, devices);
    changes.build()
}

/// A revocation list that is older than the one it replaced, as after a restored backup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OlderList {
    /// The file it came from.
    pub file: PathBuf,
    /// Its thisUpdate, in seconds since 1970.
    pub this_update: i64,
    /// The thisUpdate of the list before.
    pub previous: i64,
}

/// Lists that replaced newer ones of the same authority, by name and key: what was revoked in between is admitted again.
pub fn older_lists(old: &Config, new: &Config) -> BTreeSet<OlderList> {
    let lists = |config| terminating(config).flat_map(|(_, route)| route.client_auth.all_lists());
    // One authority may have several lists, each for a part of its certificates.
    let newest = |config, one: &RevocationList| {
        let same = lists(config).filter(|list| list.issuer == one.issuer && list.signer == one.signer);
        same.map(|list| list.this_update).max()
    };
    let older = lists(new).filter_map(|list| {
        let (previous, this_update) = (newest(old, list)?, newest(new, list)?);
        (this_update < previous).then(|| OlderList { file: list.file.clone(), this_update, previous })
    });
    older.collect()
}

/// The `deny` entries that `new` has and `old` does not, as they are written.
pub fn newly_denied(old: &Config, new: &Config) -> BTreeSet<String> {
    let entries = |config: &Config| -> BTreeSet<String> {
        denied_clients(&[config]).into_iter().map(|client| client.name).collect()
    };
    let before = entries(old);
    entries(new).into_iter().filter(|entry| !before.contains(entry)).map(|entry| format!("deny = {entry:?}")).collect()
}

/// One sample for each `deny` entry of these configurations.
fn denied_clients(configs: &[&Config]) -> Vec<SampleClient> {
    let lists = || configs.iter().flat_map(|config| terminating(config)).map(|(_, route)| &route.client_auth.deny);
    let fingerprints: BTreeSet<&Sha256> = lists().flat_map(|deny| &deny.fingerprints).collect();
    let serials: BTreeSet<&Serial> = lists().flat_map(|deny| &deny.serials).collect();
    let by_fingerprint =
        fingerprints.into_iter().map(|digest| SampleClient::selected_by(&Selector::Fingerprint(*digest)));
    by_fingerprint.chain(serials.into_iter().map(SampleClient::with_serial)).collect()
}

/// The routes that admit a device with this chain.
fn open_to(snapshot: &Snapshot, chain: &Chain, now: UnixTime) -> BTreeSet<String> {
    let open = snapshot.in_order.iter().filter(|route| snapshot.keeps_session(&route.name, Some(chain), now).is_ok());
    open.map(|route| route.name.to_string()).collect()
}

/// Routes with other trust anchors than before. New and removed routes have been compared already.
fn compare_trust(changes: &mut DifferenceBuilder, old: &Config, new: &Config) {
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
            Some(format!("certificates issued by {}", printable(&anchor.display_name(), NAME_MAX)))
        };
        for clients in after.difference(&before).filter_map(name) {
            changes.gained.add(&clients, route.name.as_str());
        }
        for clients in before.difference(&after).filter_map(name) {
            changes.lost.add(&clients, route.name.as_str());
        }
    }
}

/// Certificates that a list revokes and did not before, and the other way round. A connected device is called by its name.
fn compare_revoked(changes: &mut DifferenceBuilder, old: &Snapshot, new: &Snapshot, devices: &[ConnectedDevice]) {
    for route in &new.in_order {
        let Some(before) = old.route(&route.name) else { continue };
        let (RouteAccess::Terminate { tls: before, .. }, RouteAccess::Terminate { tls: after, .. }) =
            (&before.access, &route.access)
        else {
            continue;
        };
        let name = |issuer: &str, serial: &Serial| {
            let device = devices.iter().find(|(device, _)| device.serial == *serial && device.issuer == issuer);
            match device {
                Some((device, _)) => printable(&device.display_name(), NAME_MAX),
                None => format!("serial:{serial} of {}", printable(issuer, NAME_MAX)),
            }
        };
        let (before, after) = (before.authorities(), after.authorities());
        for (new, old, list) in [(after, before, &mut changes.lost), (before, after, &mut changes.gained)] {
            let (first, more) = new.revoked_beside(old, REVOKED_MAX);
            for (issuer, serial) in &first {
                list.add(&name(issuer, serial), route.name.as_str());
            }
            if more > 0 {
                list.add(&format!("{more} more revoked serial numbers"), route.name.as_str());
            }
        }
    }
}

/// Collects a [`Difference`], with one entry for each client.
#[derive(Default)]
struct DifferenceBuilder {
    gained: ChangesByClient,
    lost: ChangesByClient,
}

impl DifferenceBuilder {
    fn compare(&mut self, client: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        after.difference(before).for_each(|route| self.gained.add(client, route));
        before.difference(after).for_each(|route| self.lost.add(client, route));
    }

    fn build(self) -> Difference {
        Difference { gained: self.gained.build(), lost: self.lost.build() }
    }
}

/// The routes of each client, in the order in which the clients were added.
#[derive(Default)]
struct ChangesByClient {
    order: Vec<String>,
    routes: BTreeMap<String, BTreeSet<String>>,
}

impl ChangesByClient {
    fn add(&mut self, client: &str, route: &str) {
        if !self.routes.contains_key(client) {
            self.order.push(client.to_owned());
        }
        self.routes.entry(client.to_owned()).or_default().insert(route.to_owned());
    }

    fn build(self) -> Vec<Change> {
        let Self { mut order, mut routes } = self;
        let more = order.len().saturating_sub(CHANGES_MAX);
        order.truncate(CHANGES_MAX);
        let rest = (more > 0).then(|| Change { client: format!("and {more} more"), routes: Vec::new() });
        let changes = order.into_iter().map(|client| {
            let routes = routes.remove(&client).unwrap_or_default().into_iter().collect();
            Change { client, routes }
        });
        changes.chain(rest).collect()
    }
}
