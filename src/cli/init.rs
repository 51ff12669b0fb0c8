//! `doorward init`: a configuration, its certificates and the first devices, in one folder and ready to run.

mod acme;
mod ask;
mod parse;
mod text;

pub use acme::AcmeArgs;
pub(super) use acme::{TRUST_FILE, parse_contact, parse_directory};
pub(super) use ask::answered;

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::ca::{NameConstraintsArg, notify, parse_device};
use super::{Format, exit};
use crate::ca;
use crate::ca::create::{self, CreateRequest, Created, SERVER_AUTHORITY_FILE};
use crate::ca::device_files::DeviceFiles;
use crate::ca::inventory::{COPIES_FOLDER, INVENTORY_FILE, Store};
use crate::config::services;
use crate::config::starter::{self, StarterCertificate, StarterRoute};
use crate::enrolment::{PUBLIC_PORT, Reachable, Service, ServiceKind};
use crate::files::{Access, NewFile};
use crate::model::device_name::DeviceName;
use crate::model::identity::Sha256;
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::pki::keys::KeyType;
use parse::{parse_domain, parse_listen, parse_route};

/// Where the status page is: on this machine only.
const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// The folder of the authorities, below that of the configuration.
const FOLDER: &str = "pki";

/// The end of the help text.
pub(super) const EXAMPLE: &str = "\
Without options, and in a terminal, it asks.

Example:
  doorward init --domain home.example --route nas=192.168.1.10:5666 --device alice-phone";

/// The options of `doorward init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Your domain, or a name from a dynamic DNS service. Routes get names below it, and the certificates are limited to it
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub domain: ServerName,

    /// No names below the domain lead to your router, only the domain itself, as with some dynamic DNS services: the one
    /// route gets that name
    #[arg(long)]
    pub no_wildcard: bool,

    /// A service behind the gate: with "nas=192.168.1.10:5666", nas.DOMAIN leads there. May be repeated
    ///
    /// The port says which program uses it. For a port that is not the usual one: "shell=192.168.1.10:2222,kind=ssh". The kinds
    /// are http (browsers), ssh, smb and other.
    #[arg(long = "route", value_name = "NAME=BACKEND", required = true, value_parser = parse_route)]
    pub routes: Vec<RouteArg>,

    /// A device that the gate admits, as in "alice-phone". May be repeated
    #[arg(long = "device", value_name = "NAME", required = true, value_parser = parse_device)]
    pub devices: Vec<DeviceName>,

    /// The folder to write to. It is created if there is none
    #[arg(long, value_name = "FOLDER", default_value = "doorward")]
    pub folder: PathBuf,

    /// The address on which the gate listens, or its port alone
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443", value_parser = parse_listen)]
    pub listen: SocketAddr,

    /// The port of your router that leads to the gate: what devices dial
    #[arg(long, value_name = "PORT", default_value_t = PUBLIC_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub public_port: u16,

    /// Whether the gate has a public certificate.
    #[command(flatten)]
    pub acme: AcmeArgs,

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
    /// Which program uses it, if that was given.
    pub kind: Option<ServiceKind>,
}

impl RouteArg {
    fn kind(&self) -> ServiceKind {
        self.kind.unwrap_or_else(|| services::kind_of_address(self.name.as_str(), &self.backend))
    }
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
            Self::Usage(_) | Self::Ca(ca::Error::SameFile(_) | ca::Error::Confusable { .. }) => exit::USAGE,
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
    let trust = args.acme.trust()?;
    let folder = args.folder.join(FOLDER);
    let services = args.routes.iter().filter_map(|route| service(args, route)).collect();
    let request = CreateRequest {
        domain: &args.domain,
        devices: &args.devices,
        reachable: Reachable {
            services,
            port: args.public_port,
            trusted_already: Some(args.acme.acme),
            home: Some(args.domain.clone()),
            renewal: None,
        },
        key_type: KeyType::default(),
        servers: (!args.acme.acme).then(|| args.constraints.policy()),
        passphrase: None,
    };
    let mut created = create::create(&folder, &request)?;
    created.files.extend(trust.map(|contents| NewFile { path: TRUST_FILE.into(), contents, access: Access::Public }));
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
        server_names: args.routes.iter().map(|route| server_name(args, route)).collect(),
        no_wildcard: args.no_wildcard,
        public_port: args.public_port,
        page: format!("http://{PAGE}/"),
        acme: args.acme.starter().map(|acme| OrderedFrom { directory: acme.directory, trial: acme.trial }),
        server_authority: created.server.as_ref().map(|_| folder.join(SERVER_AUTHORITY_FILE)),
        server_fingerprint: created.server.as_ref().map(|server| Sha256::of(server.certificate()).to_string()),
        server_not_after: created.server.as_ref().map(|server| server.not_after().unix_timestamp()),
        needed_to_order: args.acme.acme.then(|| args.acme.needed(args.public_port, args.listen.port())),
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
    /// Whether the domain itself is the only name.
    pub no_wildcard: bool,
    /// The port that devices dial.
    pub public_port: u16,
    /// The address of the status page, once the gate runs.
    pub page: String,
    /// Where the gate orders its certificate, if that is a public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<OrderedFrom>,
    /// The certificate of the authority that devices must trust, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_authority: Option<PathBuf>,
    /// SHA-256 of the gate's certificate in hexadecimal digits, if it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_fingerprint: Option<String>,
    /// When the gate's certificate expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_not_after: Option<i64>,
    /// What must be true for an order to succeed, in words.
    #[serde(skip)]
    needed_to_order: Option<String>,
    /// The devices, in the order of the arguments.
    pub devices: Vec<DeviceFiles>,
    /// Every file in the order written, without the copies of certificates that the inventory keeps.
    pub files: Vec<WrittenFile>,
}

/// An ACME server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderedFrom {
    /// Its directory, as the configuration names it.
    pub directory: String,
    /// Where an order must succeed first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<String>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Its path.
    pub path: PathBuf,
    /// Its permissions, as in `0600`.
    pub mode: String,
}

fn service(args: &InitArgs, route: &RouteArg) -> Option<Service> {
    let server_name = ServerNamePattern::parse(&server_name(args, route)).ok()?;
    Some(Service { route: route.name.clone(), server_name, kind: route.kind(), admitted: true })
}

fn server_name(args: &InitArgs, route: &RouteArg) -> String {
    let domain = &args.domain;
    if args.no_wildcard { domain.to_string() } else { format!("{}.{domain}", route.name).to_ascii_lowercase() }
}

/// Checks that involve several arguments.
fn check(args: &InitArgs) -> Result<(), InitError> {
    let mut names = HashSet::new();
    if args.no_wildcard && args.routes.len() > 1 {
        return Err(InitError::Usage(format!(
            "with --no-wildcard there is one name, {}, and a name leads to one route: give one --route\n  for more, names below \
             your domain have to lead to your router. DuckDNS and deSEC, for example, offer that: then leave out --no-wildcard",
            args.domain
        )));
    }
    for route in &args.routes {
        let name = server_name(args, route);
        if let Err(error) = ServerName::parse(&name) {
            return Err(InitError::Usage(format!("--route {}: {name} is {error}", route.name)));
        }
        if !names.insert(name) {
            return Err(InitError::Usage(format!("--route {}: duplicate name", route.name)));
        }
    }
    acme::check(args, args.routes.iter().map(|route| server_name(args, route)))?;
    let mut devices = HashSet::new();
    match args.devices.iter().find(|name| !devices.insert(name.as_str().to_lowercase())) {
        None => Ok(()),
        Some(name) => Err(InitError::Usage(format!("--device {name}: duplicate name"))),
    }
}

/// The configuration file.
fn configuration(args: &InitArgs, file: &Path, created: &Created) -> String {
    let routes = args.routes.iter().map(|route| StarterRoute {
        name: route.name.as_str().to_owned(),
        server_name: server_name(args, route),
        backend: route.backend.clone(),
        kind: route.kind,
    });
    let devices = created.devices.iter().map(|device| (device.name.clone(), device.fingerprint.clone()));
    starter::Starter {
        file: file.to_owned(),
        domain: args.domain.clone(),
        listen: args.listen,
        public_port: args.public_port,
        page: PAGE,
        certificate: match &created.server {
            Some(server) => StarterCertificate::Own { expires: server.not_after().date() },
            None => StarterCertificate::Acme(args.acme.starter().unwrap_or_default()),
        },
        devices: devices.collect(),
        routes: routes.collect(),
    }
    .to_toml()
}

#[cfg(test)]
mod tests;
