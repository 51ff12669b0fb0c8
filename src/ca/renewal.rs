//! Makes the authority that renews device certificates without the owner.

use std::path::PathBuf;

use time::OffsetDateTime;

use super::Error;
use super::authority::RenewalAuthority;
use super::inventory::{Kind, Store};
use crate::files::{Access, NewFile};

/// Its certificate, in the folder of the authorities.
pub const RENEWAL_AUTHORITY_FILE: &str = "renewals.pem";
/// Its key, which belongs on the gate's machine, in a folder of its own.
pub const RENEWAL_AUTHORITY_KEY_FILE: &str = "renewals-key.pem";

/// A new authority, whose files are written.
#[derive(Debug)]
pub struct NewRenewalAuthority {
    /// The file of its certificate.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// When it expires.
    pub not_after: OffsetDateTime,
}

/// Makes it. Its key is not encrypted: the process that reads it can ask no person.
///
/// # Errors
/// If the folder has no authority of devices, or one of the files is there and `replace` is not set.
pub fn create(store: &mut Store, replace: bool) -> Result<NewRenewalAuthority, Error> {
    if store.inventory.authority_for(Kind::Device).is_none() {
        return Err(Error::NoAuthority { folder: store.folder().to_owned(), kind: Kind::Device });
    }
    let renewals = RenewalAuthority::new()?;
    let authority = renewals.authority();
    let file = |path: &str, contents: String, access| NewFile { path: path.into(), contents: contents.into(), access };
    let files = vec![
        file(RENEWAL_AUTHORITY_FILE, authority.certificate_pem(), Access::Public),
        file(RENEWAL_AUTHORITY_KEY_FILE, authority.key_pem(), Access::Private),
    ];
    let existing = Store::existing(store.folder(), &files);
    if !replace && !existing.is_empty() {
        return Err(Error::Exists(existing));
    }
    let mut inventory = store.inventory.clone();
    // What it has signed is known here, and to a gate that does not use it any more.
    inventory.remember(authority.certificate());
    let not_after = authority.not_after();
    let [certificate, key] = [RENEWAL_AUTHORITY_FILE, RENEWAL_AUTHORITY_KEY_FILE].map(|file| store.path(file));
    store.commit(inventory, files)?;
    Ok(NewRenewalAuthority { certificate, key, not_after })
}
