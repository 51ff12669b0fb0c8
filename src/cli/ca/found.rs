//! New authorities with what they issue first: for `doorward init` and `doorward ca init`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;

use super::handout::{Device, Places, handout};
use super::revoke;
use crate::ca::files::{self, Access, NewFile};
use crate::ca::inventory::{AuthorityEntry, Entry, Inventory, Kind, Signs, Store, StoreError};
use crate::enrolment::{self, Gate, PUBLIC_PORT};
use crate::model::identity::Sha256;
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::pki::keys::KeyType;
use crate::pki::{self, Authority, DeviceAuthority, Issued, Limits, ServerAuthority, usual_names};

/// The gate's certificate and key, in the folder of the authorities.
pub(super) const SERVER: [&str; 2] = ["server.pem", "server-key.pem"];

/// What is to be made.
pub(in crate::cli) struct Founding<'a> {
    /// What the gate's certificate is for.
    pub(in crate::cli) domain: &'a ServerName,
    /// The first devices.
    pub(in crate::cli) devices: &'a [Name],
    /// What devices can reach, as far as it is known.
    pub(in crate::cli) server_names: Vec<ServerNamePattern>,
    /// What kind of keys.
    pub(in crate::cli) key_type: KeyType,
    /// What the gate's authority may vouch for.
    pub(in crate::cli) limits: Limits,
    /// What the authorities' keys are encrypted with, if they are.
    pub(in crate::cli) passphrase: Option<&'a str>,
}

/// What was made, and is on no disk yet.
pub(in crate::cli) struct Founded {
    /// The gate's certificate.
    pub(in crate::cli) server: Issued,
    /// The devices, in the order asked for.
    pub(in crate::cli) devices: Vec<Device>,
    /// Every file but the inventory; paths start at the folder of the authorities.
    pub(in crate::cli) files: Vec<NewFile>,
    inventory: Inventory,
}

/// New authorities could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoundError {
    /// Two devices would get the same file.
    #[error("two devices would be written to {0}: give one of them another name")]
    SameFile(PathBuf),
    /// Files are in the way; nothing was written.
    #[error("{}; nothing was written", files::Error::Exists(.0.clone()))]
    Exists(Vec<PathBuf>),
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// What a device is to be set up with could not be made.
    #[error(transparent)]
    Enrolment(#[from] enrolment::Error),
    /// The files could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes two authorities for `folder`, the gate's certificate and the first devices.
pub(in crate::cli) fn found(folder: &Path, founding: &Founding<'_>) -> Result<Founded, FoundError> {
    let key = || founding.key_type.generate();
    let servers = ServerAuthority::with_key(founding.domain, key()?, founding.limits)?;
    let devices = DeviceAuthority::with_key(key()?)?;
    let server_key = key()?;
    let server = servers.authority().certify_server(&usual_names(founding.domain), &server_key)?;
    let server = Issued::new(server, server_key);

    let mut files = Vec::new();
    let mut add = |path: &str, contents: String, access| {
        files.push(NewFile { path: path.into(), contents: contents.into(), access });
    };
    let mut inventory = Inventory::default();
    for (id, signs, authority, file, list) in [
        ("servers", Signs::Servers, servers.authority(), "server-ca", None),
        ("devices", Signs::Devices, devices.authority(), "clients", Some("clients.crl")),
    ] {
        let entry = authority_entry(id, signs, authority, file, list);
        add(&entry.certificate, authority.certificate_pem(), Access::Public);
        let key = match founding.passphrase {
            Some(passphrase) => authority.encrypted_key_pem(passphrase)?.to_string(),
            None => authority.key_pem(),
        };
        add(&entry.key, key, Access::Private);
        inventory.authorities.push(entry);
    }
    let [server_file, key_file] = SERVER;
    add(server_file, server.certificate_pem(), Access::Public);
    add(key_file, server.key_pem(), Access::Private);
    let entry = Entry::issued(founding.domain.as_str(), Kind::Server, "servers", server.certified());
    add(&entry.copy(), server.certificate_pem(), Access::Public);
    inventory.certificates.push(entry);
    // From the first day: a configuration that names the list need not be changed when the first device is lost.
    files.extend(revoke::list(&mut inventory, "devices", devices.authority())?.map(|made| made.file));

    let places = Places::new(None)
        .map_err(|source| StoreError::Files(files::Error::Io { action: "look at", path: folder.to_owned(), source }))?;
    let root = servers.authority().certificate().clone();
    let gate = Gate { root, server_names: founding.server_names.clone(), port: PUBLIC_PORT };
    if !founding.devices.is_empty() {
        files.push(places.root(&gate));
    }
    let mut made = Vec::new();
    for name in founding.devices {
        let key = key()?;
        let device = Issued::new(devices.authority().certify_device(name, &key)?, key);
        let entry = Entry::issued(name.as_str(), Kind::Device, "devices", device.certified());
        files.push(copy(&entry, &device.certificate_pem()));
        inventory.certificates.push(entry);
        let (device, its_files) = handout(folder, &places, name, &device, &gate)?;
        files.extend(its_files);
        made.push(device);
    }
    let founded = Founded { server, devices: made, files, inventory };
    founded.check_distinct(folder)?;
    Ok(founded)
}

/// Whether the gate's authority is made without name constraints.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LimitsArg {
    /// Leave name constraints out of the gate's authority, for devices that cannot read them
    ///
    /// Mbed TLS (ESP32, OpenWrt and other small devices) refuses every certificate with a critical extension that it does
    /// not know, and name constraints are one. The price: a thief of server-ca-key.pem can pose as any web site, not
    /// only as your domain, to every device that trusts server-ca.pem.
    #[arg(long)]
    no_name_constraints: bool,
}

impl LimitsArg {
    pub(in crate::cli) const fn limits(self) -> Limits {
        if self.no_name_constraints { Limits::None } else { Limits::Domain }
    }

    /// What the user has to know about it.
    pub(in crate::cli) const fn warning(self) -> &'static str {
        if self.no_name_constraints {
            "warning: server-ca.pem has no name constraints: a thief of server-ca-key.pem can pose as any web site to the \
             devices that trust it. Keep that key away from this machine, or encrypt it: doorward ca passphrase\n"
        } else {
            ""
        }
    }
}

/// The copy that the folder keeps of a certificate.
pub(super) fn copy(entry: &Entry, pem: &str) -> NewFile {
    NewFile { path: entry.copy().into(), contents: pem.into(), access: Access::Public }
}

/// What the inventory says of an authority whose files are called `file`.
fn authority_entry(id: &str, signs: Signs, authority: &Authority, file: &str, list: Option<&str>) -> AuthorityEntry {
    AuthorityEntry {
        id: id.to_owned(),
        signs,
        certificate: format!("{file}.pem"),
        key: format!("{file}-key.pem"),
        fingerprint: Sha256::of(authority.certificate()).to_string(),
        revocation_list: list.map(str::to_owned),
        list_number: 0,
    }
}

impl Founded {
    /// Writes everything, or nothing if one of the files is there already and `replace` is not set.
    pub(in crate::cli) fn write(self, folder: &Path, replace: bool) -> Result<(), FoundError> {
        let check = || match Store::in_the_way(folder, &self.files, true) {
            taken if replace || taken.is_empty() => Ok(()),
            taken => Err(FoundError::Exists(taken)),
        };
        // Once before anything is touched, and once when nobody else can write.
        check()?;
        let mut store = Store::open_or_create(folder, super::tell)?;
        check()?;
        Ok(store.commit(self.inventory, self.files)?)
    }

    /// The devices `a` and `a-key` would both own `a-key.pem`.
    fn check_distinct(&self, folder: &Path) -> Result<(), FoundError> {
        let mut seen = HashSet::new();
        // In one case: there are file systems that do not tell `Alice` from `alice`.
        match self.files.iter().find(|file| !seen.insert(file.path.to_string_lossy().to_lowercase())) {
            None => Ok(()),
            Some(file) => Err(FoundError::SameFile(Store::shown(folder, &file.path))),
        }
    }
}

/// Takes a domain from the command line.
pub(in crate::cli) fn parse_domain(text: &str) -> Result<ServerName, String> {
    let domain = ServerName::parse(text).map_err(|error| error.to_string())?;
    if domain.parent().is_none() {
        // RFC 6125 section 7.2: no client takes "*.local" from a certificate.
        return Err("a domain needs a dot, as in home.example, for clients to accept its certificate".into());
    }
    Ok(domain)
}

/// Takes the name of a device from the command line.
pub(in crate::cli) fn parse_device(text: &str) -> Result<Name, String> {
    // In `allow` these words do not mean a device.
    if ["any", "unverified"].contains(&text) {
        return Err(format!("{text:?} has a meaning of its own in the configuration"));
    }
    Name::parse(text).map_err(|error| error.to_string())
}
