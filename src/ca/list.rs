//! What the authorities have issued, and the state of each certificate.

use std::path::PathBuf;

use serde::Serialize;
use time::OffsetDateTime;

use super::Error;
use super::inventory::{CertificateEntry, Inventory, Status, Store, now};

/// The authorities of a folder and their certificates.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// The authorities.
    pub authorities: Vec<ListedAuthority>,
    /// The certificates, in the order in which they were issued.
    pub certificates: Vec<ListedCertificate>,
}

/// An authority. Times are in seconds since 1970.
#[derive(Debug, Serialize)]
pub struct ListedAuthority {
    /// Its name in the inventory.
    pub id: String,
    /// The file of its certificate.
    pub certificate: PathBuf,
    /// When it expires.
    pub not_after: i64,
    /// Whole days until then.
    pub days_left: i64,
    /// How many certificates it has revoked.
    pub revoked: usize,
    /// The file of its revocation list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_list: Option<PathBuf>,
    /// The number of its revocation list.
    pub list_number: u64,
}

/// A certificate. Times are in seconds since 1970.
#[derive(Debug, Serialize)]
pub struct ListedCertificate {
    /// The device, or the first name of the gate.
    pub name: String,
    /// `device` or `server`.
    pub kind: String,
    /// The authority that signed it.
    pub authority: String,
    /// The routes it is limited to, if it is a guest pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Its state.
    pub status: Status,
    /// Its serial number.
    pub serial: String,
    /// Its fingerprint.
    pub fingerprint: Option<String>,
    /// The type of its key.
    pub key: Option<String>,
    /// When it was issued.
    pub issued_at: Option<i64>,
    /// When it becomes valid.
    pub not_before: Option<i64>,
    /// When it expires.
    pub not_after: Option<i64>,
    /// Whole days until it expires.
    pub days_left: Option<i64>,
    /// The serial number of the certificate that it renews.
    pub renews: Option<String>,
    /// When it was issued in place of that one.
    pub last_renewal: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// Why it was revoked.
    pub revoked_for: Option<String>,
}

/// What the inventory of this folder has.
pub fn list(store: &Store) -> Result<Listing, Error> {
    let inventory = &store.inventory;
    let now = now();
    let mut authorities = Vec::new();
    for authority in &inventory.authorities {
        let certificate = store.authority_certificate(authority)?;
        let not_after = x509_parser::parse_x509_certificate(&certificate)
            .map(|(_, parsed)| parsed.validity().not_after.timestamp())
            .unwrap_or_default();
        authorities.push(ListedAuthority {
            id: authority.id.clone(),
            certificate: store.path(&authority.certificate),
            not_after,
            days_left: (not_after - now.unix_timestamp()).div_euclid(86_400),
            revoked: inventory.revocations(&authority.id).len(),
            revocation_list: authority.revocation_list.as_deref().map(|list| store.path(list)),
            list_number: authority.list_number,
        });
    }
    let certificates = inventory.certificates.iter().map(|entry| certificate(inventory, entry, now)).collect();
    Ok(Listing { authorities, certificates })
}

fn certificate(inventory: &Inventory, entry: &CertificateEntry, now: OffsetDateTime) -> ListedCertificate {
    let seconds = |at: Option<OffsetDateTime>| at.map(OffsetDateTime::unix_timestamp);
    ListedCertificate {
        name: entry.name.clone(),
        kind: entry.kind.to_string(),
        authority: entry.authority.clone(),
        routes: entry.routes.clone(),
        status: inventory.status(entry, now),
        serial: entry.serial.clone(),
        fingerprint: entry.fingerprint.clone(),
        key: entry.key.clone(),
        issued_at: seconds(entry.issued_at),
        not_before: seconds(entry.not_before),
        not_after: seconds(entry.not_after),
        days_left: entry.days_left(now),
        renews: entry.renews.clone(),
        last_renewal: last_renewal(inventory, entry),
        revoked_at: seconds(entry.revoked_at),
        revoked_for: entry.revoked_for.map(|reason| reason.to_string()),
    }
}

/// When this certificate was issued in place of an older one.
fn last_renewal(inventory: &Inventory, entry: &CertificateEntry) -> Option<i64> {
    let renews = entry.renews.as_ref()?;
    inventory.certificates.iter().any(|old| old.serial == *renews).then_some(entry.issued_at?.unix_timestamp())
}
