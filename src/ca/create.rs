//! Creates new authorities, with the gate's certificate unless that is a public one, and the first devices.

use std::collections::HashSet;
use std::path::Path;

use rcgen::KeyPair;

use super::Error;
use super::authority::{
    DeviceAuthority, NameConstraintPolicy, ServerAuthority, certify_device, certify_server, default_names,
};
use super::device_files::{DeviceFiles, DeviceFolder, new_kit};
use super::inventory::{AuthorityEntry, CertificateEntry, INVENTORY_FILE, Inventory, Kind, Notice, Signs, Store};
use super::issue::copy;
use super::{revoke, server};
use crate::enrolment::{Gate, Reachable, ServerTrust};
use crate::files::{Access, NewFile};
use crate::model::device_name::DeviceName;
use crate::model::identity::Sha256;
use crate::model::names::ServerName;
use crate::pki::keys::KeyType;
use crate::pki::{Authority, IssuedCredentials};

/// The certificate of the server authority, in the folder of the authorities.
pub const SERVER_AUTHORITY_FILE: &str = "server-ca.pem";
/// Its key.
pub(super) const SERVER_AUTHORITY_KEY_FILE: &str = "server-ca-key.pem";
/// Its name in the inventory.
const SERVERS: &str = "servers";
/// The certificate of the device authority.
pub const DEVICE_AUTHORITY_FILE: &str = "clients.pem";
/// The revocation list of the device authority.
const REVOCATION_LIST_FILE: &str = "clients.crl";

/// New authorities.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The domain of the gate's certificate.
    pub domain: &'a ServerName,
    /// The first devices.
    pub devices: &'a [DeviceName],
    /// What devices can reach, as far as it is known.
    pub reachable: Reachable,
    /// The type of all keys.
    pub key_type: KeyType,
    /// Whether the server authority is limited to the domain; `None` for no server authority and no certificate of the gate.
    pub servers: Option<NameConstraintPolicy>,
    /// The passphrase that encrypts the authorities' keys, if they are to be encrypted.
    pub passphrase: Option<&'a str>,
}

/// New authorities that are not written yet.
#[derive(Debug)]
pub struct Created {
    /// The gate's certificate, if an authority of the owner's has signed it.
    pub server: Option<IssuedCredentials>,
    /// The devices, in the order of the request.
    pub devices: Vec<DeviceFiles>,
    /// Every file except the inventory; paths are relative to the folder of the authorities.
    pub files: Vec<NewFile>,
    inventory: Inventory,
}

/// Makes the authorities for `folder`, the gate's certificate and the first devices. Writes nothing.
pub fn create(folder: &Path, request: &CreateRequest<'_>) -> Result<Created, Error> {
    let key = || request.key_type.generate();
    let servers =
        request.servers.map(|policy| ServerAuthority::with_key(request.domain, key()?, policy)).transpose()?;
    let devices = DeviceAuthority::with_key(key()?)?;
    let server = servers.as_ref().map(|servers| issue_server(servers, request.domain, key()?)).transpose()?;

    let mut files = Vec::new();
    let mut add = |path: &str, contents: String, access| {
        files.push(NewFile { path: path.into(), contents: contents.into(), access });
    };
    let mut inventory = Inventory::default();
    let own_servers = servers.iter().map(|servers| (servers.authority(), server_authority_entry(servers.authority())));
    for (authority, entry) in own_servers.chain([(devices.authority(), device_authority_entry(devices.authority()))]) {
        add(&entry.certificate, authority.certificate_pem(), Access::Public);
        let key = match request.passphrase {
            Some(passphrase) => authority.encrypted_key_pem(passphrase)?.to_string(),
            None => authority.key_pem(),
        };
        add(&entry.key, key, Access::Private);
        if entry.signs.covers(Kind::Device) {
            inventory.remember(authority.certificate());
        }
        inventory.authorities.push(entry);
    }
    if let Some(server) = &server {
        add(server::CERTIFICATE_FILE, server.certificate_pem(), Access::Public);
        add(server::KEY_FILE, server.key_pem(), Access::Private);
        let entry = CertificateEntry::issued(request.domain.as_str(), Kind::Server, SERVERS, server.issued());
        files.push(copy(&entry, &server.certificate_pem()));
        inventory.certificates.push(entry);
    }
    // An empty list from the start: the configuration names it, and need not be changed when the first device is lost.
    files.extend(revoke::next_list_file(&mut inventory, "devices", devices.authority())?.map(|(file, _)| file));

    let device_folder = DeviceFolder::default();
    let trust = match &servers {
        Some(servers) => ServerTrust::OwnAuthority(servers.authority().certificate().clone()),
        None => ServerTrust::Public,
    };
    let gate = Gate::new(trust, request.reachable.clone());
    if !request.devices.is_empty() {
        files.extend(device_folder.root(&gate));
    }
    let mut issued = Vec::new();
    for name in request.devices {
        if let Some(other) = request.devices.iter().find(|other| name.is_confusable_with(other.as_str())) {
            return Err(Error::Confusable { name: name.clone(), other: other.to_string() });
        }
        let key = key()?;
        let credentials = IssuedCredentials::new(certify_device(devices.authority(), name, &key, None)?, key);
        let entry = CertificateEntry::issued(name.as_str(), Kind::Device, "devices", credentials.issued());
        files.push(copy(&entry, &credentials.certificate_pem()));
        inventory.certificates.push(entry);
        let (kit, password) = new_kit(name, &credentials, &gate)?;
        files.extend(kit.files(device_folder.path()));
        issued.push(DeviceFiles::new(folder, &device_folder, name, &credentials, (&kit, &password)));
    }
    let created = Created { server, devices: issued, files, inventory };
    created.check_distinct(folder)?;
    Ok(created)
}

fn issue_server(servers: &ServerAuthority, domain: &ServerName, key: KeyPair) -> Result<IssuedCredentials, Error> {
    let certificate = certify_server(servers.authority(), &default_names(domain), &key)?;
    Ok(IssuedCredentials::new(certificate, key))
}

pub(super) fn server_authority_entry(authority: &Authority) -> AuthorityEntry {
    AuthorityEntry {
        id: SERVERS.to_owned(),
        signs: Signs::Servers,
        certificate: SERVER_AUTHORITY_FILE.to_owned(),
        key: SERVER_AUTHORITY_KEY_FILE.to_owned(),
        fingerprint: Sha256::of(authority.certificate()).to_string(),
        revocation_list: None,
        list_number: 0,
    }
}

fn device_authority_entry(authority: &Authority) -> AuthorityEntry {
    AuthorityEntry {
        id: "devices".to_owned(),
        signs: Signs::Devices,
        certificate: DEVICE_AUTHORITY_FILE.to_owned(),
        key: "clients-key.pem".to_owned(),
        fingerprint: Sha256::of(authority.certificate()).to_string(),
        revocation_list: Some(REVOCATION_LIST_FILE.to_owned()),
        list_number: 0,
    }
}

impl Created {
    /// Writes everything, or nothing if one of the files exists and `replace` is not set. `notify`: see [`Store::open`].
    pub fn write(mut self, folder: &Path, replace: bool, notify: fn(Notice<'_>)) -> Result<(), Error> {
        let check = || {
            let mut existing = Store::existing(folder, &self.files);
            existing.extend(Some(folder.join(INVENTORY_FILE)).filter(|file| file.symlink_metadata().is_ok()));
            if replace || existing.is_empty() { Ok(()) } else { Err(Error::Exists(existing)) }
        };
        // Once before anything is touched, and once more under the lock.
        check()?;
        let mut store = Store::open_or_create(folder, notify)?;
        check()?;
        let own = std::mem::replace(&mut self.inventory.known, store.inventory.known.clone());
        for pem in own {
            self.inventory.remember_pem(pem);
        }
        Ok(store.commit(self.inventory, self.files)?)
    }

    /// The devices `a` and `a-key` would both own `a-key.pem`.
    fn check_distinct(&self, folder: &Path) -> Result<(), Error> {
        let mut paths = HashSet::new();
        // In lower case: some file systems do not distinguish `Alice` from `alice`.
        match self.files.iter().find(|file| !paths.insert(file.path.to_string_lossy().to_lowercase())) {
            None => Ok(()),
            Some(file) => Err(Error::SameFile(Store::join(folder, &file.path))),
        }
    }
}
