//! Issues a certificate for a new device that has made its key itself, as in a token, and sends a request for it.
//!
//! The request shows that its sender has the key. Which device that is, is for the owner to know: the names in a request are not looked
//! at, and the owner compares the key with what the device says.

use std::path::PathBuf;

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use time::OffsetDateTime;

use super::Error;
use super::authority::{Guest, certify_device};
use super::device_files::DeviceFolder;
use super::inventory::{CertificateEntry, Inventory, Kind, Store};
use super::issue::{check_name_is_free, copy, gate};
use super::signer::{self, PassphrasePrompt};
use crate::bundle::Bundle;
use crate::enrolment::{self, Form, Gate, Reachable};
use crate::files::{Access, NewFile};
use crate::model::device_name::DeviceName;
use crate::model::identity::{Serial, Sha256};
use crate::pki::{self, CertificateRequest};

/// A new device with a key of its own.
#[derive(Clone, Debug)]
pub struct RequestingDevice<'a> {
    /// Its name.
    pub name: &'a DeviceName,
    /// Its key.
    pub request: &'a CertificateRequest,
    /// The authority that is to sign; the default one if there is no name.
    pub authority: Option<&'a str>,
    /// The folder for its files.
    pub folder: &'a DeviceFolder,
    /// Whether files of an earlier device of this name may be replaced.
    pub replace: bool,
    /// Whether its certificate is a guest pass, and for what.
    pub guest: Option<&'a Guest>,
}

/// The files of such a device, as they are reported once they are written.
#[derive(Clone, Debug, Serialize)]
pub struct RequestedFiles {
    /// The device.
    pub name: String,
    /// The certificate as PEM.
    pub certificate: PathBuf,
    /// What "doorward join" takes on a computer, without a key; nothing if it is not known what the device may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// SHA-256 of the key in hexadecimal digits.
    pub key_sha256: String,
    /// SHA-256 of the certificate in hexadecimal digits.
    pub fingerprint: String,
    /// The certificate's serial number in hexadecimal digits.
    pub serial: String,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: i64,
}

impl RequestedFiles {
    /// When the certificate expires.
    pub fn end(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.not_after).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// Issues a certificate for the key of a request, and writes the device's files. `reachable`: see [`super::issue::device`].
///
/// # Errors
/// If the name or the key is another device's, or nothing can be signed or written.
pub fn device(
    store: &mut Store,
    request: &RequestingDevice<'_>,
    passphrase: PassphrasePrompt<'_>,
    reachable: impl FnOnce() -> Reachable,
) -> Result<RequestedFiles, Error> {
    let (name, folder) = (request.name, request.folder);
    check_name_is_free(&store.inventory, name)?;
    check_key_is_new(&store.inventory, request.request)?;
    let authority = signer::select(store, Kind::Device, request.authority)?;
    let signer = signer::load(store, &authority, passphrase)?;
    let key = SubjectPublicKeyInfo::from_der(request.request.spki()).map_err(pki::Error::from)?;
    let issued = certify_device(&signer, name, &key, request.guest)?;
    let mut entry = CertificateEntry::issued(name.as_str(), Kind::Device, &authority.id, &issued);
    entry.routes = request.guest.iter().flat_map(|guest| guest.pass.routes()).map(str::to_owned).collect();

    let gate = gate(store, reachable)?;
    store.set_output(folder.output());
    let certificate = folder.file(Form::Certificate, name);
    let mut files =
        vec![NewFile { path: certificate.clone(), contents: issued.certificate_pem().into(), access: Access::Public }];
    let bundle = bundle_file(&gate, name, folder, issued.certificate().clone());
    let bundle_path = bundle.as_ref().map(|file| file.path.clone());
    files.extend(bundle);
    if !request.replace {
        let existing = Store::existing(store.folder(), &files);
        if !existing.is_empty() {
            return Err(Error::Exists(existing));
        }
    }
    files.extend(folder.root(&gate));
    files.push(copy(&entry, &issued.certificate_pem()));
    let mut inventory = store.inventory.clone();
    inventory.certificates.push(entry);
    store.commit(inventory, files)?;
    Ok(RequestedFiles {
        name: name.to_string(),
        certificate: Store::join(store.folder(), &certificate),
        bundle: bundle_path.map(|path| Store::join(store.folder(), &path)),
        key_sha256: request.request.key().to_string(),
        fingerprint: Sha256::of(issued.certificate()).to_string(),
        serial: Serial::from_be_bytes(issued.serial()).to_string(),
        not_after: issued.not_after().unix_timestamp(),
    })
}

/// The file for a device that has its key; nothing if it is not known what the device may use.
pub(super) fn bundle_file(
    gate: &Gate,
    name: &DeviceName,
    folder: &DeviceFolder,
    certificate: CertificateDer<'static>,
) -> Option<NewFile> {
    let bundle: Bundle = enrolment::bundle_without_key(gate, name, certificate)?;
    let contents = bundle.to_text().as_bytes().to_vec();
    Some(NewFile { path: folder.file(Form::Bundle, name), contents, access: Form::Bundle.access() })
}

/// A key is one device's: who revokes that device means the key.
fn check_key_is_new(inventory: &Inventory, request: &CertificateRequest) -> Result<(), Error> {
    let key = request.key().to_string();
    let with_key = || inventory.certificates.iter().filter(|entry| entry.spki.as_ref() == Some(&key));
    if let Some(entry) = with_key().find(|entry| entry.revoked_at.is_some()) {
        return Err(Error::KeyOfRevoked(entry.name.clone()));
    }
    with_key().next().map_or(Ok(()), |entry| Err(Error::KeyOfOtherDevice(entry.name.clone())))
}
