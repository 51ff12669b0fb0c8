//! The files that a device is set up with.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{CaError, FOLDER};
use crate::ca::files::{Access, Folder, NewFile};
use crate::ca::inventory::Store;
use crate::cli::share;
use crate::enrolment::{self, Form, Gate, Kit, ROOT_FILE};
use crate::model::identity::{Serial, Sha256};
use crate::model::names::Name;
use crate::pki::{Issued, Password};

/// A device that can be set up now.
#[derive(Clone, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The archive to import.
    pub archive: PathBuf,
    /// The same with older encryption, for systems that cannot read the first.
    pub archive_compat: PathBuf,
    /// The password of both archives, and of the one in the profile. It is stored nowhere.
    pub password: String,
    /// The configuration profile for iPhones, iPads and Macs.
    pub profile: PathBuf,
    /// The certificate as PEM.
    pub certificate: PathBuf,
    /// The key as PEM.
    pub key: PathBuf,
    /// A part of `~/.ssh/config`.
    pub ssh_config: PathBuf,
    /// A page that says what to do with these files.
    pub steps: PathBuf,
    /// SHA-256 of the certificate, in hexadecimal digits: what the configuration's `deny` takes after `sha256:`.
    pub fingerprint: String,
    /// The certificate's serial number, in hexadecimal digits.
    pub serial: String,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: i64,
    /// The command that hands it over a link, if that command finds its files.
    #[serde(skip)]
    pub share: Option<String>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where a device's files go if nothing is said.
const USUAL: &str = "../devices";

/// Where a device's files go: below a folder that is given relative to that of the authorities, or absolute.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Places {
    folder: PathBuf,
}

impl Places {
    /// Beside the folder of the authorities, as `doorward init` has it, or in `output`.
    pub(in crate::cli) fn new(output: Option<&Path>) -> std::io::Result<Self> {
        let folder = output.map(std::path::absolute).transpose()?;
        Ok(Self { folder: folder.unwrap_or_else(|| USUAL.into()) })
    }

    /// The command that finds the files of this device here and hands them over a link, if there is one; `authorities` is
    /// the folder of the authorities.
    fn share(&self, authorities: &Path, name: &Name) -> Option<String> {
        let usual = self.folder == Path::new(USUAL) && std::path::absolute(authorities).ok()?.ends_with(FOLDER);
        usual.then(|| share::command(name, &Store::shown(authorities, Path::new(".."))))
    }

    /// The folder, if it is not the usual one.
    pub(super) fn output(&self) -> Option<PathBuf> {
        (self.folder != Path::new(USUAL)).then(|| self.folder.clone())
    }

    /// The contents of one of these files, if it is there.
    pub(super) fn read(&self, store: &Store, file: &Path) -> Result<Option<Vec<u8>>, CaError> {
        match self.output() {
            None => Ok(store.read(file)?),
            // It is the user of the command who has named it, not the owner of the folder of the authorities.
            Some(output) => {
                let name = file.file_name().map(Path::new).unwrap_or_else(|| Path::new(""));
                match Folder::open(&output).and_then(|folder| folder.read(name)) {
                    Ok(contents) => Ok(Some(contents)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(CaError::usage(format!("failed to read {}: {error}", file.display()))),
                }
            }
        }
    }

    /// The folder itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The certificate of this device.
    pub(in crate::cli) fn certificate(&self, name: &Name) -> PathBuf {
        self.file(Form::Certificate, name)
    }

    /// One of the files of this device.
    pub(super) fn file(&self, form: Form, name: &Name) -> PathBuf {
        self.folder.join(form.file_name(name))
    }

    /// The key of this device.
    pub(in crate::cli) fn key(&self, name: &Name) -> PathBuf {
        self.file(Form::Key, name)
    }

    /// What devices trust the gate by: one file for all.
    pub(in crate::cli) fn root(&self, gate: &Gate) -> NewFile {
        NewFile { path: self.folder.join(ROOT_FILE), contents: gate.root_pem().into(), access: Access::Public }
    }
}

/// The files for a device, with a new password; `folder` is what [`Places`] are relative to.
pub(in crate::cli) fn handout(
    folder: &Path,
    places: &Places,
    name: &Name,
    issued: &Issued,
    gate: &Gate,
) -> Result<(Device, Vec<NewFile>), enrolment::Error> {
    let password = Password::generate()?;
    let kit = kit(name, issued, gate, &password)?;
    Ok((device(folder, places, name, issued, &password), kit.files(&places.folder)))
}

/// What a device is set up with.
pub(super) fn kit(name: &Name, issued: &Issued, gate: &Gate, password: &Password) -> Result<Kit, enrolment::Error> {
    let device = enrolment::Device { name: name.clone(), certificate: issued.certificate().clone(), key: issued.key() };
    Kit::new(gate, &device, password)
}

/// What there is to say about its files.
pub(super) fn device(folder: &Path, places: &Places, name: &Name, issued: &Issued, password: &Password) -> Device {
    let file = |form: Form| Store::shown(folder, &places.folder.join(form.file_name(name)));
    Device {
        name: name.to_string(),
        archive: file(Form::Archive),
        archive_compat: file(Form::ArchiveCompat),
        password: password.as_str().to_owned(),
        profile: file(Form::Profile),
        certificate: file(Form::Certificate),
        key: file(Form::Key),
        ssh_config: file(Form::SshConfig),
        steps: file(Form::Steps),
        fingerprint: Sha256::of(issued.certificate()).to_string(),
        serial: Serial::from_be_bytes(issued.serial()).to_string(),
        not_after: issued.not_after().unix_timestamp(),
        share: places.share(folder, name),
    }
}

impl Device {
    /// What to do with the files, for people.
    pub(super) fn text(&self) -> String {
        let share = match &self.share {
            Some(share) => format!("Or let the device fetch what it needs over a link that works once: {share}\n"),
            None => String::new(),
        };
        format!(
            "  {steps}\n    says what to do there, step by step; the files it speaks of lie beside it\n  the password of these \
             files is  {password}\n\n{share}The password is shown this once and stored nowhere. Files with a key in them are secret: .p12, .mobileconfig \
             and -key.pem.\n",
            steps = self.steps.display(),
            password = self.password,
        )
    }
}
