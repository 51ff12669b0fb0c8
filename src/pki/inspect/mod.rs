//! What a file is, in words, and what is odd about it.
//!
//! Reads whatever certificates come in: PEM blocks of every kind, DER, PKCS#12. It decides nothing: what the gate thinks
//! of a certificate is `doorward explain`'s to say.

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

/// Text from a certificate is shown up to here, in characters.
const MAX: usize = 200;

/// So many names, or certificates on a list, are told.
const SHOWN: usize = 20;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Note,
    /// Somebody will refuse it, or it is a risk.
    Warning,
}

/// Something odd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What programs go by.
    pub id: &'static str,
    /// What people read.
    pub text: String,
}

/// One thing that is in a file.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// What kind of thing: `certificate`, `private_key`, `certificate_request`, `revocation_list`, `archive`, `unknown`.
    pub kind: &'static str,
    /// What it is, in words.
    pub is: String,
    /// What it says, in the order to be told.
    #[serde(serialize_with = "as_map")]
    pub facts: Vec<(&'static str, String)>,
    /// What is odd.
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

    /// For people.
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
    /// These things, in their order.
    Things(Vec<Thing>),
    /// A PKCS#12 archive, which asks for a password.
    Archive(Vec<u8>),
}

/// One thing in a file, not looked into yet.
#[derive(Clone, Debug)]
pub enum Thing {
    /// A certificate.
    Certificate(CertificateDer<'static>),
    /// A key that is not encrypted: its PEM.
    Key(Vec<u8>),
    /// A key that asks for a passphrase.
    EncryptedKey,
    /// A request for a certificate, in DER.
    Request(Vec<u8>),
    /// A revocation list, in DER.
    List(Vec<u8>),
    /// A public key.
    PublicKey,
    /// Something else: what its first line says.
    Other(String),
}

/// Finds out what is in a file. `None`: nothing that is known here.
pub fn contents(bytes: &[u8]) -> Option<Contents> {
    // First: rustls takes an archive for a key.
    if archive::is_one(bytes) {
        return Some(Contents::Archive(bytes.to_vec()));
    }
    if let Some(thing) = der(bytes) {
        return Some(Contents::Things(vec![thing]));
    }
    let things = pem(bytes);
    (!things.is_empty()).then_some(Contents::Things(things))
}

fn der(bytes: &[u8]) -> Option<Thing> {
    if X509Certificate::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
        Some(Thing::Certificate(CertificateDer::from(bytes.to_vec())))
    } else if CertificateRevocationList::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
        Some(Thing::List(bytes.to_vec()))
    } else if X509CertificationRequest::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
        Some(Thing::Request(bytes.to_vec()))
    } else if PrivateKeyDer::try_from(bytes).is_ok() {
        Some(Thing::Key(super::pem::encode("PRIVATE KEY", bytes).into_bytes()))
    } else {
        None
    }
}

/// The blocks of a PEM file. Those that rustls does not know are found by their first lines.
fn pem(bytes: &[u8]) -> Vec<Thing> {
    let mut things = Vec::new();
    let text = String::from_utf8_lossy(bytes);
    for block in text.split("-----BEGIN ").skip(1) {
        let Some((label, rest)) = block.split_once("-----") else { continue };
        let end = format!("-----END {label}-----");
        let Some((body, _)) = rest.split_once(&end) else {
            things.push(Thing::Other(format!("{} without its last line", printable(label, 40))));
            continue;
        };
        let whole = format!("-----BEGIN {label}-----{body}{end}\n");
        let decoded = <(SectionKind, Vec<u8>)>::from_pem_slice(whole.as_bytes()).ok();
        things.push(match (label, decoded) {
            (_, Some((SectionKind::Certificate, der))) => Thing::Certificate(der.into()),
            (_, Some((SectionKind::Crl, der))) => Thing::List(der),
            (_, Some((SectionKind::Csr, der))) => Thing::Request(der),
            (_, Some((SectionKind::PublicKey, _))) => Thing::PublicKey,
            (_, _) if label == "ENCRYPTED PRIVATE KEY" || body.contains("Proc-Type: 4,ENCRYPTED") => {
                Thing::EncryptedKey
            }
            (_, Some((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _))) => {
                Thing::Key(whole.into_bytes())
            }
            ("EC PARAMETERS", _) => continue,
            (label, _) => Thing::Other(printable(label, 40)),
        });
    }
    things
}

/// What there is to say of these things. `mode`: the permissions of the file they are in.
pub fn describe(things: &[Thing], now: OffsetDateTime, mode: u32) -> Vec<Item> {
    let mut items: Vec<Item> = things.iter().map(|thing| one(thing, now, mode)).collect();
    chains(things, &mut items);
    keys(things, &mut items);
    items
}

fn one(thing: &Thing, now: OffsetDateTime, mode: u32) -> Item {
    match thing {
        Thing::Certificate(der) => certificate::describe(der, now),
        Thing::Key(pem) => key::describe(pem, mode),
        Thing::EncryptedKey => key::encrypted(),
        Thing::Request(der) => request::describe(der),
        Thing::List(der) => list::describe(der, now),
        Thing::PublicKey => Item::new("public_key", "a public key: no secret, and no certificate"),
        Thing::Other(label) => {
            Item::new("unknown", format!("something that is not known here (its first line says {label})"))
        }
    }
}

/// The certificates of a file, each with its place.
fn certificates_of(things: &[Thing]) -> Vec<(usize, &CertificateDer<'static>)> {
    let numbered = things.iter().enumerate();
    numbered
        .filter_map(|(index, thing)| if let Thing::Certificate(der) = thing { Some((index, der)) } else { None })
        .collect()
}

/// Whether a chain goes from the device upwards.
fn chains(things: &[Thing], items: &mut [Item]) {
    if let [(index, alone)] = certificates_of(things)[..]
        && let Ok((_, server)) = X509Certificate::from_der(alone)
        && super::public::needs_intermediate(&server)
        && let Some(item) = items.get_mut(index)
    {
        item.warn(
            "intermediate_missing",
            "an intermediate authority signed it, whose certificate is not behind it in the file: as certificate.chain, it would be \
             refused by clients that know only the root",
        );
    }
    for pair in certificates_of(things).windows(2) {
        let [(below, lower), (_, upper)] = pair else { continue };
        let Ok((_, lower)) = X509Certificate::from_der(lower) else { continue };
        // Several roots in one file are a list of whom to trust, not a chain.
        let own = lower.subject().as_raw() == lower.issuer().as_raw();
        if let (false, Some(item)) = (own || super::has_signed(upper, &lower), items.get_mut(*below)) {
            item.warn(
                "chain_broken",
                "the certificate behind it in the file has not signed it. A chain begins with the device or server; each \
                 one is signed by the next",
            );
        }
    }
}

/// Whether keys belong to the certificate they are with.
fn keys(things: &[Thing], items: &mut [Item]) {
    let certificates = certificates_of(things);
    let Some((_, first)) = certificates.first() else { return };
    let Ok((_, first)) = X509Certificate::from_der(first) else { return };
    for (thing, item) in things.iter().zip(items) {
        if let Thing::Key(pem) = thing
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

/// What there is to say of an archive that opened with `password`, and of what is in it.
pub fn describe_archive(
    bytes: &[u8],
    password: &str,
    now: OffsetDateTime,
    mode: u32,
) -> Result<Vec<Item>, p12_keystore::error::Error> {
    let (item, things) = archive::describe(bytes, password, mode)?;
    // Who may read the archive has been said. Its certificates are no chain: whom to trust may be among them.
    let mut inside: Vec<Item> = things.iter().map(|thing| one(thing, now, 0o600)).collect();
    keys(&things, &mut inside);
    Ok(std::iter::once(item).chain(inside).collect())
}

/// The certificates in a file, which may be an archive that opens with one of these passwords.
pub fn certificates(bytes: &[u8], passwords: &[&str]) -> Vec<CertificateDer<'static>> {
    let things = match contents(bytes) {
        Some(Contents::Things(things)) => things,
        Some(Contents::Archive(bytes)) => {
            let opened = passwords.iter().find_map(|password| archive::describe(&bytes, password, 0o600).ok());
            opened.map(|(_, things)| things).unwrap_or_default()
        }
        None => Vec::new(),
    };
    let certificate = |thing| if let Thing::Certificate(der) = thing { Some(der) } else { None };
    things.into_iter().filter_map(certificate).collect()
}

/// A serial number, for people: of one that is longer than any may be (RFC 5280 section 4.1.2.2: 20 bytes) the beginning.
fn serial(serial: &Serial) -> String {
    printable(&serial.to_string(), MAX)
}

/// So many of things of a kind are told one by one.
fn some(mut things: Vec<String>) -> String {
    let more = things.len().saturating_sub(SHOWN);
    things.truncate(SHOWN);
    let told = things.join(", ");
    if more == 0 { told } else { format!("{told}, and {more} more") }
}

/// Whole days between two moments, rounded down.
const fn days(from: i64, to: i64) -> i64 {
    (to - from).div_euclid(86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::inventory::now;
    use crate::model::names::Name;
    use crate::pki::{DeviceAuthority, Revocation, RevokedFor};

    #[test]
    fn damaged_files_are_said_to_be_something_or_nothing() {
        let devices = DeviceAuthority::new().expect("an authority");
        let device = devices.issue(&Name::parse("alice-phone").expect("a name")).expect("a device");
        let revoked = [Revocation { serial: device.serial().to_vec(), at: now(), reason: RevokedFor::Lost }];
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
            assert!(matches!(&whole, Some(Contents::Things(things)) if !things.is_empty()), "{whole:?}");
            for at in 0..file.len() {
                let mut changed = file.clone();
                changed[at] ^= 1 << (at % 8);
                for damaged in [&changed[..], &file[..at]] {
                    if let Some(Contents::Things(things)) = contents(damaged) {
                        let items = describe(&things, now(), 0o600);
                        assert_eq!(items.len(), things.len());
                        understood += items.iter().filter(|item| !item.text().is_empty()).count();
                    }
                }
            }
        }
        assert!(understood > 500, "{understood}");
    }
}
