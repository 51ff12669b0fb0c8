//! `doorward ca device`: a new device.

use std::path::PathBuf;

use clap::Args;

use super::change::Change;
use super::folder::config_of;
use super::in_force::apply;
use super::output::{device_text, print, share_command};
use super::parse::parse_device;
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, published};
use crate::ca::device_files::DeviceFolder;
use crate::ca::inventory::Store;
use crate::ca::issue::{self, DeviceRequest, IssuedDevice};
use crate::cli::exit;
use crate::cli::services::configured_services;
use crate::cli::share::{self, LinkArgs};
use crate::model::names::Name;
use crate::pki::keys::KeyType;

/// The options of `doorward ca device`.
#[derive(Args, Debug)]
pub(super) struct DeviceArgs {
    /// Its name, as in "alice-phone": in the log, and in "allow" of the configuration
    #[arg(value_name = "NAME", value_parser = parse_device)]
    name: Name,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// The folder for its files [default: "devices" beside the folder of the authorities]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,

    /// The type of its key. Browsers and phones accept p256 and rsa
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    key_type: KeyType,

    /// The authority that signs, if there are several: "devices" or "mkcert", for example
    #[arg(long, value_name = "NAME")]
    authority: Option<String>,

    /// Replace files of an earlier device of this name
    #[arg(long)]
    force: bool,

    /// Make a canary: a device that does not exist. Keep its files where only a thief finds them, with your backups or passwords
    /// for example. Its certificate is revoked from the start; if a client shows it, the gate reports an impostor and bans its
    /// address
    #[arg(long, conflicts_with = "qr")]
    canary: bool,

    /// Also let the device download its files by a link that works once: shows a QR code to scan
    #[arg(long)]
    qr: bool,

    #[command(flatten)]
    link: LinkArgs,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &DeviceArgs) -> Result<(), CaError> {
    if args.qr {
        // Before the device exists: if the link cannot work, nothing is issued.
        share::choose_address(&args.link)?;
    }
    let mut store = args.folder.open()?;
    let folder = DeviceFolder::new(args.output.as_deref())?;
    let request = DeviceRequest {
        name: &args.name,
        key_type: args.key_type,
        authority: args.authority.as_deref(),
        folder: &folder,
        replace: args.force,
        canary: args.canary,
    };
    let config = config_of(&store);
    let issued = issue::device(&mut store, &request, &args.passphrase.prompt(), || configured_services(&config))
        .map_err(CaError::with_remedy(
            "these files are useless to a new device: move them away, or replace them with --force",
        ))?;
    published::inventory(&store);
    if args.canary {
        return canary(args, &store, &issued);
    }
    let share = share_command(store.folder(), args.output.as_deref(), &args.name);
    let text = format!(
        "Issued a certificate for {}, valid until {}:\n{}",
        args.name,
        issued.not_after.date(),
        device_text(&issued.files, share.as_deref())
    );
    print(args.format, &text, &issued.files)?;
    if args.qr {
        let next = match &share {
            Some(command) => share::new_link_hint(command),
            None => {
                let folder = Store::join(store.folder(), folder.path());
                format!("To set up {} in another way, use the files in {}", args.name, folder.display())
            }
        };
        // Unlocks the folder while the device is awaited.
        drop(store);
        share::offer(&args.link, args.format, &args.name, issued.kit, &issued.password, &next).map_err(|error| {
            let explained = error.code == exit::NOT_FETCHED;
            let error = CaError::from(error);
            if explained {
                error
            } else {
                error.with_line(&format!("the certificate of {} is issued. {next}", args.name))
            }
        })?;
    }
    Ok(())
}

/// What a canary has that a device has not: the gate has to know that its certificate is revoked.
fn canary(args: &DeviceArgs, store: &Store, issued: &IssuedDevice) -> Result<(), CaError> {
    let mut outcome = apply(&args.folder, store, Change::Lists(&issued.lists));
    let text = format!(
        "{} is a canary: its certificate is revoked, and its use is reported as an impostor and bans the address. Move its \
         files to where only a thief finds them:\n{}{}",
        args.name,
        device_text(&issued.files, None),
        outcome.text
    );
    print(args.format, &text, &issued.files)?;
    outcome.result()
}
