//! `doorward ca device`: a new device.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use time::Duration;

use super::change::Change;
use super::folder::config_of;
use super::in_force::apply;
use super::output::{device_text, print, renew_command, share_command};
use super::parse::parse_device;
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, published};
use crate::ca::device_files::{DeviceFiles, DeviceFolder};
use crate::ca::inventory::Store;
use crate::ca::issue::{self, DeviceRequest, Guest, IssuedDevice};
use crate::ca::request::{self, RequestingDevice};
use crate::cli::exit;
use crate::cli::services::{Configured, sample};
use crate::cli::share::{self, LinkArgs};
use crate::enrolment::Form;
use crate::explain::clock::Clock;
use crate::model::device_name::DeviceName;
use crate::model::identity::GuestPass;
use crate::model::names::Name;
use crate::model::shell;
use crate::pki::CertificateRequest;
use crate::pki::keys::KeyType;

/// The options of `doorward ca device`.
#[derive(Args, Debug)]
pub(super) struct DeviceArgs {
    /// Its name, as in "alice-phone" or "Omas Tablet": in the log, and in "allow" of the configuration
    #[arg(value_name = "NAME", value_parser = parse_device)]
    name: DeviceName,

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

    /// Certify the key of this request (PKCS#10) instead of making one: that of a device which keeps its key, as in a token. The name
    /// is yours, whatever the request says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["canary", "qr", "key_type"])]
    request: Option<PathBuf>,

    /// Replace files of an earlier device of this name
    #[arg(long)]
    force: bool,

    /// Make a canary: a device that does not exist. Keep its files where only a thief finds them, with your backups or passwords
    /// for example. Its certificate is revoked from the start; if a client shows it, the gate reports an impostor and bans its
    /// address
    #[arg(long, conflicts_with_all = ["qr", "lifetime"])]
    canary: bool,

    /// Make a guest pass: a certificate that is valid for this time only, with --route. Minutes, hours or days, as in "30m", "3h"
    /// or "2d"; at most 30 days
    #[arg(long = "for", value_name = "TIME", value_parser = parse_guest_time, requires = "route")]
    lifetime: Option<Duration>,

    /// A route that the guest pass is for; all others refuse it. "allow" of the route must admit the device as well
    #[arg(long, value_name = "ROUTE", value_parser = Name::parse, requires = "lifetime")]
    route: Vec<Name>,

    /// Also let the device download its files by a link, for a few minutes: shows a QR code to scan
    #[arg(long)]
    qr: bool,

    #[command(flatten)]
    link: LinkArgs,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Issued<'a> {
    #[serde(flatten)]
    files: &'a DeviceFiles,
    /// The routes that admit the device; nothing if there is no valid configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<String>>,
}

/// The most that is read of the file of a request, in bytes: the longest as text.
const REQUEST_MAX: u64 = 2 * CertificateRequest::LONGEST as u64;

/// The longest guest pass, in days.
const GUEST_DAYS_MAX: i64 = 30;

/// Parses `30m`, `3h` or `2d`.
fn parse_guest_time(text: &str) -> Result<Duration, String> {
    let of = |unit: char, minutes: i64| {
        let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
        i64::from(count).checked_mul(minutes).map(Duration::minutes)
    };
    match of('m', 1).or_else(|| of('h', 60)).or_else(|| of('d', 24 * 60)) {
        Some(time) if time >= Duration::MINUTE && time <= Duration::days(GUEST_DAYS_MAX) => Ok(time),
        Some(_) => Err(format!("must be from 1m to {GUEST_DAYS_MAX}d")),
        None => Err("expected a number and a unit: 30m for minutes, 3h for hours, 2d for days".to_owned()),
    }
}

pub(super) fn run(args: &DeviceArgs) -> Result<(), CaError> {
    // Before the device exists: if the link cannot work, nothing is issued.
    let address = args.qr.then(|| share::choose_address(&args.link, args.format)).transpose()?;
    let mut store = args.folder.open()?;
    let folder = DeviceFolder::new(args.output.as_deref())?;
    let configured = store.as_owner(|| Configured::load(&config_of(&store)));
    configured.check_routes(&args.route).map_err(CaError::usage)?;
    let guest = args.lifetime.map(|lifetime| Guest { pass: GuestPass::new(&args.route), lifetime });
    let pass = guest.as_ref().map(|guest| &guest.pass);
    let device = sample(&args.name, pass);
    if let Some(file) = &args.request {
        return for_request(args, file, &mut store, (&folder, &configured, guest.as_ref()));
    }
    let request = DeviceRequest {
        name: &args.name,
        key_type: args.key_type,
        authority: args.authority.as_deref(),
        folder: &folder,
        replace: args.force,
        canary: args.canary,
        guest: guest.as_ref(),
    };
    let issued = issue::device(&mut store, &request, &args.passphrase.prompt(), || configured.reachable(&device))
        .map_err(CaError::with_remedy(
            "these files are useless to a new device: move them away, or replace them with --force",
        ))?;
    published::inventory(&store);
    if args.canary {
        return canary(args, &store, &issued);
    }
    let share = share_command(store.folder(), args.output.as_deref(), &args.name);
    let what = match pass {
        Some(pass) => {
            format!("a guest pass for {pass} to {}, valid until {}", args.name, Clock::system().full(issued.not_after))
        }
        None => format!("a certificate for {}, valid until {}", args.name, issued.not_after.date()),
    };
    let text = format!("Issued {what}:\n{}{}", device_text(&issued.files, share.as_deref()), configured.text(&device));
    let again = share.clone().unwrap_or_else(|| renew_command(store.folder(), args.output.as_deref(), &args.name));
    if let Some(warning) = configured.warning(args.name.as_str(), pass, &device, &again) {
        errln!("warning: {warning}");
    }
    print(args.format, &text, &Issued { files: &issued.files, routes: configured.admitting(&device) })?;
    if let Some(address) = address {
        let next = match &share {
            Some(command) => share::new_link_hint(command),
            None => {
                let folder = Store::join(store.folder(), folder.path());
                format!("To set up {} in another way, use the files in {}", args.name, folder.display())
            }
        };
        // Unlocks the folder while the device is awaited.
        drop(store);
        share::offer(&args.link, &address, args.format, &args.name, issued.kit, &issued.password, &next).map_err(
            |error| {
                let explained = error.code == exit::NOT_FETCHED;
                let error = CaError::from(error);
                if explained {
                    error
                } else {
                    error.with_line(&format!("the certificate of {} is issued. {next}", args.name))
                }
            },
        )?;
    }
    Ok(())
}

/// For a device that has made its key itself.
fn for_request(
    args: &DeviceArgs,
    file: &Path,
    store: &mut Store,
    (folder, configured, guest): (&DeviceFolder, &Configured, Option<&Guest>),
) -> Result<(), CaError> {
    let request = read_request(file).map_err(|error| CaError::usage(format!("{}: {error}", file.display())))?;
    let device = sample(&args.name, guest.map(|guest| &guest.pass));
    let requesting = RequestingDevice {
        name: &args.name,
        request: &request,
        authority: args.authority.as_deref(),
        folder,
        replace: args.force,
        guest,
    };
    let issued = request::device(store, &requesting, &args.passphrase.prompt(), || configured.reachable(&device))
        .map_err(CaError::with_remedy(
            "these are files of an earlier device: move them away, or replace them with --force",
        ))?;
    published::inventory(store);
    let files = match &issued.bundle {
        Some(bundle) => format!(
            "  {}\n    is for the device, and holds no secret. There: doorward join {} --key URI\n",
            bundle.display(),
            shell::word(&Form::Bundle.file_name(&args.name))
        ),
        None => format!("  {}\n", issued.certificate.display()),
    };
    let text = format!(
        "Issued a certificate for {}, valid until {}:\n{files}The SHA-256 of its key is {}: the device must show the same.\n{}",
        args.name,
        issued.end().date(),
        issued.key_sha256,
        configured.text(&device)
    );
    let again = renew_command(store.folder(), args.output.as_deref(), &args.name);
    if let Some(warning) = configured.warning(args.name.as_str(), guest.map(|guest| &guest.pass), &device, &again) {
        errln!("warning: {warning}");
    }
    print(args.format, &text, &issued)
}

/// Reads a request, in PEM or DER.
fn read_request(file: &Path) -> Result<CertificateRequest, String> {
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(|error| error.to_string())?;
    open.take(REQUEST_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let block = pem::parse_many(&bytes).ok().and_then(|blocks| {
        blocks.into_iter().find(|block| matches!(block.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"))
    });
    let der = block.map_or(bytes, pem::Pem::into_contents);
    CertificateRequest::read(&der).map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_times_have_a_unit_and_bounds() {
        for (text, minutes) in [("1m", 1), ("90m", 90), ("3h", 180), ("2d", 2880), ("30d", 43_200)] {
            assert_eq!(parse_guest_time(text), Ok(Duration::minutes(minutes)), "{text}");
        }
        for wrong in ["", "3", "h", "0m", "31d", "-3h", "3 h", "1w", "3s", "4294967295d", "4294967296h", "1.5h"] {
            assert!(parse_guest_time(wrong).is_err(), "{wrong}");
        }
    }
}
