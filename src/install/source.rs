//! The folder that `doorward init` wrote, read with the rights of its owner: root is not led by links in it (see
//! [`crate::files::placed`] and [`crate::files::Folder`]).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::system::System;
use super::{CONFIG, Error, FOLDER, PKI, read_error};
use rustix::process::{Gid, Uid};

use crate::config;
use crate::config::checked::{Config, KernelTls, RouteMode};
use crate::config::credentials::Credentials;
use crate::files::placed::{self, Attributes, Placed};
use crate::files::{Actor, Folder};

/// A file that the gate's configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A certificate.
    Public,
    /// A revocation list.
    List,
    /// A key of the gate.
    Key,
    /// The inventory, which names devices.
    Inventory,
}

/// The files of a configuration that are in its own folder, by their path in it; and those that are elsewhere.
#[derive(Debug)]
pub(super) struct Named {
    /// The folder.
    pub(super) folder: PathBuf,
    pub(super) inside: BTreeSet<(PathBuf, Kind)>,
    pub(super) outside: BTreeSet<PathBuf>,
    /// Those keys of the gate's certificates that may be credentials of the service.
    pub(super) server_keys: BTreeSet<PathBuf>,
    /// The ports that the gate listens on.
    pub(super) ports: BTreeSet<u16>,
    /// The key of the authority that renews certificates without the owner.
    pub(super) issuer_key: Option<PathBuf>,
    /// Whether the kernel encrypts.
    pub(super) kernel_tls: KernelTls,
}

impl Named {
    pub(super) fn of(config: &Config, folder: &Path) -> Result<Self, Error> {
        let addresses = config.listeners.iter().map(|listener| listener.address).chain(config.metrics.address);
        let mut named = Self {
            folder: folder.to_owned(),
            inside: BTreeSet::new(),
            outside: BTreeSet::new(),
            server_keys: BTreeSet::new(),
            ports: addresses.map(|address| address.port()).collect(),
            issuer_key: None,
            kernel_tls: config.kernel_tls,
        };
        named.server_keys = config
            .routes
            .iter()
            .filter_map(|route| match &route.mode {
                RouteMode::Terminate(terminate) => Some(terminate.certificate.key_file.clone()),
                RouteMode::Passthrough => None,
            })
            .collect();
        let mut add = |path: &Path, kind: Kind| match path.strip_prefix(folder) {
            Ok(inside) if inside.components().any(|part| part == Component::ParentDir) => Err(Error::Usage(format!(
                "the configuration names {}, which is outside its folder\n  write the whole path of that file",
                path.display()
            ))),
            Ok(inside) => {
                named.inside.insert((inside.to_owned(), kind));
                Ok(())
            }
            Err(_) => {
                named.outside.insert(path.to_owned());
                Ok(())
            }
        };
        if let Some(inventory) = &config.metrics.inventory {
            add(&inventory.file, Kind::Inventory)?;
        }
        if let Some(issuer) = config.renewal.as_ref().and_then(|renewal| renewal.issuer.as_ref()) {
            add(&issuer.file, Kind::Public)?;
            named.issuer_key = Some(issuer.key.clone());
        }
        // They hold secrets.
        config.notify.files.iter().try_for_each(|file| add(file, Kind::Key))?;
        config.tickets.keys.iter().try_for_each(|key| add(&key.file, Kind::Key))?;
        for route in config.served() {
            let RouteMode::Terminate(terminate) = &route.mode else { continue };
            add(&terminate.certificate.chain_file, Kind::Public)?;
            add(&terminate.certificate.key_file, Kind::Key)?;
            terminate.client_auth.trust.iter().try_for_each(|anchor| add(&anchor.file, Kind::Public))?;
            terminate.client_auth.revocation_lists.iter().try_for_each(|list| add(&list.file, Kind::List))?;
        }
        // A file with certificate and key is a key.
        let keys: BTreeSet<PathBuf> =
            named.inside.iter().filter(|(_, kind)| *kind == Kind::Key).map(|(path, _)| path.clone()).collect();
        named.inside.retain(|(path, kind)| *kind == Kind::Key || !keys.contains(path));
        Ok(named)
    }

    /// The key in the folder, of a certificate of the gate, whose file has this name: its path in the folder.
    pub(super) fn server_key(&self, name: &str) -> Option<PathBuf> {
        let mut keys = self.server_keys.iter().filter_map(|key| key.strip_prefix(&self.folder).ok());
        keys.find(|key| key.file_name() == Some(OsStr::new(name))).map(Path::to_owned)
    }
}

/// The files that the installed configuration names.
///
/// Loading it reads them, and another user may have put links there: that is done with the rights of the gate, or as root if the
/// folder is root's. If they cannot be used, as when a mode is wrong, those of the owner's configuration are put in their place.
pub(super) fn named_by_installed(
    system: &System,
    file: &Path,
    source: Option<&Source>,
    credentials: &Credentials,
    notes: &mut Vec<String>,
) -> Result<Named, Error> {
    let folder = system.path(FOLDER);
    let load = || config::load_with(file, credentials);
    let loaded = match system.gate() {
        Some(gate) => rights_of(gate).act(load),
        None => load(),
    };
    let root_owns =
        matches!(placed::look(&folder.join(PKI)), Ok(Placed::Nothing | Placed::Folder(Attributes { user: 0, .. })));
    let loaded = if loaded.is_err() && root_owns { load() } else { loaded };
    match (loaded, source) {
        (Ok(config), _) => Named::of(&config, &folder),
        (Err(_), Some(source)) => {
            notes.push(format!(
                "{} could not be used as it was; to see whether it can now: doorward check",
                file.display()
            ));
            Named::of(&source.config()?.1, source.path())
        }
        (Err(errors), None) => Err(Error::Config(errors)),
    }
}

fn rights_of((user, group): (u32, u32)) -> Actor {
    Actor::Owner(Uid::from_raw(user), Gid::from_raw(group))
}

/// The owner's folder.
#[derive(Debug)]
pub(super) struct Source {
    folder: Folder,
    path: PathBuf,
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Source {
    /// Opens the folder, which must have a configuration. `None` if it has none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let folder = match Folder::open(path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(path)(error)),
        };
        if folder.stat(OsStr::new(CONFIG)).map_err(read_error(path))?.is_none() {
            return Ok(None);
        }
        let there = folder.own_stat().map_err(read_error(path))?;
        let path = path.canonicalize().map_err(read_error(path))?;
        // The path that is recorded must lead to the folder that was opened.
        let now = path.metadata().map_err(read_error(&path))?;
        if (now.dev(), now.ino()) != (there.st_dev, there.st_ino) {
            return Err(Error::Usage(format!("{} was replaced meanwhile\n  run the command again", path.display())));
        }
        Ok(Some(Self { folder, path, user: there.st_uid, group: there.st_gid }))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the authorities.
    pub(super) fn authority(&self) -> PathBuf {
        self.path.join(PKI)
    }

    /// The text of the configuration, and the configuration.
    pub(super) fn config(&self) -> Result<(Vec<u8>, Config), Error> {
        let file = self.path.join(CONFIG);
        let bytes = self.folder.read(Path::new(CONFIG)).map_err(read_error(&file))?;
        let text = String::from_utf8(bytes.clone())
            .map_err(|_| Error::Usage(format!("{} is not UTF-8 text", file.display())))?;
        // The files that it names, too, are read with the rights of the owner.
        let config = self.folder.actor().act(|| config::parse(&text, &file)).map_err(Error::Config)?;
        let absolute = text
            .lines()
            .map(|line| line.split_once('#').map_or(line, |(before, _)| before))
            .find(|line| line.contains(&*self.path.to_string_lossy()));
        if let Some(line) = absolute {
            return Err(Error::Usage(format!(
                "{} names a file of its folder by the whole path: {}\n  write the path from that folder on, as in \
                 \"pki/clients.pem\": the files are copied, and the service cannot read home folders",
                file.display(),
                line.trim()
            )));
        }
        Ok((bytes, config))
    }

    /// The contents of a file in it; `None` if there is none.
    pub(super) fn read(&self, inside: &Path) -> Result<Option<Vec<u8>>, Error> {
        match self.folder.read(inside) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(read_error(&self.path.join(inside))(error)),
        }
    }

    /// All regular files below a folder of it, by their path in it, and whether others may read them.
    pub(super) fn below(&self, inside: &Path) -> Result<Vec<(PathBuf, bool)>, Error> {
        let mut found = Vec::new();
        let path = self.path.join(inside);
        let listed = self.folder.actor().act(|| {
            let mut entries: Vec<_> = std::fs::read_dir(&path)?.collect::<io::Result<_>>()?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            entries.into_iter().map(|entry| Ok((entry.file_name(), entry.metadata()?))).collect::<io::Result<Vec<_>>>()
        });
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(read_error(&path)(error)),
        };
        for (name, metadata) in listed {
            let inside = inside.join(&name);
            if metadata.is_dir() {
                found.extend(self.below(&inside)?);
            } else if metadata.is_file() && !name.as_encoded_bytes().starts_with(b".") {
                found.push((inside, metadata.mode() & 0o044 != 0));
            }
        }
        Ok(found)
    }
}
