//! `doorward ca renew`: a certificate that is good for longer.

use std::path::PathBuf;

use clap::Args;
use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::found::copy;
use super::gate::{Changed, List, Told, tell_gate};
use super::handout::{Device, Places, handout};
use super::server::{self, NewServer};
use super::{CaError, authority_for, load, revoke, say};
use crate::ca::files::{Access, NewFile};
use crate::ca::inventory::{Entry, Inventory, Kind, Store, now};
use crate::cli::known_gate::known_gate;
use crate::enrolment::Form;
use crate::model::identity::Sha256;
use crate::model::names::Name;
use crate::pki::{Authority, Certified, Issued, RevokedFor, keys};

/// The options of `doorward ca renew`.
#[derive(Args, Debug)]
pub(super) struct RenewArgs {
    /// The device
    #[arg(value_name = "NAME", required_unless_present = "server", conflicts_with = "server")]
    name: Option<String>,

    /// The gate's own certificate, as "doorward ca server" does it
    #[arg(long)]
    server: bool,

    #[command(flatten)]
    new: NewServer,

    /// Revoke what the device had before at once, instead of letting it expire
    #[arg(long, conflicts_with = "server")]
    revoke_old: bool,

    /// The folder of the device's files [default: "devices" beside the folder of the authorities]
    #[arg(long, value_name = "FOLDER", conflicts_with = "server")]
    output: Option<PathBuf>,
}

/// What was made.
#[derive(Serialize)]
struct Renewed {
    name: String,
    serial: String,
    not_after: i64,
    certificate: PathBuf,
    /// Archives and key; nothing if the key is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    /// The serial numbers of what was revoked.
    revoked: Vec<String>,
    /// What the gate makes of that.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
}

pub(super) fn run(args: &RenewArgs) -> Result<(), CaError> {
    let Some(name) = args.name.as_deref().filter(|_| !args.server) else { return server::make(&[], &args.new) };
    let mut store = args.new.folder.open()?;
    let old = find(&store.inventory, name)?;
    let name = Name::parse(&old.name).map_err(|error| CaError::usage(error.to_string()))?;
    let authority = authority_for(&store, Kind::Device, Some(&old.authority))?;
    let signer = load(&store, &authority, &args.new.passphrase)?;
    let places = Places::new(args.output.as_deref())?;
    store.set_output(places.output());

    let (certified, issued) = certify(args, &store, &old, &name, &signer, &places)?;
    let mut entry = Entry::issued(name.as_str(), Kind::Device, &authority.id, &certified);
    entry.renews = Some(old.serial.clone());
    let mut files = vec![copy(&entry, &certified.certificate_pem())];
    let device = match &issued {
        None => {
            files.push(NewFile {
                path: places.certificate(&name),
                contents: certified.certificate_pem().into(),
                access: Access::Public,
            });
            None
        }
        Some(issued) => {
            let root = store.authority_certificate(&authority_for(&store, Kind::Server, None)?)?;
            let gate = store.as_owner(|| known_gate(root, &store.path("../doorward.toml")));
            let (device, its_files) = handout(store.folder(), &places, &name, issued, &gate)?;
            files.extend(its_files);
            files.push(places.root(&gate));
            Some(device)
        }
    };
    // A key that fits is the device's.
    let is_own = args.new.force || (issued.is_some() && !args.new.new_key);
    if !is_own {
        check_own(&store, &places, &name, &files)?;
    }
    let (mut revoked, mut list) = (Vec::new(), None);
    let mut inventory = store.inventory.clone();
    if args.revoke_old {
        let of_this_name = |entry: &&mut Entry| {
            entry.kind == Kind::Device && entry.authority == authority.id && entry.name.eq_ignore_ascii_case(&old.name)
        };
        for entry in inventory.certificates.iter_mut().filter(of_this_name).filter(|entry| entry.revoked_at.is_none()) {
            entry.revoked_at = Some(now());
            entry.revoked_for = Some(RevokedFor::Replaced);
            revoked.push(entry.serial.clone());
        }
        let made = revoke::list(&mut inventory, &authority.id, &signer)?;
        if let (Some(made), Some(path)) = (made, &authority.revocation_list) {
            list = Some(List { file: store.path(path), der: made.der, authority: signer.certificate().clone() });
            files.push(made.file);
        }
    }
    let mut renewed = Renewed {
        name: name.to_string(),
        serial: entry.serial.clone(),
        not_after: certified.not_after().unix_timestamp(),
        certificate: Store::shown(store.folder(), &places.certificate(&name)),
        device,
        revoked,
        told: None,
    };
    inventory.certificates.push(entry);
    store.commit(inventory, files)?;
    let mut text = renewed.text(&old, certified.not_after().date());
    if let Some(list) = list {
        text.push_str("What it had before is revoked. ");
        let told = tell_gate(&args.new.folder, &store, Changed::Lists(&[list]));
        text.push_str(&told.text);
        if told.text.is_empty() {
            text.push('\n');
        }
        renewed.told = Some(told);
    }
    // Whatever the gate makes of it: the password is shown this once.
    say(args.new.format, &text, &renewed)?;
    renewed.told.as_mut().map_or(Ok(()), Told::outcome)
}

impl Renewed {
    fn text(&self, old: &Entry, until: time::Date) -> String {
        let mut out = format!("{} may come in until {until} now.\n", self.name);
        match &self.device {
            Some(device) => out.push_str(&device.text()),
            None => out.push_str(&format!(
                "  {}\n    takes the place of the certificate on the device, beside the key that it has. The key is not \
                 here, so there is no .p12 file: for that, make a new key with --new-key.\n",
                self.certificate.display()
            )),
        }
        if let (true, Some(end)) = (self.revoked.is_empty(), old.not_after) {
            out.push_str(&format!("The certificate it has now counts until {}, too.\n", end.date()));
        }
        out
    }
}

/// The certificate that is to be renewed.
fn find(inventory: &Inventory, name: &str) -> Result<Entry, CaError> {
    if let Some(entry) = inventory.current(name, Kind::Device) {
        return Ok(entry.clone());
    }
    let mut of_this_name = inventory.certificates.iter().filter(|entry| entry.name.eq_ignore_ascii_case(name));
    Err(CaError::usage(match of_this_name.next_back() {
        Some(entry) if entry.kind == Kind::Server => {
            format!("{name} is the gate\n  renew its certificate: doorward ca renew --server")
        }
        Some(entry) if entry.issued_at.is_none() => {
            format!(
                "{name} was not issued here, so there is nothing to renew\n  make a new one: doorward ca device NAME"
            )
        }
        Some(_) => format!("{name} was revoked\n  make a new key and certificate: doorward ca device {name}"),
        None => format!("no device is called {name:?} here\n  see what there is: doorward ca list"),
    }))
}

/// What a device had before is replaced, and nothing else: in another folder its files may be called as somebody else's are,
/// the gate's own among them.
fn check_own(store: &Store, places: &Places, name: &Name, files: &[NewFile]) -> Result<(), CaError> {
    let certificate = places.read(store, &places.certificate(name))?;
    let certificate = certificate.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok());
    let fingerprint = certificate.map(|der| Sha256::of(&der).to_string());
    let mut known = store.inventory.certificates.iter();
    let is_own = fingerprint.is_some()
        && known.any(|entry| {
            entry.kind == Kind::Device
                && entry.fingerprint == fingerprint
                && entry.name.eq_ignore_ascii_case(name.as_str())
        });
    let of_the_device = Form::ALL.map(|form| places.file(form, name));
    let files: Vec<NewFile> = files.iter().filter(|file| of_the_device.contains(&file.path)).cloned().collect();
    match Store::in_the_way(store.folder(), &files, false) {
        taken if is_own || taken.is_empty() => Ok(()),
        taken => Err(CaError::exists(
            taken,
            "they are not what this device had before: choose another --output, or replace them with --force",
        )),
    }
}

/// The new certificate, with the key if it is here.
fn certify(
    args: &RenewArgs,
    store: &Store,
    old: &Entry,
    name: &Name,
    signer: &Authority,
    places: &Places,
) -> Result<(Certified, Option<Issued>), CaError> {
    if args.new.new_key {
        let key = args.new.key_type.generate()?;
        let certified = signer.certify_device(name, &key)?;
        return Ok((certified.clone(), Some(Issued::new(certified, key))));
    }
    let certificate: CertificateDer<'_> = store.certificate(&old.copy())?;
    let spki = X509Certificate::from_der(&certificate)
        .map(|(_, parsed)| parsed.public_key().raw.to_vec())
        .map_err(|_| crate::pki::Error::NotACertificate)?;
    let public = SubjectPublicKeyInfo::from_der(&spki).map_err(crate::pki::Error::from)?;
    let certified = signer.certify_device(name, &public)?;
    let key = places.read(store, &places.key(name))?;
    let key = key.and_then(|pem| keys::read(&pem).ok()).filter(|key| keys::fits(key, &spki));
    Ok((certified.clone(), key.map(|key| Issued::new(certified, key))))
}
