//! `doorward certificate use`: the gate shows another certificate from now on.

mod in_force;
mod own;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::seed::{Seeded, seed};
use crate::cli::ca::{CaError, FolderArg, PassphraseArg, make_server_certificate};
use crate::cli::init::{AcmeArgs, TRUST_FILE};
use crate::cli::services::load_as_owner;
use crate::cli::{Format, exit, failed};
use crate::config;
use crate::config::certificate_section::{NotReplaced, Use, kept, replaced};
use crate::config::checked::{Acme, Certificate, Config, Route, RouteMode};
use crate::config::server_trust::CertificateKind;
use crate::files::{Access, NewFile};
use crate::install::Installed;
use crate::model::names::ServerName;
use crate::model::public_name::not_public;
use crate::model::service::PUBLIC_PORT;
use crate::model::shell;
use in_force::{InForce, put_in_force, write_file};
use own::{common_domain, names, names_what_exists, own_section};

/// The options of `doorward certificate use`.
#[derive(Args, Debug)]
pub(super) struct UseArgs {
    /// Which certificate
    #[arg(value_enum, value_name = "CERTIFICATE")]
    wanted: Wanted,

    /// public: the e-mail address that the ACME server may write to [default: none]
    #[arg(long, value_name = "EMAIL", value_parser = crate::cli::init::parse_contact)]
    contact: Option<String>,

    /// public: the ACME server: "letsencrypt", "letsencrypt-staging", or the URL of a directory [default: as before, else
    /// letsencrypt]
    #[arg(long, value_name = "DIRECTORY", value_parser = crate::cli::init::parse_directory)]
    directory: Option<String>,

    /// public: the authorities that vouch for the ACME server itself, if it is a private one: a PEM file
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,

    /// own: the domain that a new authority is limited to [default: what your server names have in common]
    #[arg(long, value_name = "DOMAIN", value_parser = crate::cli::ca::parse_domain)]
    domain: Option<ServerName>,

    /// own: make the authority and the certificate, and change nothing else yet, so that devices can trust it first
    #[arg(long)]
    prepare: bool,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// One of a public authority: devices trust it already
    Public,
    /// One of an authority of your own: each device must trust it
    Own,
}

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Switched<'a> {
    certificate: &'static str,
    config: &'a Path,
    /// Whether the configuration was changed.
    changed: bool,
    /// Whether a running gate uses it; nothing if none runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<bool>,
    /// The authority that devices must trust, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<PathBuf>,
}

/// Why nothing was changed: the exit code and the message.
type Refused = (u8, String);

pub(super) fn run(args: &UseArgs) -> ExitCode {
    match switch(args) {
        Ok(code) => code,
        Err((code, message)) => failed(code, &message),
    }
}

/// The configuration before the change.
struct Before {
    file: PathBuf,
    text: String,
    config: Config,
}

fn switch(args: &UseArgs) -> Result<ExitCode, Refused> {
    let wanted = match args.wanted {
        Wanted::Own => Use::Own,
        Wanted::Public => Use::Public,
    };
    check(args, wanted)?;
    let before = before(args)?;
    let current = with_default_certificate(&before).next().map(|(_, certificate)| certificate);
    let is_wanted = current.map(CertificateKind::of).is_some_and(|kind| kind.is_public() == (wanted == Use::Public));
    if is_wanted && !args.has_acme_options() {
        say(args, &format!("The gate uses this already; {} is unchanged.\n", before.file.display()));
        print(
            args,
            &Switched {
                certificate: wanted.word(),
                config: &before.file,
                changed: false,
                in_force: None,
                authority: None,
            },
        )?;
        return Ok(exit::OK.into());
    }
    match wanted {
        Use::Public => to_public(args, &before, current),
        Use::Own => to_own(args, &before),
    }
}

impl UseArgs {
    const fn has_acme_options(&self) -> bool {
        self.contact.is_some() || self.directory.is_some() || self.trust.is_some()
    }
}

fn check(args: &UseArgs, wanted: Use) -> Result<(), Refused> {
    let usage = |message: &str| Err((exit::USAGE, message.to_owned()));
    match wanted {
        Use::Own if args.has_acme_options() => usage(
            "--contact, --directory and --trust are about a public certificate\n  leave them out, or: doorward certificate use public",
        ),
        Use::Public if args.domain.is_some() || args.prepare => usage(
            "--domain and --prepare are about an authority of your own\n  leave them out, or: doorward certificate use own",
        ),
        _ => Ok(()),
    }
}

fn before(args: &UseArgs) -> Result<Before, Refused> {
    let file = args.folder.config().map_err(|message| (exit::CONFIG, message))?;
    // A link to it stays one.
    let file = file.canonicalize().unwrap_or(file);
    let text = fs::read_to_string(&file)
        .map_err(|error| (exit::CONFIG, format!("cannot read {}: {error}", file.display())))?;
    let config = load_as_owner(&file).map_err(|errors| (exit::CONFIG, errors.to_string()))?;
    Ok(Before { file, text, config })
}

/// The routes that have no certificate of their own, and the one that they show.
fn with_default_certificate(before: &Before) -> impl Iterator<Item = (&Route, &Certificate)> {
    let table: Option<toml::Table> = before.text.parse().ok();
    let chain = table.as_ref().and_then(|table| table.get("certificate")?.get("chain")?.as_str()).map(PathBuf::from);
    let default = match &before.config.acme {
        Some(acme) => Some(acme.certificate_file()),
        None => chain.map(|chain| before.file.parent().unwrap_or_else(|| Path::new(".")).join(chain)),
    };
    before.config.routes.iter().filter_map(move |route| match &route.mode {
        RouteMode::Terminate(terminate) => {
            let certificate = &*terminate.certificate;
            let is_default = default.as_ref().is_some_and(|default| same(default, &certificate.chain_file));
            is_default.then_some((route, certificate))
        }
        RouteMode::Passthrough => None,
    })
}

fn not_replaced(file: &Path, section: &str) -> impl Fn(NotReplaced) -> Refused {
    let (file, section) = (file.display().to_string(), section.to_owned());
    move |error| {
        (
            exit::CONFIG,
            format!("{file} cannot be changed by this command: {error}\n  write into it, in place of that:\n{section}"),
        )
    }
}

fn to_public(args: &UseArgs, before: &Before, current: Option<&Certificate>) -> Result<ExitCode, Refused> {
    let section = match kept(&before.text, Use::Public).filter(|_| !args.has_acme_options()) {
        Some(section) => section,
        None => acme_section(args, &before.file)?,
    };
    let text = replaced(&before.text, Use::Public, &section).map_err(not_replaced(&before.file, &section))?;
    let after = parsed(&text, before)?;
    let mut notes = String::new();
    if let Some(acme) = after.acme.as_deref() {
        check_names(acme, &after)?;
        if after.public_port != PUBLIC_PORT {
            notes.push_str(&format!(
                "The ACME server connects to port {PUBLIC_PORT} of each name, whatever port devices dial: forward port {PUBLIC_PORT} of your \
                 router to the gate, too.\n"
            ));
        }
        let seeded = current.map(|current| seed(acme, &before.file, current)).transpose();
        notes.push_str(match seeded.map_err(|why| (exit::UNEXPECTED, why))? {
            Some(Seeded::ThereAlready) => "",
            Some(Seeded::Placed) => "Until the public certificate is issued, the gate shows the one that it has now.\n",
            Some(Seeded::DoesNotFit) | None => {
                "Until the public certificate is issued, the gate shows a temporary one, which devices do not trust.\n"
            }
        });
        notes.push_str(&format!(
            "The gate orders it from {}. By using it you agree to its terms of service. How it goes: doorward certificate\n",
            acme.directory.name
        ));
    }
    let in_force = put_in_force(&text, before)?;
    notes.push_str(
        "Devices need no change: they trust a public certificate already. Those that you set up from now on need not trust your \
         authority.\n",
    );
    finish(args, before, Use::Public, in_force, None, &notes)
}

fn to_own(args: &UseArgs, before: &Before) -> Result<ExitCode, Refused> {
    let installed = Installed::find().filter(|gate| gate.config() == before.file);
    let section = kept(&before.text, Use::Own).unwrap_or_else(|| own_section(args, before));
    let text = replaced(&before.text, Use::Own, &section).map_err(not_replaced(&before.file, &section))?;
    let mut notes = String::new();
    let mut authority = None;
    if args.prepare || !names_what_exists(&section, &before.file) {
        let names = names(before);
        let domain = args.domain.clone().or_else(|| common_domain(&names));
        let made = make_server_certificate(&args.folder, &args.passphrase, domain.as_ref(), &names)
            .map_err(|CaError { code, message }| (code, message))?;
        notes.push_str(&made.text);
        authority = Some(made.authority);
    }
    if args.prepare {
        notes.push_str(&format!(
            "Nothing else is changed yet. Have each device trust the authority: see \"Set up a device\" in doorward help devices. \
             Then:\n  doorward certificate use own --config {}\n",
            shell::path(&before.file)
        ));
        say(args, &notes);
        print(args, &Switched { certificate: "own", config: &before.file, changed: false, in_force: None, authority })?;
        return Ok(exit::OK.into());
    }
    if installed.is_some() && !names_what_exists(&section, &before.file) {
        say(args, &notes);
        return Err((
            exit::NOT_IN_FORCE,
            format!(
                "the installed gate has no copy of this certificate yet, and {} is unchanged\n  in the doorward.toml of the folder that it \
                 was installed from, write this in place of its [certificate.acme]:\n{section}  then: sudo doorward install \
                 --replace-config",
                before.file.display()
            ),
        ));
    }
    parsed(&text, before)?;
    let in_force = put_in_force(&text, before)?;
    notes.push_str(
        "Each device must trust your authority. One that was set up while the certificate was public does not yet, and warns of the \
         gate until it does. Hand it the authority, and its files, with the steps:\n  doorward share NAME\n",
    );
    finish(args, before, Use::Own, in_force, authority, &notes)
}

/// The section of a certificate that the gate orders. The file of `--trust` is copied beside the other ones of the configuration,
/// which the sandbox of a running gate may read.
fn acme_section(args: &UseArgs, config: &Path) -> Result<String, Refused> {
    let contact = args.contact.clone();
    let directory = args.directory.clone().unwrap_or_else(|| AcmeArgs::default().acme_directory);
    let acme =
        AcmeArgs { acme: true, acme_contact: contact, acme_directory: directory, acme_trust: args.trust.clone() };
    let folder = config.parent().unwrap_or_else(|| Path::new("."));
    let inside = if folder.join(crate::cli::ca::FOLDER).is_dir() { crate::cli::ca::FOLDER } else { "" };
    if let Some(pem) = acme.trust().map_err(|error| (exit::USAGE, error.to_string()))? {
        let copy = NewFile { path: folder.join(inside).join(TRUST_FILE), contents: pem, access: Access::Public };
        write_file(copy)?;
    }
    Ok(acme.section(inside))
}

fn check_names(acme: &Acme, config: &Config) -> Result<(), Refused> {
    if acme.trust.is_some() {
        return Ok(());
    }
    match acme.names.iter().find_map(|name| Some((name, not_public(name)?))) {
        None => Ok(()),
        Some((name, why)) => Err((
            exit::USAGE,
            format!(
                "no public authority issues a certificate for {name}: {why}\n  give the route another server name in {}, or a \
                 [route.certificate] of its own",
                config.file.display()
            ),
        )),
    }
}

/// The configuration as it would be, with what is wrong with it.
fn parsed(text: &str, before: &Before) -> Result<Config, Refused> {
    let installed = Installed::find().filter(|gate| gate.config() == before.file);
    let parsed = match installed {
        Some(gate) => config::parse_with(text, &before.file, &gate.credentials()),
        None => config::parse(text, &before.file),
    };
    let config = parsed.map_err(|errors| {
        (
            exit::CONFIG,
            format!("nothing was changed: with the other certificate, the configuration would have errors\n{errors}"),
        )
    })?;
    for warning in config.warnings.iter().filter(|warning| warning.key.contains("certificate") && config.acme.is_none())
    {
        errln!("warning: {}: {}", warning.key, warning.message);
    }
    Ok(config)
}

fn finish(
    args: &UseArgs,
    before: &Before,
    wanted: Use,
    in_force: InForce,
    authority: Option<PathBuf>,
    notes: &str,
) -> Result<ExitCode, Refused> {
    let file = before.file.display();
    let mut text = format!("{file} is changed; what it said before about the certificate is there in comments.\n");
    text.push_str(&match &in_force {
        InForce::Yes { kept, cut } => format!("The gate uses it. Open connections kept: {kept}. Cut: {cut}.\n"),
        InForce::NotRunning => "No gate is running here. One that you start will use it.\n".to_owned(),
        InForce::No(_) => String::new(),
    });
    text.push_str(notes);
    if let Some(owners) = owners_copy(before) {
        text.push_str(&format!(
            "{} is another copy, which the gate does not read: change it as well before doorward install --replace-config.\n",
            owners.display()
        ));
    }
    say(args, &text);
    let told = match in_force {
        InForce::Yes { .. } => Some(true),
        InForce::NotRunning => None,
        InForce::No(_) => Some(false),
    };
    print(
        args,
        &Switched { certificate: wanted.word(), config: &before.file, changed: true, in_force: told, authority },
    )?;
    match in_force {
        InForce::No(why) => {
            Err((exit::NOT_IN_FORCE, format!("the change is written, but not known to be in force: {why}")))
        }
        InForce::Yes { .. } | InForce::NotRunning => Ok(exit::OK.into()),
    }
}

/// The configuration that the installed one was copied from.
fn owners_copy(before: &Before) -> Option<PathBuf> {
    let installed = Installed::find().filter(|gate| gate.config() == before.file)?;
    let copy = installed.authority().with_file_name("doorward.toml");
    (copy.exists() && !same(&copy, &before.file)).then_some(copy)
}

fn say(args: &UseArgs, text: &str) {
    if args.format == Format::Text {
        text.lines().for_each(|line| errln!("{line}"));
    }
}

fn print(args: &UseArgs, switched: &Switched<'_>) -> Result<(), Refused> {
    if args.format == Format::Json {
        let json = serde_json::to_string_pretty(switched).map_err(|error| (exit::UNEXPECTED, error.to_string()))?;
        outln!("{json}");
    }
    Ok(())
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

fn same(one: &Path, other: &Path) -> bool {
    absolute(one) == absolute(other)
}
