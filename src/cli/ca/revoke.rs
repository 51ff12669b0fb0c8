//! `doorward ca revoke`: shut a device out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::gate::{Changed, List, Told, tell_gate};
use super::inspect::WELL_KNOWN;
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, load, say};
use crate::ca::files::{Access, NewFile};
use crate::ca::inventory::{AuthorityEntry, Entry, Inventory, Kind, Store, now};
use crate::model::identity::{Identity, Serial, Sha256};
use crate::model::shell;
use crate::pki::inspect::{self, Contents};
use crate::pki::{self, Authority, RevokedFor, keys, pem};

/// The options of `doorward ca revoke`.
#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// The device: all its certificates, those before a renewal too
    #[arg(value_name = "NAME", group = "which")]
    name: Option<String>,

    /// One certificate by its serial number, in hexadecimal digits as the log has it
    #[arg(long, value_name = "DIGITS", group = "which", value_parser = parse_serial)]
    serial: Option<Serial>,

    /// One certificate by its fingerprint (SHA-256), in hexadecimal digits as the log has it
    #[arg(long, value_name = "DIGITS", group = "which", value_parser = parse_fingerprint)]
    fingerprint: Option<Sha256>,

    /// One certificate by itself: a .pem, .crt or .cer file or mkcert's .p12, even if it was not issued here
    #[arg(long = "file", value_name = "FILE", group = "which")]
    certificate: Option<PathBuf>,

    /// Why it no longer counts; "lost" means that somebody else may have its key
    #[arg(long, value_enum, value_name = "REASON", default_value_t = RevokedFor::Lost)]
    reason: RevokedFor,

    /// Which authority has signed a certificate that was not issued here and is named by --serial
    #[arg(long, value_name = "NAME", requires = "serial")]
    authority: Option<String>,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// How to say what was done: for people on stderr, or as JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

fn parse_serial(text: &str) -> Result<Serial, String> {
    Serial::parse(text).ok_or_else(|| "a serial number is written in hexadecimal digits: 0 to 9 and a to f".to_owned())
}

fn parse_fingerprint(text: &str) -> Result<Sha256, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    Sha256::parse(digits).ok_or_else(|| "a fingerprint is 64 hexadecimal digits: 0 to 9 and a to f".to_owned())
}

/// What was done.
#[derive(Serialize)]
struct Revoked {
    revoked: Vec<One>,
    /// Devices of which another certificate still counts.
    still_in: Vec<String>,
    lists: Vec<PathBuf>,
    /// What the gate makes of it; nothing if there is no list.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
}

#[derive(Serialize)]
struct One {
    name: String,
    serial: String,
    /// It was revoked before.
    already: bool,
    /// More is known of it than its serial number.
    known: bool,
    authority: String,
    revoked_at: i64,
}

pub(super) fn run(args: &RevokeArgs) -> Result<(), CaError> {
    let mut store = args.folder.open()?;
    let mut inventory = store.inventory.clone();
    let chosen = choose(args, &store, &mut inventory)?;
    let mut done = Revoked { revoked: Vec::new(), still_in: Vec::new(), lists: Vec::new(), told: None };
    let mut authorities: Vec<AuthorityEntry> = Vec::new();
    for &index in &chosen {
        let Some(entry) = inventory.certificates.get_mut(index) else { continue };
        let already = entry.revoked_at.is_some();
        let at = *entry.revoked_at.get_or_insert_with(now);
        entry.revoked_for.get_or_insert(args.reason);
        let id = entry.authority.clone();
        done.revoked.push(One {
            name: entry.name.clone(),
            authority: id.clone(),
            serial: entry.serial.clone(),
            already,
            known: entry.not_after.is_some(),
            revoked_at: at.unix_timestamp(),
        });
        if !authorities.iter().any(|one| one.id == id) {
            authorities.push(with_list(&inventory, &id)?);
        }
    }
    done.still_in = still_in(&inventory, &chosen);
    if chosen.is_empty() {
        authorities = inventory.authorities.iter().filter(|one| one.revocation_list.is_some()).cloned().collect();
        if authorities.is_empty() {
            return Err(CaError::usage(format!(
                "no authority in {} keeps a revocation list\n  have one made that does: doorward ca init --help",
                store.folder().display()
            )));
        }
    }
    let mut files = Vec::new();
    let mut lists = Vec::new();
    let mut notes = String::new();
    for authority in &authorities {
        let signer = load(&store, authority, &args.passphrase)?;
        let Some(made) = list(&mut inventory, &authority.id, &signer)? else { continue };
        let Some(path) = &authority.revocation_list else { continue };
        lists.push(List { file: store.path(path), der: made.der, authority: signer.certificate().clone() });
        files.push(made.file);
        done.lists.push(store.path(path));
        notes.push_str(&written(&store.path(path), &signer));
    }
    store.commit(inventory, files)?;
    if !done.lists.is_empty() {
        let told = tell_gate(&args.folder, &store, Changed::Lists(&lists));
        notes.push_str(&told.text);
        done.told = Some(told);
    }
    say(args.format, &(done.text() + &notes), &done)?;
    done.told.as_mut().map_or(Ok(()), Told::outcome)
}

impl Revoked {
    fn text(&self) -> String {
        let mut out = String::new();
        for one in &self.revoked {
            let since = time::OffsetDateTime::from_unix_timestamp(one.revoked_at);
            let since = since.map(|at| at.date().to_string()).unwrap_or_default();
            let One { name, serial, authority, .. } = one;
            let whose = if one.known { format!("{name} (serial {serial})") } else { format!("Serial number {serial}") };
            out.push_str(&match (one.already, one.known) {
                (true, _) => format!("{whose} was revoked on {since} already.\n"),
                (false, true) => format!("{whose} is to be let in no more.\n"),
                (false, false) => format!(
                    "{whose} is on the list of {authority:?}.\nnote: no certificate here has the serial number {serial}, so \
                     nobody can say whom this shuts out: compare it with the gate's log. If {authority:?} has signed none \
                     with this number, it shuts nobody out.\n"
                ),
            });
        }
        for name in &self.still_in {
            out.push_str(&format!(
                "warning: {name} has another certificate, which still counts (a renewal keeps the key, so it may be with the \
                 same device). To revoke all it has: doorward ca revoke {name}\n"
            ));
        }
        out
    }
}

/// The devices whose certificates these were that have another one, neither revoked nor expired.
fn still_in(inventory: &Inventory, chosen: &[usize]) -> Vec<String> {
    let now = now();
    let revoked = chosen.iter().filter_map(|&index| inventory.certificates.get(index));
    let counts = |entry: &&Entry| {
        entry.kind == Kind::Device && entry.revoked_at.is_none() && entry.not_after.is_some_and(|end| end >= now)
    };
    let names = revoked.filter_map(|gone| {
        let mut others = inventory.certificates.iter().filter(counts);
        others.find(|other| other.name.eq_ignore_ascii_case(&gone.name)).map(|other| other.name.clone())
    });
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The authority of this name, which must keep a list: what it has signed cannot be revoked otherwise.
fn with_list(inventory: &Inventory, id: &str) -> Result<AuthorityEntry, CaError> {
    let found = inventory.authority(id).filter(|authority| authority.revocation_list.is_some());
    found.cloned().ok_or_else(|| {
        CaError::usage(format!(
            "the authority {id:?} keeps no revocation list by the inventory, so what it has signed cannot be revoked here\n  \
             to shut a device out all the same: deny = [\"sha256:FINGERPRINT\"] in the gate's configuration"
        ))
    })
}

fn written(list: &std::path::Path, signer: &Authority) -> String {
    let mut out = format!("{} is new, and good until {}.\n", list.display(), signer.not_after().date());
    if !signer.signs_lists() {
        out.push_str(
            "note: this authority (as all of mkcert's) does not say of itself that it signs lists. The gate takes the \
             list all the same; OpenSSL and what is built on it do not.\n",
        );
    }
    out
}

/// The revocation list of an authority as a file, with the next number. Nothing if it keeps none.
///
/// It is good for as long as the authority itself. A list that expires is for gates that fetch it from somebody who could
/// be kept from publishing a newer one; here it is a file, and whoever could hold it back could as well change the
/// configuration. One that expired in the night would lock everybody out of a gate that nobody attends.
pub(super) fn list(inventory: &mut Inventory, id: &str, signer: &Authority) -> Result<Option<NewList>, pki::Error> {
    let revocations = inventory.revocations(id);
    let Some(entry) = inventory.authorities.iter_mut().find(|authority| authority.id == id) else { return Ok(None) };
    let Some(path) = entry.revocation_list.clone() else { return Ok(None) };
    // It grows from list to list (RFC 5280 section 5.2.3), even if an inventory of yesterday was put back.
    let seconds = now().unix_timestamp().unsigned_abs();
    entry.list_number = seconds.max(entry.list_number + 1);
    let der = signer.revocation_list(&revocations, entry.list_number, signer.not_after())?.to_vec();
    let contents = pem::encode(pem::REVOCATION_LIST, &der).into();
    Ok(Some(NewList { file: NewFile { path: path.into(), contents, access: Access::Public }, der }))
}

/// A revocation list that is yet to be written.
pub(super) struct NewList {
    pub(super) file: NewFile,
    /// The list in binary form.
    pub(super) der: Vec<u8>,
}

/// The places in `inventory` of the certificates that are meant; it is told of one that it did not know.
fn choose(args: &RevokeArgs, store: &Store, inventory: &mut Inventory) -> Result<Vec<usize>, CaError> {
    if let Some(name) = &args.name {
        return by_name(inventory, name);
    }
    if let Some(fingerprint) = args.fingerprint {
        let digits = fingerprint.to_string();
        let mut known = inventory.certificates.iter().enumerate();
        let known = known.find(|(_, entry)| entry.fingerprint.as_ref() == Some(&digits)).ok_or_else(|| {
            CaError::usage(
                "no certificate here has this fingerprint, and a list needs its serial number\n  name the certificate \
                 itself (--file) or its serial number (--serial), which stands beside the fingerprint in the log",
            )
        })?;
        return one(known);
    }
    if let Some(file) = &args.certificate {
        return by_file(store, inventory, file);
    }
    let Some(serial) = &args.serial else { return Ok(Vec::new()) };
    let digits = serial.to_string();
    let by_whom = |entry: &Entry| args.authority.as_ref().is_none_or(|id| *id == entry.authority);
    let mut known = inventory.certificates.iter().enumerate();
    if let Some(known) = known.find(|(_, entry)| entry.serial == digits && by_whom(entry)) {
        return one(known);
    }
    let mut listing = inventory.authorities.iter().filter(|authority| authority.revocation_list.is_some());
    let authority = match (&args.authority, listing.next(), listing.next()) {
        (Some(id), ..) => inventory.authority(id).filter(|authority| authority.revocation_list.is_some()),
        (None, only, None) => only,
        (None, ..) => None,
    };
    let Some(authority) = authority else {
        let lists = inventory.authorities.iter().filter(|authority| authority.revocation_list.is_some());
        let names: Vec<&str> = lists.map(|authority| authority.id.as_str()).collect();
        return Err(CaError::usage(format!(
            "no certificate here has the serial number {digits}\n  if it was issued elsewhere, say which authority has \
             signed it (--authority {}), or name the certificate itself (--file)",
            names.join(" or --authority ")
        )));
    };
    let entry = Entry::unknown(&digits, &authority.id);
    inventory.certificates.push(entry);
    Ok(vec![inventory.certificates.len() - 1])
}

fn one((index, entry): (usize, &Entry)) -> Result<Vec<usize>, CaError> {
    if entry.kind == Kind::Server {
        return Err(CaError::usage(
            "this is a certificate of the gate, and no device looks at lists of such ones\n  if its key was stolen, make \
             the gate another one: doorward ca server --new-key",
        ));
    }
    Ok(vec![index])
}

fn by_name(inventory: &Inventory, name: &str) -> Result<Vec<usize>, CaError> {
    let devices = || inventory.certificates.iter().enumerate().filter(|(_, entry)| entry.kind == Kind::Device);
    let of_this_name = || devices().filter(|(_, entry)| entry.name.eq_ignore_ascii_case(name));
    let live: Vec<usize> =
        of_this_name().filter(|(_, entry)| entry.revoked_at.is_none()).map(|(index, _)| index).collect();
    if !live.is_empty() {
        return Ok(live);
    }
    let all: Vec<usize> = of_this_name().map(|(index, _)| index).collect();
    if !all.is_empty() {
        return Ok(all);
    }
    let issued = devices().filter(|(_, entry)| entry.issued_at.is_some());
    let mut names: Vec<&str> = issued.map(|(_, entry)| &*entry.name).collect();
    names.sort_unstable();
    names.dedup();
    let remedy = if std::path::Path::new(name).exists() {
        format!("if you mean the file: doorward ca revoke --file {}", shell::word(name))
    } else if names.is_empty() {
        "no device was issued a certificate here".to_owned()
    } else {
        format!("there is: {}", names.join(", "))
    };
    Err(CaError::usage(format!("no device is called {name:?} here\n  {remedy}")))
}

fn by_file(store: &Store, inventory: &mut Inventory, file: &std::path::Path) -> Result<Vec<usize>, CaError> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|error| CaError::usage(format!("cannot read {shown}: {error}")))?;
    let not_one = || CaError::usage(format!("{shown} has no certificate in it\n  name the device's .pem file"));
    let found = match inspect::contents(&bytes) {
        // mkcert's, which all have the same password. For any other one there is the .pem file, or --serial.
        Some(Contents::Archive(_)) => inspect::certificates(&bytes, &WELL_KNOWN),
        _ => inspect::certificates(&bytes, &[]),
    };
    // The device's comes first, and those of who vouch for it behind.
    let der = found.into_iter().find(|der| X509Certificate::from_der(der).is_ok_and(|(_, one)| !one.is_ca()));
    let der = der.ok_or_else(|| match inspect::contents(&bytes) {
        Some(Contents::Archive(_)) => CaError::usage(format!(
            "{shown} is a bundle (.p12) with a password of its own\n  name the device's .pem file, or what stands in the \
             gate's log: --serial or --fingerprint"
        )),
        _ => not_one(),
    })?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| not_one())?;
    let identity = Identity::from_certificate(&der, false).map_err(|_| not_one())?;
    let serial = identity.serial.to_string();
    for authority in inventory.authorities.clone() {
        let issuer = store.authority_certificate(&authority)?;
        // First of all: whoever makes a certificate chooses its number, which may be that of somebody else's.
        if !pki::has_signed(&issuer, &certificate) {
            continue;
        }
        let mut known = inventory.certificates.iter_mut().enumerate();
        if let Some((index, entry)) = known.find(|(_, one)| one.authority == authority.id && one.serial == serial) {
            // Of one that was revoked by its number alone this is the first that is seen.
            entry.fingerprint.get_or_insert_with(|| identity.fingerprint.to_string());
            return one((index, entry));
        }
        if authority.revocation_list.is_none() {
            return Err(CaError::usage(format!(
                "{shown} was signed by the authority {:?}, which vouches for the gate and keeps no list",
                authority.id
            )));
        }
        let date = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok();
        inventory.certificates.push(Entry {
            name: crate::model::names::printable(&identity.display_name(), 128),
            fingerprint: Some(identity.fingerprint.to_string()),
            key: Some(keys::describe(certificate.public_key().raw)),
            not_before: date(identity.not_before),
            not_after: date(identity.not_after),
            ..Entry::unknown(&serial, &authority.id)
        });
        return Ok(vec![inventory.certificates.len() - 1]);
    }
    Err(CaError::usage(format!(
        "none of the authorities in {} has signed {shown}; it says it is from {:?}\n  only who has signed a certificate can \
         revoke it. To shut it out all the same: deny = [\"sha256:{}\"] in the gate's configuration",
        store.folder().display(),
        crate::model::names::printable(&identity.issuer, 128),
        identity.fingerprint,
    )))
}
