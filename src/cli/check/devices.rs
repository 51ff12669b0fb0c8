//! The devices that a configuration names, compared with those that the owner's authority has issued certificates for.

use std::collections::{BTreeSet, HashSet};

use crate::ca::inventory::{CertificateEntry, Inventory, Kind, Status, Store, now};
use crate::cli::ca::{FOLDER, parse_device};
use crate::config::checked::{Config, ExpectedClients, Route, RouteMode, Selector, Terminate};
use crate::config::nearest;
use crate::model::identity::{Serial, Sha256};
use crate::model::names::printable;
use crate::model::shell::word;

/// The longest name that a warning shows, in characters.
const NAME_MAX: usize = 64;

/// Warnings about names that no device has, and about denied certificates that are not the device's current one.
/// None if there is no inventory in the usual folder beside the configuration.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let folder = config.file.with_file_name(FOLDER);
    match Store::read_inventory(&folder) {
        Ok(Some(inventory)) => {
            let routes: Vec<&Terminate> = config.routes.iter().filter_map(terminated).collect();
            [unknown(config, &routes, &inventory), outdated(&routes, &inventory)].concat()
        }
        // Other users than the owner may not read it, and the gate does not need it.
        Ok(None) | Err(_) => Vec::new(),
    }
}

fn terminated(route: &Route) -> Option<&Terminate> {
    match &route.mode {
        RouteMode::Terminate(terminate) => Some(terminate),
        RouteMode::Passthrough => None,
    }
}

/// Names under `allow` and `[[expect]]` that no device has. Where `trust` has another authority, which may have devices of its own,
/// only those that look like a slip.
fn unknown(config: &Config, routes: &[&Terminate], inventory: &Inventory) -> Vec<String> {
    let devices: Vec<&str> = inventory
        .certificates
        .iter()
        .filter(|entry| entry.kind == Kind::Device)
        .map(|entry| entry.name.as_str())
        .collect();
    let own: HashSet<Sha256> =
        inventory.authorities.iter().filter_map(|authority| Sha256::parse(&authority.fingerprint)).collect();
    let only_own =
        |route: &Terminate| route.client_auth.trust.iter().all(|anchor| own.contains(&Sha256::of(&anchor.certificate)));
    let mut told = BTreeSet::new();
    let mut warnings = Vec::new();
    let mut look_at = |key: &str, selector: &Selector, only_own: bool| {
        let (Selector::AnyName(name) | Selector::CommonName(name)) = selector else { return };
        if devices.contains(&name.as_str()) || !told.insert((key.to_owned(), name.clone())) {
            return;
        }
        let shown = printable(name, NAME_MAX);
        match nearest(name, &devices) {
            Some(device) => {
                let device = printable(device, NAME_MAX);
                warnings.push(format!("{key}: no device has the name {shown:?}; did you mean {device:?}?"));
            }
            None if only_own => {
                let make =
                    parse_device(name).map(|name| format!("; to make it: doorward ca device {}", word(name.as_str())));
                warnings.push(format!("{key}: no device has the name {shown:?}{}", make.unwrap_or_default()));
            }
            None => {}
        }
    };
    for route in routes {
        route.allow.selectors.iter().for_each(|selector| look_at("allow", selector, only_own(route)));
    }
    for expected in &config.expectations {
        let selectors = match &expected.clients {
            ExpectedClients::Device(selector) => std::slice::from_ref(selector),
            ExpectedClients::Group { members, .. } => members,
            ExpectedClients::Any | ExpectedClients::Unverified => &[],
        };
        let route = config.routes.iter().find(|route| route.name == expected.route).and_then(terminated);
        for selector in selectors {
            look_at(&expected.key, selector, route.is_some_and(only_own));
        }
    }
    warnings
}

/// Denied certificates of devices that have a newer one, which is not denied.
fn outdated(routes: &[&Terminate], inventory: &Inventory) -> Vec<String> {
    let fingerprint = |entry: &CertificateEntry| entry.fingerprint.as_deref().and_then(Sha256::parse);
    let denies = |entry: &CertificateEntry| {
        let (fingerprint, serial) = (fingerprint(entry), Serial::parse(&entry.serial));
        routes.iter().map(|route| &route.client_auth.deny).any(|deny| {
            fingerprint.is_some_and(|own| deny.fingerprints.contains(&own))
                || serial.as_ref().is_some_and(|own| deny.serials.contains(own))
        })
    };
    inventory
        .certificates
        .iter()
        .filter(|entry| entry.kind == Kind::Device && denies(entry))
        .filter_map(|entry| {
            let current = inventory.current(&entry.name, Kind::Device)?;
            if denies(current) || inventory.status(current, now()) == Status::Expired {
                return None;
            }
            let (name, newer) = (printable(&entry.name, NAME_MAX), fingerprint(current)?);
            Some(format!(
                "deny: {name} is still admitted: the entry is for an earlier certificate of this device; its current one \
                 is \"sha256:{newer}\""
            ))
        })
        .collect()
}
