//! Describes a private key.

use rcgen::PublicKeyData;

use super::Item;
use crate::model::identity::Sha256;
use crate::pki::keys;

pub(super) fn describe(pem: &[u8], mode: u32) -> Item {
    let Ok(key) = keys::read(pem) else {
        return Item::new("private_key", "a private key of an unsupported type");
    };
    let spki = key.subject_public_key_info();
    let mut item = Item::new("private_key", "a private key: keep it secret");
    item.fact("key", keys::describe(&spki));
    item.fact("key_fingerprint", format!("spki:{}", Sha256::of(&spki)));
    item.fact("encrypted", "no");
    readable(&mut item, mode);
    item
}

pub(super) fn encrypted() -> Item {
    let mut item = Item::new("private_key", "a private key, encrypted with a passphrase");
    item.fact("encrypted", "yes");
    item
}

/// Adds a finding if others than the owner can read the file.
pub(super) fn readable(item: &mut Item, mode: u32) {
    if mode & 0o004 != 0 {
        item.warn("readable_by_all", "every user of this machine can read the file: chmod 600");
    } else if mode & 0o040 != 0 {
        item.note("readable_by_group", "the group of the file can read it");
    }
}
