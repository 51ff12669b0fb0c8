//! Facts from two places: what is remembered since the start of the gate has more to say, and the history goes back further.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;

use crate::config::checked::Device;
use crate::explain::certificate::Certificate;
use crate::explain::finding::{
    Attempts, Backend, BackendState, DeviceFacts, DeviceRefusal, Service, Shown, is_trouble, pretended,
};
use crate::explain::recent::Refusal;
use crate::history;
use crate::model::impostor::Claim;
use crate::sessions::registry::Sessions;

/// A certificate lasts so long at most if it was issued to a guest.
const GUEST: i64 = 3 * 86_400;

/// The names of the devices that are connected, as they are told.
pub(super) fn connected(sessions: &Sessions) -> HashSet<String> {
    sessions.devices().iter().map(|(identity, _)| Certificate::from(&**identity).name().to_owned()).collect()
}

/// Devices by name, in the order in which they were met.
#[derive(Default)]
struct ByName {
    devices: Vec<DeviceFacts>,
    places: HashMap<String, usize>,
}

impl ByName {
    fn get(&mut self, name: &str) -> Option<&mut DeviceFacts> {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.devices.push(DeviceFacts { name: name.to_owned(), ..DeviceFacts::default() });
            self.devices.len() - 1
        });
        self.devices.get_mut(place)
    }

    /// The name of the device that shows this certificate: that of the inventory, if one of its names is there.
    fn name_of(&self, shown: &Certificate) -> String {
        let known = shown.names.iter().find(|name| self.places.contains_key(&***name));
        known.map_or_else(|| shown.name().to_owned(), |name| (**name).to_owned())
    }
}

/// The devices of the inventory, and others that connected or were refused.
pub(super) fn devices(
    inventory: &[Device],
    refusals: &[Arc<Refusal>],
    history: &[history::Device],
    connected: &HashSet<String>,
    now: OffsetDateTime,
) -> Vec<DeviceFacts> {
    let mut found = ByName::default();
    for device in inventory {
        let Some(known) = found.get(&device.name) else { continue };
        known.is_enrolled = true;
        known.is_canary = device.canary;
        known.is_guest = device.not_before.is_some_and(|begin| device.not_after.saturating_sub(begin) <= GUEST);
        known.expires = Some(device.not_after);
    }
    for refusal in refusals.iter().filter(|refusal| is_trouble(refusal)) {
        let Some(shown) = &refusal.certificate else { continue };
        let name = found.name_of(shown);
        if let Some(device) = found.get(&name) {
            device.refusals.push(refusal.into());
        }
    }
    for device in history {
        let Some(known) = found.get(&device.name) else { continue };
        known.last_seen = device.last_seen.as_ref().map(|seen| seen.at);
        let Some(refused) = &device.refused else { continue };
        match known.refusals.iter_mut().find(|known| known.reason == refused.reason) {
            // Those of before the start are among them.
            Some(same) => same.times = same.times.max(refused.times),
            None => known.refusals.push(DeviceRefusal {
                reason: refused.reason,
                route: refused.route.as_ref().map(ToString::to_string),
                source: refused.address,
                at: refused.last,
                times: refused.times,
                latest: None,
            }),
        }
    }
    for name in connected {
        if let Some(device) = found.get(name) {
            (device.is_connected, device.last_seen) = (true, Some(now));
        }
    }
    found.devices
}

/// Attempts to be taken for a device, by device and address, the latest first. `refusals` has the latest first.
pub(super) fn impostors(refusals: &[Arc<Refusal>], history: &[history::Impostor]) -> Vec<Attempts> {
    let mut found: Vec<Attempts> = history.iter().map(from_history).collect();
    for refusal in refusals {
        let Some((name, claim)) = pretended(refusal) else { continue };
        let source = refusal.source.ip().to_canonical();
        let same = |one: &&mut Attempts| one.name == name && one.source == source && one.claim == claim;
        // One entry stands for all of a source, so the first one that is met has them all; the history goes back further.
        match found.iter_mut().find(same) {
            Some(known) => {
                known.last = known.last.max(refusal.at);
                known.times = known.times.max(refusal.times);
            }
            None => found.push(Attempts {
                name: name.to_owned(),
                claim,
                source,
                first: refusal.at,
                last: refusal.at,
                times: refusal.times,
                route: refusal.route.as_ref().map(ToString::to_string),
                shown: refusal
                    .certificate
                    .as_ref()
                    .map(|shown| Shown { issuer: shown.issuer.to_string(), not_before: shown.not_before }),
            }),
        }
    }
    found.sort_by_key(|attempts| std::cmp::Reverse(attempts.last));
    found
}

fn from_history(impostor: &history::Impostor) -> Attempts {
    Attempts {
        name: impostor.device.to_string(),
        claim: Claim::ALL.into_iter().find(|claim| claim.label() == &*impostor.claim),
        source: impostor.address,
        first: impostor.first,
        last: impostor.last,
        times: impostor.times,
        route: impostor.route.as_ref().map(ToString::to_string),
        shown: (!impostor.issuer.is_empty())
            .then(|| Shown { issuer: impostor.issuer.to_string(), not_before: impostor.not_before }),
    }
}

/// What the routes lead to, with the states that have lasted since before the start.
pub(super) fn services(mut services: Vec<Service>, history: &[history::Backend]) -> Vec<Service> {
    for service in &mut services {
        service.backends = std::mem::take(&mut service.backends)
            .into_iter()
            .map(|backend| with_history(&service.route, backend, history).judged())
            .collect();
    }
    services
}

fn with_history(route: &str, mut backend: Backend, history: &[history::Backend]) -> Backend {
    let known = history.iter().find(|one| one.route.as_str() == route && *one.backend == *backend.address);
    let Some(known) = known else { return backend };
    backend.state = match (backend.state, known.up) {
        (BackendState::Untried, true) => BackendState::Up { since: known.since },
        (BackendState::Untried, false) => {
            BackendState::Down { since: known.since, tried: known.since, seen: None, failed: known.failed }
        }
        (BackendState::Up { since }, true) => BackendState::Up { since: since.min(known.since) },
        (BackendState::Down { since, tried, seen, failed }, false) => {
            BackendState::Down { since: since.min(known.since), tried, seen, failed: failed.max(known.failed) }
        }
        (state, _) => state,
    };
    backend
}
