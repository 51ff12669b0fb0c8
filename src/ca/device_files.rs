//! The files that a device is set up with, and the folder they are written to.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Error;
use super::inventory::{Store, StoreError};
use crate::enrolment::{self, Form, Gate, Kit, ROOT_FILE};
use crate::files::{self, Access, Folder, NewFile};
use crate::model::device_name::DeviceName;
use crate::model::identity::{Serial, Sha256};
use crate::pki::{IssuedCredentials, Password};

/// The files of one device, as they are reported once they are written.
#[derive(Clone, Serialize)]
pub struct DeviceFiles {
    /// The device.
    pub name: String,
    /// The PKCS#12 file to import.
    pub archive: PathBuf,
    /// The same with older encryption, for systems that cannot read the first.
    pub archive_compat: PathBuf,
    /// The password of both, and of the one in the profile. It is stored nowhere.
    pub password: String,
    /// The configuration profile for iPhone, iPad and Mac.
    pub profile: PathBuf,
    /// The certificate as PEM.
    pub certificate: PathBuf,
    /// The key as PEM.
    pub key: PathBuf,
    /// What "doorward join" takes on a computer; nothing if it is not known what the device may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// A part of `~/.ssh/config`.
    pub ssh_config: PathBuf,
    /// The page with instructions.
    pub steps: PathBuf,
    /// SHA-256 of the certificate in hexadecimal digits, as the configuration's `deny` takes it after `sha256:`.
    pub fingerprint: String,
    /// The certificate's serial number in hexadecimal digits.
    pub serial: String,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: i64,
}

impl fmt::Debug for DeviceFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceFiles").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DeviceFiles {
    /// What to report of a device with this certificate; `authorities` is the folder that `folder` is relative to.
    pub(super) fn new(
        authorities: &Path,
        folder: &DeviceFolder,
        name: &DeviceName,
        credentials: &IssuedCredentials,
        (kit, password): (&Kit, &Password),
    ) -> Self {
        let file = |form: Form| Store::join(authorities, &folder.file(form, name));
        Self {
            name: name.to_string(),
            archive: file(Form::Archive),
            archive_compat: file(Form::ArchiveCompat),
            password: password.as_str().to_owned(),
            profile: file(Form::Profile),
            certificate: file(Form::Certificate),
            key: file(Form::Key),
            bundle: kit.has(Form::Bundle).then(|| file(Form::Bundle)),
            ssh_config: file(Form::SshConfig),
            steps: file(Form::Steps),
            fingerprint: Sha256::of(credentials.certificate()).to_string(),
            serial: Serial::from_be_bytes(credentials.serial()).to_string(),
            not_after: credentials.not_after().unix_timestamp(),
        }
    }
}

/// The default folder for device files, relative to the folder of the authorities.
const DEFAULT: &str = "../devices";

/// The folder for device files: absolute, or relative to the folder of the authorities.
#[derive(Clone, Debug)]
pub struct DeviceFolder {
    path: PathBuf,
}

impl DeviceFolder {
    /// `output`, or the default folder beside that of the authorities.
    ///
    /// # Errors
    /// If `output` is relative and the current folder is not known.
    pub fn new(output: Option<&Path>) -> Result<Self, Error> {
        let Some(output) = output else { return Ok(Self::default()) };
        let absolute = std::path::absolute(output);
        let path = absolute.map_err(|source| {
            let path = output.to_owned();
            StoreError::Files(files::Error::Io { action: "find the folder", path, source })
        })?;
        Ok(Self { path })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path, if the user named it.
    pub(super) fn output(&self) -> Option<PathBuf> {
        (self.path != Path::new(DEFAULT)).then(|| self.path.clone())
    }

    /// The contents of one of these files, if it exists.
    pub(super) fn read(&self, store: &Store, file: &Path) -> Result<Option<Vec<u8>>, Error> {
        match self.output() {
            None => Ok(store.read(file)?),
            // The user of the command named this folder, so it is not read with the rights of the authorities' owner.
            Some(output) => {
                let name = file.file_name().map(Path::new).unwrap_or_else(|| Path::new(""));
                match Folder::open(&output).and_then(|folder| folder.read(name)) {
                    Ok(contents) => Ok(Some(contents)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(Error::Unreadable { path: file.to_owned(), source }),
                }
            }
        }
    }

    /// One of the files of this device.
    pub(super) fn file(&self, form: Form, name: &DeviceName) -> PathBuf {
        self.path.join(form.file_name(name))
    }

    /// The certificate of the server authority, if devices have to trust one: one file for all.
    pub(super) fn root(&self, gate: &Gate) -> Option<NewFile> {
        let contents = gate.root_pem()?.into();
        Some(NewFile { path: self.path.join(ROOT_FILE), contents, access: Access::Public })
    }
}

impl Default for DeviceFolder {
    fn default() -> Self {
        Self { path: DEFAULT.into() }
    }
}

/// Everything that a device is set up with, with a new password.
pub(super) fn new_kit(
    name: &DeviceName,
    credentials: &IssuedCredentials,
    gate: &Gate,
) -> Result<(Kit, Password), enrolment::Error> {
    let password = Password::generate()?;
    let device = enrolment::Device {
        name: name.clone(),
        certificate: credentials.certificate().clone(),
        key: credentials.key(),
    };
    Ok((Kit::new(gate, &device, &password)?, password))
}
