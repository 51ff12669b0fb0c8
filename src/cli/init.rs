//! `doorward init`: configuration, certificates and the first devices, in one folder and ready to run.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Format, exit};
use crate::enrolment::{self, Form, Gate, Kit, PUBLIC_PORT, ROOT_FILE};
use crate::identity::{Serial, Sha256};
use crate::names::{Name, ServerName, ServerNamePattern};
use crate::pki::files::{self, Access, Existing, NewFile};
use crate::pki::{self, DeviceAuthority, Issued, Password, ServerAuthority};

/// What stands below the help text.
pub(super) const EXAMPLE: &str = "\
Example:
  doorward init --domain home.example --route nas=192.168.1.10:5666 --device alice-phone";

/// What is to be written; what the options mean is said in their help texts.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Your domain. Routes get names below it, and certificates are for it alone
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub domain: ServerName,

    /// What is behind the gate: "nas=192.168.1.10:5666" makes nas.DOMAIN lead there. May be given again
    #[arg(long = "route", value_name = "NAME=BACKEND", required = true, value_parser = parse_route)]
    pub routes: Vec<RouteArg>,

    /// A phone, laptop, … that may come in, as in "alice-phone". May be given again
    #[arg(long = "device", value_name = "NAME", required = true, value_parser = parse_device)]
    pub devices: Vec<Name>,

    /// The folder to write to; made if it is not there
    #[arg(long, value_name = "FOLDER", default_value = "doorward")]
    pub folder: PathBuf,

    /// Where the gate will listen
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    pub listen: SocketAddr,

    /// Replace what is there. All keys are new: devices set up before are not let in any more
    #[arg(long)]
    pub force: bool,

    /// How to say what was written: for people on stderr, or as JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

/// What `--route` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteArg {
    /// The name: of the route, and the first label of its server name.
    pub name: Name,
    /// Where it leads: `host:port`, `[v6]:port` or `unix:/path`.
    pub backend: String,
}

/// `doorward init` failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum InitError {
    /// The arguments do not go together.
    Usage(String),
    /// A certificate could not be made.
    Pki(pki::Error),
    /// What a device is to be set up with could not be made.
    Enrolment(enrolment::Error),
    /// The files could not be written.
    Files(files::Error),
    /// The files were written, but not what there is to say about them.
    Output(io::Error),
}

impl InitError {
    /// The exit code of the process: 1, 2 for usage, or 7 if files are in the way.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Files(files::Error::Exists(_)) => exit::EXISTS,
            Self::Pki(_) | Self::Enrolment(_) | Self::Files(_) | Self::Output(_) => 1,
        }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Pki(error) => write!(f, "{error}"),
            Self::Enrolment(error) => write!(f, "{error}"),
            Self::Files(error @ files::Error::Exists(_)) => {
                write!(f, "{error}; nothing was written. Choose another --folder, or replace everything with --force")
            }
            Self::Files(error) => write!(f, "{error}"),
            Self::Output(_) => f.write_str("failed to print what was written; the files are complete"),
        }
    }
}

impl StdError for InitError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Usage(_) => None,
            Self::Pki(error) => error.source(),
            Self::Enrolment(error) => error.source(),
            Self::Files(error) => error.source(),
            Self::Output(error) => Some(error),
        }
    }
}

impl From<pki::Error> for InitError {
    fn from(error: pki::Error) -> Self {
        Self::Pki(error)
    }
}

impl From<enrolment::Error> for InitError {
    fn from(error: enrolment::Error) -> Self {
        Self::Enrolment(error)
    }
}

/// Writes everything and says so as `args.format` asks.
pub fn run(args: &InitArgs) -> Result<(), InitError> {
    let written = create(args)?;
    match args.format {
        Format::Text => write!(io::stderr().lock(), "{}", written.text()),
        Format::Json => serde_json::to_string_pretty(&written)
            .map_err(io::Error::from)
            .and_then(|json| writeln!(io::stdout().lock(), "{json}")),
    }
    .map_err(InitError::Output)
}

/// Writes everything, or nothing if one of the files is there already and `args.force` is not set.
pub fn create(args: &InitArgs) -> Result<Written, InitError> {
    check(args)?;
    let servers = ServerAuthority::new(&args.domain)?;
    let server = servers.issue()?;
    let devices = DeviceAuthority::new()?;
    let server_names: Vec<String> = args.routes.iter().map(|route| server_name(route, &args.domain)).collect();
    let gate = Gate {
        root: servers.authority().certificate().clone(),
        server_names: server_names.iter().filter_map(|name| ServerNamePattern::parse(name).ok()).collect(),
        port: PUBLIC_PORT,
    };

    let mut set = FileSet::new(&args.folder);
    set.add("pki/server-ca.pem", servers.authority().certificate_pem(), Access::Public);
    set.add("pki/server-ca-key.pem", servers.authority().key_pem(), Access::Private);
    set.add("pki/server.pem", server.certificate_pem(), Access::Public);
    set.add("pki/server-key.pem", server.key_pem(), Access::Private);
    set.add("pki/clients.pem", devices.authority().certificate_pem(), Access::Public);
    set.add("pki/clients-key.pem", devices.authority().key_pem(), Access::Private);

    let folder = args.folder.join("devices");
    set.add(&format!("devices/{ROOT_FILE}"), gate.root_pem(), Access::Public);
    let mut made = Vec::new();
    for name in &args.devices {
        let issued = devices.issue(name)?;
        let password = Password::generate()?;
        let device =
            enrolment::Device { name: name.clone(), certificate: issued.certificate().clone(), key: issued.key() };
        set.files.extend(Kit::new(&gate, &device, &password)?.files(&folder));
        let file = |form: Form| folder.join(form.file_name(name));
        made.push(Device {
            name: name.to_string(),
            archive: file(Form::Archive),
            archive_compat: file(Form::ArchiveCompat),
            password: password.as_str().to_owned(),
            profile: file(Form::Profile),
            certificate: file(Form::Certificate),
            key: file(Form::Key),
            ssh_config: file(Form::SshConfig),
            steps: file(Form::Steps),
            fingerprint: Sha256::of(issued.certificate()).to_string(),
            serial: Serial::from_be_bytes(issued.serial()).to_string(),
            not_after: issued.not_after().unix_timestamp(),
        });
    }
    // Last: whoever finds a configuration finds everything it names.
    let config_file = args.folder.join("doorward.toml");
    set.add("doorward.toml", configuration(args, &config_file, &server, &made), Access::Public);
    set.check_distinct()?;

    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    files::write_all(&set.files, existing).map_err(InitError::Files)?;
    Ok(Written {
        folder: args.folder.clone(),
        config: config_file,
        listen: args.listen,
        server_names,
        server_authority: args.folder.join("pki/server-ca.pem"),
        server_fingerprint: Sha256::of(server.certificate()).to_string(),
        server_not_after: server.not_after().unix_timestamp(),
        devices: made,
        files: set.files.iter().map(WrittenFile::from).collect(),
    })
}

/// What `doorward init` has written: what `--format json` prints. Paths start with the folder as it was given.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// The folder.
    pub folder: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// Where the gate will listen.
    pub listen: SocketAddr,
    /// The names the gate will answer to, in the order of the routes.
    pub server_names: Vec<String>,
    /// The certificate that devices must trust.
    pub server_authority: PathBuf,
    /// SHA-256 of the gate's certificate, in hexadecimal digits.
    pub server_fingerprint: String,
    /// When the gate's certificate expires, in seconds since 1970.
    pub server_not_after: i64,
    /// The devices, in the order of the arguments.
    pub devices: Vec<Device>,
    /// Every file, in the order written.
    pub files: Vec<WrittenFile>,
}

/// A device that can be set up now.
#[derive(Clone, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The archive to import.
    pub archive: PathBuf,
    /// The same with older encryption, for systems that cannot read the first.
    pub archive_compat: PathBuf,
    /// The password of both archives, and of the one in the profile. It is stored nowhere.
    pub password: String,
    /// The configuration profile for iPhones, iPads and Macs.
    pub profile: PathBuf,
    /// The certificate as PEM.
    pub certificate: PathBuf,
    /// The key as PEM.
    pub key: PathBuf,
    /// A part of `~/.ssh/config`.
    pub ssh_config: PathBuf,
    /// A page that says what to do with these files.
    pub steps: PathBuf,
    /// SHA-256 of the certificate, in hexadecimal digits: what the configuration's `deny` takes after `sha256:`.
    pub fingerprint: String,
    /// The certificate's serial number, in hexadecimal digits.
    pub serial: String,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: i64,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Where.
    pub path: PathBuf,
    /// Its permissions, as in `0600`.
    pub mode: String,
}

impl From<&NewFile> for WrittenFile {
    fn from(file: &NewFile) -> Self {
        Self { path: file.path.clone(), mode: format!("{:04o}", file.access.mode()) }
    }
}

impl Written {
    /// What was written and what to do next, for people.
    pub fn text(&self) -> String {
        let mut out = format!("Written to {}:\n", self.folder.display());
        for file in &self.files {
            let path = file.path.strip_prefix(&self.folder).unwrap_or(&file.path).display().to_string();
            let note = if file.mode == "0600" { "secret" } else { "" };
            out.push_str(format!("  {path:<40} {note}").trim_end());
            out.push('\n');
        }
        let (config, folder) = (self.config.display(), self.folder.display());
        let first = self.devices.first().map_or("NAME", |device| &device.name);
        let (names, port) = (self.server_names.join(", "), self.listen.port());
        let _ = write!(
            out,
            "
Next:
  1. Start the gate on this machine:
       doorward run --config {config}
  2. Let your router forward TCP port 443 to port {port} of this machine, and let these names lead to the router:
       {names}
  3. Set up each device. Its page has the steps for every system, and the files that it needs lie beside the page:
"
        );
        for device in &self.devices {
            let _ = writeln!(out, "       {}\n         password  {}", device.steps.display(), device.password);
        }
        let _ = write!(
            out,
            "     Or let a device fetch what it needs over a link in your home network that works once, say:
       doorward share {first} --folder {folder}

The passwords are shown this once and stored nowhere. Keep the files marked secret to yourself.
"
        );
        out
    }
}

/// The files to be written, below one folder.
struct FileSet<'a> {
    folder: &'a Path,
    files: Vec<NewFile>,
}

impl<'a> FileSet<'a> {
    const fn new(folder: &'a Path) -> Self {
        Self { folder, files: Vec::new() }
    }

    fn add(&mut self, name: &str, contents: impl Into<Vec<u8>>, access: Access) -> PathBuf {
        let path = self.folder.join(name);
        self.files.push(NewFile { path: path.clone(), contents: contents.into(), access });
        path
    }

    /// The devices `a` and `a-key` would both own `a-key.pem`.
    fn check_distinct(&self) -> Result<(), InitError> {
        let mut seen = HashSet::new();
        // In one case: there are file systems that do not tell `Alice` from `alice`.
        match self.files.iter().find(|file| !seen.insert(file.path.to_string_lossy().to_lowercase())) {
            None => Ok(()),
            Some(file) => Err(InitError::Usage(format!(
                "two devices would be written to {}: give one of them another name",
                file.path.display()
            ))),
        }
    }
}

fn server_name(route: &RouteArg, domain: &ServerName) -> String {
    format!("{}.{domain}", route.name).to_ascii_lowercase()
}

/// What only shows when all arguments are looked at together.
fn check(args: &InitArgs) -> Result<(), InitError> {
    let mut names = HashSet::new();
    for route in &args.routes {
        let name = server_name(route, &args.domain);
        if let Err(error) = ServerName::parse(&name) {
            return Err(InitError::Usage(format!("--route {}: {name} is {error}", route.name)));
        }
        if !names.insert(name) {
            return Err(InitError::Usage(format!("--route {}: this name is given twice", route.name)));
        }
    }
    let mut devices = HashSet::new();
    match args.devices.iter().find(|name| !devices.insert(name.as_str().to_ascii_lowercase())) {
        None => Ok(()),
        Some(name) => Err(InitError::Usage(format!("--device {name}: this name is given twice"))),
    }
}

fn parse_domain(text: &str) -> Result<ServerName, String> {
    let domain = ServerName::parse(text).map_err(|error| error.to_string())?;
    if domain.parent().is_none() {
        // RFC 6125 section 7.2: no client takes "*.local" from a certificate.
        return Err("a domain needs a dot, as in home.example, for clients to accept its certificate".into());
    }
    Ok(domain)
}

fn parse_device(text: &str) -> Result<Name, String> {
    // In `allow` these words do not mean a device.
    if ["any", "unverified"].contains(&text) {
        return Err(format!("{text:?} has a meaning of its own in the configuration"));
    }
    Name::parse(text).map_err(|error| error.to_string())
}

fn parse_route(text: &str) -> Result<RouteArg, String> {
    const EXAMPLE: &str = "write NAME=ADDRESS:PORT, as in nas=192.168.1.10:5666";
    let Some((name, backend)) = text.split_once('=') else {
        return Err(format!("there is no \"=\" in it: {EXAMPLE}"));
    };
    let name = Name::parse(name).map_err(|error| format!("{error}: {EXAMPLE}"))?;
    if name.as_str().contains('.') {
        return Err(format!(
            "the name may not contain a dot, for the certificate covers one label below the domain: {EXAMPLE}"
        ));
    }
    check_backend(backend).map_err(|problem| format!("{problem}: {EXAMPLE}"))?;
    Ok(RouteArg { name, backend: backend.to_owned() })
}

fn check_backend(text: &str) -> Result<(), &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') { Ok(()) } else { Err("the path of a unix socket starts with \"/\"") };
    }
    if text.contains("://") {
        return Err("a backend is no web address, leave out what stands before \"//\" and after the port");
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Err("there is no port in it") };
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("the port is a number from 1 to 65535");
    }
    if text.parse::<SocketAddr>().is_ok() || ServerName::parse(host).is_ok() {
        return Ok(());
    }
    Err(if host.contains(':') {
        "an IPv6 address stands in brackets, as in [fd00::1]:22"
    } else {
        "what stands before the port is no address and no host name"
    })
}

fn configuration(args: &InitArgs, file: &Path, server: &Issued, devices: &[Device]) -> String {
    let mut deny = String::new();
    for device in devices {
        let _ = writeln!(deny, "    # \"sha256:{}\",   # {}", device.fingerprint, device.name);
    }
    let mut routes = String::new();
    for route in &args.routes {
        let _ = write!(
            routes,
            "\n[[route]]\nname = {}\nserver_names = [{}]\nbackends = [{}]\nallow = [\"any\"]\n",
            quoted(route.name.as_str()),
            quoted(&server_name(route, &args.domain)),
            quoted(&route.backend),
        );
    }
    format!(
        include_str!("init.toml"),
        domain = args.domain,
        // In a comment: a line break in a folder's name must not end it.
        file = file.display().to_string().escape_debug(),
        listen = quoted(&args.listen.to_string()),
        server_expiry = server.not_after().date(),
        deny = deny,
        family = devices.iter().map(|device| quoted(&device.name)).collect::<Vec<_>>().join(", "),
        first_device = devices.first().map_or("", |device| &device.name),
        routes = routes,
    )
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        init: InitArgs,
    }

    fn parse(args: &[&str]) -> Result<InitArgs, clap::Error> {
        Cli::try_parse_from(["init"].iter().chain(args)).map(|cli| cli.init)
    }

    /// Arguments for `folder`, with `more` at the end.
    fn args(folder: &Path, more: &[&str]) -> InitArgs {
        let folder = folder.to_str().expect("UTF-8");
        let all = ["--domain", "home.example", "--route", "nas=192.168.1.10:5666", "--device", "alice-phone"];
        parse(&[&all[..], &["--folder", folder], more].concat()).expect("arguments")
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).expect("a file")
    }

    #[test]
    fn what_is_left_out_has_a_default_and_what_must_be_said_is_asked_for() {
        let args = parse(&["--domain", "Home.Example.", "--route", "nas=nas.lan:80", "--device", "a"]).expect("enough");
        assert_eq!((args.domain.as_str(), args.folder.to_str()), ("home.example", Some("doorward")));
        assert_eq!((args.listen.to_string().as_str(), args.force, args.format), ("[::]:8443", false, Format::Text));
        for missing in [
            &["--route", "nas=nas.lan:80", "--device", "a"][..],
            &["--domain", "home.example", "--device", "a"],
            &["--domain", "home.example", "--route", "nas=nas.lan:80"],
        ] {
            assert_eq!(parse(missing).expect_err("too little").exit_code(), 2);
        }
    }

    #[test]
    fn backends_of_every_form() {
        for backend in ["192.168.1.10:5666", "[fd00::1]:22", "nas.lan:445", "localhost:1", "unix:/run/nas.sock"] {
            let route = parse_route(&format!("nas={backend}")).expect(backend);
            assert_eq!((route.name.as_str(), route.backend.as_str()), ("nas", backend));
        }
    }

    #[test]
    fn a_wrong_route_is_answered_with_a_right_one() {
        for (wrong, why) in [
            ("nas", "no \"=\""),
            ("=192.168.1.10:80", "may not be empty"),
            ("a b=192.168.1.10:80", "may not contain ' '"),
            ("a.b=192.168.1.10:80", "may not contain a dot"),
            ("nas=", "no port"),
            ("nas=192.168.1.10", "no port"),
            ("nas=192.168.1.10:", "from 1 to 65535"),
            ("nas=192.168.1.10:0", "from 1 to 65535"),
            ("nas=192.168.1.10:http", "from 1 to 65535"),
            ("nas=http://192.168.1.10:80", "no web address"),
            ("nas=fd00::1:22", "in brackets"),
            ("nas=a b:22", "no address and no host name"),
            ("nas=unix:run/nas.sock", "starts with \"/\""),
        ] {
            let message = parse_route(wrong).expect_err(wrong);
            assert!(message.contains(why), "{wrong}: {message}");
            assert!(message.ends_with("as in nas=192.168.1.10:5666"), "{wrong}: {message}");
        }
        let shown = parse(&["--domain", "home.example", "--route", "nas", "--device", "a"]).expect_err("wrong");
        assert!(shown.to_string().contains("nas=192.168.1.10:5666"), "{shown}");
    }

    #[test]
    fn names_that_cannot_work_are_refused() {
        assert!(parse_domain("home").expect_err("one label").contains("home.example"));
        assert!(parse_domain("192.168.1.1").expect_err("an address").contains("IP address"));
        assert!(parse_domain("*.home.example").is_err());
        for word in ["any", "unverified", "a:b", "../a", ""] {
            assert!(parse_device(word).is_err(), "{word}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("new");
        for (more, why) in [
            (&["--route", "NAS=192.168.1.11:80"][..], "--route NAS: this name is given twice"),
            (&["--route", "nas-=192.168.1.11:80"], "nas-.home.example is not a host name"),
            (&["--device", "Alice-phone"], "--device Alice-phone: this name is given twice"),
            (&["--device", "alice-phone-key"], "alice-phone-key.pem"),
            (&["--device", "alice-phone-compat"], "alice-phone-compat.p12"),
        ] {
            let error = create(&args(&folder, more)).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.exit_code(), 2);
            assert!(!folder.exists(), "{why}: nothing is written");
        }
    }

    #[test]
    fn the_configuration_names_what_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let more = ["--route", "ssh=[fd00::1]:22", "--device", "bob-laptop", "--listen", "127.0.0.1:4443"];
        let written = create(&args(folder.path(), &more)).expect("written");
        let text = read(&written.config);
        let config: toml::Table = text.parse().expect("TOML");
        let string = |value: &toml::Value| value.as_str().map(str::to_owned).expect("a string");

        for file in [&config["certificate"]["chain"], &config["certificate"]["key"], &config["client_auth"]["trust"][0]]
        {
            assert!(folder.path().join(string(file)).is_file(), "{file}");
        }
        assert_eq!(string(&config["client_auth"]["mode"]), "require_and_verify");
        assert_eq!(config["client_auth"]["deny"].as_array().map(Vec::len), Some(0));
        assert_eq!(string(&config["listener"][0]["address"]), "127.0.0.1:4443");
        let route = |i: usize| {
            let route = &config["route"][i];
            ["name", "server_names", "backends", "allow"]
                .map(|key| route[key].as_array().map_or(route, |a| &a[0]))
                .map(|value| value.as_str().or_else(|| route["name"].as_str()).expect("a string").to_owned())
        };
        assert_eq!(route(0), ["nas", "nas.home.example", "192.168.1.10:5666", "any"]);
        assert_eq!(route(1), ["ssh", "ssh.home.example", "[fd00::1]:22", "any"]);
        assert_eq!(written.server_names, ["nas.home.example", "ssh.home.example"]);

        // What the comments offer works when their "#" is taken away.
        let offered = text.replace("    # \"sha256:", "    \"sha256:").replace("# [groups]", "[groups]");
        let offered = offered.replace("# family", "family");
        let config: toml::Table = offered.parse().expect("TOML");
        let denied: Vec<String> = written.devices.iter().map(|d| format!("sha256:{}", d.fingerprint)).collect();
        let read: Vec<String> = config["client_auth"]["deny"].as_array().expect("a list").iter().map(string).collect();
        assert_eq!(read, denied);
        assert_eq!(config["groups"]["family"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_stands_in_a_folder_name_stays_in_its_comment() {
        let folder = tempfile::tempdir().expect("a folder");
        let written = create(&args(&folder.path().join("a\n[[listener]] \"b"), &[])).expect("written");
        let config: toml::Table = read(&written.config).parse().expect("TOML");
        assert_eq!(config["listener"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn nothing_is_overwritten_without_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = create(&args(folder.path(), &[])).expect("written");
        let before: Vec<Vec<u8>> = first.files.iter().map(|f| std::fs::read(&f.path).expect("there")).collect();

        std::fs::remove_file(&first.config).expect("removed");
        let error = create(&args(folder.path(), &[])).expect_err("in the way");
        assert_eq!(error.exit_code(), exit::EXISTS);
        let message = error.to_string();
        assert!(message.contains("server-ca-key.pem") && message.contains("nothing was written"), "{message}");
        assert!(!message.contains("doorward.toml"), "it is not in the way: {message}");
        assert!(!first.config.exists());
        for (file, before) in first.files.iter().zip(&before).filter(|(file, _)| file.path != first.config) {
            assert_eq!(&std::fs::read(&file.path).expect("there"), before, "{}", file.path.display());
        }

        let second = create(&args(folder.path(), &["--force"])).expect("replaced");
        assert_eq!(second.files, first.files);
        // Nothing of the certificates stands in what is for ssh.
        let same = [&first.config, &first.devices[0].ssh_config];
        for (file, before) in second.files.iter().zip(&before).filter(|(file, _)| !same.contains(&&file.path)) {
            assert_ne!(&std::fs::read(&file.path).expect("there"), before, "{}", file.path.display());
        }
    }

    #[test]
    fn passwords_are_shown_and_stored_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let written = create(&args(folder.path(), &["--device", "bob-laptop"])).expect("written");
        let (text, json) = (written.text(), serde_json::to_value(&written).expect("JSON"));
        assert_ne!(written.devices[0].password, written.devices[1].password);
        for (i, device) in written.devices.iter().enumerate() {
            assert!(text.contains(&device.password), "{text}");
            assert_eq!(json["devices"][i]["password"], *device.password);
            assert!(!format!("{written:?}").contains(&device.password));
            for file in &written.files {
                let contents = std::fs::read(&file.path).expect("there");
                let found = contents.windows(device.password.len()).any(|part| part == device.password.as_bytes());
                assert!(!found, "{} holds a password", file.path.display());
            }
        }
        assert_eq!(json["files"][0]["mode"], "0644");
        assert_eq!(json["files"][1]["mode"], "0600");
    }

    #[test]
    fn people_are_told_what_to_do_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = create(&args(folder.path(), &[])).expect("written").text();
        let folder = folder.path().display();
        for needed in [
            format!("doorward run --config {folder}/doorward.toml"),
            "to port 8443 of this machine".to_owned(),
            "nas.home.example".to_owned(),
            format!("{folder}/devices/alice-phone.html"),
            format!("doorward share alice-phone --folder {folder}"),
        ] {
            assert!(text.contains(&needed), "{needed} is missing in\n{text}");
        }
    }
}
