//! `doorward share`: hands a device its certificate over a link.

mod address;
mod events;
mod files;
mod offer;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::services::Configured;
use super::{Format, exit, failed, folder_of_init, in_place_of};
use crate::enrolment::link::Reach;
use crate::enrolment::{Gate, Kit};
use crate::install::Installed;
use crate::model::device_name::DeviceName;
use crate::model::shell;
use crate::pki::Password;

pub(super) use address::choose as choose_address;
pub(super) use offer::offer;

/// Printed below the help text.
pub(super) const EXAMPLE: &str = "\
Example, where \"doorward init\" was run:
  doorward share alice-phone";

/// The default folder of `doorward init`.
const FOLDER: &str = "doorward";

/// The options of `doorward share`.
#[derive(Args, Debug)]
pub(super) struct ShareArgs {
    /// The device, by the name that it was given
    #[arg(value_name = "NAME", value_parser = DeviceName::parse)]
    device: DeviceName,

    /// The folder that "doorward init" wrote, or the one of the authorities in it, "pki"
    ///
    /// Without this option: "doorward" here, else the one that "doorward install" was given.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,

    #[command(flatten)]
    link: LinkArgs,

    /// How to report events: for people on stderr, or as JSON on stdout, one object a line
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// Where the link is, and for how long.
#[derive(Args, Clone, Debug)]
pub(super) struct LinkArgs {
    /// Listen at this address of this machine in your home network [default: that of a network card, rather than of a VPN,
    /// container or virtual machine]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,

    /// Listen at this port; 0 for any free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,

    /// How long the link works: from "1s" to "60m"
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_lifetime)]
    expires: Duration,

    /// Allow a public address, and answer clients from anywhere
    #[arg(long)]
    allow_public: bool,
}

impl LinkArgs {
    const fn reach(&self) -> Reach {
        if self.allow_public { Reach::Any } else { Reach::Private }
    }
}

/// No file was handed over: the exit code and the error message.
#[derive(Debug)]
pub(super) struct NotShared {
    pub(super) code: u8,
    pub(super) message: String,
}

impl NotShared {
    fn new(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl ShareArgs {
    fn folder(&self) -> PathBuf {
        let installed = || {
            let here = Path::new(FOLDER).exists();
            Installed::find().filter(|_| !here)?.authority().parent().map(Path::to_owned)
        };
        let given = self.folder.as_deref().map(folder_of_init);
        given.or_else(installed).unwrap_or_else(|| FOLDER.into())
    }
}

pub(super) fn run(args: &ShareArgs) -> ExitCode {
    let folder = args.folder();
    let next = new_link_hint(&command(&args.device, &folder));
    match prepare(args, &folder).and_then(|(kit, password)| {
        let address = choose_address(&args.link, args.format)?;
        offer(&args.link, &address, args.format, &args.device, kit, &password, &next)
    }) {
        Ok(()) => exit::OK.into(),
        Err(error) => failed(error.code, &error.message),
    }
}

/// The command that hands `device` its certificate from `folder`.
pub(super) fn command(device: &DeviceName, folder: &Path) -> String {
    let word = shell::word(device.as_str());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if folder == Path::new(FOLDER) {
        format!("doorward share {word}")
    } else {
        format!("doorward share {word} --folder {}", shell::path(folder))
    }
}

/// The last line of a message about a link that has ended.
pub(super) fn new_link_hint(command: &str) -> String {
    format!("For a new link: {command}")
}

/// Makes the device's archives anew, with a new password.
fn prepare(args: &ShareArgs, folder: &Path) -> Result<(Kit, Password), NotShared> {
    let device = files::device(folder, &args.device).map_err(|error| NotShared::new(exit::USAGE, error))?;
    let configured = Configured::load(&in_place_of(&folder.join("doorward.toml")));
    let holder = files::holder(&device)?;
    let reachable = configured.reachable(&holder);
    let trust = files::trust(folder, &device, &reachable)?;
    if let Some(warning) = configured.warning(args.device.as_str(), None, &holder, "the same command") {
        errln!("warning: {warning}");
    }
    let gate = Gate::new(trust, reachable);
    let password = Password::generate().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    let kit = Kit::new(&gate, &device, &password).map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    Ok((kit, password))
}

/// Parses `90s` or `10m`. An hour is the most: a link that works for longer is found by chance more often than it is needed.
fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let seconds = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(seconds), _) => seconds.parse::<u64>().ok(),
        (_, Some(minutes)) => minutes.parse::<u64>().ok().and_then(|minutes| minutes.checked_mul(60)),
        (None, None) => None,
    };
    match seconds {
        Some(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("must be from 1s to 60m".to_owned()),
        None => Err("expected a number and a unit, such as 90s or 10m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_from_a_second_to_an_hour() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("10m", 600), ("60m", 3600)] {
            assert_eq!(parse_lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "0s", "61m", "10", "1h", "m", "-1s", "99999999999999999999m", "307445734561825861m"] {
            assert!(parse_lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
