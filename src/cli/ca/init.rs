//! `doorward ca init`: two new authorities.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::found::{Founding, LimitsArg};
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, FoundError, found, parse_device, parse_domain, say};
use crate::model::names::{Name, ServerName};
use crate::pki::Limits;
use crate::pki::keys::KeyType;

/// The options of `doorward ca init`.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// Your domain. The gate's authority can vouch for it and the names below it, and for nothing else
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    domain: ServerName,

    /// A first device, as in "alice-phone". May be given again
    #[arg(long = "device", value_name = "NAME", value_parser = parse_device)]
    devices: Vec<Name>,

    #[command(flatten)]
    folder: FolderArg,

    /// What kind of keys. Browsers and phones take p256 and rsa
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    key_type: KeyType,

    /// Encrypt the authorities' keys with a passphrase, which "doorward ca" asks for whenever it needs one of them
    #[arg(long)]
    encrypt: bool,

    #[command(flatten)]
    limits: LimitsArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// Replace what is there. All keys are new: devices set up before are not let in any more
    #[arg(long)]
    force: bool,

    /// How to say what was made: for people on stderr, or as JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Made {
    folder: PathBuf,
    server_authority: PathBuf,
    device_authority: PathBuf,
    server: PathBuf,
    devices: Vec<super::Device>,
}

pub(super) fn run(args: &InitArgs) -> Result<(), CaError> {
    let folder = args.folder.new_folder();
    if args.passphrase.is_given() && !args.encrypt {
        return Err(CaError::usage(
            "a passphrase was given, and the keys were not to be encrypted; nothing was written\n  to have them encrypted \
             with it: --encrypt",
        ));
    }
    let passphrase = args.encrypt.then(|| args.passphrase.choose()).transpose()?;
    let founding = Founding {
        domain: &args.domain,
        devices: &args.devices,
        server_names: Vec::new(),
        key_type: args.key_type,
        limits: args.limits.limits(),
        passphrase: passphrase.as_ref().map(|text| text.as_str()),
    };
    let founded = found(&folder, &founding).map_err(failed)?;
    let made = Made {
        server_authority: folder.join("server-ca.pem"),
        device_authority: folder.join("clients.pem"),
        server: folder.join("server.pem"),
        devices: founded.devices.clone(),
        folder: folder.clone(),
    };
    founded.write(&folder, args.force).map_err(failed)?;
    let mut text = format!(
        "Two authorities are in {}:\n  {}\n    vouches for the gate, for {}; install it on every device\n  \
         {}\n    vouches for your devices; the gate's configuration names it under trust\n  {}\n    the gate's own \
         certificate; the configuration names it under [certificate]\nTheir keys are beside them. Whoever has \
         clients-key.pem{} can let himself in: the gate does not need it, so keep it elsewhere.\n",
        folder.display(),
        made.server_authority.display(),
        match args.limits.limits() {
            Limits::Domain => format!("{} and nothing else", args.domain),
            Limits::None => args.domain.to_string(),
        },
        made.device_authority.display(),
        made.server.display(),
        if args.encrypt { " and its passphrase" } else { "" },
    );
    text.push_str(args.limits.warning());
    for device in &made.devices {
        text.push_str(&format!("\n{}:\n{}", device.name, device.text()));
    }
    if made.devices.is_empty() {
        text.push_str("\nNext, a device:\n  doorward ca device alice-phone\n");
    }
    say(args.format, &text, &made)
}

fn failed(error: FoundError) -> CaError {
    match error {
        FoundError::SameFile(_) => CaError::usage(error.to_string()),
        FoundError::Exists(paths) => {
            CaError::exists(paths, "choose another --folder, or replace everything with --force")
        }
        FoundError::Enrolment(error) => CaError::from(error),
        FoundError::Pki(error) => error.into(),
        FoundError::Store(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit;

    #[test]
    fn what_is_in_the_way_has_an_exit_code_of_its_own() {
        let error = failed(FoundError::Exists(vec!["x".into()]));
        assert_eq!(error.code, exit::EXISTS);
        assert!(error.message.contains("nothing was written"), "{error}");
    }
}
