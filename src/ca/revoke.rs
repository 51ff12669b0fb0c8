//! Revokes device certificates, and writes revocation lists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use super::inventory::{AuthorityEntry, CertificateEntry, Inventory, Kind, Store, now};
use super::signer::{self, PassphrasePrompt};
use crate::files::{Access, NewFile};
use crate::model::device_name::is_called;
use crate::model::identity::{Identity, Serial, Sha256};
use crate::model::names::printable;
use crate::model::unicode::is_same;
use crate::pki::inspect::{self, Contents, WELL_KNOWN_PASSWORDS};
use crate::pki::{self, Authority, RevocationReason, keys, pem};

/// The longest name taken from a foreign certificate, in characters.
const MAX_NAME: usize = 128;

/// The certificates that are to be revoked.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// All certificates of a device, those before a renewal included.
    Device(&'a str),
    /// The certificate with this serial number.
    Serial {
        /// The number.
        serial: &'a Serial,
        /// The authority that signed it, for a certificate that is not in the inventory.
        authority: Option<&'a str>,
    },
    /// The certificate with this fingerprint.
    Fingerprint(Sha256),
    /// The certificate in this file, which need not have been issued here.
    File(&'a Path),
    /// None: only new lists are written, of all authorities that keep one.
    None,
}

/// What was done.
#[derive(Debug)]
pub struct Revoked {
    /// The certificates.
    pub certificates: Vec<RevokedCertificate>,
    /// Devices of these certificates that have another one, which is still valid.
    pub still_valid: Vec<String>,
    /// The lists that were written.
    pub lists: Vec<WrittenList>,
}

/// A certificate that is revoked.
#[derive(Debug)]
pub struct RevokedCertificate {
    /// The device.
    pub name: String,
    /// Its serial number.
    pub serial: String,
    /// Whether it had been revoked before.
    pub already: bool,
    /// Whether more is known of it than its serial number.
    pub known: bool,
    /// The authority that signed it.
    pub authority: String,
    /// When it was revoked.
    pub revoked_at: OffsetDateTime,
}

/// A revocation list that was written.
#[derive(Clone, Debug)]
pub struct WrittenList {
    /// Its file.
    pub file: PathBuf,
    /// The list in DER.
    pub der: Vec<u8>,
    /// The certificate of the authority that signed it.
    pub authority: CertificateDer<'static>,
    /// When it expires.
    pub not_after: OffsetDateTime,
    /// Whether the authority's certificate allows signing lists, see [`Authority::signs_lists`].
    pub signs_lists: bool,
}

/// Revokes certificates, and writes the lists of their authorities.
pub fn revoke(
    store: &mut Store,
    target: Target<'_>,
    reason: RevocationReason,
    passphrase: PassphrasePrompt<'_>,
) -> Result<Revoked, Error> {
    let mut inventory = store.inventory.clone();
    let chosen = choose(target, store, &mut inventory)?;
    let mut certificates = Vec::new();
    let mut authorities: Vec<AuthorityEntry> = Vec::new();
    for &index in &chosen {
        let Some(entry) = inventory.certificates.get_mut(index) else { continue };
        let already = entry.revoked_at.is_some();
        let revoked_at = *entry.revoked_at.get_or_insert_with(now);
        entry.revoked_for.get_or_insert(reason);
        let id = entry.authority.clone();
        certificates.push(RevokedCertificate {
            name: entry.name.clone(),
            serial: entry.serial.clone(),
            already,
            known: entry.not_after.is_some(),
            authority: id.clone(),
            revoked_at,
        });
        if !authorities.iter().any(|one| one.id == id) {
            authorities.push(authority_with_list(&inventory, &id)?);
        }
    }
    let still_valid = still_valid(&inventory, &chosen);
    if chosen.is_empty() {
        authorities = with_list(&inventory).cloned().collect();
        if authorities.is_empty() {
            return Err(Error::NoRevocationLists(store.folder().to_owned()));
        }
    }
    let (mut lists, mut files) = (Vec::new(), Vec::new());
    for authority in &authorities {
        let signer = signer::load(store, authority, passphrase)?;
        if let Some((list, file)) = next_list(store, &mut inventory, &authority.id, &signer)? {
            lists.push(list);
            files.push(file);
        }
    }
    store.commit(inventory, files)?;
    Ok(Revoked { certificates, still_valid, lists })
}

/// The next revocation list of an authority, and the file to be written. Nothing if it keeps none.
pub(super) fn next_list(
    store: &Store,
    inventory: &mut Inventory,
    id: &str,
    signer: &Authority,
) -> Result<Option<(WrittenList, NewFile)>, pki::Error> {
    let Some((file, der)) = next_list_file(inventory, id, signer)? else { return Ok(None) };
    let list = WrittenList {
        file: Store::join(store.folder(), &file.path),
        der,
        authority: signer.certificate().clone(),
        not_after: signer.not_after(),
        signs_lists: signer.signs_lists(),
    };
    Ok(Some((list, file)))
}

/// The file of the next revocation list, and the list in DER.
///
/// It is valid for as long as the authority. Short-lived lists protect clients that fetch them from an attacker who
/// suppresses a newer one; here the list is a local file, and an attacker who can suppress it can change the configuration
/// as well. A list that expired unattended would lock every device out.
pub(super) fn next_list_file(
    inventory: &mut Inventory,
    id: &str,
    signer: &Authority,
) -> Result<Option<(NewFile, Vec<u8>)>, pki::Error> {
    let revocations = inventory.revocations(id);
    let Some(entry) = inventory.authorities.iter_mut().find(|authority| authority.id == id) else { return Ok(None) };
    let Some(path) = entry.revocation_list.clone() else { return Ok(None) };
    // The number grows from list to list (RFC 5280 section 5.2.3), even if an older inventory was restored.
    let seconds = now().unix_timestamp().unsigned_abs();
    entry.list_number = seconds.max(entry.list_number + 1);
    let der = signer.revocation_list(&revocations, entry.list_number, signer.not_after())?.to_vec();
    let contents = pem::encode(pem::REVOCATION_LIST, &der).into();
    Ok(Some((NewFile { path: path.into(), contents, access: Access::Public }, der)))
}

/// The devices of these certificates that have another one, neither revoked nor expired.
fn still_valid(inventory: &Inventory, chosen: &[usize]) -> Vec<String> {
    let now = now();
    let revoked = chosen.iter().filter_map(|&index| inventory.certificates.get(index));
    let is_valid = |entry: &&CertificateEntry| {
        entry.kind == Kind::Device && entry.revoked_at.is_none() && entry.not_after.is_some_and(|end| end >= now)
    };
    let names = revoked.filter_map(|revoked| {
        let mut others = inventory.certificates.iter().filter(is_valid);
        others.find(|other| is_same(&other.name, &revoked.name)).map(|other| other.name.clone())
    });
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn with_list(inventory: &Inventory) -> impl Iterator<Item = &AuthorityEntry> {
    inventory.authorities.iter().filter(|authority| authority.revocation_list.is_some())
}

/// The authority of this name, which must keep a list: otherwise its certificates cannot be revoked.
fn authority_with_list(inventory: &Inventory, id: &str) -> Result<AuthorityEntry, Error> {
    let found = with_list(inventory).find(|authority| authority.id == id);
    found.cloned().ok_or_else(|| Error::NoRevocationList(id.to_owned()))
}

/// The indices of the certificates in `inventory`. One that was not issued here is added to it.
fn choose(target: Target<'_>, store: &Store, inventory: &mut Inventory) -> Result<Vec<usize>, Error> {
    match target {
        Target::None => Ok(Vec::new()),
        Target::Device(name) => by_name(inventory, name),
        Target::Fingerprint(fingerprint) => {
            let digits = Some(fingerprint.to_string());
            let mut known = inventory.certificates.iter().enumerate();
            let known = known.find(|(_, entry)| entry.fingerprint == digits);
            device_only(known.ok_or(Error::UnknownFingerprint(fingerprint))?)
        }
        Target::File(file) => by_file(store, inventory, file),
        Target::Serial { serial, authority } => by_serial(inventory, serial, authority),
    }
}

fn device_only((index, entry): (usize, &CertificateEntry)) -> Result<Vec<usize>, Error> {
    if entry.kind == Kind::Server { Err(Error::ServerNotRevocable) } else { Ok(vec![index]) }
}

fn by_name(inventory: &Inventory, name: &str) -> Result<Vec<usize>, Error> {
    let devices = || inventory.certificates.iter().enumerate().filter(|(_, entry)| entry.kind == Kind::Device);
    let of_this_name = || devices().filter(|(_, entry)| is_called(&entry.name, name));
    let valid: Vec<usize> =
        of_this_name().filter(|(_, entry)| entry.revoked_at.is_none()).map(|(index, _)| index).collect();
    if !valid.is_empty() {
        return Ok(valid);
    }
    let all: Vec<usize> = of_this_name().map(|(index, _)| index).collect();
    if !all.is_empty() {
        return Ok(all);
    }
    let issued = devices().filter(|(_, entry)| entry.issued_at.is_some());
    let known: BTreeSet<String> = issued.map(|(_, entry)| entry.name.clone()).collect();
    Err(Error::NothingToRevoke {
        name: name.to_owned(),
        known: known.into_iter().collect(),
        is_file: Path::new(name).exists(),
    })
}

fn by_serial(inventory: &mut Inventory, serial: &Serial, authority: Option<&str>) -> Result<Vec<usize>, Error> {
    let digits = serial.to_string();
    let signed_by = |entry: &CertificateEntry| authority.is_none_or(|id| *id == entry.authority);
    let mut known = inventory.certificates.iter().enumerate();
    if let Some(known) = known.find(|(_, entry)| entry.serial == digits && signed_by(entry)) {
        return device_only(known);
    }
    let listing: Vec<&AuthorityEntry> = with_list(inventory).collect();
    let found = match (authority, &listing[..]) {
        (Some(id), _) => listing.iter().find(|authority| authority.id == id),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some(found) = found else {
        let authorities = listing.iter().map(|authority| authority.id.clone()).collect();
        return Err(Error::UnknownSerial { serial: serial.clone(), authorities });
    };
    let entry = CertificateEntry::of_serial(&digits, &found.id);
    inventory.certificates.push(entry);
    Ok(vec![inventory.certificates.len() - 1])
}

fn by_file(store: &Store, inventory: &mut Inventory, file: &Path) -> Result<Vec<usize>, Error> {
    let path = || file.to_owned();
    let der = device_certificate(file)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| Error::NoCertificateIn(path()))?;
    let identity = Identity::from_certificate(&der, false).map_err(|_| Error::NoCertificateIn(path()))?;
    let serial = identity.serial.to_string();
    for authority in inventory.authorities.clone() {
        let issuer = store.authority_certificate(&authority)?;
        // The signature first: a forged certificate can bear any serial number, that of another device's among them.
        if !pki::has_signed(&issuer, &certificate) {
            continue;
        }
        let mut known = inventory.certificates.iter_mut().enumerate();
        if let Some((index, entry)) = known.find(|(_, one)| one.authority == authority.id && one.serial == serial) {
            // It may have been revoked by its serial number alone.
            entry.fingerprint.get_or_insert_with(|| identity.fingerprint.to_string());
            return device_only((index, entry));
        }
        if authority.revocation_list.is_none() {
            return Err(Error::SignedWithoutList { path: path(), authority: authority.id });
        }
        let date = |seconds| OffsetDateTime::from_unix_timestamp(seconds).ok();
        inventory.certificates.push(CertificateEntry {
            name: printable(&identity.display_name(), MAX_NAME),
            fingerprint: Some(identity.fingerprint.to_string()),
            key: Some(keys::describe(certificate.public_key().raw)),
            not_before: date(identity.not_before),
            not_after: date(identity.not_after),
            ..CertificateEntry::of_serial(&serial, &authority.id)
        });
        return Ok(vec![inventory.certificates.len() - 1]);
    }
    Err(Error::SignedElsewhere {
        path: path(),
        folder: store.folder().to_owned(),
        issuer: printable(&identity.issuer, MAX_NAME),
        fingerprint: identity.fingerprint,
    })
}

/// The first end-entity certificate in a file.
fn device_certificate(file: &Path) -> Result<CertificateDer<'static>, Error> {
    let bytes = std::fs::read(file).map_err(|source| Error::Unreadable { path: file.to_owned(), source })?;
    // mkcert's archives all have the same password. For any other one there is the .pem file, or --serial.
    let found = inspect::certificates(&bytes, &WELL_KNOWN_PASSWORDS);
    // Those of authorities come behind the device's.
    let der = found.into_iter().find(|der| X509Certificate::from_der(der).is_ok_and(|(_, one)| !one.is_ca()));
    der.ok_or_else(|| match inspect::contents(&bytes) {
        Some(Contents::Archive(_)) => Error::ArchivePassword(file.to_owned()),
        _ => Error::NoCertificateIn(file.to_owned()),
    })
}
