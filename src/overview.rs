//! What a running gate knows of itself, gathered: the facts from which all that tells the owner something makes its findings.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::explain::clock::Clock;
use crate::explain::finding::told::Report;
use crate::explain::finding::{Attempts, DeviceFacts, Facts, LogFault, is_trouble, pretended};
use crate::explain::recent::{Refusal, Refusals};
use crate::history::History;
use crate::sessions::registry::Sessions;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

/// The parts of a running gate that know something.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) refusals: Arc<Refusals>,
    /// What happened in each hour, across restarts.
    pub(crate) history: Arc<History>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) log: Arc<Log>,
    /// The parts of the sandbox that are not in force, and why.
    pub(crate) sandbox: Vec<String>,
    /// When the gate was started.
    pub(crate) started: OffsetDateTime,
}

impl Overview {
    /// The verdict and the findings.
    pub(crate) fn report(&self, clock: &Clock) -> Report {
        Report::new(&self.facts(), clock)
    }

    /// All that is known.
    pub(crate) fn facts(&self) -> Facts {
        let refusals = self.refusals.latest(usize::MAX);
        let connected: Vec<String> =
            self.sessions.devices().iter().map(|(identity, _)| identity.display_name()).collect();
        Facts {
            refused_configuration: self.metrics.refused_configuration().map(|refused| (*refused).clone()),
            not_in_force: self.metrics.revocations_not_in_force().to_vec(),
            impostors: impostors(&refusals),
            devices: self.devices(&refusals, &connected),
            services: self.metrics.services(),
            expiries: self.metrics.expiries().to_vec(),
            log: self.log.error().map(|error| LogFault { since: error.since, error: error.what }),
            descriptors: self.metrics.too_few_descriptors().map(|warning| (*warning).clone()),
            sandbox: self.sandbox.clone(),
            has_met_a_device: self.metrics.totals.now().admitted > 0,
            remembers_since: self.started,
        }
    }

    /// The devices of the inventory, and others that had trouble.
    fn devices(&self, refusals: &[Arc<Refusal>], connected: &[String]) -> Vec<DeviceFacts> {
        let now = OffsetDateTime::now_utc();
        let mut devices: Vec<DeviceFacts> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for device in self.metrics.devices().iter() {
            places.entry(device.name.clone()).or_insert_with(|| {
                devices.push(DeviceFacts { name: device.name.clone(), ..DeviceFacts::default() });
                devices.len() - 1
            });
        }
        for refusal in refusals.iter().filter(|refusal| is_trouble(refusal)) {
            let Some(shown) = &refusal.certificate else { continue };
            let known = shown.names.iter().find_map(|name| places.get(&**name).copied());
            let place = known.unwrap_or_else(|| {
                devices.push(DeviceFacts { name: shown.name().to_owned(), ..DeviceFacts::default() });
                places.insert(shown.name().to_owned(), devices.len() - 1);
                devices.len() - 1
            });
            if let Some(device) = devices.get_mut(place) {
                device.refusals.push(Arc::clone(refusal));
            }
        }
        for device in &mut devices {
            device.last_seen = connected.contains(&device.name).then_some(now);
        }
        devices
    }
}

/// Attempts to be taken for a device, by device and address, the latest first. `refusals` has the latest first.
fn impostors(refusals: &[Arc<Refusal>]) -> Vec<Attempts> {
    let mut found: Vec<Attempts> = Vec::new();
    for refusal in refusals {
        let Some((name, claim)) = pretended(refusal) else { continue };
        let source: IpAddr = refusal.source.ip().to_canonical();
        let same = |one: &&mut Attempts| one.name == name && one.source == source && one.claim == claim;
        if let Some(known) = found.iter_mut().find(same) {
            known.first = refusal.at;
            known.times = known.times.saturating_add(refusal.times);
            continue;
        }
        found.push(Attempts {
            name: name.to_owned(),
            claim,
            source,
            first: refusal.at,
            last: refusal.at,
            times: refusal.times,
            route: refusal.route.as_ref().map(ToString::to_string),
            shown: refusal.certificate.clone(),
        });
    }
    found
}
