//! Imports an existing authority: mkcert's.

use std::env;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use super::inventory::{AuthorityEntry, Inventory, Signs, Store};
use super::revoke;
use super::signer::{self, PassphrasePrompt};
use crate::model::identity::{Sha256, text};
use crate::model::names::printable;

/// mkcert's file names.
const CERTIFICATE_FILE: &str = "rootCA.pem";
const KEY_FILE: &str = "rootCA-key.pem";

/// mkcert's authority, as it was found.
#[derive(Debug)]
pub struct MkcertRoot {
    /// The name in its certificate.
    pub subject: String,
    /// The file of its certificate.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    fingerprint: String,
}

/// An authority that was imported.
#[derive(Debug)]
pub struct Imported {
    /// Its name in the inventory.
    pub authority: String,
    /// Whether the inventory did not have it before.
    pub is_new: bool,
    /// The file of its certificate.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// The file of its revocation list.
    pub revocation_list: PathBuf,
    /// Whether its certificate allows signing lists, see [`Authority::signs_lists`](crate::pki::Authority::signs_lists).
    pub signs_lists: bool,
}

/// The folder where mkcert keeps its files, as `getCAROOT` in its main.go finds it.
pub fn mkcert_folder() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable("CAROOT") {
        return Some(folder);
    }
    if let Some(data) = variable("XDG_DATA_HOME") {
        return Some(data.join("mkcert"));
    }
    let below = if cfg!(target_os = "macos") { "Library/Application Support/mkcert" } else { ".local/share/mkcert" };
    variable("HOME").map(|home| home.join(below))
}

impl MkcertRoot {
    /// Looks for mkcert's authority in an absolute `folder`. Nothing is changed.
    pub fn find(folder: &Path) -> Result<Self, Error> {
        let [certificate, key] = [CERTIFICATE_FILE, KEY_FILE].map(|file| folder.join(file));
        let pem = std::fs::read(&certificate)
            .map_err(|source| Error::MkcertCertificate { path: certificate.clone(), source })?;
        if let Err(source) = std::fs::metadata(&key) {
            return Err(Error::MkcertKey { path: key, source });
        }
        let none = || Error::NoCertificateIn(certificate.clone());
        let der = CertificateDer::from_pem_slice(&pem).map_err(|_| none())?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| none())?;
        let name = parsed.subject().iter_common_name().next().map(text::attribute);
        let name = name.unwrap_or_else(|| text::name(parsed.subject()));
        Ok(Self { subject: printable(&name, 128), fingerprint: Sha256::of(&der).to_string(), certificate, key })
    }
}

/// Adds mkcert's authority to the inventory, and writes a revocation list for it. Its own files stay where they are: mkcert
/// keeps working, and there is no second copy of the key.
pub fn import(store: &mut Store, root: &MkcertRoot, passphrase: PassphrasePrompt<'_>) -> Result<Imported, Error> {
    let mut inventory = store.inventory.clone();
    let known = inventory.authorities.iter_mut().find(|authority| authority.fingerprint == root.fingerprint);
    let is_new = known.is_none();
    let entry = match known {
        Some(known) => {
            // Its files may have moved meanwhile. A relative path is not mkcert's file.
            if Path::new(&known.key).is_absolute() {
                (known.certificate, known.key) = (utf8(&root.certificate)?, utf8(&root.key)?);
            }
            known.clone()
        }
        None => {
            let id = free_id(&inventory);
            let entry = AuthorityEntry {
                signs: Signs::Everything,
                certificate: utf8(&root.certificate)?,
                key: utf8(&root.key)?,
                fingerprint: root.fingerprint.clone(),
                revocation_list: Some(format!("{id}.crl")),
                list_number: 0,
                id,
            };
            inventory.authorities.push(entry.clone());
            entry
        }
    };
    let signer = signer::load(store, &entry, passphrase)?;
    inventory.remember(signer.certificate());
    // There may be a revocation list of this authority from an earlier import.
    store.merge_revocation_lists(&mut inventory)?;
    let file = revoke::next_list_file(&mut inventory, &entry.id, &signer)?.map(|(file, _)| file);
    store.commit(inventory, file.into_iter().collect())?;
    Ok(Imported {
        certificate: store.path(&entry.certificate),
        key: store.path(&entry.key),
        revocation_list: store.path(entry.revocation_list.as_deref().unwrap_or_default()),
        signs_lists: signer.signs_lists(),
        authority: entry.id,
        is_new,
    })
}

/// The inventory is text, and so are the paths in it.
fn utf8(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::PathNotUtf8(path.to_owned()))
}

/// `mkcert`, and for the roots of other machines `mkcert-2` and so on.
fn free_id(inventory: &Inventory) -> String {
    let mut id = "mkcert".to_owned();
    let mut count = 1;
    while inventory.authority(&id).is_some() {
        count += 1;
        id = format!("mkcert-{count}");
    }
    id
}
