//! `doorward ca device`: one more device.

use std::path::PathBuf;

use clap::Args;

use super::found::copy;
use super::handout::{self, Places};
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, authority_for, load, parse_device, say};
use crate::ca::inventory::{Entry, Inventory, Kind, Status, Store, now};
use crate::cli::exit;
use crate::cli::known_gate::known_gate;
use crate::cli::share::{self, LinkArgs};
use crate::enrolment::Form;
use crate::model::names::Name;
use crate::pki::keys::KeyType;
use crate::pki::{Issued, Password};

/// The options of `doorward ca device`.
#[derive(Args, Debug)]
pub(super) struct DeviceArgs {
    /// What to call it, as in "alice-phone": its name in the log, and in "allow" of the configuration
    #[arg(value_name = "NAME", value_parser = parse_device)]
    name: Name,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// The folder for its files [default: "devices" beside the folder of the authorities]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,

    /// What kind of key. Browsers and phones take p256 and rsa
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    key_type: KeyType,

    /// Which authority signs, if there are several that could: "devices", say, or "mkcert"
    #[arg(long, value_name = "NAME")]
    authority: Option<String>,

    /// Replace files of a former device of this name
    #[arg(long)]
    force: bool,

    /// Let the device fetch its files over a link that works once, too: shows a code to be scanned
    #[arg(long)]
    qr: bool,

    #[command(flatten)]
    link: LinkArgs,

    /// How to say what was made: for people on stderr, or as JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &DeviceArgs) -> Result<(), CaError> {
    if args.qr {
        // Before there is a device: what cannot be shown is no reason to have one.
        share::choose_address(&args.link)?;
    }
    let mut store = args.folder.open()?;
    check_free(&store.inventory, &args.name)?;
    let authority = authority_for(&store, Kind::Device, args.authority.as_deref())?;
    let signer = load(&store, &authority, &args.passphrase)?;
    let key = args.key_type.generate()?;
    let device = Issued::new(signer.certify_device(&args.name, &key)?, key);
    let entry = Entry::issued(args.name.as_str(), Kind::Device, &authority.id, device.certified());

    let root = store.authority_certificate(&authority_for(&store, Kind::Server, None)?)?;
    let gate = store.as_owner(|| known_gate(root, &store.path("../doorward.toml")));
    let places = Places::new(args.output.as_deref())?;
    store.set_output(places.output());
    let password = Password::generate()?;
    let kit = handout::kit(&args.name, &device, &gate, &password)?;
    let made = handout::device(store.folder(), &places, &args.name, &device, &password);
    let mut files = kit.files(places.folder());
    match Store::in_the_way(store.folder(), &files, false) {
        taken if args.force || taken.is_empty() => {}
        taken => {
            return Err(CaError::exists(
                taken,
                "they are of no use to a new device: move them away, or replace them with --force",
            ));
        }
    }
    files.extend([places.root(&gate), copy(&entry, &device.certificate_pem())]);
    let mut inventory = store.inventory.clone();
    inventory.certificates.push(entry);
    store.commit(inventory, files)?;
    let text = format!("{} may come in with these, until {}:\n{}", args.name, device.not_after().date(), made.text());
    say(args.format, &text, &made)?;
    if args.qr {
        let next = match &made.share {
            Some(command) => share::new_link_hint(command),
            None => {
                let folder = Store::shown(store.folder(), places.folder());
                format!("To bring its files to {} in another way: they are in {}", args.name, folder.display())
            }
        };
        // Others may change the folder while the device is awaited.
        drop(store);
        share::offer(&args.link, args.format, &args.name, kit, &password, &next).map_err(|error| {
            let said = error.code == exit::NOT_FETCHED;
            let error = CaError::from(error);
            if said { error } else { error.but(&format!("{} may come in all the same. {next}", args.name)) }
        })?;
    }
    Ok(())
}

/// A name means one device.
fn check_free(inventory: &Inventory, name: &Name) -> Result<(), CaError> {
    let Some(entry) = inventory.current(name.as_str(), Kind::Device) else {
        // "a" and "a-key" would both own "a-key.pem".
        let files = |name: &Name| Form::ALL.map(|form| form.file_name(name).to_ascii_lowercase());
        let own = files(name);
        let taken = |other: &Entry| {
            entry_is_device(other)
                && !other.name.eq_ignore_ascii_case(name.as_str())
                && Name::parse(&other.name).is_ok_and(|other| files(&other).iter().any(|file| own.contains(file)))
        };
        return match inventory.certificates.iter().find(|other| taken(other)) {
            None => Ok(()),
            Some(other) => Err(CaError::usage(format!(
                "{name} would be written to files of {}\n  choose another name",
                other.name
            ))),
        };
    };
    let until = entry.not_after.map(|end| end.date().to_string()).unwrap_or_default();
    Err(CaError::usage(match inventory.status(entry, now()) {
        Status::Expired => {
            format!("{} had a certificate until {until}\n  renew it: doorward ca renew {}", entry.name, entry.name)
        }
        _ => format!(
            "{name} has a certificate, good until {until}\n  make it last longer: doorward ca renew {0}\n  if the device \
             is lost: doorward ca revoke {0}, and then this again\n  for one more device choose another name",
            entry.name
        ),
    }))
}

fn entry_is_device(entry: &Entry) -> bool {
    entry.kind == Kind::Device && entry.issued_at.is_some()
}
