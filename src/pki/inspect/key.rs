//! A private key in words.

use rcgen::PublicKeyData;

use super::Item;
use crate::model::identity::Sha256;
use crate::pki::keys;

pub(super) fn describe(pem: &[u8], mode: u32) -> Item {
    let Ok(key) = keys::read(pem) else {
        return Item::new("private_key", "a private key of a kind that cannot be used here");
    };
    let spki = key.subject_public_key_info();
    let mut item = Item::new("private_key", "a private key: a secret, never to be sent to anybody");
    item.fact("key", keys::describe(&spki));
    item.fact("key_fingerprint", format!("spki:{}", Sha256::of(&spki)));
    item.fact("encrypted", "no");
    readable(&mut item, mode);
    item
}

pub(super) fn encrypted() -> Item {
    let mut item = Item::new("private_key", "a private key that asks for a passphrase");
    item.fact("encrypted", "yes");
    item
}

/// Says so if others than the owner may read a secret.
pub(super) fn readable(item: &mut Item, mode: u32) {
    if mode & 0o004 != 0 {
        item.warn("readable_by_all", "every user of this machine may read the file: chmod 600");
    } else if mode & 0o040 != 0 {
        item.note("readable_by_group", "the group of the file may read it");
    }
}
