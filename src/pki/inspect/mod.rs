//! Describes what a file contains, and what is unusual about it.
//!
//! Reads PEM blocks of every type, DER and PKCS#12. Whether the gate admits a certificate is decided elsewhere, see
//! `doorward explain`.

mod archive;
mod certificate;
mod key;
mod list;
mod request;

pub use archive::{asks_too_much, weak_encryption};

use std::fmt::Write as _;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509CertificationRequest};

use crate::model::identity::Serial;
use crate::model::names::printable;
use crate::model::text::date;

/// The longest text of a certificate that is shown, in characters.
const MAX: usize = 200;

/// The number of names, or of entries of a list, that are shown.
const SHOWN: usize = 20;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Note,
    /// Some programs reject it, or it is a risk.
    Warning,
}

/// Something unusual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The identifier, for programs.
    pub id: &'static str,
    /// The text, for people.
    pub text: String,
}

/// The description of one object in a file.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// The type: `certificate`, `private_key`, `certificate_request`, `revocation_list`, `archive`, `unknown`.
    pub kind: &'static str,
    /// What it is, in words.
    pub is: String,
    /// Its properties, in the order in which they are shown.
    #[serde(serialize_with = "as_map")]
    pub facts: Vec<(&'static str, String)>,
    /// What is unusual about it.
    pub findings: Vec<Finding>,
}

fn as_map<S: Serializer>(facts: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(facts.iter().map(|(name, value)| (name, value)))
}

impl Item {
    fn new(kind: &'static str, is: impl Into<String>) -> Self {
        Self { kind, is: is.into(), facts: Vec::new(), findings: Vec::new() }
    }

    fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.push((name, value.into()));
    }

    fn note(&mut self, id: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { level: Level::Note, id, text: text.into() });
    }

    fn warn(&mut self, id: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { level: Level::Warning, id, text: text.into() });
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.is);
        let width = self.facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
        for (name, value) in &self.facts {
            let label = format!("{}:", name.replace('_', " "));
            let _ = writeln!(out, "  {label:width$} {value}");
        }
        for finding in &self.findings {
            let level = if finding.level == Level::Warning { "warning" } else { "note" };
            let _ = writeln!(out, "  {level}: {}", finding.text);
        }
        out
    }
}

/// What is in a file.
#[derive(Clone, Debug)]
pub enum Contents {
    /// These objects, in their order.
    Objects(Vec<Object>),
    /// A PKCS#12 file, which needs a password.
    Archive(Vec<u8>),
}

/// One object in a file, not parsed yet.
#[derive(Clone, Debug)]
pub enum Object {
    /// A certificate.
    Certificate(CertificateDer<'static>),
    /// An unencrypted key, in PEM.
    Key(Vec<u8>),
    /// An encrypted key.
    EncryptedKey,
    /// A certificate request, in DER.
    Request(Vec<u8>),
    /// A revocation list, in DER.
    List(Vec<u8>),
    /// A public key.
    PublicKey,
    /// Something else: the label of its first line.
    Other(String),
}

/// What a file contains. `None` if it is not recognised.
pub fn contents(bytes: &[u8]) -> Option<Contents> {
    // First, since rustls would read an archive as a key.
    if archive::is_one(bytes) {
        return Some(Contents::Archive(bytes.to_vec()));
    }
    if let Some(object) = der(bytes) {
        return Some(Contents::Objects(vec![object]));
    }
    let objects = pem(bytes);
    (!objects.is_empty()).then_some(Contents::Objects(objects))
}

fn der(bytes: &[u8]) -> Option<Object> {
    if X509Certificate::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
        Some(Object::Certificate(CertificateDer::from(bytes.to_vec())))
    } else if CertificateRevocationList::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
        Some(Object::List(bytes.to_vec()))
    } else if X509CertificationRequest::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
        Some(Object::Request(bytes.to_vec()))
    } else if PrivateKeyDer::try_from(bytes).is_ok() {
        Some(Object::Key(super::pem::encode("PRIVATE KEY", bytes).into_bytes()))
    } else {
        None
    }
}

/// The blocks of a PEM file. Those that rustls does not know are recognised by their label.
fn pem(bytes: &[u8]) -> Vec<Object> {
    let mut objects = Vec::new();
    let text = String::from_utf8_lossy(bytes);
    for block in text.split("-----BEGIN ").skip(1) {
        let Some((label, rest)) = block.split_once("-----") else { continue };
        let end = format!("-----END {label}-----");
        let Some((body, _)) = rest.split_once(&end) else {
            objects.push(Object::Other(format!("{} without its last line", printable(label, 40))));
            continue;
        };
        let whole = format!("-----BEGIN {label}-----{body}{end}\n");
        let decoded = <(SectionKind, Vec<u8>)>::from_pem_slice(whole.as_bytes()).ok();
        objects.push(match (label, decoded) {
            (_, Some((SectionKind::Certificate, der))) => Object::Certificate(der.into()),
            (_, Some((SectionKind::Crl, der))) => Object::List(der),
            (_, Some((SectionKind::Csr, der))) => Object::Request(der),
            (_, Some((SectionKind::PublicKey, _))) => Object::PublicKey,
            (_, _) if label == "ENCRYPTED PRIVATE KEY" || body.contains("Proc-Type: 4,ENCRYPTED") => {
                Object::EncryptedKey
            }
            (_, Some((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _))) => {
                Object::Key(whole.into_bytes())
            }
            ("EC PARAMETERS", _) => continue,
            (label, _) => Object::Other(printable(label, 40)),
        });
    }
    objects
}

/// Describes these objects. `mode`: the permissions of the file.
pub fn describe(objects: &[Object], now: OffsetDateTime, mode: u32) -> Vec<Item> {
    let mut items: Vec<Item> = objects.iter().map(|object| one(object, now, mode)).collect();
    chains(objects, &mut items);
    keys(objects, &mut items);
    items
}

fn one(object: &Object, now: OffsetDateTime, mode: u32) -> Item {
    match object {
        Object::Certificate(der) => certificate::describe(der, now),
        Object::Key(pem) => key::describe(pem, mode),
        Object::EncryptedKey => key::encrypted(),
        Object::Request(der) => request::describe(der),
        Object::List(der) => list::describe(der, now),
        Object::PublicKey => Item::new("public_key", "a public key: not secret, and not a certificate"),
        Object::Other(label) => Item::new("unknown", format!("unknown content (its first line says {label})")),
    }
}

/// The certificates of a file, each with its index.
fn certificates_of(objects: &[Object]) -> Vec<(usize, &CertificateDer<'static>)> {
    let numbered = objects.iter().enumerate();
    numbered
        .filter_map(|(index, object)| if let Object::Certificate(der) = object { Some((index, der)) } else { None })
        .collect()
}

/// Checks that each certificate of a chain is signed by the next.
fn chains(objects: &[Object], items: &mut [Item]) {
    if let [(index, alone)] = certificates_of(objects)[..]
        && let Ok((_, server)) = X509Certificate::from_der(alone)
        && super::public::needs_intermediate(&server)
        && let Some(item) = items.get_mut(index)
    {
        item.warn(
            "intermediate_missing",
            "the certificate of the intermediate authority that signed it is missing in the file: used as \
             certificate.chain, clients that know only the root would reject it",
        );
    }
    for pair in certificates_of(objects).windows(2) {
        let [(below, lower), (_, upper)] = pair else { continue };
        let Ok((_, lower)) = X509Certificate::from_der(lower) else { continue };
        // Several roots in one file are trust anchors, not a chain.
        let own = lower.subject().as_raw() == lower.issuer().as_raw();
        if let (false, Some(item)) = (own || super::has_signed(upper, &lower), items.get_mut(*below)) {
            item.warn(
                "chain_broken",
                "the next certificate in the file has not signed it. A chain starts with the device or server, and each \
                 certificate is signed by the next",
            );
        }
    }
}

/// Checks that keys match the first certificate.
fn keys(objects: &[Object], items: &mut [Item]) {
    let certificates = certificates_of(objects);
    let Some((_, first)) = certificates.first() else { return };
    let Ok((_, first)) = X509Certificate::from_der(first) else { return };
    for (object, item) in objects.iter().zip(items) {
        if let Object::Key(pem) = object
            && let Ok(key) = super::keys::read(pem)
        {
            if super::keys::fits(&key, first.public_key().raw) {
                item.fact("belongs_to", "the first certificate in this file");
            } else {
                item.warn("key_does_not_fit", "it is not the key of the first certificate in this file");
            }
        }
    }
}

/// Describes an archive that `password` opens, and its contents.
pub fn describe_archive(
    bytes: &[u8],
    password: &str,
    now: OffsetDateTime,
    mode: u32,
) -> Result<Vec<Item>, p12_keystore::error::Error> {
    let (item, objects) = archive::describe(bytes, password, mode)?;
    // The permissions are reported for the archive. Its certificates are no chain: a trust anchor may be among them.
    let mut inside: Vec<Item> = objects.iter().map(|object| one(object, now, 0o600)).collect();
    keys(&objects, &mut inside);
    Ok(std::iter::once(item).chain(inside).collect())
}

/// Passwords of PKCS#12 files that are public knowledge: mkcert and Java write the first.
pub const WELL_KNOWN_PASSWORDS: [&str; 2] = ["changeit", ""];

/// The certificates in a file, which may be an archive that opens with one of these passwords.
pub fn certificates(bytes: &[u8], passwords: &[&str]) -> Vec<CertificateDer<'static>> {
    let objects = match contents(bytes) {
        Some(Contents::Objects(objects)) => objects,
        Some(Contents::Archive(bytes)) => {
            let opened = passwords.iter().find_map(|password| archive::describe(&bytes, password, 0o600).ok());
            opened.map(|(_, objects)| objects).unwrap_or_default()
        }
        None => Vec::new(),
    };
    let certificate = |object| if let Object::Certificate(der) = object { Some(der) } else { None };
    objects.into_iter().filter_map(certificate).collect()
}

/// A serial number for people, truncated if it is longer than RFC 5280 section 4.1.2.2 allows (20 bytes).
fn serial(serial: &Serial) -> String {
    printable(&serial.to_string(), MAX)
}

/// The first items of a list, and the number of the others.
fn shorten(mut objects: Vec<String>) -> String {
    let more = objects.len().saturating_sub(SHOWN);
    objects.truncate(SHOWN);
    let shown = objects.join(", ");
    if more == 0 { shown } else { format!("{shown}, and {more} more") }
}

/// Whole days between two moments, rounded down.
const fn days(from: i64, to: i64) -> i64 {
    (to - from).div_euclid(86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::DeviceAuthority;
    use crate::ca::inventory::now;
    use crate::model::device_name::DeviceName;
    use crate::pki::{Revocation, RevocationReason};

    #[test]
    fn damaged_files_are_described_without_panic() {
        let devices = DeviceAuthority::new().expect("an authority");
        let device = devices.issue(&DeviceName::parse("alice-phone").expect("a name")).expect("a device");
        let revoked = [Revocation { serial: device.serial().to_vec(), at: now(), reason: RevocationReason::Lost }];
        let list = devices.authority().revocation_list(&revoked, 1, devices.authority().not_after()).expect("a list");
        let files = [
            device.certificate().to_vec(),
            devices.authority().certificate().to_vec(),
            list.to_vec(),
            device.key_pem().into_bytes(),
            (device.certificate_pem() + &device.key_pem()).into_bytes(),
        ];
        let mut understood = 0;
        for file in files {
            let whole = contents(&file);
            assert!(matches!(&whole, Some(Contents::Objects(objects)) if !objects.is_empty()), "{whole:?}");
            for at in 0..file.len() {
                let mut changed = file.clone();
                changed[at] ^= 1 << (at % 8);
                for damaged in [&changed[..], &file[..at]] {
                    if let Some(Contents::Objects(objects)) = contents(damaged) {
                        let items = describe(&objects, now(), 0o600);
                        assert_eq!(items.len(), objects.len());
                        understood += items.iter().filter(|item| !item.text().is_empty()).count();
                    }
                }
            }
        }
        assert!(understood > 500, "{understood}");
    }
}
