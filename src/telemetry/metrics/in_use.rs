//! Certificates with which devices connect, and which expire soon: those that the inventory does not know, and those that were renewed
//! there and are still in use, since nothing brought the new one to the device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::Metrics;
use crate::model::expiry::{Expiry, Kind, SOON};
use crate::model::identity::{Identity, Sha256};

/// The most certificates that are remembered. Only those that the gate has admitted are.
const MOST: usize = 256;

/// By their digests: of which device, and when they expire.
#[derive(Debug, Default)]
pub(super) struct InUse(Mutex<BTreeMap<Sha256, (String, i64)>>);

impl InUse {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Sha256, (String, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device was admitted.
    pub(super) fn note(&self, identity: &Identity, now: i64) {
        // That a guest pass expires is what it is for.
        if !identity.verified || identity.guest_pass.is_some() {
            return;
        }
        let mut known = self.known();
        if identity.not_after.saturating_sub(now) > SOON {
            if !known.is_empty() {
                // It has the new one.
                let name = identity.display_name();
                known.retain(|_, (device, _)| *device != name);
            }
        } else if known.contains_key(&identity.fingerprint) || known.len() < MOST {
            known.insert(identity.fingerprint, (identity.display_name(), identity.not_after));
        }
    }

    /// What expires by the configuration, and what is in use besides that.
    pub(super) fn with(&self, of_config: &[Expiry], now: i64) -> Option<Vec<Expiry>> {
        let mut known = self.known();
        known.retain(|_, (_, at)| at.saturating_add(SOON) > now);
        let in_inventory = |name: &str| of_config.iter().find(|one| one.kind == Kind::Device && one.name == name);
        let more: Vec<Expiry> = known
            .values()
            .filter_map(|(name, at)| {
                let kind = match in_inventory(name) {
                    None => Kind::Met,
                    Some(current) if current.at > *at => Kind::Replaced,
                    // That one is in the inventory.
                    Some(_) => return None,
                };
                Some(Expiry { at: *at, kind, name: name.clone(), renewed_since: None })
            })
            .collect();
        drop(known);
        if more.is_empty() {
            return None;
        }
        let mut all = [of_config, &more].concat();
        all.sort();
        all.dedup();
        Some(all)
    }
}

impl Metrics {
    /// All that expires, the next first.
    pub fn expiries(&self) -> Arc<Vec<Expiry>> {
        let of_config = Arc::clone(&self.of_config.load().expiries);
        self.in_use.with(&of_config, OffsetDateTime::now_utc().unix_timestamp()).map_or(of_config, Arc::new)
    }

    /// A device was admitted.
    pub(crate) fn admitted(&self, identity: &Identity) {
        self.in_use.note(identity, OffsetDateTime::now_utc().unix_timestamp());
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    const DAY: i64 = 86_400;
    const NOW: i64 = 20_000 * DAY;

    fn identity(name: &str, days: i64, verified: bool) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = OffsetDateTime::UNIX_EPOCH;
        params.not_after = OffsetDateTime::from_unix_timestamp(NOW + days * DAY).expect("a date");
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        Identity::from_certificate(certificate.der(), verified).expect("a certificate")
    }

    fn told(in_use: &InUse, of_config: &[Expiry], now: i64) -> Vec<(Kind, String)> {
        let all = in_use.with(of_config, now).unwrap_or_else(|| of_config.to_vec());
        all.into_iter().filter(|one| one.kind != Kind::Device).map(|one| (one.kind, one.name)).collect()
    }

    #[test]
    fn devices_that_use_an_old_certificate_are_told_until_they_have_the_new_one() {
        let in_use = InUse::default();
        let expiry = |days: i64, name: &str| Expiry {
            at: NOW + days * DAY,
            kind: Kind::Device,
            name: name.to_owned(),
            renewed_since: None,
        };
        let inventory = [expiry(5, "bob-laptop"), expiry(400, "alice-phone")];
        for (name, days, verified) in [
            ("alice-phone", 5, true),
            ("bob-laptop", 5, true),
            ("carol-tablet", 9, true),
            ("eve", 3, false),
            ("dave", 20, true),
        ] {
            in_use.note(&identity(name, days, verified), NOW);
        }
        let (replaced, met) = ((Kind::Replaced, "alice-phone".to_owned()), (Kind::Met, "carol-tablet".to_owned()));
        assert_eq!(told(&in_use, &inventory, NOW), [replaced.clone(), met.clone()]);
        // The phone gets what was issued.
        in_use.note(&identity("alice-phone", 400, true), NOW);
        assert_eq!(told(&in_use, &inventory, NOW), [met.clone()]);
        assert_eq!(told(&in_use, &inventory, NOW + 22 * DAY), [met]);
        assert_eq!(told(&in_use, &inventory, NOW + 24 * DAY), []);
        for _ in 0..2 * MOST {
            let fingerprint = Sha256::of(&in_use.known().len().to_be_bytes());
            let mut one = identity("many", 5, true);
            one.fingerprint = fingerprint;
            in_use.note(&one, NOW);
        }
        assert_eq!(in_use.known().len(), MOST);
    }
}
