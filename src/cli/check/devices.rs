//! The devices that a configuration names, compared with those that the owner's authority has issued certificates for.

use std::collections::BTreeSet;

use crate::ca::inventory::{CertificateEntry, Inventory, Kind, Status, Store, now};
use crate::cli::ca::FOLDER;
use crate::config::checked::{Config, Route, RouteMode, Selector, Terminate};
use crate::config::nearest;
use crate::model::identity::{Serial, Sha256};
use crate::model::names::printable;

/// The longest name that a warning shows, in characters.
const NAME_MAX: usize = 64;

/// Warnings about names that are probably misspelt, and about denied certificates that are not the device's current one.
/// None if there is no inventory in the usual folder beside the configuration.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let folder = config.file.with_file_name(FOLDER);
    match Store::read_inventory(&folder) {
        Ok(Some(inventory)) => {
            let routes: Vec<&Terminate> = config.routes.iter().filter_map(terminated).collect();
            [misspelt(&routes, &inventory), outdated(&routes, &inventory)].concat()
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

/// Names under `allow` that no device has, but for a slip. Other names may be of another authority's devices.
fn misspelt(routes: &[&Terminate], inventory: &Inventory) -> Vec<String> {
    let devices: Vec<&str> = inventory
        .certificates
        .iter()
        .filter(|entry| entry.kind == Kind::Device)
        .map(|entry| entry.name.as_str())
        .collect();
    let names: BTreeSet<&str> = routes
        .iter()
        .flat_map(|route| &route.allow.selectors)
        .filter_map(|selector| match selector {
            Selector::AnyName(name) | Selector::CommonName(name) => Some(name.as_str()),
            _ => None,
        })
        .filter(|name| !devices.contains(name))
        .collect();
    names
        .into_iter()
        .filter_map(|name| {
            let device = nearest(name, &devices)?;
            let [name, device] = [name, device].map(|name| printable(name, NAME_MAX));
            Some(format!("allow: no device has the name {name:?}; did you mean {device:?}?"))
        })
        .collect()
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
