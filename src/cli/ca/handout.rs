//! The files that a device is set up with.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use serde::Serialize;

use crate::identity::{Serial, Sha256};
use crate::names::Name;
use crate::pki::files::{Access, NewFile};
use crate::pki::inventory::Store;
use crate::pki::{self, Issued, Password, Profile};

/// A device that can be set up now.
#[derive(Clone, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The archive to import.
    pub archive: PathBuf,
    /// The same with older encryption, for systems that cannot read the first.
    pub archive_compat: PathBuf,
    /// The password of both archives. It is stored nowhere.
    pub password: String,
    /// The certificate as PEM.
    pub certificate: PathBuf,
    /// The key as PEM.
    pub key: PathBuf,
    /// SHA-256 of the certificate, in hexadecimal digits: what the configuration's `deny` takes after `sha256:`.
    pub fingerprint: String,
    /// The certificate's serial number, in hexadecimal digits.
    pub serial: String,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: i64,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where a device's files go: below a folder that is given relative to that of the authorities, or absolute.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Places {
    folder: PathBuf,
}

impl Places {
    /// Beside the folder of the authorities, as `doorward init` has it, or in `output`.
    pub(in crate::cli) fn new(output: Option<&Path>) -> std::io::Result<Self> {
        let folder = output.map(std::path::absolute).transpose()?;
        Ok(Self { folder: folder.unwrap_or_else(|| "../devices".into()) })
    }

    /// The certificate of this device.
    pub(in crate::cli) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    /// The key of this device.
    pub(in crate::cli) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-key.pem"))
    }
}

/// The files for a device: two archives with a new password, certificate and key. `root` vouches for the gate, and
/// `store` is the folder that [`Places`] are relative to.
pub(in crate::cli) fn handout(
    folder: &Path,
    places: &Places,
    name: &Name,
    device: &Issued,
    root: &CertificateDer<'_>,
) -> Result<(Device, Vec<NewFile>), pki::Error> {
    let mut files = Vec::new();
    let mut add = |path: PathBuf, contents: Vec<u8>, access| {
        let shown = Store::shown(folder, &path);
        files.push(NewFile { path, contents, access });
        shown
    };
    let password = Password::generate()?;
    let archive = |profile| pki::device_archive(name, device, root, profile, &password);
    let device = Device {
        name: name.to_string(),
        archive: add(places.folder.join(format!("{name}.p12")), archive(Profile::Modern)?, Access::Private),
        archive_compat: add(
            places.folder.join(format!("{name}-compat.p12")),
            archive(Profile::Compat)?,
            Access::Private,
        ),
        password: password.as_str().to_owned(),
        certificate: add(places.certificate(name.as_str()), device.certificate_pem().into(), Access::Public),
        key: add(places.key(name.as_str()), device.key_pem().into(), Access::Private),
        fingerprint: Sha256::of(device.certificate()).to_string(),
        serial: Serial::from_be_bytes(device.serial()).to_string(),
        not_after: device.not_after().unix_timestamp(),
    };
    Ok((device, files))
}

impl Device {
    /// What to do with the files, for people.
    pub(super) fn text(&self) -> String {
        format!(
            "  {archive}\n    to import there; its password is  {password}\n  {compat}\n    the same in older encryption, \
             for macOS, iPhone, iPad and Android, or if the right password is called wrong\n  {certificate}\n  {key}\n    \
             the same for programs such as curl and ssh; not encrypted\n\nThe password is shown this once and stored \
             nowhere. All but {certificate} is secret.\n",
            archive = self.archive.display(),
            password = self.password,
            compat = self.archive_compat.display(),
            certificate = self.certificate.display(),
            key = self.key.display(),
        )
    }
}
