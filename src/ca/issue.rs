//! Issues a certificate for a new device.

use time::OffsetDateTime;

use super::Error;
pub use super::authority::Guest;
use super::authority::certify_device;
use super::device_files::{DeviceFiles, DeviceFolder, new_kit};
use super::inventory::{CertificateEntry, Inventory, Kind, Status, Store, now};
use super::revoke::{WrittenList, next_list};
use super::signer::{self, PassphrasePrompt};
use crate::enrolment::{Form, Gate, Kit, Reachable, ServerTrust};
use crate::files::{Access, NewFile};
use crate::model::device_name::DeviceName;
use crate::model::unicode::is_same;
use crate::pki::keys::KeyType;
use crate::pki::{IssuedCredentials, Password, RevocationReason};

/// A new device.
#[derive(Clone, Debug)]
pub struct DeviceRequest<'a> {
    /// Its name.
    pub name: &'a DeviceName,
    /// The type of its key.
    pub key_type: KeyType,
    /// The authority that is to sign; the default one if there is no name.
    pub authority: Option<&'a str>,
    /// The folder for its files.
    pub folder: &'a DeviceFolder,
    /// Whether files of an earlier device of this name may be replaced.
    pub replace: bool,
    /// Whether it is bait: its certificate is revoked at once, so that it is never admitted, and a gate reports its use.
    pub canary: bool,
    /// Whether its certificate is a guest pass, and for what.
    pub guest: Option<&'a Guest>,
}

/// A device whose certificate was issued, and whose files were written.
#[derive(Debug)]
pub struct IssuedDevice {
    /// Its files.
    pub files: DeviceFiles,
    /// The same, to be handed over by a link.
    pub kit: Kit,
    /// The password of the kit.
    pub password: Password,
    /// When the certificate expires.
    pub not_after: OffsetDateTime,
    /// The revocation list that names a canary.
    pub lists: Vec<WrittenList>,
}

/// Issues a certificate for a new device and writes its files. `reachable` reads from the gate's configuration what the
/// device can reach; it is called with the rights of the folder's owner.
pub fn device(
    store: &mut Store,
    request: &DeviceRequest<'_>,
    passphrase: PassphrasePrompt<'_>,
    reachable: impl FnOnce() -> Reachable,
) -> Result<IssuedDevice, Error> {
    let name = request.name;
    check_name_is_free(&store.inventory, name)?;
    let authority = signer::select(store, Kind::Device, request.authority)?;
    let signer = signer::load(store, &authority, passphrase)?;
    let key = request.key_type.generate()?;
    let credentials = IssuedCredentials::new(certify_device(&signer, name, &key, request.guest)?, key);
    let mut entry = CertificateEntry::issued(name.as_str(), Kind::Device, &authority.id, credentials.issued());
    entry.routes = request.guest.iter().flat_map(|guest| guest.pass.routes()).map(str::to_owned).collect();
    if request.canary {
        if authority.revocation_list.is_none() {
            return Err(Error::NoRevocationList(authority.id));
        }
        entry.canary = true;
        entry.revoked_at = entry.issued_at;
        entry.revoked_for = Some(RevocationReason::Unspecified);
    }

    let gate = gate(store, reachable)?;
    store.set_output(request.folder.output());
    let (kit, password) = new_kit(name, &credentials, &gate)?;
    let mut files = kit.files(request.folder.path());
    // With the certificates of an earlier device of this name, all of them revoked, its files are of no use.
    let issued_before = store
        .inventory
        .certificates
        .iter()
        .any(|entry| entry.kind == Kind::Device && entry.name == name.as_str() && entry.issued_at.is_some());
    if !request.replace && !issued_before {
        let existing = Store::existing(store.folder(), &files);
        if !existing.is_empty() {
            return Err(Error::Exists(existing));
        }
    }
    files.extend(request.folder.root(&gate));
    files.push(copy(&entry, &credentials.certificate_pem()));
    let mut inventory = store.inventory.clone();
    inventory.certificates.push(entry);
    // In the same transaction: there is no moment at which the certificate of a canary is valid.
    let list = if request.canary { next_list(store, &mut inventory, &authority.id, &signer)? } else { None };
    let (lists, list_files): (Vec<_>, Vec<_>) = list.into_iter().unzip();
    files.extend(list_files);
    store.commit(inventory, files)?;
    Ok(IssuedDevice {
        files: DeviceFiles::new(store.folder(), request.folder, name, &credentials, (&kit, &password)),
        kit,
        password,
        not_after: credentials.not_after(),
        lists,
    })
}

/// The gate as a device sees it.
pub(super) fn gate(store: &Store, reachable: impl FnOnce() -> Reachable) -> Result<Gate, Error> {
    let reachable = store.as_owner(reachable);
    let trust = if reachable.is_public(store.inventory.authority_for(Kind::Server).is_some()) {
        ServerTrust::Public
    } else {
        ServerTrust::OwnAuthority(store.authority_certificate(&signer::select(store, Kind::Server, None)?)?)
    };
    Ok(Gate::new(trust, reachable))
}

/// The copy of a certificate that the folder of the authorities keeps.
pub(super) fn copy(entry: &CertificateEntry, pem: &str) -> NewFile {
    NewFile { path: entry.copy_path().into(), contents: pem.into(), access: Access::Public }
}

/// A name belongs to one device, and so do the names of its files.
pub(super) fn check_name_is_free(inventory: &Inventory, name: &DeviceName) -> Result<(), Error> {
    // A guest may get another pass, or become a device for longer.
    let current = inventory.current(name.as_str(), Kind::Device).filter(|entry| entry.routes.is_empty());
    if let Some(entry) = current {
        let (name, not_after) = (entry.name.clone(), entry.not_after);
        return Err(match inventory.status(entry, now()) {
            Status::Expired => Error::DeviceExpired { name, not_after },
            _ => Error::DeviceExists { name, not_after },
        });
    }
    // The devices "a" and "a-key" would both own "a-key.pem".
    let confusable = |other: &&CertificateEntry| {
        other.kind == Kind::Device
            && other.issued_at.is_some()
            && other.revoked_at.is_none()
            && name.is_confusable_with(&other.name)
    };
    if let Some(other) = inventory.certificates.iter().find(confusable) {
        return Err(Error::Confusable { name: name.clone(), other: other.name.clone() });
    }
    let files = |name: &DeviceName| Form::ALL.map(|form| form.file_name(name).to_ascii_lowercase());
    let own = files(name);
    let shares_files = |other: &&CertificateEntry| {
        other.kind == Kind::Device
            && other.issued_at.is_some()
            && !is_same(&other.name, name.as_str())
            && DeviceName::parse(&other.name).is_ok_and(|other| files(&other).iter().any(|file| own.contains(file)))
    };
    match inventory.certificates.iter().find(shares_files) {
        None => Ok(()),
        Some(other) => Err(Error::FilesOfOtherDevice { name: name.clone(), other: other.name.clone() }),
    }
}
