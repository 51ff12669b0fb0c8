//! `doorward init`: configuration, certificates and the first devices, in one folder and ready to run.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::ca::{FoundError, Founded, Founding, LimitsArg, found, parse_device, parse_domain};
use super::{Format, exit};
use crate::ca::files::{Access, NewFile};
use crate::ca::inventory::{COPIES, FILE, Store};
use crate::config::services;
use crate::model::identity::Sha256;
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::shell;
use crate::pki::Issued;
use crate::pki::keys::KeyType;

pub use super::ca::Device;

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

    /// What the gate's authority may vouch for.
    #[command(flatten)]
    pub limits: LimitsArg,

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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
    /// The certificates could not be made, or the files not be written.
    #[error("{error}{}", remedy(.0), error = .0)]
    Found(#[from] FoundError),
    /// The files were written, but not what there is to say about them.
    #[error("failed to print what was written; the files are complete")]
    Output(#[source] io::Error),
}

const fn remedy(error: &FoundError) -> &'static str {
    match error {
        FoundError::Exists(_) => ". Choose another --folder, or replace everything with --force",
        _ => "",
    }
}

impl InitError {
    /// The exit code of the process: 1, 2 for usage, or 7 if files are in the way.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Found(FoundError::SameFile(_)) => exit::USAGE,
            Self::Found(FoundError::Exists(_)) => exit::EXISTS,
            Self::Found(_) | Self::Output(_) => exit::UNEXPECTED,
        }
    }
}

/// Writes everything and says so as `args.format` asks.
pub fn run(args: &InitArgs) -> Result<(), InitError> {
    let written = create(args)?;
    match args.format {
        Format::Text => write!(io::stderr().lock(), "{}{}", written.text(), args.limits.warning()),
        Format::Json => serde_json::to_string_pretty(&written)
            .map_err(io::Error::from)
            .and_then(|json| writeln!(io::stdout().lock(), "{json}")),
    }
    .map_err(InitError::Output)
}

/// Writes everything, or nothing if one of the files is there already and `args.force` is not set.
pub fn create(args: &InitArgs) -> Result<Written, InitError> {
    check(args)?;
    let folder = args.folder.join("pki");
    let names = args.routes.iter().map(|route| server_name(route, &args.domain));
    let server_names = names.filter_map(|name| ServerNamePattern::parse(&name).ok()).collect();
    let founding = Founding {
        domain: &args.domain,
        devices: &args.devices,
        server_names,
        key_type: KeyType::default(),
        limits: args.limits.limits(),
        passphrase: None,
    };
    let mut founded = found(&folder, &founding)?;
    // Last: whoever finds a configuration finds everything it names.
    let config_file = args.folder.join("doorward.toml");
    founded.files.push(NewFile {
        path: "../doorward.toml".into(),
        contents: configuration(args, &config_file, &founded.server, &founded.devices).into(),
        access: Access::Public,
    });
    let written = written(args, config_file, &founded);
    founded.write(&folder, args.force)?;
    Ok(written)
}

fn written(args: &InitArgs, config: PathBuf, founded: &Founded) -> Written {
    let folder = args.folder.join("pki");
    let inventory = WrittenFile { path: folder.join(FILE), mode: mode(Access::Private) };
    let files = founded
        .files
        .iter()
        .filter(|file| !file.path.starts_with(COPIES))
        .map(|file| WrittenFile { path: Store::shown(&folder, &file.path), mode: mode(file.access) });
    Written {
        folder: args.folder.clone(),
        config,
        listen: args.listen,
        server_names: args.routes.iter().map(|route| server_name(route, &args.domain)).collect(),
        server_authority: folder.join("server-ca.pem"),
        server_fingerprint: Sha256::of(founded.server.certificate()).to_string(),
        server_not_after: founded.server.not_after().unix_timestamp(),
        devices: founded.devices.clone(),
        files: files.chain([inventory]).collect(),
    }
}

fn mode(access: Access) -> String {
    format!("{:04o}", access.mode())
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
    /// Every file, in the order written; but for the copies of certificates that the inventory keeps for itself.
    pub files: Vec<WrittenFile>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Where.
    pub path: PathBuf,
    /// Its permissions, as in `0600`.
    pub mode: String,
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
        let (config, folder) = (shell::path(&self.config), shell::path(&self.folder));
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
  4. If a device does not get in, ask the gate why:
       doorward why --config {config}

The passwords are shown this once and stored nowhere. Keep the files marked secret to yourself.
"
        );
        out
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
            "\n[[route]]\nname = {}\nserver_names = [{}]\nbackends = [{}]\nallow = [\"any\"]\n{}",
            quoted(route.name.as_str()),
            quoted(&server_name(route, &args.domain)),
            quoted(&route.backend),
            application_protocols(route),
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

/// The line that keeps browsers out of a service that is not HTTP.
fn application_protocols(route: &RouteArg) -> String {
    let port = route.backend.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let Some(protocols) = services::raw_protocols(route.name.as_str(), port) else { return String::new() };
    let quoted: Vec<String> = protocols.iter().map(|protocol| quoted(protocol)).collect();
    format!(
        "application_protocols = [{}]   # keeps browsers out, see application_protocols in the manual\n",
        quoted.join(", ")
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
        assert_eq!(string(&config["control"]["socket"]), "auto");
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
            format!("doorward why --config {folder}/doorward.toml"),
            "to port 8443 of this machine".to_owned(),
            "nas.home.example".to_owned(),
            format!("{folder}/devices/alice-phone.html"),
            format!("doorward share alice-phone --folder {folder}"),
        ] {
            assert!(text.contains(&needed), "{needed} is missing in\n{text}");
        }
    }
}
