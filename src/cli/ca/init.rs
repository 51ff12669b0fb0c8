//! `doorward ca init`: two new authorities.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::folder::notify;
use super::output::{device_text, print, share_command};
use super::parse::{parse_device, parse_domain};
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, NameConstraintsArg};
use crate::ca::create::{CreateRequest, DEVICE_AUTHORITY_FILE, SERVER_AUTHORITY_FILE, create};
use crate::ca::device_files::DeviceFiles;
use crate::ca::{NameConstraintPolicy, server};
use crate::model::device_name::DeviceName;
use crate::model::names::ServerName;
use crate::pki::keys::KeyType;

/// The options of `doorward ca init`.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// Your domain. The gate's authority is limited to it and the names below it
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    domain: ServerName,

    /// A first device, as in "alice-phone". May be repeated
    #[arg(long = "device", value_name = "NAME", value_parser = parse_device)]
    devices: Vec<DeviceName>,

    #[command(flatten)]
    folder: FolderArg,

    /// The type of all keys. Browsers and phones accept p256 and rsa
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    key_type: KeyType,

    /// Encrypt the authorities' keys with a passphrase, which "doorward ca" asks for whenever it needs one of them
    #[arg(long)]
    encrypt: bool,

    #[command(flatten)]
    constraints: NameConstraintsArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// Replace existing files. All keys are new: devices that were set up before are rejected
    #[arg(long)]
    force: bool,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Written {
    folder: PathBuf,
    server_authority: PathBuf,
    device_authority: PathBuf,
    server: PathBuf,
    devices: Vec<DeviceFiles>,
}

pub(super) fn run(args: &InitArgs) -> Result<(), CaError> {
    let folder = args.folder.new_folder();
    if args.passphrase.is_given() && !args.encrypt {
        return Err(CaError::usage(
            "--passphrase-file was given without --encrypt; nothing was written\n  to encrypt the keys, add --encrypt",
        ));
    }
    let passphrase = args.encrypt.then(|| args.passphrase.choose()).transpose().map_err(CaError::usage)?;
    let request = CreateRequest {
        domain: &args.domain,
        devices: &args.devices,
        reachable: Default::default(),
        key_type: args.key_type,
        servers: Some(args.constraints.policy()),
        passphrase: passphrase.as_ref().map(|text| text.as_str()),
    };
    let created = create(&folder, &request)?;
    let written = Written {
        server_authority: folder.join(SERVER_AUTHORITY_FILE),
        device_authority: folder.join(DEVICE_AUTHORITY_FILE),
        server: folder.join(server::CERTIFICATE_FILE),
        devices: created.devices.clone(),
        folder: folder.clone(),
    };
    let remedy = "choose another --folder, or replace all files with --force";
    created.write(&folder, args.force, notify).map_err(CaError::with_remedy(remedy))?;
    print(args.format, &text(args, &written), &written)
}

fn text(args: &InitArgs, written: &Written) -> String {
    let mut text = format!(
        "Created two authorities in {}:\n  {}\n    signs the gate's certificates, for {}; install it on every device\n  \
         {}\n    signs device certificates; the gate's configuration names it under trust\n  {}\n    the gate's own \
         certificate; the configuration names it under [certificate]\nTheir keys are beside them. A stolen \
         clients-key.pem{} can issue certificates that the gate admits. The gate does not need this file: keep it \
         elsewhere.\n",
        written.folder.display(),
        written.server_authority.display(),
        match args.constraints.policy() {
            NameConstraintPolicy::Domain => format!("{} and nothing else", args.domain),
            NameConstraintPolicy::Unrestricted => args.domain.to_string(),
        },
        written.device_authority.display(),
        written.server.display(),
        if args.encrypt { " with its passphrase" } else { "" },
    );
    text.push_str(args.constraints.warning());
    for (device, name) in written.devices.iter().zip(&args.devices) {
        let share = share_command(&written.folder, None, name);
        text.push_str(&format!("\n{}:\n{}", device.name, device_text(device, share.as_deref())));
    }
    if written.devices.is_empty() {
        text.push_str("\nNext, a device:\n  doorward ca device alice-phone\n");
    }
    text
}
