//! Exports a certificate, and its key if that is in the folder.

use std::path::{Path, PathBuf};

use super::Error;
use super::device_files::DeviceFolder;
use super::inventory::{Kind, Store, StoreError};
use crate::enrolment::Form;
use crate::files::{self, Access, Existing, NewFile, Warning};
use crate::model::device_name::DeviceName;
use crate::pki::{keys, pem};

/// A certificate that is to be exported.
#[derive(Debug)]
pub struct Export {
    /// The device, or the authority.
    pub name: String,
    /// The certificate as PEM.
    pub certificate_pem: String,
    key: Option<Vec<u8>>,
    /// The name for its files.
    file: String,
}

/// The files that were written.
#[derive(Debug)]
pub struct ExportedFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: Option<PathBuf>,
    /// What the file system did not do as asked.
    pub warnings: Vec<Warning>,
}

/// The certificate of an authority, without its key.
pub fn authority(store: &Store, id: &str) -> Result<Export, Error> {
    let authority = store.inventory.authority(id).ok_or_else(|| Error::UnknownAuthority {
        id: id.to_owned(),
        kind: None,
        known: store.inventory.authorities.iter().map(|one| one.id.clone()).collect(),
    })?;
    let certificate = store.certificate(&authority.certificate)?;
    Ok(Export {
        file: id.to_owned(),
        name: id.to_owned(),
        certificate_pem: pem::encode(pem::CERTIFICATE, &certificate),
        key: None,
    })
}

/// The latest certificate of a device, and its key if that is in the default folder.
pub fn device(store: &Store, name: &str) -> Result<Export, Error> {
    let entry = store.inventory.current(name, Kind::Device).ok_or_else(|| Error::UnknownDevice(name.to_owned()))?;
    let certificate = store.certificate(&entry.copy_path())?;
    let spki = x509_parser::parse_x509_certificate(&certificate).map(|(_, parsed)| parsed.public_key().raw.to_vec());
    let device = DeviceName::parse(&entry.name).map_err(Error::InvalidName)?;
    let folder = DeviceFolder::default();
    let key = folder
        .read(store, &folder.file(Form::Key, &device))?
        .and_then(|pem| Some((keys::read(&pem).ok()?, pem)))
        .filter(|(key, _)| spki.is_ok_and(|spki| keys::fits(key, &spki)));
    Ok(Export {
        file: device.slug().to_owned(),
        name: entry.name.clone(),
        certificate_pem: pem::encode(pem::CERTIFICATE, &certificate),
        key: key.map(|(_, pem)| pem),
    })
}

impl Export {
    /// Writes `NAME.pem`, and `NAME-key.pem` if the key is known, into `folder`.
    pub fn write(self, folder: &Path, existing: Existing) -> Result<ExportedFiles, Error> {
        let certificate = folder.join(format!("{}.pem", self.file));
        let key = self.key.as_ref().map(|_| folder.join(format!("{}-key.pem", self.file)));
        let contents = self.certificate_pem.into();
        let mut new = vec![NewFile { path: certificate.clone(), contents, access: Access::Public }];
        new.extend(self.key.zip(key.clone()).map(|(contents, path)| NewFile {
            path,
            contents,
            access: Access::Private,
        }));
        let warnings = files::write_all(&new, existing).map_err(|error| match error {
            files::Error::Exists(paths) => Error::Exists(paths),
            error => StoreError::Files(error).into(),
        })?;
        Ok(ExportedFiles { certificate, key, warnings })
    }
}
