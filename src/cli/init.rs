//! `doorward init`: a configuration, its certificates and the first devices, in one folder and ready to run.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::ca::{NameConstraintsArg, notify, parse_device, parse_domain};
use super::{Format, exit};
use crate::ca;
use crate::ca::create::{self, CreateRequest, Created, SERVER_AUTHORITY_FILE};
use crate::ca::device_files::DeviceFiles;
use crate::ca::inventory::{COPIES_FOLDER, INVENTORY_FILE, Store};
use crate::config::services;
use crate::config::starter::{self, StarterRoute};
use crate::enrolment::{Service, ServiceKind};
use crate::files::{Access, NewFile};
use crate::model::identity::Sha256;
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::shell;
use crate::pki::keys::KeyType;

/// The folder of the authorities, below that of the configuration.
const FOLDER: &str = "pki";

/// The end of the help text.
pub(super) const EXAMPLE: &str = "\
Example:
  doorward init --domain home.example --route nas=192.168.1.10:5666 --device alice-phone";

/// The options of `doorward init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Your domain. Routes get names below it, and the certificates are limited to it
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub domain: ServerName,

    /// A service behind the gate: with "nas=192.168.1.10:5666", nas.DOMAIN leads there. May be repeated
    #[arg(long = "route", value_name = "NAME=BACKEND", required = true, value_parser = parse_route)]
    pub routes: Vec<RouteArg>,

    /// A device that the gate admits, as in "alice-phone". May be repeated
    #[arg(long = "device", value_name = "NAME", required = true, value_parser = parse_device)]
    pub devices: Vec<Name>,

    /// The folder to write to. It is created if there is none
    #[arg(long, value_name = "FOLDER", default_value = "doorward")]
    pub folder: PathBuf,

    /// The address on which the gate listens
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    pub listen: SocketAddr,

    /// Whether the gate's authority has name constraints.
    #[command(flatten)]
    pub constraints: NameConstraintsArg,

    /// Replace existing files. All keys are new: devices that were set up before are rejected
    #[arg(long)]
    pub force: bool,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

/// A `--route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteArg {
    /// The name of the route, and the first label of its server name.
    pub name: Name,
    /// The backend: `host:port`, `[v6]:port` or `unix:/path`.
    pub backend: String,
}

/// `doorward init` failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The certificates could not be made, or the files could not be written.
    #[error("{error}{}", remedy(.0), error = .0)]
    Ca(#[from] ca::Error),
    /// The files were written, but the report about them was not.
    #[error("cannot print the result; all files are written")]
    Output(#[source] io::Error),
}

const fn remedy(error: &ca::Error) -> &'static str {
    match error {
        ca::Error::Exists(_) => "\n  choose another --folder, or replace all files with --force",
        _ => "",
    }
}

impl InitError {
    /// The exit code of the process: 1, 2 for usage, or 7 if files would be overwritten.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Ca(ca::Error::SameFile(_)) => exit::USAGE,
            Self::Ca(ca::Error::Exists(_)) => exit::EXISTS,
            Self::Ca(_) | Self::Output(_) => exit::UNEXPECTED,
        }
    }
}

/// Writes everything, and prints what was written.
pub fn run(args: &InitArgs) -> Result<(), InitError> {
    let written = create(args)?;
    match args.format {
        Format::Text => write!(io::stderr().lock(), "{}{}", written.text(), args.constraints.warning()),
        Format::Json => serde_json::to_string_pretty(&written)
            .map_err(io::Error::from)
            .and_then(|json| writeln!(io::stdout().lock(), "{json}")),
    }
    .map_err(InitError::Output)
}

/// Writes everything, or nothing if one of the files exists and `args.force` is not set.
pub fn create(args: &InitArgs) -> Result<Written, InitError> {
    check(args)?;
    let folder = args.folder.join(FOLDER);
    let services = args.routes.iter().filter_map(|route| service(route, &args.domain)).collect();
    let request = CreateRequest {
        domain: &args.domain,
        devices: &args.devices,
        services,
        key_type: KeyType::default(),
        constraints: args.constraints.policy(),
        passphrase: None,
    };
    let mut created = create::create(&folder, &request)?;
    // The configuration comes last: once it exists, so does every file that it names.
    let config_file = args.folder.join("doorward.toml");
    created.files.push(NewFile {
        path: "../doorward.toml".into(),
        contents: configuration(args, &config_file, &created).into(),
        access: Access::Public,
    });
    let written = written(args, config_file, &created);
    created.write(&folder, args.force, notify)?;
    Ok(written)
}

fn written(args: &InitArgs, config: PathBuf, created: &Created) -> Written {
    let folder = args.folder.join(FOLDER);
    let inventory = WrittenFile { path: folder.join(INVENTORY_FILE), mode: mode(Access::Private) };
    let files = created
        .files
        .iter()
        .filter(|file| !file.path.starts_with(COPIES_FOLDER))
        .map(|file| WrittenFile { path: Store::join(&folder, &file.path), mode: mode(file.access) });
    Written {
        folder: args.folder.clone(),
        config,
        listen: args.listen,
        server_names: args.routes.iter().map(|route| server_name(route, &args.domain)).collect(),
        server_authority: folder.join(SERVER_AUTHORITY_FILE),
        server_fingerprint: Sha256::of(created.server.certificate()).to_string(),
        server_not_after: created.server.not_after().unix_timestamp(),
        devices: created.devices.clone(),
        files: files.chain([inventory]).collect(),
    }
}

fn mode(access: Access) -> String {
    format!("{:04o}", access.mode())
}

/// What `doorward init` has written, as `--format json` prints it. Paths start with the folder as it was given.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// The folder.
    pub folder: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// The address on which the gate listens.
    pub listen: SocketAddr,
    /// The server names of the routes, in their order.
    pub server_names: Vec<String>,
    /// The certificate of the authority that devices must trust.
    pub server_authority: PathBuf,
    /// SHA-256 of the gate's certificate in hexadecimal digits.
    pub server_fingerprint: String,
    /// When the gate's certificate expires, in seconds since 1970.
    pub server_not_after: i64,
    /// The devices, in the order of the arguments.
    pub devices: Vec<DeviceFiles>,
    /// Every file in the order written, without the copies of certificates that the inventory keeps.
    pub files: Vec<WrittenFile>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Its path.
    pub path: PathBuf,
    /// Its permissions, as in `0600`.
    pub mode: String,
}

impl Written {
    /// What was written and what to do next, as text for people.
    pub fn text(&self) -> String {
        let mut out = format!("Created in {}:\n", self.folder.display());
        for file in &self.files {
            let path = file.path.strip_prefix(&self.folder).unwrap_or(&file.path).display().to_string();
            let note = if file.mode == "0600" { "secret" } else { "" };
            out.push_str(format!("  {path:<40} {note}").trim_end());
            out.push('\n');
        }
        let (config, folder) = (shell::path(&self.config), shell::path(&self.folder));
        let first = self.devices.first().map_or("NAME", |device| &device.name);
        let (names, port) = (self.server_names.join(", "), self.listen.port());
        let _ = write!(
            out,
            "
Next:
  1. Start the gate on this machine:
       doorward run --config {config}
     Or as a service, which starts with the machine:
       sudo doorward install {folder}
  2. Forward TCP port 443 of your router to port {port} of this machine, and point these names to the router:
       {names}
  3. Set up each device. Its page has the instructions for every system; the files are in the same folder:
"
        );
        for device in &self.devices {
            let _ = writeln!(out, "       {}\n         password  {}", device.steps.display(), device.password);
        }
        let _ = write!(
            out,
            "     Or let a device download its files in your home network, by a link that works once:
       doorward share {first} --folder {folder}
  4. If a device is rejected, ask the gate why:
       doorward why --config {config}

The passwords are shown only now and stored nowhere. Keep the files marked secret private.
"
        );
        out
    }
}

fn service(route: &RouteArg, domain: &ServerName) -> Option<Service> {
    let server_name = ServerNamePattern::parse(&server_name(route, domain)).ok()?;
    let kind = ServiceKind::of_protocols(services::protocols_of_address(route.name.as_str(), &route.backend));
    Some(Service { server_name, kind })
}

fn server_name(route: &RouteArg, domain: &ServerName) -> String {
    format!("{}.{domain}", route.name).to_ascii_lowercase()
}

/// Checks that involve several arguments.
fn check(args: &InitArgs) -> Result<(), InitError> {
    let mut names = HashSet::new();
    for route in &args.routes {
        let name = server_name(route, &args.domain);
        if let Err(error) = ServerName::parse(&name) {
            return Err(InitError::Usage(format!("--route {}: {name} is {error}", route.name)));
        }
        if !names.insert(name) {
            return Err(InitError::Usage(format!("--route {}: duplicate name", route.name)));
        }
    }
    let mut devices = HashSet::new();
    match args.devices.iter().find(|name| !devices.insert(name.as_str().to_ascii_lowercase())) {
        None => Ok(()),
        Some(name) => Err(InitError::Usage(format!("--device {name}: duplicate name"))),
    }
}

fn parse_route(text: &str) -> Result<RouteArg, String> {
    const EXAMPLE: &str = "write NAME=ADDRESS:PORT, as in nas=192.168.1.10:5666";
    let Some((name, backend)) = text.split_once('=') else {
        return Err(format!("missing \"=\": {EXAMPLE}"));
    };
    let name = Name::parse(name).map_err(|error| format!("{error}: {EXAMPLE}"))?;
    if name.as_str().contains('.') {
        return Err(format!(
            "the name must not contain a dot, since the certificate covers one label below the domain: {EXAMPLE}"
        ));
    }
    check_backend(backend).map_err(|problem| format!("{problem}: {EXAMPLE}"))?;
    Ok(RouteArg { name, backend: backend.to_owned() })
}

fn check_backend(text: &str) -> Result<(), &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') { Ok(()) } else { Err("the path of a unix socket must start with \"/\"") };
    }
    if text.contains("://") {
        return Err("a backend is not a URL: leave out the scheme and what follows the port");
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Err("missing port") };
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("the port must be a number from 1 to 65535");
    }
    if text.parse::<SocketAddr>().is_ok() || ServerName::parse(host).is_ok() {
        return Ok(());
    }
    Err(if host.contains(':') {
        "an IPv6 address needs brackets, as in [fd00::1]:22"
    } else {
        "not an address or host name before the port"
    })
}

/// The configuration file.
fn configuration(args: &InitArgs, file: &Path, created: &Created) -> String {
    let routes = args.routes.iter().map(|route| StarterRoute {
        name: route.name.as_str().to_owned(),
        server_name: server_name(route, &args.domain),
        backend: route.backend.clone(),
    });
    let devices = created.devices.iter().map(|device| (device.name.clone(), device.fingerprint.clone()));
    starter::Starter {
        file: file.to_owned(),
        domain: args.domain.clone(),
        listen: args.listen,
        server_expires: created.server.not_after().date(),
        devices: devices.collect(),
        routes: routes.collect(),
    }
    .to_toml()
}

#[cfg(test)]
mod tests;
