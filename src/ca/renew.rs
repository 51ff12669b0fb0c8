//! Renews a device certificate.

use std::path::{Path, PathBuf};

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use super::authority::certify_device;
use super::device_files::{DeviceFiles, DeviceFolder, new_kit};
use super::inventory::{CertificateEntry, Inventory, Kind, Store, now};
use super::issue::{copy, gate};
use super::request;
use super::revoke::{self, WrittenList};
use super::signer::{self, PassphrasePrompt};
use crate::bundle::{Bundle, BundleKey};
use crate::enrolment::{Form, Reachable};
use crate::files::{Access, NewFile};
use crate::model::device_name::{DeviceName, is_called};
use crate::model::identity::Sha256;
use crate::model::unicode::is_same;
use crate::pki::keys::{self, KeyType};
use crate::pki::{self, Authority, IssuedCertificate, IssuedCredentials, RevocationReason};

/// A device whose certificate is to be renewed.
#[derive(Clone, Debug)]
pub struct RenewalRequest<'a> {
    /// The device.
    pub name: &'a str,
    /// Whether it gets a new key.
    pub new_key: bool,
    /// The type of a new key.
    pub key_type: KeyType,
    /// Whether its earlier certificates are revoked at once, instead of expiring.
    pub revoke_old: bool,
    /// The folder of its files.
    pub folder: &'a DeviceFolder,
    /// Whether files that are not this device's may be replaced.
    pub replace: bool,
}

/// A device whose certificate was renewed.
#[derive(Debug)]
pub struct RenewedDevice {
    /// The device.
    pub name: DeviceName,
    /// The serial number of the new certificate.
    pub serial: String,
    /// When the new certificate expires.
    pub not_after: OffsetDateTime,
    /// When the old one expires.
    pub old_not_after: Option<OffsetDateTime>,
    /// The file of the new certificate.
    pub certificate: PathBuf,
    /// All files of the device, if its key is in the folder.
    pub files: Option<DeviceFiles>,
    /// What "doorward join" takes, without a key, if the key is not in the folder.
    pub bundle: Option<PathBuf>,
    /// The serial numbers of the certificates that were revoked.
    pub revoked: Vec<String>,
    /// The new revocation list, if something was revoked.
    pub list: Option<WrittenList>,
}

/// Issues a new certificate for a device, and writes its files. `reachable`: see [`super::issue::device`].
pub fn device(
    store: &mut Store,
    request: &RenewalRequest<'_>,
    passphrase: PassphrasePrompt<'_>,
    reachable: impl FnOnce() -> Reachable,
) -> Result<RenewedDevice, Error> {
    let old = find(&store.inventory, request.name)?;
    if !old.routes.is_empty() {
        return Err(Error::GuestPass { name: old.name, routes: old.routes });
    }
    let name = DeviceName::parse(&old.name).map_err(Error::InvalidName)?;
    let authority = signer::select(store, Kind::Device, Some(&old.authority))?;
    let signer = signer::load(store, &authority, passphrase)?;
    let folder = request.folder;
    store.set_output(folder.output());

    let (certificate, credentials) = certify(request, store, &old, &name, &signer)?;
    let mut entry = CertificateEntry::issued(name.as_str(), Kind::Device, &authority.id, &certificate);
    entry.renews = Some(old.serial.clone());
    let certificate_file = folder.file(Form::Certificate, &name);
    let mut bundle = None;
    let mut files = vec![copy(&entry, &certificate.certificate_pem())];
    let device_files = match &credentials {
        None => {
            files.push(NewFile {
                path: certificate_file.clone(),
                contents: certificate.certificate_pem().into(),
                access: Access::Public,
            });
            let gate = gate(store, reachable)?;
            let file = request::bundle_file(&gate, &name, folder, certificate.certificate().clone());
            // A file that has the key is not replaced by one that has not.
            if let Some(file) = file.filter(|file| is_without_key(store, folder, &file.path)) {
                bundle = Some(Store::join(store.folder(), &file.path));
                files.push(file);
            }
            None
        }
        Some(credentials) => {
            let gate = gate(store, reachable)?;
            let (kit, password) = new_kit(&name, credentials, &gate)?;
            files.extend(kit.files(folder.path()));
            files.extend(folder.root(&gate));
            Some(DeviceFiles::new(store.folder(), folder, &name, credentials, (&kit, &password)))
        }
    };
    // If the key in the folder matches the certificate, the files beside it are this device's.
    let is_own = request.replace || (credentials.is_some() && !request.new_key);
    if !is_own {
        check_ownership(store, folder, &name, &files)?;
    }
    let mut inventory = store.inventory.clone();
    let (mut revoked, mut list) = (Vec::new(), None);
    if request.revoke_old {
        revoked = revoke_all(&mut inventory, &old);
        list = revoke::next_list(store, &mut inventory, &authority.id, &signer)?.map(|(list, file)| {
            files.push(file);
            list
        });
    }
    let serial = entry.serial.clone();
    inventory.certificates.push(entry);
    store.commit(inventory, files)?;
    Ok(RenewedDevice {
        serial,
        not_after: certificate.not_after(),
        old_not_after: old.not_after,
        certificate: Store::join(store.folder(), &certificate_file),
        files: device_files,
        bundle,
        revoked,
        list,
        name,
    })
}

/// The certificate that is to be renewed.
fn find(inventory: &Inventory, name: &str) -> Result<CertificateEntry, Error> {
    if let Some(entry) = inventory.current(name, Kind::Device) {
        return Ok(entry.clone());
    }
    let mut of_this_name = inventory.certificates.iter().filter(|entry| is_called(&entry.name, name));
    let name = name.to_owned();
    Err(match of_this_name.next_back() {
        Some(entry) if entry.kind == Kind::Server => Error::IsServer(name),
        Some(entry) if entry.issued_at.is_none() => Error::NotIssuedHere(name),
        Some(_) => Error::Revoked(name),
        None => Error::UnknownDevice(name),
    })
}

/// Whether there is no such file, or one of a device that has its key.
fn is_without_key(store: &Store, folder: &DeviceFolder, file: &Path) -> bool {
    let found = folder.read(store, file).ok().flatten();
    found.is_none_or(|text| {
        let text = String::from_utf8(text).unwrap_or_default();
        Bundle::parse(&text).is_ok_and(|bundle| bundle.key == BundleKey::OnDevice)
    })
}

/// Marks every certificate of the device as replaced: the serial numbers of those that were not revoked before.
fn revoke_all(inventory: &mut Inventory, old: &CertificateEntry) -> Vec<String> {
    let of_the_device = |entry: &&mut CertificateEntry| {
        entry.kind == Kind::Device
            && entry.authority == old.authority
            && is_same(&entry.name, &old.name)
            && entry.revoked_at.is_none()
    };
    let certificates = inventory.certificates.iter_mut().filter(of_the_device);
    certificates
        .map(|entry| {
            entry.revoked_at = Some(now());
            entry.revoked_for = Some(RevocationReason::Replaced);
            entry.serial.clone()
        })
        .collect()
}

/// Only files of this device may be replaced: in another folder, files of the same names may belong to something else, as
/// the gate's own do.
fn check_ownership(store: &Store, folder: &DeviceFolder, name: &DeviceName, files: &[NewFile]) -> Result<(), Error> {
    let certificate = folder.read(store, &folder.file(Form::Certificate, name))?;
    let certificate = certificate.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok());
    let fingerprint = certificate.map(|der| Sha256::of(&der).to_string());
    let mut known = store.inventory.certificates.iter();
    let is_own = fingerprint.is_some()
        && known.any(|entry| {
            entry.kind == Kind::Device && entry.fingerprint == fingerprint && is_same(&entry.name, name.as_str())
        });
    let of_the_device = Form::ALL.map(|form| folder.file(form, name));
    let files: Vec<NewFile> = files.iter().filter(|file| of_the_device.contains(&file.path)).cloned().collect();
    let existing = Store::existing(store.folder(), &files);
    if is_own || existing.is_empty() { Ok(()) } else { Err(Error::Exists(existing)) }
}

/// The new certificate, and with its key if that is in the folder.
fn certify(
    request: &RenewalRequest<'_>,
    store: &Store,
    old: &CertificateEntry,
    name: &DeviceName,
    signer: &Authority,
) -> Result<(IssuedCertificate, Option<IssuedCredentials>), Error> {
    if request.new_key {
        let key = request.key_type.generate()?;
        let issued = certify_device(signer, name, &key, None)?;
        return Ok((issued.clone(), Some(IssuedCredentials::new(issued, key))));
    }
    let certificate: CertificateDer<'_> = store.certificate(&old.copy_path())?;
    let spki = X509Certificate::from_der(&certificate)
        .map(|(_, parsed)| parsed.public_key().raw.to_vec())
        .map_err(|_| pki::Error::NotACertificate)?;
    let public = SubjectPublicKeyInfo::from_der(&spki).map_err(pki::Error::from)?;
    let issued = certify_device(signer, name, &public, None)?;
    let key = request.folder.read(store, &request.folder.file(Form::Key, name))?;
    let key = key.and_then(|pem| keys::read(&pem).ok()).filter(|key| keys::fits(key, &spki));
    Ok((issued.clone(), key.map(|key| IssuedCredentials::new(issued, key))))
}
