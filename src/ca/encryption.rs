//! Encrypts the private keys of the authorities with a passphrase, or decrypts them.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Error;
use super::inventory::Store;
use super::signer::{self, PassphrasePrompt};
use crate::files::{Access, NewFile};

/// Writes all authority keys of the folder anew: encrypted with the passphrase that `new` gives, or without encryption if it
/// gives none. `new` is asked once the keys could be read with the old one. Returns the files.
pub fn set_passphrase(
    store: &mut Store,
    old: PassphrasePrompt<'_>,
    new: impl FnOnce() -> Result<Option<Zeroizing<String>>, String>,
) -> Result<Vec<PathBuf>, Error> {
    // Absolute paths are keys that mkcert uses as well: they stay as they are.
    let own = store.inventory.authorities.iter().filter(|authority| Path::new(&authority.key).is_relative());
    let own = own.map(|entry| Ok((entry.key.clone(), signer::load(store, entry, old)?)));
    let own = own.collect::<Result<Vec<_>, Error>>()?;
    if own.is_empty() {
        return Err(Error::NoKeys(store.folder().to_owned()));
    }
    let new = new().map_err(Error::Passphrase)?;
    let mut files = Vec::new();
    for (path, authority) in &own {
        let contents = match &new {
            Some(new) => authority.encrypted_key_pem(new)?.to_string(),
            None => authority.key_pem(),
        };
        files.push(NewFile { path: path.into(), contents: contents.into(), access: Access::Private });
    }
    store.commit(store.inventory.clone(), files)?;
    Ok(own.iter().map(|(path, _)| store.path(path)).collect())
}
