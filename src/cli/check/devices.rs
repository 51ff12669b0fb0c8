//! The devices that a configuration names, compared with those that the owner's authority has issued certificates for.

use std::collections::BTreeSet;

use crate::ca::inventory::{Inventory, Kind, Status, Store, now};
use crate::cli::ca::FOLDER;
use crate::config::checked::{Config, RouteMode, Selector, Terminate};
use crate::config::nearest;
use crate::model::identity::Sha256;
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
            misspelt(&routes, &inventory).chain(outdated(&routes, &inventory)).collect()
        }
        // Other users than the owner may not read it, and the gate does not need it.
        Ok(None) | Err(_) => Vec::new(),
    }
}

fn terminated(route: &crate::config::checked::Route) -> Option<&Terminate> {
    match &route.mode {
        RouteMode::Terminate(terminate) => Some(terminate),
        RouteMode::Passthrough => None,
    }
}

/// Names under `allow` that no device has, but for a slip. Other names may be of another authority's devices.
fn misspelt(routes: &[&Terminate], inventory: &Inventory) -> impl Iterator<Item = String> {
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
    let warnings: Vec<String> = names
        .into_iter()
        .filter_map(|name| {
            let device = nearest(name, &devices)?;
            let [name, device] = [name, device].map(|name| printable(name, NAME_MAX));
            Some(format!("allow: no device has the name {name:?}; did you mean {device:?}?"))
        })
        .collect();
    warnings.into_iter()
}

/// Denied certificates of devices that have a newer one, which is not denied.
fn outdated(routes: &[&Terminate], inventory: &Inventory) -> impl Iterator<Item = String> {
    let denied: BTreeSet<Sha256> =
        routes.iter().flat_map(|route| &route.client_auth.deny.fingerprints).copied().collect();
    let fingerprint = |text: &Option<String>| text.as_deref().and_then(Sha256::parse);
    let warnings: Vec<String> = inventory
        .certificates
        .iter()
        .filter(|entry| entry.kind == Kind::Device)
        .filter(|entry| fingerprint(&entry.fingerprint).is_some_and(|own| denied.contains(&own)))
        .filter_map(|entry| {
            let current = inventory.current(&entry.name, Kind::Device)?;
            let newer = fingerprint(&current.fingerprint)?;
            if denied.contains(&newer) || inventory.status(current, now()) == Status::Expired {
                return None;
            }
            let name = printable(&entry.name, NAME_MAX);
            Some(format!(
                "deny: {name} is still admitted: the entry is for an earlier certificate of this device; its current one \
                 is \"sha256:{newer}\""
            ))
        })
        .collect();
    warnings.into_iter()
}
