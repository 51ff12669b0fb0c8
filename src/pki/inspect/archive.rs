//! A PKCS#12 archive in words.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;

use super::key::readable;
use super::{Item, Thing};
use crate::names::printable;
use crate::pki::pem;

/// How archives are encrypted: OIDs in DER, of the PBEs of PKCS#12 (RFC 7292 appendix C) and of PBES2 (RFC 8018).
const RC2_40: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x06";
const RC2_128: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x05";
const TRIPLE_DES: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03";
const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";

/// What everybody tries first.
const KNOWN: [&str; 3] = ["", "changeit", "password"];

/// PKCS#12 is a SEQUENCE whose first element is the INTEGER 3 (RFC 7292 section 4).
pub(super) fn is_one(bytes: &[u8]) -> bool {
    let (Some(0x30), Some(&length)) = (bytes.first(), bytes.get(1)) else { return false };
    // The length is one byte, or a byte that says how many bytes of length follow.
    let start = if length & 0x80 == 0 { 2 } else { 2 + usize::from(length & 0x7f) };
    bytes.get(start..).is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03]))
}

fn has(bytes: &[u8], oid: &[u8]) -> bool {
    bytes.windows(oid.len()).any(|part| part == oid)
}

/// The weakest encryption in an archive, if it is too weak: RC2, as mkcert and older systems write it.
pub fn weak_encryption(bytes: &[u8]) -> Option<&'static str> {
    if has(bytes, RC2_40) {
        Some("RC2-40")
    } else if has(bytes, RC2_128) {
        Some("RC2-128")
    } else {
        None
    }
}

/// The archive, and what is in it.
pub(super) fn describe(bytes: &[u8], password: &str, mode: u32) -> Result<(Item, Vec<Thing>), Error> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, password)?;
    let mut item = Item::new("archive", "a bundle of certificates and keys (PKCS#12, .p12 or .pfx), with this in it:");
    let names: Vec<String> = archive
        .keys
        .iter()
        .filter_map(|key| key.friendly_name.as_deref())
        .map(|name| printable(name, super::MAX))
        .collect();
    if !names.is_empty() {
        item.fact("name", names.join(", "));
    }
    let used = [(RC2_40, "RC2-40"), (RC2_128, "RC2-128"), (TRIPLE_DES, "triple DES"), (PBES2, "PBES2 (AES)")];
    let used: Vec<&str> = used.iter().filter(|(oid, _)| has(bytes, oid)).map(|(_, name)| *name).collect();
    item.fact("encryption", if used.is_empty() { "none".to_owned() } else { used.join(", ") });
    if let Some(weak) = weak_encryption(bytes) {
        item.warn(
            "weak_encryption",
            format!(
                "weak .p12 encryption ({weak}): it hides nothing from who tries, and OpenSSL 3 reads it with -legacy only"
            ),
        );
    } else if has(bytes, TRIPLE_DES) {
        item.note(
            "old_encryption",
            "older encryption (triple DES), for macOS, iOS and Android: no weakness with a long random password",
        );
    }
    if KNOWN.contains(&password) {
        let shown = if password.is_empty() { "empty".to_owned() } else { format!("{password:?}") };
        item.warn(
            "known_password",
            format!("its password is {shown}, which everybody tries first: whoever has the file has the key"),
        );
    }
    if !archive.keys.is_empty() {
        readable(&mut item, mode);
    }
    let certificates = archive.certs.iter().map(|bag| Thing::Certificate(bag.cert.as_der().to_vec().into()));
    let keys = archive.keys.iter().map(|bag| Thing::Key(pem::encode("PRIVATE KEY", bag.key.as_der()).into_bytes()));
    Ok((item, certificates.chain(keys).collect()))
}
