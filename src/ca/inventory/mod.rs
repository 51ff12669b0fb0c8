//! The inventory of issued and revoked certificates: `inventory.toml` in the folder of the authorities.
//!
//! [`Store`] is the folder: one command at a time changes it, and changes all files or none, even if the process is killed
//! (see [`transaction`]). [`Inventory`] is the content of the file, and does no I/O.

mod merge;
mod store;
mod transaction;

pub use store::{INVENTORY_FILE, Notice, Store, StoreError};
pub use transaction::Recovered;

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::device_name::is_called;
use crate::model::identity::{Serial, Sha256};
use crate::pki::{IssuedCertificate, Revocation, RevocationReason};
use crate::pki::{keys, pem};

/// The version of the file format. A program that does not know it must not change the file.
const VERSION: u32 = 1;

/// The folder with a copy of every certificate issued: a device's own files may have been moved to the device.
pub const COPIES_FOLDER: &str = "issued";

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signs {
    /// Certificates of the gate.
    Servers,
    /// Certificates of devices.
    Devices,
    /// Both: mkcert's roots do.
    Everything,
}

impl Signs {
    /// Whether it signs certificates of this kind.
    pub const fn covers(self, kind: Kind) -> bool {
        match self {
            Self::Everything => true,
            Self::Servers => matches!(kind, Kind::Server),
            Self::Devices => matches!(kind, Kind::Device),
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The gate.
    Server,
    /// A device.
    Device,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Device => "device",
        })
    }
}

/// An authority of this folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityEntry {
    /// Its name in the inventory.
    pub id: String,
    /// What it signs.
    pub signs: Signs,
    /// Its certificate: a path, relative to the folder or absolute.
    pub certificate: String,
    /// Its private key: a path.
    pub key: String,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// Its revocation list: a path; `None` if it keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_list: Option<String>,
    /// The number of its latest revocation list.
    #[serde(default)]
    pub list_number: u64,
}

/// A certificate that was issued or revoked here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateEntry {
    /// The name of the device, or the first name of the gate.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// The `id` of the authority that signed it.
    pub authority: String,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// Its SHA-256 in hexadecimal digits. Unknown if the certificate was revoked by its serial number alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The type of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// SHA-256 of its SubjectPublicKeyInfo in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki: Option<String>,
    /// It was issued as bait: no device uses it, so that its use betrays a thief.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// The routes it is limited to, if it is a guest pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// When it becomes valid.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<OffsetDateTime>,
    /// When it expires.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub not_after: Option<OffsetDateTime>,
    /// When it was issued here; `None` if it was not.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<OffsetDateTime>,
    /// The serial number of the certificate that this one renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<String>,
    /// When it was revoked.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<OffsetDateTime>,
    /// Why it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_for: Option<RevocationReason>,
}

/// The status of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is valid.
    Valid,
    /// It is valid until it expires, and there is a newer one of the same name.
    Renewed,
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Renewed => "renewed",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

impl CertificateEntry {
    /// The entry of a certificate that `authority` signs now.
    pub fn issued(name: &str, kind: Kind, authority: &str, issued: &IssuedCertificate) -> Self {
        let read = X509Certificate::from_der(issued.certificate()).ok();
        let spki = read.as_ref().map(|(_, certificate)| certificate.public_key().raw);
        Self {
            name: name.to_owned(),
            kind,
            authority: authority.to_owned(),
            serial: Serial::from_be_bytes(issued.serial()).to_string(),
            fingerprint: Some(Sha256::of(issued.certificate()).to_string()),
            key: spki.map(keys::describe),
            spki: spki.map(|spki| Sha256::of(spki).to_string()),
            canary: false,
            routes: Vec::new(),
            not_before: Some(issued.not_before()),
            not_after: Some(issued.not_after()),
            issued_at: Some(now()),
            renews: None,
            revoked_at: None,
            revoked_for: None,
        }
    }

    /// The entry of a device certificate of which only the serial number and the authority are known.
    pub fn of_serial(serial: &str, authority: &str) -> Self {
        Self {
            name: "–".to_owned(),
            kind: Kind::Device,
            authority: authority.to_owned(),
            serial: serial.to_owned(),
            fingerprint: None,
            key: None,
            spki: None,
            canary: false,
            routes: Vec::new(),
            not_before: None,
            not_after: None,
            issued_at: None,
            renews: None,
            revoked_at: None,
            revoked_for: None,
        }
    }

    /// The path of the copy that the folder keeps.
    pub fn copy_path(&self) -> String {
        format!("{COPIES_FOLDER}/{}.pem", self.serial)
    }

    /// The serial number in bytes.
    fn serial_bytes(&self) -> Vec<u8> {
        Serial::parse(&self.serial).map(|serial| serial.as_bytes().to_vec()).unwrap_or_default()
    }

    /// Whole days until it expires, rounded down; negative once it has.
    pub fn days_left(&self, now: OffsetDateTime) -> Option<i64> {
        self.not_after.map(|end| (end - now).whole_seconds().div_euclid(86_400))
    }
}

/// The current time, to the second.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc().truncate_to_second()
}

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    pub(super) version: u32,
    /// The authorities. The first one that fits is the default.
    #[serde(default, rename = "authority")]
    pub authorities: Vec<AuthorityEntry>,
    /// The certificates (PEM) of all authorities that have signed devices, of those that were replaced as well: a gate tells
    /// what they signed from a forgery.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
    /// The certificates, in the order in which they were added.
    #[serde(default, rename = "certificate")]
    pub certificates: Vec<CertificateEntry>,
}

impl Default for Inventory {
    fn default() -> Self {
        Self { version: VERSION, authorities: Vec::new(), known: Vec::new(), certificates: Vec::new() }
    }
}

impl Inventory {
    /// Remembers an authority that signs devices.
    pub fn remember(&mut self, authority: &[u8]) {
        self.remember_pem(pem::encode(pem::CERTIFICATE, authority));
    }

    /// The same, by its certificate as PEM.
    pub fn remember_pem(&mut self, pem: String) {
        /// Enough for a home; the oldest is forgotten.
        const KNOWN_MAX: usize = 16;
        if !self.known.contains(&pem) {
            self.known.push(pem);
        }
        self.known.drain(..self.known.len().saturating_sub(KNOWN_MAX));
    }

    /// The authority of this name.
    pub fn authority(&self, id: &str) -> Option<&AuthorityEntry> {
        self.authorities.iter().find(|authority| authority.id == id)
    }

    /// The default authority for certificates of this kind: one that signs only this kind comes before one that signs
    /// everything.
    pub fn authority_for(&self, kind: Kind) -> Option<&AuthorityEntry> {
        let fits = |authority: &&AuthorityEntry| authority.signs.covers(kind);
        let own = self.authorities.iter().filter(fits).find(|authority| authority.signs != Signs::Everything);
        own.or_else(|| self.authorities.iter().find(fits))
    }

    /// The status of this certificate at this time.
    pub fn status(&self, entry: &CertificateEntry, now: OffsetDateTime) -> Status {
        if entry.revoked_at.is_some() {
            Status::Revoked
        } else if entry.not_after.is_some_and(|end| end < now) {
            Status::Expired
        } else if entry.issued_at.is_some() && self.latest(entry).is_some_and(|latest| latest.serial != entry.serial) {
            Status::Renewed
        } else {
            Status::Valid
        }
    }

    /// The latest certificate of this name and kind that was issued here and is not revoked; it may have expired. Names are
    /// compared without regard to case, as some file systems do; the name of a device's files is taken as well.
    pub fn current(&self, name: &str, kind: Kind) -> Option<&CertificateEntry> {
        self.certificates.iter().rev().find(|entry| {
            entry.kind == kind
                && is_called(&entry.name, name)
                && entry.issued_at.is_some()
                && entry.revoked_at.is_none()
        })
    }

    /// The latest certificate of the same device; or of the gate, whatever its names.
    fn latest(&self, entry: &CertificateEntry) -> Option<&CertificateEntry> {
        match entry.kind {
            Kind::Device => self.current(&entry.name, Kind::Device),
            Kind::Server => self.certificates.iter().rev().find(|other| other.kind == Kind::Server),
        }
    }

    /// The entries of the revocation list of this authority.
    pub fn revocations(&self, authority: &str) -> Vec<Revocation> {
        let revoked = self.certificates.iter().filter(|entry| entry.authority == authority);
        revoked
            .filter_map(|entry| {
                Some(Revocation {
                    serial: entry.serial_bytes(),
                    at: entry.revoked_at?,
                    reason: entry.revoked_for.unwrap_or(RevocationReason::Unspecified),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    fn entry(name: &str, serial: &str) -> CertificateEntry {
        CertificateEntry {
            name: name.to_owned(),
            kind: Kind::Device,
            authority: "devices".to_owned(),
            serial: serial.to_owned(),
            fingerprint: None,
            key: None,
            spki: None,
            canary: false,
            routes: Vec::new(),
            not_before: Some(now()),
            not_after: Some(now() + Duration::days(2)),
            issued_at: Some(now()),
            renews: None,
            revoked_at: None,
            revoked_for: None,
        }
    }

    #[test]
    fn status_follows_renewal_expiry_and_revocation() {
        let certificates = vec![entry("a", "01"), entry("a", "02"), entry("b", "03")];
        let mut inventory = Inventory { certificates, ..Inventory::default() };
        inventory.certificates[2].revoked_at = Some(now());
        let status = |at| {
            let all = inventory.certificates.iter();
            all.map(|entry| inventory.status(entry, at)).collect::<Vec<_>>()
        };
        assert_eq!(status(now()), [Status::Renewed, Status::Valid, Status::Revoked]);
        assert_eq!(status(now() + Duration::days(3)), [Status::Expired, Status::Expired, Status::Revoked]);
        assert_eq!(inventory.current("A", Kind::Device).map(|entry| entry.serial.as_str()), Some("02"));
        assert_eq!(inventory.current("b", Kind::Device), None, "revoked");
        assert_eq!(inventory.current("a", Kind::Server), None);
        // If the newer one is revoked, the older one is not superseded.
        let mut without = inventory.clone();
        without.certificates[1].revoked_at = Some(now());
        assert_eq!(without.status(&without.certificates[0], now()), Status::Valid);
        let revoked = inventory.revocations("devices");
        assert_eq!(revoked.iter().map(|one| &one.serial[..]).collect::<Vec<_>>(), [[3]]);
        assert_eq!(inventory.revocations("mkcert"), []);
        // An expired one stays on the list: a gate whose clock is slow would admit it.
        inventory.certificates[2].not_after = Some(now() - Duration::days(900));
        assert_eq!(inventory.revocations("devices"), revoked);
    }

    #[test]
    fn days_left_are_rounded_down_and_negative_after_expiry() {
        let one = entry("a", "01");
        let left = |after| one.days_left(one.not_after.expect("a date") - after);
        assert_eq!(left(Duration::hours(49)), Some(2));
        assert_eq!(left(Duration::hours(1)), Some(0));
        assert_eq!(left(Duration::seconds(-1)), Some(-1));
        assert_eq!(left(Duration::hours(-25)), Some(-2));
    }
}
