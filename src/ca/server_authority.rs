//! Makes the authority for the gate's certificates in a folder that has none, as that of a gate with a public certificate.

use super::Error;
use super::authority::{NameConstraintPolicy, ServerAuthority};
use super::create::server_authority_entry;
use super::inventory::Store;
use super::signer::PassphrasePrompt;
use crate::files::{Access, NewFile};
use crate::model::names::ServerName;
use crate::pki::keys::{self, KeyType};

/// Makes it for `domain`. Its key is encrypted if that of another authority in the folder is: all have the same passphrase.
pub fn create(store: &mut Store, domain: &ServerName, passphrase: PassphrasePrompt<'_>) -> Result<(), Error> {
    let servers = ServerAuthority::with_key(domain, KeyType::default().generate()?, NameConstraintPolicy::Domain)?;
    let authority = servers.authority();
    let entry = server_authority_entry(authority);
    let mut encrypted_by = None;
    for other in &store.inventory.authorities {
        if store.read(&other.key)?.is_some_and(|pem| keys::is_encrypted(&pem)) {
            encrypted_by = Some(other.clone());
        }
    }
    let key = match encrypted_by {
        Some(other) => {
            let passphrase = passphrase().map_err(Error::Passphrase)?;
            // A wrong one would lock the owner out of the new key.
            store.authority(&other, || Ok::<_, Error>(passphrase.clone()))?;
            authority.encrypted_key_pem(&passphrase)?.to_string()
        }
        None => authority.key_pem(),
    };
    let file = |path: &str, contents: String, access| NewFile { path: path.into(), contents: contents.into(), access };
    let files = vec![
        file(&entry.certificate, authority.certificate_pem(), Access::Public),
        file(&entry.key, key, Access::Private),
    ];
    let existing = Store::existing(store.folder(), &files);
    if !existing.is_empty() {
        return Err(Error::Exists(existing));
    }
    let mut inventory = store.inventory.clone();
    inventory.authorities.push(entry);
    Ok(store.commit(inventory, files)?)
}
