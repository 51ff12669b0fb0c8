//! `doorward ca`: the life of certificates. One module a command.

mod device;
mod export;
mod found;
mod gate;
mod handout;
mod import;
mod init;
mod inspect;
mod list;
mod passphrase;
mod protect;
mod renew;
mod revoke;
mod running;
mod server;

pub use found::{FoundError, LimitsArg};
pub(super) use found::{Founded, Founding, found, parse_device, parse_domain};
pub use handout::Device;

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::passphrase::PassphraseArg;
use super::{ConfigArg, FROM_INIT, Format, exit, share};
use crate::ca::files;
use crate::ca::inventory::{AuthorityEntry, Inventory, Kind, Notice, Recovered, Store, StoreError};
use crate::enrolment;
use crate::pki::{self, Authority};

/// The options of `doorward ca`.
#[derive(Args, Debug)]
pub(super) struct CaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make your authorities: one that vouches for the gate, and one that vouches for your devices
    ///
    /// "doorward init" does this as well, and writes a configuration. The authority of the gate can vouch for your domain
    /// and nothing else, so that devices can trust it without risk.
    Init(init::InitArgs),
    /// Let one more device in: make its key and certificate, ready to be imported
    ///
    /// A gate that runs lets it in at once.
    Device(device::DeviceArgs),
    /// Make the gate's own certificate anew, for the same names or for others
    ///
    /// Its key stays the same if it is there. Devices notice nothing.
    Server(server::ServerArgs),
    /// Show every certificate, how it stands, and how many days it has left
    List(list::ListArgs),
    /// Give a device, or the gate, a certificate that is good for longer
    ///
    /// The key stays the same, and so does the old certificate until it expires: nothing has to be done at a certain hour.
    Renew(renew::RenewArgs),
    /// Shut a device out: put its certificate on the list of those that no longer count
    ///
    /// Without a name, serial number, fingerprint or file it writes the lists anew and shuts nobody out.
    Revoke(revoke::RevokeArgs),
    /// Say what a file is, in words, and what is odd about it
    ///
    /// Any certificate, chain, key, request, revocation list or .p12 file, whoever made it. Whether a certificate gets in
    /// at the gate is asked with "doorward explain".
    Inspect(inspect::InspectArgs),
    /// Give out a certificate once more, with its key if that is here
    Export(export::ExportArgs),
    /// Encrypt the keys of your authorities with a passphrase, or change or remove it
    Passphrase(protect::ProtectArgs),
    /// Take over an authority that is there already: mkcert's
    ///
    /// What it has issued can be revoked then, and new devices can be issued certificates under it.
    Import(import::ImportArgs),
}

pub(super) fn run(args: CaArgs) -> ExitCode {
    let done = match args.command {
        Command::Init(args) => init::run(&args),
        Command::Device(args) => device::run(&args),
        Command::Server(args) => server::run(&args),
        Command::List(args) => list::run(&args),
        Command::Renew(args) => renew::run(&args),
        Command::Revoke(args) => revoke::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Passphrase(args) => protect::run(&args),
        Command::Import(args) => import::run(&args),
    };
    match done {
        Ok(()) => exit::OK.into(),
        Err(error) => super::failed(error.code, &error),
    }
}

/// A command failed: what to say, and the exit code.
#[derive(Debug)]
struct CaError {
    code: u8,
    message: String,
}

impl CaError {
    /// What was asked for cannot be, and the message says what to ask for instead.
    fn usage(message: impl Into<String>) -> Self {
        Self { code: exit::USAGE, message: message.into() }
    }

    /// The same, and a line of what is true nevertheless.
    fn but(self, line: &str) -> Self {
        Self { message: format!("{}\n  {line}", self.message), ..self }
    }

    /// Files are in the way.
    fn exists(paths: Vec<PathBuf>, remedy: &str) -> Self {
        Self {
            code: exit::EXISTS,
            message: format!("{}; nothing was written\n  {remedy}", files::Error::Exists(paths)),
        }
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<pki::Error> for CaError {
    fn from(error: pki::Error) -> Self {
        Self { code: exit::UNEXPECTED, message: error.to_string() }
    }
}

impl From<share::NotShared> for CaError {
    fn from(error: share::NotShared) -> Self {
        Self { code: error.code, message: error.message }
    }
}

impl From<enrolment::Error> for CaError {
    fn from(error: enrolment::Error) -> Self {
        Self { code: exit::UNEXPECTED, message: error.to_string() }
    }
}

impl From<StoreError> for CaError {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Missing(_)
            | StoreError::KeyAway(_)
            | StoreError::Pki { source: pki::Error::WrongPassphrase, .. } => exit::USAGE,
            _ => exit::UNEXPECTED,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<io::Error> for CaError {
    fn from(error: io::Error) -> Self {
        Self { code: exit::UNEXPECTED, message: error.to_string() }
    }
}

/// Where the authorities are.
#[derive(Args, Clone, Debug)]
struct FolderArg {
    /// The folder of the authorities [default: "pki" beside the configuration, else here]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArg,
}

/// What the folder is called if nothing is said.
const FOLDER: &str = "pki";

impl FolderArg {
    /// The folder for authorities that are yet to be made.
    fn new_folder(&self) -> PathBuf {
        let beside = self.config.path().ok().map(|file| beside(&file));
        self.folder.clone().or(beside).unwrap_or_else(|| FOLDER.into())
    }

    /// The folder of authorities that are there.
    fn existing(&self) -> PathBuf {
        if let Some(folder) = &self.folder {
            return folder.clone();
        }
        let beside_config = self.config.path().ok().map(|file| beside(&file));
        let usual = [FOLDER.into(), beside(Path::new(FROM_INIT))];
        let mut candidates = beside_config.clone().into_iter().chain(usual);
        candidates.find(|folder| Store::is_in(folder)).or(beside_config).unwrap_or_else(|| FOLDER.into())
    }

    /// Opens the folder, which nobody else can change then.
    fn open(&self) -> Result<Store, CaError> {
        let mut store = Store::open(&self.existing(), tell)?;
        tell_recovered(&store);
        let mut inventory = store.inventory.clone();
        recall(&store, &mut inventory)?;
        store.inventory = inventory;
        Ok(store)
    }

    /// As [`FolderArg::open`], and the folder is made if it is not there.
    fn open_or_create(&self) -> Result<Store, CaError> {
        let found = self.existing();
        let folder = if Store::is_in(&found) { found } else { self.new_folder() };
        let store = Store::open_or_create(&folder, tell)?;
        tell_recovered(&store);
        Ok(store)
    }
}

fn beside(config: &Path) -> PathBuf {
    config.with_file_name(FOLDER)
}

/// What there is to say while the folder is used.
fn tell(notice: Notice<'_>) {
    match notice {
        Notice::Waiting => errln!("waiting for another doorward that changes the same folder"),
        Notice::Warning(warning) => errln!("warning: {warning}"),
    }
}

fn tell_recovered(store: &Store) {
    match store.recovered {
        Recovered::Nothing => {}
        Recovered::Finished => errln!(
            "note: an earlier command was killed in the middle of a change; the change is complete now. Passwords it had \
             no time to show are lost: doorward ca renew NAME makes new archives"
        ),
        Recovered::Discarded => {
            errln!("note: an earlier command was killed before it had changed anything; nothing of it is left");
        }
    }
}

/// Has `inventory` know of everything that is on the revocation lists already.
fn recall(store: &Store, inventory: &mut Inventory) -> Result<(), StoreError> {
    match store.recall(inventory)? {
        0 => {}
        count => errln!(
            "note: {} on the list already, and the inventory did not know it (was an older one put back?); \
             who was revoked stays revoked",
            if count == 1 { "1 certificate was".to_owned() } else { format!("{count} certificates were") }
        ),
    }
    Ok(())
}

/// The authority that is to sign a certificate of this kind.
fn authority_for(store: &Store, kind: Kind, id: Option<&str>) -> Result<AuthorityEntry, CaError> {
    let inventory = &store.inventory;
    let found = match id {
        Some(id) => inventory.authority(id).filter(|authority| authority.signs.covers(kind)),
        None => inventory.authority_for(kind),
    };
    found.cloned().ok_or_else(|| {
        let fitting = inventory.authorities.iter().filter(|authority| authority.signs.covers(kind));
        let names: Vec<&str> = fitting.map(|authority| authority.id.as_str()).collect();
        CaError::usage(match (id, names.is_empty()) {
            (Some(id), false) => {
                format!(
                    "no authority here is called {id:?} and signs certificates of a {kind}\n  there is: {}",
                    names.join(", ")
                )
            }
            _ => format!(
                "no authority in {} signs certificates of a {kind}\n  have one made: doorward ca init --help",
                store.folder().display()
            ),
        })
    })
}

/// Loads an authority with its key.
fn load(store: &Store, entry: &AuthorityEntry, passphrase: &PassphraseArg) -> Result<Authority, CaError> {
    store.authority(entry, || passphrase.get().map(|text| text.to_owned().into()))
}

/// Says what was done: for people on stderr, or as JSON on stdout.
fn say(format: Format, text: &str, json: &impl Serialize) -> Result<(), CaError> {
    match format {
        Format::Text => io::stderr().lock().write_all(text.as_bytes())?,
        Format::Json => print_json(json)?,
    }
    Ok(())
}

fn print_json(value: &impl Serialize) -> Result<(), CaError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}
