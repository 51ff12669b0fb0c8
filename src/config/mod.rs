//! The configuration: text, then raw values that keep where they stood, then checked types.
//!
//! | file | does |
//! |---|---|
//! | `reader` | one TOML table, key by key; unknown keys, wrong kinds |
//! | `raw` | the keys of every section: the only list of them |
//! | `values`, `files`, `key_file` | one value, one file, one key |
//! | `credentials` | keys that a service manager hands over |
//! | `check` | raw to checked, section by section, then the relations among sections |
//! | `checked` | the types of a valid configuration |
//! | `folders` | the folders that the path of a file leads through |
//! | `lists` | revocation lists: those of the files, and newer ones that a running gate was handed |
//! | `in_use` | whether a running gate uses a configuration |
//! | `report`, `error` | where mistakes are, and all of them at once |
//! | `suggest` | what an unknown key or word was probably meant to be |
//!
//! Reading goes on after a mistake. A mistake in a default is reported once, however many routes share it.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use toml::de::DeTable;

pub mod certificate_section;
mod check;
pub mod checked;
pub mod credentials;
mod error;
pub mod expiries;
pub mod file_states;
mod files;
pub(crate) mod folders;
pub(crate) mod in_use;
mod key_file;
pub mod public_certificate;
pub mod public_side;
mod raw;
mod reader;
mod report;
pub mod revocation_lists;
pub mod revoked;
pub mod server_trust;
pub mod services;
pub mod starter;
mod suggest;
mod syntax;
mod values;

use crate::ca::inventory::Inventory;
pub(crate) use check::notify::topic as ntfy_topic;
use credentials::Credentials;
pub(crate) use error::START_ANEW;
pub use error::{ConfigError, ConfigErrors};
use file_states::Seen;
use raw::{Raw, RawControl, RawHistory, RawRenewal};
pub(crate) use report::MayRead;
use report::{Place, Problem, Report};
pub(crate) use suggest::nearest;

/// No configuration is longer; what is must be another file.
const LONGEST: u64 = 1024 * 1024;

/// Reads and checks the configuration file, and every file it names.
///
/// # Errors
/// Every mistake in it, and in the files it names, in the order of the lines.
pub fn load(file: &Path) -> Result<checked::Config, ConfigErrors> {
    load_and_see(file).0
}

/// The same, with these credentials instead of those of this service.
///
/// # Errors
/// As [`load`].
pub fn load_with(file: &Path, credentials: &Credentials) -> Result<checked::Config, ConfigErrors> {
    load_and_see_with(file, credentials, &everything()).0
}

/// The same, and every file that was read, with what it looked like before: also if something is wrong, for it may be right in
/// a moment.
pub(crate) fn load_and_see(file: &Path) -> (Result<checked::Config, ConfigErrors>, Seen) {
    load_and_see_with(file, &Credentials::of_service(), &everything())
}

/// The same in a sandbox, which lets some files be read: every other one is reported as that.
pub(crate) fn load_within(file: &Path, may_read: &MayRead) -> (Result<checked::Config, ConfigErrors>, Seen) {
    load_and_see_with(file, &Credentials::of_service(), may_read)
}

fn load_and_see_with(
    file: &Path,
    credentials: &Credentials,
    may_read: &MayRead,
) -> (Result<checked::Config, ConfigErrors>, Seen) {
    let mut seen = Seen::default();
    seen.look_at(file);
    let text = if may_read(file) { text_of(file) } else { Err(unreadable(file, report::outside(file))) };
    let config = text.and_then(|text| parse_and_see(&text, file, credentials, &mut seen, may_read));
    (config.map(|config| checked::Config { seen: seen.clone(), ..config }), seen)
}

/// What can still be told about rights that are taken away, where the configuration `file` could not be loaded: revocation
/// lists that are not in force yet, of authorities that `in_force` trusts, and entries of `deny`. A sandbox lets some files be
/// read: a list in another one is reported as that.
pub(crate) fn salvage(file: &Path, in_force: &checked::Config, may_read: &MayRead) -> revocation_lists::Salvaged {
    let from_text = |text: &str| {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // What is wrong was told by the load that failed.
        let mut report = Report::new(file, text);
        let (document, _) = DeTable::parse_recoverable(text);
        let raw = Raw::read(document.get_ref(), &mut report);
        check::salvage::salvage(Some(&raw), file, in_force, may_read)
    };
    // A text that makes a parser panic, as the load that failed has told, leaves the files that are named by what is in force.
    let read = text_of(file).ok().and_then(|text| catch_unwind(AssertUnwindSafe(|| from_text(&text))).ok());
    read.unwrap_or_else(|| check::salvage::salvage(None, file, in_force, may_read))
}

/// Whether a handshake can use a revocation list; if not, why.
///
/// # Errors
/// In words, why it cannot.
pub(crate) fn usable(list: &checked::RevocationList) -> Result<(), String> {
    check::revocation_lists::accepted(list.list.clone())
}

/// Reads the section `[control]` alone: a user who may connect to the gate may not be able to read its keys, and mistakes in
/// the rest of the file do not matter here.
///
/// # Errors
/// If the file cannot be read, is not TOML, or has mistakes in this section.
pub fn load_control(file: &Path) -> Result<checked::Control, ConfigErrors> {
    read_document(&text_of(file)?, file, &everything(), |document, report| {
        let raw = RawControl::read_alone(document, report);
        let control = check::control::check(&raw, report);
        report.finish()?;
        control.ok_or_else(|| ConfigErrors::new(Vec::new()))
    })
}

/// Reads the section `[notify]`, the files that it names, and `sandbox.mode`, and nothing else: the process that sends messages
/// is to know no key of the gate.
///
/// # Errors
/// As [`load_control`].
pub fn load_notify(file: &Path) -> Result<(checked::Notify, checked::SandboxMode), ConfigErrors> {
    read_document(&text_of(file)?, file, &everything(), |document, report| {
        report.credentials = Credentials::of_service();
        let (notify, sandbox) = raw::notify_alone(document, report);
        let (notify, sandbox) = (check::notify::check(&notify, report), check::sandbox_mode(&sandbox, report));
        report.finish()?;
        notify.zip(sandbox).ok_or_else(|| ConfigErrors::new(Vec::new()))
    })
}

/// Reads what the process that orders public certificates has to know, and `sandbox.mode`: no key of the gate.
///
/// # Errors
/// As [`load_control`].
pub fn load_acme(file: &Path) -> Result<(Option<Arc<checked::Acme>>, checked::SandboxMode), ConfigErrors> {
    read_document(&text_of(file)?, file, &everything(), |document, report| {
        report.credentials = Credentials::of_service();
        let raw = Raw::read(document, report);
        let (acme, sandbox) = (check::acme::check_alone(&raw, report), check::sandbox_mode(&raw.sandbox, report));
        report.finish()?;
        sandbox.map(|sandbox| (acme, sandbox)).ok_or_else(|| ConfigErrors::new(Vec::new()))
    })
}

/// Reads a certificate and its key from the contents of one file, and the host names that it is for.
///
/// # Errors
/// In words, why the gate cannot use it.
pub(crate) fn one_file_certificate(
    path: &Path,
    contents: &[u8],
) -> Result<(Arc<checked::Certificate>, Vec<String>), String> {
    check::one_file_certificate(path, contents)
}

/// Reads the section `[history]` alone.
///
/// # Errors
/// If the file cannot be read, or the section is wrong.
pub fn load_history(file: &Path) -> Result<checked::History, ConfigErrors> {
    read_document(&text_of(file)?, file, &everything(), |document, report| {
        let raw = RawHistory::read_alone(document, report);
        let history = check::history::check(&raw, report);
        report.finish()?;
        history.ok_or_else(|| ConfigErrors::new(Vec::new()))
    })
}

/// Reads the key `folder` of the section `[renewal]` alone; `None` if there is no such section.
///
/// # Errors
/// As [`load_history`].
pub fn load_renewal_folder(file: &Path) -> Result<Option<checked::StateFolder>, ConfigErrors> {
    read_document(&text_of(file)?, file, &everything(), |document, report| {
        let raw = RawRenewal::read_alone(document, report);
        let folder = check::renewal::folder_alone(&raw, report);
        report.finish()?;
        folder.ok_or_else(|| ConfigErrors::new(Vec::new()))
    })
}

/// Reads the inventory that `metrics.inventory` names, whole.
///
/// # Errors
/// In words, why it cannot be read.
pub fn load_inventory(file: &Path) -> Result<Inventory, String> {
    check::inventory::whole(file).map_err(|problem| problem.message)
}

fn text_of(file: &Path) -> Result<String, ConfigErrors> {
    read(file).map_err(|problem| unreadable(file, problem))
}

fn unreadable(file: &Path, Problem { message, remedy }: Problem) -> ConfigErrors {
    ConfigErrors::new(vec![ConfigError { file: file.to_owned(), line: None, key: String::new(), message, remedy }])
}

/// No sandbox.
fn everything() -> MayRead {
    Rc::new(|_| true)
}

/// Checks `text` as if it stood in `file`: relative paths start at its folder. The files it names are read.
///
/// # Errors
/// Every mistake in it, and in the files it names, in the order of the lines.
pub fn parse(text: &str, file: &Path) -> Result<checked::Config, ConfigErrors> {
    parse_with(text, file, &Credentials::of_service())
}

/// The same, with these credentials instead of those of this service.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(text: &str, file: &Path, credentials: &Credentials) -> Result<checked::Config, ConfigErrors> {
    parse_and_see(text, file, credentials, &mut Seen::default(), &everything())
}

fn parse_and_see(
    text: &str,
    file: &Path,
    credentials: &Credentials,
    seen: &mut Seen,
    may_read: &MayRead,
) -> Result<checked::Config, ConfigErrors> {
    read_document(text, file, may_read, |document, report| {
        report.credentials = credentials.clone();
        let raw = Raw::read(document, report);
        let config = check::check(&raw, report);
        *seen = std::mem::take(seen).and(report.seen());
        config
    })
}

fn read_document<T>(
    text: &str,
    file: &Path,
    may_read: &MayRead,
    understand: impl FnOnce(&DeTable<'_>, &mut Report) -> Result<T, ConfigErrors>,
) -> Result<T, ConfigErrors> {
    // An editor on Windows puts a byte order mark before the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::within(Rc::clone(may_read), file, text);
    match DeTable::parse(text) {
        Ok(document) => understand(document.get_ref(), &mut report),
        Err(error) => {
            let (line, problem) = syntax::explain(text, &error);
            let place = Place { line: line.map(|offset| report.line(offset)), key: String::new() };
            report.problem(&place, problem);
            Err(report.into_errors())
        }
    }
}

fn read(file: &Path) -> Result<String, Problem> {
    let missing = |error: &std::io::Error| {
        let problem = files::unreadable(file, error);
        match error.kind() {
            std::io::ErrorKind::NotFound => Problem::new(
                problem.message,
                "correct the path after --config; or have a configuration made for you: doorward init",
            ),
            _ => problem,
        }
    };
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| missing(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err(Problem::new("the file is larger than 1 MiB, so it is no configuration", "name the right file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|&&b| b == b'\n').count() + 1;
        Problem::new(
            format!("the file is not plain text: line {line} holds bytes that are not UTF-8"),
            "save it once more as plain text in UTF-8",
        )
    })
}
