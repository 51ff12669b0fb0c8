//! Merges an existing revocation list into the inventory.
//!
//! If an older inventory was restored, or an authority imported again, certificates that were revoked since must stay
//! revoked in the next list. So entries of the existing list are taken over, if the authority has signed it.

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer};
use x509_parser::x509::ReasonCode;

use super::{CertificateEntry, Inventory};
use crate::model::identity::Serial;
use crate::pki::{RevocationReason, has_signed_list};

impl Inventory {
    /// Adds the entries of `list` (DER), the existing revocation list of this authority, that the inventory lacks, and
    /// returns their number. A list that the authority has not signed is ignored.
    pub fn merge_revocation_list(&mut self, authority: &str, certificate: &CertificateDer<'_>, list: &[u8]) -> usize {
        if !has_signed_list(certificate, list) {
            return 0;
        }
        let Ok((_, list)) = CertificateRevocationList::from_der(list) else { return 0 };
        let Some(entry) = self.authorities.iter_mut().find(|entry| entry.id == authority) else { return 0 };
        // TOML integers are signed.
        let number = list.crl_number().and_then(|number| i64::try_from(number).ok()?.try_into().ok());
        entry.list_number = entry.list_number.max(number.unwrap_or_default());
        let mut count = 0;
        for revoked in list.iter_revoked_certificates() {
            let serial = Serial::from_be_bytes(revoked.raw_serial()).to_string();
            let known = self.certificates.iter().position(|one| one.authority == authority && one.serial == serial);
            let known = known.unwrap_or_else(|| {
                self.certificates.push(CertificateEntry::of_serial(&serial, authority));
                self.certificates.len() - 1
            });
            if let Some(entry) = self.certificates.get_mut(known)
                && entry.revoked_at.is_none()
            {
                let at = OffsetDateTime::from_unix_timestamp(revoked.revocation_date.timestamp());
                entry.revoked_at = Some(at.unwrap_or_else(|_| super::now()));
                entry.revoked_for = Some(reason(revoked.reason_code().map(|(_, reason)| reason)));
                count += 1;
            }
        }
        count
    }
}

fn reason(code: Option<ReasonCode>) -> RevocationReason {
    match code {
        Some(ReasonCode::KeyCompromise) => RevocationReason::Lost,
        Some(ReasonCode::Superseded) => RevocationReason::Replaced,
        Some(ReasonCode::CessationOfOperation) => RevocationReason::Retired,
        _ => RevocationReason::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::DeviceAuthority;
    use crate::ca::inventory::{AuthorityEntry, Signs, now};
    use crate::pki::Revocation;

    #[test]
    fn only_entries_of_a_list_signed_by_the_authority_are_merged() {
        let (devices, others) = (DeviceAuthority::new().expect("one"), DeviceAuthority::new().expect("another"));
        let mut inventory = Inventory::default();
        inventory.authorities.push(AuthorityEntry {
            id: "devices".to_owned(),
            signs: Signs::Devices,
            certificate: "clients.pem".to_owned(),
            key: "clients-key.pem".to_owned(),
            fingerprint: String::new(),
            revocation_list: Some("clients.crl".to_owned()),
            list_number: 5,
        });
        let reasons = [
            RevocationReason::Lost,
            RevocationReason::Replaced,
            RevocationReason::Retired,
            RevocationReason::Unspecified,
        ];
        let revoked: Vec<Revocation> = reasons
            .iter()
            .zip(1..)
            .map(|(&reason, number)| Revocation { serial: vec![number], at: now() - time::Duration::DAY, reason })
            .collect();
        let list = |by: &DeviceAuthority, number| {
            by.authority().revocation_list(&revoked, number, by.authority().not_after()).expect("a list")
        };
        let own = devices.authority().certificate();
        // Another key; no list; another authority.
        assert_eq!(inventory.merge_revocation_list("devices", own, &list(&others, 1 << 40)), 0);
        assert_eq!(inventory.merge_revocation_list("devices", own, b"none"), 0);
        assert_eq!(inventory.merge_revocation_list("elsewhere", own, &list(&devices, 1 << 40)), 0);
        assert_eq!((inventory.revocations("devices"), inventory.authorities[0].list_number), (vec![], 5));
        assert_eq!(inventory.merge_revocation_list("devices", own, &list(&devices, 1 << 40)), 4);
        assert_eq!(
            (inventory.revocations("devices"), inventory.authorities[0].list_number),
            (revoked.clone(), 1 << 40)
        );
        assert_eq!(inventory.merge_revocation_list("devices", own, &list(&devices, 7)), 0, "known by now");
        assert_eq!(
            (inventory.revocations("devices"), inventory.authorities[0].list_number),
            (revoked.clone(), 1 << 40)
        );
    }
}
