//! Which authority signs a certificate, and its private key.

use zeroize::Zeroizing;

use super::Error;
use super::inventory::{AuthorityEntry, Kind, Store};
use crate::pki::Authority;

/// Asks for the passphrase of encrypted authority keys, or says why there is none.
pub type PassphrasePrompt<'a> = &'a dyn Fn() -> Result<Zeroizing<String>, String>;

/// The authority that is to sign a certificate of this kind: the one named `id`, or the default one.
pub fn select(store: &Store, kind: Kind, id: Option<&str>) -> Result<AuthorityEntry, Error> {
    let inventory = &store.inventory;
    let found = match id {
        Some(id) => inventory.authority(id).filter(|authority| authority.signs.covers(kind)),
        None => inventory.authority_for(kind),
    };
    found.cloned().ok_or_else(|| {
        let fitting = inventory.authorities.iter().filter(|authority| authority.signs.covers(kind));
        let known: Vec<String> = fitting.map(|authority| authority.id.clone()).collect();
        match id {
            Some(id) if !known.is_empty() => Error::UnknownAuthority { id: id.to_owned(), kind: Some(kind), known },
            _ => Error::NoAuthority { folder: store.folder().to_owned(), kind },
        }
    })
}

/// Loads an authority with its key.
pub fn load(store: &Store, entry: &AuthorityEntry, passphrase: PassphrasePrompt<'_>) -> Result<Authority, Error> {
    store.authority(entry, || passphrase().map_err(Error::Passphrase))
}
