//! Which refused clients pretend to be a device: their certificate has the name, the serial number or the key of one, and no
//! authority of the owner signed it. And which took a bait.

use std::collections::{HashMap, HashSet};

use crate::config::checked::{Config, RouteMode, Selector};
use crate::model::identity::{Identity, Serial, Sha256};
use crate::model::impostor::{Claim, Impostor};
use crate::model::rejection::Cause;

/// Shorter serial numbers, in bytes, are counted up by many authorities: anything may have the same one. RFC 5280 section
/// 4.1.2.2 has no minimum; the CA/Browser forum's is 64 bits.
const SERIAL_MIN: usize = 8;

/// The devices of the inventory and of `allow`, by all that a certificate can claim.
#[derive(Debug, Default)]
pub struct Impostors {
    /// In lower case, with the name as the owner writes it.
    names: HashMap<String, Box<str>>,
    serials: HashMap<Serial, Box<str>>,
    keys: HashMap<Sha256, Box<str>>,
    /// The certificates that devices were given.
    own: HashSet<Sha256>,
    canaries: HashMap<Sha256, Box<str>>,
}

impl Impostors {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        let mut known = Self::default();
        for issued in config.metrics.inventory.iter().flat_map(|inventory| &inventory.issued) {
            let device: Box<str> = issued.device.as_str().into();
            known.names.insert(issued.device.to_lowercase(), device.clone());
            if issued.serial.as_bytes().len() >= SERIAL_MIN {
                known.serials.insert(issued.serial.clone(), device.clone());
            }
            known.keys.extend(issued.spki.map(|spki| (spki, device.clone())));
            match issued.fingerprint {
                Some(fingerprint) if issued.canary => drop(known.canaries.insert(fingerprint, device)),
                Some(fingerprint) => drop(known.own.insert(fingerprint)),
                None => {}
            }
        }
        for route in &config.routes {
            let RouteMode::Terminate(terminate) = &route.mode else { continue };
            for selector in &terminate.allow.selectors {
                known.selected(selector);
            }
        }
        known
    }

    /// Takes what `allow` names. The inventory's spelling comes first.
    fn selected(&mut self, selector: &Selector) {
        match selector {
            Selector::AnyName(name)
            | Selector::CommonName(name)
            | Selector::Dns(name)
            | Selector::Email(name)
            | Selector::Uri(name) => {
                self.names.entry(name.to_lowercase()).or_insert_with(|| name.as_str().into());
            }
            Selector::Fingerprint(fingerprint) => drop(self.own.insert(*fingerprint)),
            Selector::Spki(spki) => {
                self.keys.entry(*spki).or_insert_with(|| selector.to_string().into_boxed_str());
            }
            Selector::OrganizationalUnit(_) | Selector::Ip(_) => {}
        }
    }

    /// What a refused client pretended to be, if anything. A few look-ups.
    ///
    /// Nothing is found of a certificate that an authority of the owner signed, unless it is a canary; of one that was issued
    /// here, by an authority that is gone by now; and where certificates are not verified, so that none is known to be forged.
    pub fn find(&self, identity: &Identity, cause: &Cause) -> Option<Impostor> {
        let found = |name: &str, claim| Some(Impostor { name: name.into(), claim });
        if let Some(device) = self.canaries.get(&identity.fingerprint) {
            return found(device, Claim::Canary);
        }
        let own = identity.anchored || identity.of_other_authority || self.own.contains(&identity.fingerprint);
        if own || *cause == Cause::Unverified {
            return None;
        }
        let texts = [&identity.emails, &identity.uris, &identity.dns_names].into_iter().flatten();
        if let Some(device) = texts.chain(&identity.common_name).find_map(|name| self.names.get(&name.to_lowercase())) {
            return found(device, Claim::Name);
        }
        if let Some(device) = self.serials.get(&identity.serial) {
            return found(device, Claim::Serial);
        }
        found(self.keys.get(&identity.spki)?, Claim::Key)
    }
}

#[cfg(test)]
mod tests;
