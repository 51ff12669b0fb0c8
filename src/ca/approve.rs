//! Issues the certificate that a device has asked the gate for: with the owner's word, or without.
//!
//! The gate has stored the request, and is not trusted with it: the device is the one whose certificate the inventory knows by its
//! fingerprint, and only a signature by the key of that certificate shows that the device has made the request. A request with another
//! key shows nothing of the kind, so the owner has to say that it is the device's.

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Error;
use super::authority::certify_device;
use super::inventory::{CertificateEntry, Inventory, Kind, Status, Store, now};
use super::issue::copy;
use super::renewal::RENEWAL_AUTHORITY_FILE;
use super::signer::{self, PassphrasePrompt};
use crate::model::device_name::DeviceName;
use crate::model::identity::{Identity, Origin, Sha256};
use crate::pki::{self, CertificateRequest, Parts, origin};

/// Why a request is not approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// The certificate was not issued to a device here.
    #[error("it was sent with a certificate that was not issued to a device here")]
    Unknown,
    /// The certificate is revoked.
    #[error("it was sent with a certificate that is revoked")]
    Revoked,
    /// The certificate has expired.
    #[error("it was sent with a certificate that has expired")]
    Expired,
    /// The certificate is a guest pass.
    #[error("it was sent with a guest pass, which is not renewed")]
    GuestPass,
    /// The certificate is bait.
    #[error("it was sent with the certificate of a canary")]
    Canary,
    /// The key in the request is that of a certificate that is revoked.
    #[error("its key is that of a certificate that is revoked")]
    RevokedKey,
}

/// A certificate that a device has shown to the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// SHA-256 of it.
    pub fingerprint: Sha256,
    /// If it was renewed without the owner: what it descends from, and when it expires, in seconds since 1970. It was verified
    /// before.
    pub renewed: Option<(Origin, i64)>,
}

impl Shown {
    /// One that the gate has stored: with its SHA-256, and perhaps the certificate itself, which counts as renewed if one of these
    /// authorities has signed it.
    pub fn stored(
        renewing: &[CertificateDer<'_>],
        fingerprint: &Sha256,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Self {
        let renewed = certificate.filter(|der| Sha256::of(der) == *fingerprint).and_then(|der| {
            let (_, read) = X509Certificate::from_der(der).ok()?;
            renewing.iter().any(|issuer| pki::has_signed(issuer, &read)).then_some(())?;
            Some((origin::of(&Parts::read(der)?).ok()?, read.validity().not_after.timestamp()))
        });
        Self { fingerprint: *fingerprint, renewed }
    }

    /// One that was verified just now.
    pub fn verified(identity: &Identity) -> Self {
        let origin = identity.origin.as_deref();
        Self { fingerprint: identity.fingerprint, renewed: origin.map(|origin| (origin.clone(), identity.not_after)) }
    }

    /// The entry of the certificate that was issued here: this one, or the one that it descends from.
    pub fn entry<'a>(&self, inventory: &'a Inventory) -> Option<&'a CertificateEntry> {
        let (fingerprint, serial) = match &self.renewed {
            Some((origin, _)) => (origin.fingerprint.to_string(), Some(origin.serial.to_string())),
            None => (self.fingerprint.to_string(), None),
        };
        let mut devices = inventory.certificates.iter().filter(|entry| entry.kind == Kind::Device);
        devices.find(|entry| {
            entry.fingerprint.as_ref() == Some(&fingerprint)
                && serial.as_ref().is_none_or(|serial| entry.serial == *serial)
        })
    }
}

/// Every authority that `doorward ca renewal` has made here, also those that were replaced: what they have signed can be told.
pub fn ever_renewing(inventory: &Inventory) -> Vec<CertificateDer<'static>> {
    let own: Vec<Option<Sha256>> =
        inventory.authorities.iter().map(|authority| Sha256::parse(&authority.fingerprint)).collect();
    let known = inventory.known.iter().filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
    // What the owner's authorities sign is in the inventory itself.
    known.filter(|one| !own.contains(&Some(Sha256::of(one)))).collect()
}

/// The one that counts: the last that was made, while it is valid. The key of one that was replaced may be in other hands. None if it cannot
/// be read.
pub fn renewing(store: &Store) -> Vec<CertificateDer<'static>> {
    let current = store.certificate(RENEWAL_AUTHORITY_FILE).ok();
    let is_valid =
        |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok_and(|(_, read)| read.validity().is_valid());
    let current = current.filter(|der| is_valid(der) && ever_renewing(&store.inventory).contains(der));
    current.into_iter().collect()
}

/// A device that asks, and what shows that it does.
#[derive(Clone, Debug)]
pub struct Asking<'a> {
    /// Its certificate, as far as that was issued here: the one that it has shown may descend from it.
    pub entry: &'a CertificateEntry,
    /// Whether the request is signed by the key of that certificate.
    pub same_key: bool,
}

/// A certificate that was issued for a request.
#[derive(Clone, Debug)]
pub struct Approved {
    /// The device.
    pub name: DeviceName,
    /// The serial number.
    pub serial: String,
    /// When it expires.
    pub not_after: OffsetDateTime,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
}

/// The device that has sent a request with this certificate. The owner's command and the process that renews without the owner both
/// go by this.
///
/// # Errors
/// Why nothing is issued for it.
pub fn asking<'a>(
    inventory: &'a Inventory,
    shown: &Shown,
    request: &CertificateRequest,
) -> Result<Asking<'a>, NotApproved> {
    let key = request.key().to_string();
    let entry = shown.entry(inventory).filter(|entry| entry.issued_at.is_some()).ok_or(NotApproved::Unknown)?;
    if entry.canary {
        return Err(NotApproved::Canary);
    }
    let status = inventory.status(entry, now());
    let has_expired = match &shown.renewed {
        // A device that was renewed again and again has outlived the certificate that it began with.
        Some((_, not_after)) => *not_after < now().unix_timestamp(),
        None => status == Status::Expired,
    };
    if status == Status::Revoked {
        return Err(NotApproved::Revoked);
    }
    if has_expired {
        return Err(NotApproved::Expired);
    }
    if !entry.routes.is_empty() {
        return Err(NotApproved::GuestPass);
    }
    let mut devices = inventory.certificates.iter().filter(|entry| entry.kind == Kind::Device);
    if devices.any(|other| other.revoked_at.is_some() && other.spki.as_ref() == Some(&key)) {
        return Err(NotApproved::RevokedKey);
    }
    Ok(Asking { entry, same_key: entry.spki.as_ref() == Some(&key) })
}

/// Issues the certificate: with the names of the one before, and the key of the request. Its validity is that of every device's
/// certificate, and ends with that of the authority at the latest.
///
/// # Errors
/// If the authority cannot sign it, or the folder cannot be written. [`asking`] is asked before.
pub fn approve(
    store: &mut Store,
    shown: &Shown,
    request: &CertificateRequest,
    passphrase: PassphrasePrompt<'_>,
) -> Result<Result<Approved, NotApproved>, Error> {
    let old = match asking(&store.inventory, shown, request) {
        Ok(asking) => asking.entry.clone(),
        Err(why) => return Ok(Err(why)),
    };
    let name = DeviceName::parse(&old.name).map_err(Error::InvalidName)?;
    let authority = signer::select(store, Kind::Device, Some(&old.authority))?;
    let signer = signer::load(store, &authority, passphrase)?;
    let key = SubjectPublicKeyInfo::from_der(request.spki()).map_err(pki::Error::from)?;
    let issued = certify_device(&signer, &name, &key, None)?;
    let mut entry = CertificateEntry::issued(name.as_str(), Kind::Device, &authority.id, &issued);
    entry.renews = Some(old.serial);
    let (serial, file) = (entry.serial.clone(), copy(&entry, &issued.certificate_pem()));
    let mut inventory = store.inventory.clone();
    inventory.certificates.push(entry);
    store.commit(inventory, vec![file])?;
    Ok(Ok(Approved { name, serial, not_after: issued.not_after(), certificate: issued.certificate().clone() }))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::Duration;

    use super::*;
    use crate::pki::keys::KeyType;

    fn request(key: &KeyPair) -> CertificateRequest {
        let der = CertificateParams::default().serialize_request(key).expect("a request");
        CertificateRequest::read(der.der()).expect("a request")
    }

    fn shown(serial: &[u8]) -> Shown {
        Shown { fingerprint: Sha256::of(serial), renewed: None }
    }

    /// The entry of a certificate with this key.
    fn entry(serial: &str, key: &CertificateRequest) -> CertificateEntry {
        CertificateEntry {
            name: "alice".to_owned(),
            fingerprint: Some(Sha256::of(serial.as_bytes()).to_string()),
            spki: Some(key.key().to_string()),
            issued_at: Some(now()),
            not_after: Some(now() + Duration::DAY),
            ..CertificateEntry::of_serial(serial, "devices")
        }
    }

    #[test]
    fn only_a_valid_certificate_of_a_device_is_renewed() {
        let [one, other] = [0; 2].map(|_| request(&KeyType::P256.generate().expect("a key")));
        let of = |change: &dyn Fn(&mut CertificateEntry), request: &CertificateRequest| {
            let mut entry = entry("01", &one);
            change(&mut entry);
            let mut inventory = Inventory::default();
            inventory.certificates.push(entry);
            asking(&inventory, &shown(b"01"), request).map(|asking| asking.same_key)
        };
        assert_eq!(of(&|_| (), &one), Ok(true));
        assert_eq!(of(&|_| (), &other), Ok(false));
        assert_eq!(of(&|entry| entry.revoked_at = Some(now()), &other), Err(NotApproved::Revoked));
        assert_eq!(of(&|entry| entry.not_after = Some(now() - Duration::DAY), &one), Err(NotApproved::Expired));
        assert_eq!(of(&|entry| entry.routes = vec!["nas".to_owned()], &one), Err(NotApproved::GuestPass));
        assert_eq!(of(&|entry| entry.canary = true, &one), Err(NotApproved::Canary));
        assert_eq!(of(&|entry| entry.kind = Kind::Server, &one), Err(NotApproved::Unknown));
        assert_eq!(of(&|entry| entry.issued_at = None, &one), Err(NotApproved::Unknown));
        assert_eq!(of(&|entry| entry.fingerprint = None, &one), Err(NotApproved::Unknown));
    }

    #[test]
    fn renewed_certificate_goes_by_what_it_descends_from() {
        use crate::model::identity::Serial;

        let key = request(&KeyType::P256.generate().expect("a key"));
        let in_days = |days| (now() + Duration::days(days)).unix_timestamp();
        let of = |change: &dyn Fn(&mut CertificateEntry), serial: &str, days| {
            let mut entry = entry("01", &key);
            change(&mut entry);
            let inventory = Inventory { certificates: vec![entry], ..Inventory::default() };
            let origin = Origin {
                authority: Sha256::of(b"authority"),
                serial: Serial::parse(serial).expect("a serial number"),
                fingerprint: Sha256::of(b"01"),
            };
            let shown = Shown { fingerprint: Sha256::of(b"renewed"), renewed: Some((origin, in_days(days))) };
            asking(&inventory, &shown, &key).map(|asking| asking.same_key)
        };
        assert_eq!(of(&|_| (), "01", 1), Ok(true));
        assert_eq!(
            of(&|entry| entry.not_after = Some(now() - Duration::DAY), "01", 1),
            Ok(true),
            "it has outlived that"
        );
        assert_eq!(of(&|_| (), "01", -1), Err(NotApproved::Expired));
        assert_eq!(of(&|_| (), "02", 1), Err(NotApproved::Unknown));
        assert_eq!(of(&|entry| entry.revoked_at = Some(now()), "01", 1), Err(NotApproved::Revoked));
        assert_eq!(of(&|entry| entry.canary = true, "01", 1), Err(NotApproved::Canary));
        assert_eq!(of(&|entry| entry.routes = vec!["nas".to_owned()], "01", 1), Err(NotApproved::GuestPass));
    }

    #[test]
    fn key_of_a_revoked_certificate_is_not_certified_again() {
        let [one, lost] = [0; 2].map(|_| request(&KeyType::P256.generate().expect("a key")));
        let mut certificates = vec![entry("01", &lost), entry("02", &one)];
        certificates[0].revoked_at = Some(now());
        let inventory = Inventory { certificates, ..Inventory::default() };
        let asked = asking(&inventory, &shown(b"02"), &lost);
        assert_eq!(asked.map(|asking| asking.same_key), Err(NotApproved::RevokedKey));
        assert!(asking(&inventory, &shown(b"02"), &one).is_ok());
    }
}
