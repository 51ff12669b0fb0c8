//! `doorward share`: hands a device its certificate over a link that works once.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::ca::known_gate;
use super::run::{runtime, signals};
use super::{Format, exit, failed};
use crate::enrolment::code::{self, Colours};
use crate::enrolment::link::{self, Link, Notice, Outcome, Reach};
use crate::enrolment::{Device, Kit};
use crate::handshake::config::PROVIDER;
use crate::names::Name;
use crate::pki::Password;

/// What stands below the help text.
pub(super) const EXAMPLE: &str = "\
Example, where \"doorward init\" was run:
  doorward share alice-phone";

/// The options of `doorward share`.
#[derive(Args, Debug)]
pub(super) struct ShareArgs {
    /// The device, as "doorward init" was told
    #[arg(value_name = "NAME", value_parser = Name::parse)]
    device: Name,

    /// The folder that "doorward init" wrote
    #[arg(long, value_name = "FOLDER", default_value = "doorward")]
    folder: PathBuf,

    #[command(flatten)]
    link: LinkArgs,

    /// How to say what happens: for people on stderr, or as JSON on stdout, one object a line
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// Where the link is, and for how long.
#[derive(Args, Clone, Debug)]
pub(super) struct LinkArgs {
    /// Where to listen: an address of this machine in your home network [default: the one it uses for the internet]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,

    /// The port there; 0 is any that is free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,

    /// How long the link works: from "1s" to "60m"
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_lifetime)]
    expires: Duration,

    /// Listen at a public address, too, and answer everybody
    #[arg(long)]
    allow_public: bool,
}

/// Nobody has fetched it: what to say, and the exit code.
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

/// What `--format json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
enum Told<'a> {
    Ready {
        device: &'a str,
        url: &'a str,
        password: &'a str,
        expires_in_seconds: u64,
        authority: &'a str,
        authority_sha256: &'a str,
    },
    Opened {
        by: IpAddr,
    },
    BrokenOff {
        by: IpAddr,
        file: &'a str,
    },
    Fetched {
        by: IpAddr,
        file: &'a str,
    },
    Expired,
    Guessed {
        by: IpAddr,
    },
    Stopped {
        #[serde(skip_serializing_if = "Option::is_none")]
        fetching: Option<IpAddr>,
    },
}

pub(super) fn run(args: &ShareArgs) -> ExitCode {
    match prepare(args).and_then(|(kit, password)| offer(&args.link, args.format, &args.device, kit, &password)) {
        Ok(()) => exit::OK.into(),
        Err(error) => failed(error.code, &error.message),
    }
}

/// Makes the device's archives anew.
fn prepare(args: &ShareArgs) -> Result<(Kit, Password), NotShared> {
    let wrong = |error: String| NotShared::new(exit::USAGE, error);
    let device = device(&args.folder, &args.device).map_err(wrong)?;
    let root = certificate(&args.folder.join("pki/server-ca.pem")).map_err(wrong)?;
    let gate = known_gate(root, &args.folder.join("doorward.toml"));
    let password = Password::generate().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    let kit = Kit::new(&gate, &device, &password).map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    Ok((kit, password))
}

/// Hands over `kit` to whoever comes to the link, and tells about it.
pub(super) fn offer(
    args: &LinkArgs,
    format: Format,
    device: &Name,
    kit: Kit,
    password: &Password,
) -> Result<(), NotShared> {
    let address = args.address.map_or_else(link::own_address, Ok).map_err(|error| {
        let error = format!("cannot tell this machine's address: {error}\n  name it: --address 192.168.1.5");
        NotShared::new(exit::START, error)
    })?;
    let address = SocketAddr::new(address, args.port);
    let runtime = runtime().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    let outcome = runtime.block_on(serve(args, format, device, address, kit, password))?;
    end(format, device, outcome)
}

async fn serve(
    args: &LinkArgs,
    format: Format,
    device: &Name,
    address: SocketAddr,
    kit: Kit,
    password: &Password,
) -> Result<Outcome, NotShared> {
    let unexpected = |error: io::Error| NotShared::new(exit::UNEXPECTED, error);
    let reach = if args.allow_public { Reach::World } else { Reach::Home };
    let (authority, fingerprint) = (kit.root().to_owned(), kit.root_fingerprint().to_owned());
    let link = Link::bind(address, reach, args.expires, kit).await.map_err(|error| match error {
        link::Error::Unsuitable(_) => NotShared::new(
            exit::USAGE,
            format!(
                "{error}\n  name this machine's address in your home network: --address 192.168.1.5 (or say --allow-public)"
            ),
        ),
        error => NotShared::new(exit::START, error),
    })?;
    let stop = CancellationToken::new();
    let signals = signals(stop.clone(), CancellationToken::new()).map_err(unexpected)?;
    let signals = tokio::task::spawn(signals);
    let url = link.url();
    match format {
        Format::Text => text(args, device, &url, password, &authority, &fingerprint),
        Format::Json => tell(&Told::Ready {
            device: device.as_str(),
            url: &url,
            password: password.as_str(),
            expires_in_seconds: args.expires.as_secs(),
            authority: &authority,
            authority_sha256: &fingerprint.replace(' ', ""),
        }),
    }
    .map_err(unexpected)?;
    let name = device.clone();
    let outcome = link.serve(stop, move |notice| notify(format, &name, notice)).await;
    signals.abort();
    Ok(outcome)
}

/// Tells what happens meanwhile.
fn notify(format: Format, device: &Name, notice: Notice) {
    // If who reads along has gone, the link lives on.
    let _ = match (format, notice) {
        (Format::Text, Notice::Opened(by)) => writeln!(io::stderr().lock(), "{by} has opened the page."),
        (Format::Text, Notice::BrokenOff(by, form)) => {
            let file = form.file_name(device);
            writeln!(io::stderr().lock(), "{by} began to fetch {file} and broke off. The link still works.")
        }
        (Format::Json, Notice::Opened(by)) => tell(&Told::Opened { by }),
        (Format::Json, Notice::BrokenOff(by, form)) => tell(&Told::BrokenOff { by, file: &form.file_name(device) }),
    };
}

/// Says how it ended.
fn end(format: Format, device: &Name, outcome: Outcome) -> Result<(), NotShared> {
    const AGAIN: &str = "For a new link";
    let file = match outcome {
        Outcome::Fetched(_, form) => form.file_name(device),
        _ => String::new(),
    };
    if format == Format::Json {
        let told = match outcome {
            Outcome::Fetched(by, _) => Told::Fetched { by, file: &file },
            Outcome::Expired => Told::Expired,
            Outcome::Guessed(by) => Told::Guessed { by },
            Outcome::Stopped(fetching) => Told::Stopped { fetching },
        };
        tell(&told).map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    }
    let why = match outcome {
        Outcome::Fetched(by, _) => {
            if format == Format::Text {
                eprintln!(
                    "{by} has fetched {file}, and the link is closed. Was it not {device}? Without the password the file is \
                     worthless. {AGAIN}: doorward share {device}"
                );
            }
            return Ok(());
        }
        Outcome::Expired => "nobody has fetched it in time, and the link is closed".to_owned(),
        Outcome::Guessed(by) => format!(
            "somebody was looking for the link and did not find it; the last to try was {by}, and the link is closed"
        ),
        Outcome::Stopped(None) => "stopped: nobody has fetched it, and the link is closed".to_owned(),
        Outcome::Stopped(Some(by)) => format!(
            "stopped while {by} was fetching it, who may have all of it, and the link is closed. Was it not {device}? Without \
             the password the file is worthless"
        ),
    };
    Err(NotShared::new(exit::NOT_FETCHED, format!("{why}\n  {AGAIN}: doorward share {device}")))
}

fn tell(told: &Told<'_>) -> io::Result<()> {
    let json = serde_json::to_string(told)?;
    writeln!(io::stdout().lock(), "{json}")
}

/// The code, and what there is to know about it.
fn text(
    args: &LinkArgs,
    device: &Name,
    url: &str,
    password: &Password,
    authority: &str,
    fingerprint: &str,
) -> io::Result<()> {
    let mut out = io::stderr().lock();
    let colours = if out.is_terminal() { Colours::Set } else { Colours::Inherit };
    let code = code::terminal(url, colours).map_err(io::Error::other)?;
    let time = match args.expires.as_secs() {
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    };
    write!(
        out,
        "\
Let {device} scan this; it must be in the same network as this machine.

{code}
  or open   {url}
  password  {password}

The link hands {device} its certificate once, and works for {time}. The password is for the file that it gets; it is
shown here only. Before you trust \"{authority}\" there, compare its SHA-256 fingerprint:
  {fingerprint}

Waiting. Ctrl-C closes the link.
",
        password = password.as_str(),
    )
}

fn device(folder: &Path, name: &Name) -> Result<Device, String> {
    let file = |end: &str| folder.join("devices").join(format!("{name}{end}"));
    let (certificate_file, key_file) = (file(".pem"), file("-key.pem"));
    let certificate = certificate(&certificate_file)?;
    let key = PrivateKeyDer::from_pem_file(&key_file).map_err(|error| cannot_read(&key_file, &error))?;
    if !matches!(key, PrivateKeyDer::Pkcs8(_)) {
        let shown = key_file.display();
        return Err(format!("{shown} is not PKCS#8\n  openssl pkcs8 -topk8 -nocrypt -in {shown} makes it so"));
    }
    match CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &PROVIDER) {
        Ok(_) => Ok(Device { name: name.clone(), certificate, key }),
        Err(error) => Err(format!("{} does not fit {}: {error}", key_file.display(), certificate_file.display())),
    }
}

fn certificate(file: &Path) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_file(file).map_err(|error| cannot_read(file, &error))
}

fn cannot_read(file: &Path, error: &rustls::pki_types::pem::Error) -> String {
    format!("cannot read {}: {error}\n  name the folder that \"doorward init\" wrote: --folder FOLDER", file.display())
}

/// `90s` or `10m`. Longer than an hour is no one-time link any more.
fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let seconds = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(seconds), _) => seconds.parse::<u64>().ok(),
        (_, Some(minutes)) => minutes.parse::<u64>().ok().and_then(|minutes| minutes.checked_mul(60)),
        (None, None) => None,
    };
    match seconds {
        Some(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("from 1s to 60m".to_owned()),
        None => Err("write a number and a unit, as in 90s or 10m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("10m", 600), ("60m", 3600)] {
            assert_eq!(parse_lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "0s", "61m", "10", "1h", "m", "-1s", "99999999999999999999m", "307445734561825861m"] {
            assert!(parse_lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
