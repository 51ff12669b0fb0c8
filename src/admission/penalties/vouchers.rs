//! The devices that vouch for a source: those that showed a valid certificate there not long ago.

use std::sync::Arc;
use std::time::Duration;

use crate::model::identity::{Chain, Identity, Sha256};
use crate::model::rate_limit::nanoseconds;

/// For so long after its last connection a device vouches for the source.
const TRUST: Duration = Duration::from_secs(12 * 60 * 60);

/// How many devices are remembered for one source; the one that has been away for the longest goes first.
const MOST: usize = 32;

/// A device that vouches.
#[derive(Clone, Debug)]
pub struct Voucher {
    /// Its certificate.
    pub identity: Arc<Identity>,
    /// What it showed, to be judged again.
    pub chain: Arc<Chain>,
}

impl Voucher {
    /// Whether it is the same device with the same chain.
    pub fn is(&self, other: &Self) -> bool {
        self.identity.fingerprint == other.identity.fingerprint
            && (Arc::ptr_eq(&self.chain, &other.chain) || self.chain == other.chain)
    }
}

/// The devices that vouch for one source. Moments are nanoseconds since the table began. On the heap: most sources have
/// none.
#[derive(Clone, Debug, Default)]
pub(super) struct Vouchers(Option<Box<Entries>>);

#[derive(Clone, Debug, Default)]
struct Entries(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    voucher: Voucher,
    /// Its connections.
    open: u32,
    /// Until when it vouches if it has none.
    until: u64,
}

impl Entry {
    const fn until(&self) -> u64 {
        if self.open > 0 { u64::MAX } else { self.until }
    }
}

impl Vouchers {
    /// Until when a device vouches; 0 if none does.
    pub(super) fn until(&self) -> u64 {
        self.entries().iter().map(Entry::until).max().unwrap_or_default()
    }

    /// All devices.
    pub(super) fn all(&self) -> impl Iterator<Item = &Voucher> {
        self.entries().iter().map(|entry| &entry.voucher)
    }

    /// A connection of a device begins.
    pub(super) fn enter(&mut self, identity: &Arc<Identity>, chain: &Arc<Chain>) {
        let voucher = Voucher { identity: Arc::clone(identity), chain: Arc::clone(chain) };
        if let Some(entry) = self.of(&identity.fingerprint) {
            entry.open = entry.open.saturating_add(1);
            // What it showed last is what its next connection will be known by.
            entry.voucher = voucher;
            return;
        }
        let entry = Entry { voucher, open: 1, until: 0 };
        let Entries(entries) = self.0.get_or_insert_default().as_mut();
        if entries.len() < MOST {
            // Most sources have one.
            entries.reserve_exact(1);
            entries.push(entry);
        } else if let Some(first) = entries.iter_mut().min_by_key(|entry| entry.until()) {
            *first = entry;
        }
    }

    /// A connection of a device is over. One that does not vouch any more does not begin to.
    pub(super) fn leave(&mut self, now: u64, device: &Sha256) {
        if let Some(entry) = self.of(device) {
            entry.open = entry.open.saturating_sub(1);
            entry.until = now.saturating_add(nanoseconds(TRUST));
        }
    }

    /// Only these go on vouching.
    pub(super) fn retain(&mut self, keep: impl Fn(&Voucher) -> bool) {
        if let Some(entries) = &mut self.0 {
            entries.0.retain(|entry| keep(&entry.voucher));
            self.0.take_if(|entries| entries.0.is_empty());
        }
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_ref().map(|entries| entries.0.as_slice()).unwrap_or_default()
    }

    fn of(&mut self, device: &Sha256) -> Option<&mut Entry> {
        self.0.as_mut()?.0.iter_mut().find(|entry| entry.voucher.identity.fingerprint == *device)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::model::identity::{Serial, Twins};

    /// A device that nothing is known about but that it is another one than those with other numbers.
    pub(crate) fn device(number: u8) -> Voucher {
        let identity = Identity {
            verified: true,
            anchored: true,
            of_other_authority: false,
            unsupported_key: None,
            name_constrained: false,
            guest_pass: None,
            origin: None,
            emails: Vec::new(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            ips: Vec::new(),
            common_name: Some(format!("device-{number}")),
            organizational_units: Vec::new(),
            fingerprint: Sha256([number; 32]),
            twins: Twins::known(Vec::new()),
            spki: Sha256([number; 32]),
            serial: Serial::from_be_bytes(&[number]),
            issuer: "CN=test".to_owned(),
            not_before: 0,
            not_after: i64::MAX,
        };
        let chain = Chain::new(vec![vec![number].into()], Vec::new(), u64::MAX);
        Voucher { identity: Arc::new(identity), chain: Arc::new(chain) }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::device;
    use super::*;

    #[test]
    fn source_without_vouchers_takes_no_more_room_for_them() {
        assert!(size_of::<(crate::model::source::Source, super::super::SourceRecord)>() <= 64);
    }

    #[test]
    fn of_many_devices_the_one_away_for_the_longest_is_forgotten() {
        let mut vouchers = Vouchers::default();
        let devices: Vec<Voucher> = (0..=u8::try_from(MOST).expect("a few")).map(device).collect();
        for (now, Voucher { identity, chain }) in (0..).zip(&devices[..MOST]) {
            vouchers.enter(identity, chain);
            vouchers.leave(now, &identity.fingerprint);
        }
        // The first one is back.
        vouchers.enter(&devices[0].identity, &devices[0].chain);
        vouchers.enter(&devices[MOST].identity, &devices[MOST].chain);
        let known = |number: usize| vouchers.all().any(|voucher| voucher.is(&devices[number]));
        assert_eq!([0, 1, 2, MOST].map(known), [true, false, true, true]);
        assert_eq!(vouchers.all().count(), MOST);
    }
}
