//! `inventory` of `[metrics]`: the devices that `doorward ca` has given certificates.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::ca::inventory::{self, CertificateEntry, Kind, Status, now};
use crate::config::checked::{Device, DeviceCertificate, Inventory, IssuedToDevice, RevokedCertificate};
use crate::config::files;
use crate::config::report::{Given, Problem, Report};
use crate::model::identity::{GuestPass, Serial, Sha256};

/// The devices, if they are to be shown. Nothing in the file's folder is touched. They are only shown, so a file that cannot be
/// read is no mistake: none are shown then, and a warning says why.
pub(super) fn check(given: &Given<String>, report: &mut Report) -> Option<Option<Inventory>> {
    let text = match given {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(text) => text,
    };
    if text.value.is_empty() {
        report.error(&text.place, "the path is empty", "write the path of a file, as in \"pki/inventory.toml\"");
        return None;
    }
    let path = files::folder_of(report.file()).join(&text.value);
    let read = report.look_at(&path).and_then(|()| read(&path));
    let inventory = read.unwrap_or_else(|Problem { message, remedy }| {
        report.warn(&text.place, format!("no devices are shown: {message}; {remedy}"));
        Inventory {
            file: path,
            is_read: false,
            devices: Vec::new(),
            certificates: Vec::new(),
            issued: Vec::new(),
            authorities: Vec::new(),
            revoked: Vec::new(),
        }
    });
    Some(Some(inventory))
}

/// All that is in the file.
pub(in crate::config) fn whole(path: &Path) -> Result<inventory::Inventory, Problem> {
    let file = files::read_named(path).map_err(|error| files::unreadable(path, &error))?;
    let content = std::str::from_utf8(&file.bytes).ok().map(toml::from_str::<inventory::Inventory>);
    let Some(Ok(content)) = content else {
        return Err(Problem::new(
            format!("{} is not what \"doorward ca\" writes about the certificates it has issued", file.path.display()),
            "write the path of inventory.toml in the folder of your authorities, as in \"pki/inventory.toml\"",
        ));
    };
    Ok(content)
}

fn read(path: &Path) -> Result<Inventory, Problem> {
    let content = whole(path)?;
    let mut devices: Vec<Device> = Vec::new();
    for entry in content.certificates.iter().rev().filter(|entry| entry.kind == Kind::Device) {
        let current = content.current(&entry.name, Kind::Device).is_some_and(|current| current.serial == entry.serial);
        if let Some(end) = entry.not_after.filter(|_| current) {
            devices.push(Device {
                name: entry.name.clone(),
                not_before: entry.not_before.map(time::OffsetDateTime::unix_timestamp),
                not_after: end.unix_timestamp(),
                canary: entry.canary,
                guest: !entry.routes.is_empty(),
            });
        }
    }
    devices.reverse();
    let devices_only = content.certificates.iter().filter(|entry| entry.kind == Kind::Device);
    let issued = devices_only.filter_map(|entry| issued(&content, entry)).collect();
    let pem = |text: &String| CertificateDer::from_pem_slice(text.as_bytes()).ok();
    let authorities = content.known.iter().filter_map(pem).collect();
    let revoked = revoked(&content);
    let certificates = valid(&content);
    Ok(Inventory { file: path.to_owned(), is_read: true, devices, certificates, issued, authorities, revoked })
}

/// The certificates of devices that are neither revoked nor expired.
fn valid(inventory: &inventory::Inventory) -> Vec<DeviceCertificate> {
    let valid = inventory
        .certificates
        .iter()
        .filter(|entry| entry.kind == Kind::Device)
        .filter(|entry| matches!(inventory.status(entry, now()), Status::Valid | Status::Renewed));
    let certificates = valid.filter_map(|entry| {
        let fingerprint = entry.fingerprint.as_deref().and_then(Sha256::parse)?;
        Some(DeviceCertificate {
            device: entry.name.clone(),
            fingerprint,
            serial: Serial::parse(&entry.serial)?,
            guest_pass: GuestPass::of_names(&entry.routes),
        })
    });
    certificates.collect()
}

fn issued(inventory: &inventory::Inventory, entry: &CertificateEntry) -> Option<IssuedToDevice> {
    let digest = |text: &Option<String>| text.as_deref().and_then(Sha256::parse);
    Some(IssuedToDevice {
        device: entry.name.clone(),
        serial: Serial::parse(&entry.serial)?,
        fingerprint: digest(&entry.fingerprint),
        spki: digest(&entry.spki),
        authority: inventory.authority(&entry.authority).and_then(|authority| Sha256::parse(&authority.fingerprint)),
        revoked: entry.revoked_at.is_some(),
        guest: !entry.routes.is_empty(),
        canary: entry.canary,
    })
}

/// The certificates of devices that were revoked.
fn revoked(inventory: &inventory::Inventory) -> Vec<RevokedCertificate> {
    // A canary is refused whatever the lists say.
    let revoked = inventory.certificates.iter().filter(|entry| entry.kind == Kind::Device && !entry.canary);
    let revoked = revoked.filter_map(|entry| {
        let authority = inventory.authorities.iter().find(|authority| authority.id == entry.authority)?;
        Some(RevokedCertificate {
            name: entry.name.clone(),
            serial: Serial::parse(&entry.serial)?,
            fingerprint: entry.fingerprint.as_deref().and_then(Sha256::parse),
            authority: Sha256::parse(&authority.fingerprint)?,
            revoked_at: entry.revoked_at?.unix_timestamp(),
            not_after: entry.not_after.map_or(i64::MAX, time::OffsetDateTime::unix_timestamp),
        })
    });
    revoked.collect()
}
