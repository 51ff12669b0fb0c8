//! `doorward share`: hands a device its certificate over a link that works once.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::run::{runtime, signals};
use super::server_names::configured_server_names;
use super::{Format, exit, failed};
use crate::ca::inventory::{Kind, Store, now};
use crate::enrolment::code::{self, Colours};
use crate::enrolment::link::{self, Candidate, InterfaceKind, Link, Notice, Outcome, Reach};
use crate::enrolment::{Device, Form, Gate, Kit, PUBLIC_PORT, word};
use crate::files::Folder;
use crate::handshake::suites::PROVIDER;
use crate::model::identity::Identity;
use crate::model::names::Name;
use crate::pki::{Password, keys};

/// What stands below the help text.
pub(super) const EXAMPLE: &str = "\
Example, where \"doorward init\" was run:
  doorward share alice-phone";

/// Where `doorward init` writes to unless it is told.
const FOLDER: &str = "doorward";

/// The options of `doorward share`.
#[derive(Args, Debug)]
pub(super) struct ShareArgs {
    /// The device, as "doorward init" was told
    #[arg(value_name = "NAME", value_parser = Name::parse)]
    device: Name,

    /// The folder that "doorward init" wrote
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
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
    /// Where to listen: an address of this machine in your home network [default: the one of a network card, before those of
    /// VPNs, containers and virtual machines]
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

impl LinkArgs {
    const fn reach(&self) -> Reach {
        if self.allow_public { Reach::World } else { Reach::Home }
    }
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
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        other_addresses: &'a [Candidate],
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
    let next = for_a_new_link(&command(&args.device, &args.folder));
    match prepare(args).and_then(|(kit, password)| offer(&args.link, args.format, &args.device, kit, &password, &next))
    {
        Ok(()) => exit::OK.into(),
        Err(error) => failed(error.code, &error.message),
    }
}

/// What hands `device` its certificate from `folder`.
pub(super) fn command(device: &Name, folder: &Path) -> String {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if folder == Path::new(FOLDER) {
        format!("doorward share {device}")
    } else {
        format!("doorward share {device} --folder {}", quoted(folder))
    }
}

/// The last line of what there is to say when nobody has fetched it.
pub(super) fn for_a_new_link(command: &str) -> String {
    format!("For a new link: {command}")
}

/// A path as one word of a command line.
fn quoted(path: &Path) -> String {
    word(&path.to_string_lossy()).into_owned()
}

/// Makes the device's archives anew.
fn prepare(args: &ShareArgs) -> Result<(Kit, Password), NotShared> {
    let device = device(&args.folder, &args.device).map_err(|error| NotShared::new(exit::USAGE, error))?;
    let root = root(&args.folder, &device)?;
    let server_names = configured_server_names(&args.folder.join("doorward.toml"));
    let gate = Gate { root, server_names, port: PUBLIC_PORT };
    let password = Password::generate().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    let kit = Kit::new(&gate, &device, &password).map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    Ok((kit, password))
}

/// What the file is that cannot be read.
const ROOT: &str = "it is the certificate of the authority that vouches for the gate; devices are given it, too";

/// The certificate of the authority that vouches for the gate, unless the device could do nothing with its own.
fn root(folder: &Path, device: &Device) -> Result<CertificateDer<'static>, NotShared> {
    let usage = |error: String| NotShared::new(exit::USAGE, error);
    let unexpected = |error: &dyn std::fmt::Display| NotShared::new(exit::UNEXPECTED, error);
    let (name, pki) = (&device.name, folder.join("pki"));
    let identity = Identity::from_certificate(&device.certificate, false).map_err(|error| unexpected(&error))?;
    if identity.not_after < now().unix_timestamp() {
        let end = OffsetDateTime::from_unix_timestamp(identity.not_after).map(|end| end.date().to_string());
        return Err(usage(format!(
            "the certificate of {name} expired on {}\n  to renew it: doorward ca renew {name} --folder {}",
            end.unwrap_or_default(),
            quoted(&pki)
        )));
    }
    let Some(inventory) = Store::read_inventory(&pki).map_err(|error| unexpected(&error))? else {
        // The authorities may be kept elsewhere, all but this certificate.
        return certificate(folder, &pki.join("server-ca.pem")).map_err(|error| usage(format!("{error}\n  {ROOT}")));
    };
    let serial = identity.serial.to_string();
    if inventory.certificates.iter().any(|entry| entry.serial == serial && entry.revoked_at.is_some()) {
        return Err(usage(format!(
            "{name} was shut out: its certificate is revoked, and no gate lets it in\n  a new one, if it is to come in again: \
             doorward ca device {name} --force --folder {}",
            quoted(&pki)
        )));
    }
    let authority = inventory.authority_for(Kind::Server).ok_or_else(|| {
        usage(format!(
            "no authority in {} vouches for the gate\n  have one made: doorward ca init --help",
            pki.display()
        ))
    })?;
    certificate(folder, &Store::join(&pki, Path::new(&authority.certificate)))
        .map_err(|error| usage(format!("{error}\n  {ROOT}")))
}

/// Where the link is to be.
#[derive(Debug)]
pub(super) struct Chosen {
    address: SocketAddr,
    /// Which of several addresses it is; nothing if the user has named it.
    candidate: Option<Candidate>,
    /// The others that this machine has, the most likely first.
    others: Vec<Candidate>,
}

impl Chosen {
    /// What was chosen, and what else there was to choose from.
    fn text(&self) -> String {
        let Some(candidate) = self.candidate.as_ref().filter(|_| !self.others.is_empty()) else { return String::new() };
        let mut out = format!(
            "The link is at {} ({}). If the device is in another network of this machine, end this and choose:\n",
            candidate.address, candidate.interface
        );
        for Candidate { address, interface, kind } in &self.others {
            let kind = if *kind == InterfaceKind::Network { String::new() } else { format!(", {kind}") };
            out.push_str(&format!("  --address {address}  ({interface}{kind})\n"));
        }
        out.push('\n');
        out
    }
}

/// Where the link is to be: `--address`, if it suits, or else the address most likely in the home network.
pub(super) fn place(args: &LinkArgs) -> Result<Chosen, NotShared> {
    let (address, candidate, others) = match args.address {
        Some(address) => (address, None, Vec::new()),
        None => {
            let found = link::candidates(args.reach()).map_err(|error| {
                let error = format!("cannot tell this machine's address: {error}\n  name it: --address 192.168.1.5");
                NotShared::new(exit::START, error)
            })?;
            let mut found = found.into_iter();
            let none = || NotShared::new(exit::START, "this machine has no address\n  name one: --address 192.168.1.5");
            let first = found.next().ok_or_else(none)?;
            (first.address, Some(first), found.collect())
        }
    };
    link::check_address(address, args.reach()).map_err(unsuitable)?;
    Ok(Chosen { address: SocketAddr::new(address, args.port), candidate, others })
}

fn unsuitable(why: link::Unsuitable) -> NotShared {
    NotShared::new(
        exit::USAGE,
        format!(
            "{why}\n  name this machine's address in your home network: --address 192.168.1.5 (or say --allow-public)"
        ),
    )
}

/// Hands over `kit` to whoever comes to the link, and tells about it. `next` says what to do if nobody does.
pub(super) fn offer(
    args: &LinkArgs,
    format: Format,
    device: &Name,
    kit: Kit,
    password: &Password,
    next: &str,
) -> Result<(), NotShared> {
    let chosen = place(args)?;
    let address = chosen.address;
    let runtime = runtime().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    let (outcome, opened) = runtime.block_on(serve(args, format, device, &chosen, kit, password))?;
    end(format, device, outcome, (!opened).then_some(address.ip()), next)
}

async fn serve(
    args: &LinkArgs,
    format: Format,
    device: &Name,
    chosen: &Chosen,
    kit: Kit,
    password: &Password,
) -> Result<(Outcome, bool), NotShared> {
    let unexpected = |error: io::Error| NotShared::new(exit::UNEXPECTED, error);
    let (authority, fingerprint) = (kit.root().to_owned(), kit.root_fingerprint().to_owned());
    let link = Link::bind(chosen.address, args.reach(), args.expires, kit).await.map_err(|error| match error {
        link::Error::Unsuitable(why) => unsuitable(why),
        error => NotShared::new(exit::START, error),
    })?;
    let stop = CancellationToken::new();
    let signals = signals(stop.clone(), CancellationToken::new()).map_err(unexpected)?;
    let signals = tokio::task::spawn(signals);
    let url = link.url();
    match format {
        Format::Text => text(args, device, chosen, &url, password, &authority, &fingerprint),
        Format::Json => tell(&Told::Ready {
            device: device.as_str(),
            url: &url,
            other_addresses: &chosen.others,
            password: password.as_str(),
            expires_in_seconds: args.expires.as_secs(),
            authority: &authority,
            authority_sha256: &fingerprint.replace(' ', ""),
        }),
    }
    .map_err(unexpected)?;
    let (name, opened) = (device.clone(), Arc::new(AtomicBool::new(false)));
    let looked = Arc::clone(&opened);
    let tell = move |notice| {
        looked.store(true, Ordering::Relaxed);
        notify(format, &name, notice);
    };
    let outcome = link.serve(stop, tell).await;
    signals.abort();
    Ok((outcome, opened.load(Ordering::Relaxed)))
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

/// Says how it ended. If nobody has even looked at it, `unseen` is where it was.
fn end(format: Format, device: &Name, outcome: Outcome, unseen: Option<IpAddr>, next: &str) -> Result<(), NotShared> {
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
                // If who reads along has gone, it was fetched all the same.
                let _ = writeln!(
                    io::stderr().lock(),
                    "{by} has fetched {file}, and the link is closed. Was it not {device}? Without the password the file is \
                     worthless. {next}"
                );
            }
            return Ok(());
        }
        Outcome::Expired => {
            let why = "nobody has fetched it in time, and the link is closed";
            match unseen {
                None => why.to_owned(),
                Some(address) => format!(
                    "{why}\n  Could the device not open it? It must be in the same network as {address}. If this machine \
                     has another address there, name it with --address; if a firewall stands before it, let a port in and \
                     name it with --port"
                ),
            }
        }
        Outcome::Guessed(by) => format!(
            "somebody was looking for the link and did not find it; the last to try was {by}, and the link is closed"
        ),
        Outcome::Stopped(None) => "stopped: nobody has fetched it, and the link is closed".to_owned(),
        Outcome::Stopped(Some(by)) => format!(
            "stopped while {by} was fetching it, who may have all of it, and the link is closed. Was it not {device}? Without \
             the password the file is worthless"
        ),
    };
    Err(NotShared::new(exit::NOT_FETCHED, format!("{why}\n  {next}")))
}

fn tell(told: &Told<'_>) -> io::Result<()> {
    let json = serde_json::to_string(told)?;
    writeln!(io::stdout().lock(), "{json}")
}

/// The code, and what there is to know about it.
fn text(
    args: &LinkArgs,
    device: &Name,
    chosen: &Chosen,
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

{others}The link hands {device} its certificate once, and works for {time}. The password is for the file that it gets; it is
shown here only. Before you trust \"{authority}\" there, compare its SHA-256 fingerprint:
  {fingerprint}

Waiting. Ctrl-C closes the link.
",
        password = password.as_str(),
        others = chosen.text(),
    )
}

fn device(folder: &Path, name: &Name) -> Result<Device, String> {
    let devices = folder.join("devices");
    let file = |form: Form| devices.join(form.file_name(name));
    let (certificate_file, key_file) = (file(Form::Certificate), file(Form::Key));
    if !certificate_file.exists() {
        return Err(not_there(folder, &devices, name));
    }
    let certificate = certificate(folder, &certificate_file)?;
    if !key_file.exists() {
        return Err(format!(
            "the key of {name} is not in {} any more, and without it there is nothing to hand over\n  a certificate with a \
             new key: doorward ca renew {name} --new-key --folder {}",
            devices.display(),
            quoted(&folder.join("pki"))
        ));
    }
    let pem = Folder::read_beside(folder, &key_file).map_err(|error| cannot_read(&key_file, &error))?;
    let (shown, word) = (key_file.display(), quoted(&key_file));
    if keys::is_encrypted(&pem) {
        return Err(format!(
            "{shown} is encrypted; to decrypt it, with its passphrase:\n  {}",
            in_place("pkcs8", &word)
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| cannot_read(&key_file, &error))?;
    if !matches!(key, PrivateKeyDer::Pkcs8(_)) {
        return Err(format!("{shown} is not PKCS#8; to make it so:\n  {}", in_place("pkcs8 -topk8 -nocrypt", &word)));
    }
    match CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &PROVIDER) {
        Ok(_) => Ok(Device { name: name.clone(), certificate, key }),
        Err(error) => Err(format!("{shown} does not fit {}: {error}", certificate_file.display())),
    }
}

/// A command line that puts what OpenSSL makes of a file into its place: it reads all of it before it writes.
fn in_place(command: &str, file: &str) -> String {
    format!("openssl {command} -in {file} -out {file}.new && mv {file}.new {file}")
}

/// Why there is no such device, and which there are.
fn not_there(folder: &Path, devices: &Path, name: &Name) -> String {
    if !devices.is_dir() {
        // Somebody who stands in the folder may not know that it has to be named.
        let advice = if Path::new("devices").is_dir() && Path::new("pki").is_dir() {
            format!("here is one: {}", command(name, Path::new(".")))
        } else {
            "name the folder that has the folders \"devices\" and \"pki\" in it: --folder FOLDER".to_owned()
        };
        return format!("there is no folder {}\n  {advice}", devices.display());
    }
    let files = std::fs::read_dir(devices).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        files.filter_map(|file| file.file_name().to_str()?.strip_suffix("-key.pem").map(str::to_owned)).collect();
    names.sort_unstable();
    let there = if names.is_empty() { String::new() } else { format!("\n  there is: {}", names.join(", ")) };
    format!(
        "no device called {name} in {}{there}\n  files that were written elsewhere (--output) must be moved there first\n  to \
         let in a new device: doorward ca device {name} --folder {}",
        devices.display(),
        quoted(&folder.join("pki"))
    )
}

fn certificate(folder: &Path, file: &Path) -> Result<CertificateDer<'static>, String> {
    let pem = Folder::read_beside(folder, file).map_err(|error| cannot_read(file, &error))?;
    CertificateDer::from_pem_slice(&pem).map_err(|error| cannot_read(file, &error))
}

fn cannot_read(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot read {}: {error}", file.display())
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
