//! `doorward ca revoke`: revokes a device's certificates.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::change::Change;
use super::import::NO_CRL_SIGN;
use super::in_force::{Outcome, apply};
use super::output::print;
use super::parse::{parse_fingerprint, parse_serial};
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format};
use crate::ca::inventory::{Inventory, Kind, Status, now};
use crate::ca::revoke::{Revoked, RevokedCertificate, Target, WrittenList, revoke};
use crate::config::nearest;
use crate::model::identity::{Serial, Sha256};
use crate::model::names::printable;
use crate::model::shell::word;
use crate::pki::RevocationReason;

/// The options of `doorward ca revoke`.
#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// The device: all its certificates, those before a renewal included
    #[arg(value_name = "NAME", group = "which")]
    name: Option<String>,

    /// One certificate, by its serial number in hexadecimal digits, as in the log
    #[arg(long, value_name = "DIGITS", group = "which", value_parser = parse_serial)]
    serial: Option<Serial>,

    /// One certificate, by its fingerprint (SHA-256) in hexadecimal digits, as in the log
    #[arg(long, value_name = "DIGITS", group = "which", value_parser = parse_fingerprint)]
    fingerprint: Option<Sha256>,

    /// One certificate, by its file: .pem, .crt, .cer, or mkcert's .p12. It need not have been issued here
    #[arg(long = "file", value_name = "FILE", group = "which")]
    certificate: Option<PathBuf>,

    /// None: only write the revocation lists again
    #[arg(long, group = "which")]
    lists: bool,

    /// Why it is revoked; "lost" means that the key may be in other hands
    #[arg(long, value_enum, value_name = "REASON", default_value_t = RevocationReason::Lost)]
    reason: RevocationReason,

    /// The authority that signed a certificate which was not issued here, for --serial
    #[arg(long, value_name = "NAME", requires = "serial")]
    authority: Option<String>,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

impl RevokeArgs {
    /// What is to be revoked, where `answer` is the device that was named when that was asked.
    fn target<'a>(&'a self, answer: Option<&'a str>) -> Target<'a> {
        if let Some(name) = self.name.as_deref().or(answer) {
            Target::Device(name)
        } else if let Some(fingerprint) = self.fingerprint {
            Target::Fingerprint(fingerprint)
        } else if let Some(file) = &self.certificate {
            Target::File(file)
        } else if let Some(serial) = &self.serial {
            Target::Serial { serial, authority: self.authority.as_deref() }
        } else {
            Target::None
        }
    }

    /// Asks for a device where none was named.
    fn answer(&self) -> Result<Option<String>, CaError> {
        if self.lists || !matches!(self.target(None), Target::None) {
            return Ok(None);
        }
        // What cannot be read is told when the folder is opened.
        let devices = self.folder.inventory().map(|inventory| valid_devices(&inventory)).unwrap_or_default();
        let to_the_lists = "to write the revocation lists again, and revoke nothing: doorward ca revoke --lists";
        if devices.is_empty() {
            return Err(CaError::usage(format!(
                "there is no device whose certificate could be revoked\n  {to_the_lists}"
            )));
        }
        let listed: String = devices.iter().map(|(name, until)| format!("  {name:<24} until {until}\n")).collect();
        if self.format != Format::Text || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(CaError::usage(format!(
                "no device is named, so none was revoked. The devices are:\n{listed}  to revoke one: doorward ca revoke NAME\n  \
                 {to_the_lists}"
            )));
        }
        errln!("The devices, and how long their certificates are valid:\n{listed}");
        let names: Vec<&str> = devices.iter().map(|(name, _)| name.as_str()).collect();
        loop {
            let _ = write!(io::stderr(), "Name of the one to be revoked, as lost or sold (Enter alone: none): ");
            let mut line = String::new();
            let read = io::stdin().read_line(&mut line).unwrap_or(0);
            match line.trim() {
                "" if read > 0 => return Err(CaError::usage("no device was named, so none was revoked")),
                "" => return Err(CaError::usage("the question was not answered, so no device was revoked")),
                name if names.contains(&name) => return Ok(Some(name.to_owned())),
                name => {
                    let meant = nearest(name, &names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                    errln!("there is no device {:?}{meant}", printable(name, 64));
                }
            }
        }
    }
}

/// The devices that have a certificate which is valid, and until when.
fn valid_devices(inventory: &Inventory) -> Vec<(String, String)> {
    let names: BTreeSet<&str> = inventory
        .certificates
        .iter()
        .filter(|entry| entry.kind == Kind::Device)
        .map(|entry| entry.name.as_str())
        .collect();
    let current = names.into_iter().filter_map(|name| inventory.current(name, Kind::Device));
    let valid = current.filter(|entry| matches!(inventory.status(entry, now()), Status::Valid | Status::Renewed));
    valid
        .map(|entry| {
            let until = entry.not_after.map_or_else(|| "an unknown day".to_owned(), |end| end.date().to_string());
            (printable(&entry.name, 64), until)
        })
        .collect()
}

#[derive(Serialize)]
struct Written {
    revoked: Vec<WrittenCertificate>,
    /// Devices that have another certificate, which is still valid.
    still_in: Vec<String>,
    lists: Vec<PathBuf>,
    /// Whether the gate uses the lists; nothing if there is no list.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

#[derive(Serialize)]
struct WrittenCertificate {
    name: String,
    serial: String,
    /// It was revoked before.
    already: bool,
    /// More is known of it than its serial number.
    known: bool,
    authority: String,
    revoked_at: i64,
}

impl From<RevokedCertificate> for WrittenCertificate {
    fn from(certificate: RevokedCertificate) -> Self {
        let RevokedCertificate { name, serial, already, known, authority, revoked_at } = certificate;
        Self { name, serial, already, known, authority, revoked_at: revoked_at.unix_timestamp() }
    }
}

pub(super) fn run(args: &RevokeArgs) -> Result<(), CaError> {
    // Before the folder is locked: an answer may take long.
    let answer = args.answer()?;
    let mut store = args.folder.open()?;
    let revoked = revoke(&mut store, args.target(answer.as_deref()), args.reason, &args.passphrase.prompt())?;
    let mut text = text(&revoked);
    let outcome = (!revoked.lists.is_empty()).then(|| {
        let outcome = apply(&args.folder, &store, Change::Lists(&revoked.lists));
        text.push_str(&outcome.text);
        outcome
    });
    let mut written = Written {
        revoked: revoked.certificates.into_iter().map(WrittenCertificate::from).collect(),
        still_in: revoked.still_valid,
        lists: revoked.lists.into_iter().map(|list| list.file).collect(),
        outcome,
    };
    print(args.format, &text, &written)?;
    written.outcome.as_mut().map_or(Ok(()), Outcome::result)
}

fn text(revoked: &Revoked) -> String {
    let mut out = String::new();
    for RevokedCertificate { name, serial, already, known, authority, revoked_at } in &revoked.certificates {
        let certificate = if *known { format!("{name} (serial {serial})") } else { format!("Serial number {serial}") };
        out.push_str(&match (already, known) {
            (true, _) => format!("{certificate} was already revoked on {}.\n", revoked_at.date()),
            (false, true) => format!("{certificate} is revoked.\n"),
            (false, false) => format!(
                "{certificate} is revoked by the authority {authority:?}.\nnote: no certificate in the inventory has the \
                 serial number {serial}, so the device is not known: compare the number with the gate's log. If \
                 {authority:?} signed no certificate with this number, no device is affected.\n"
            ),
        });
    }
    if revoked.certificates.is_empty() {
        out.push_str("No certificate was revoked. The revocation lists were written again:\n");
    }
    for name in &revoked.still_valid {
        out.push_str(&format!(
            "warning: {name} has another certificate, which is still valid (a renewal keeps the key, so it may be on the \
             same device). To revoke all its certificates: doorward ca revoke {}\n",
            word(name)
        ));
    }
    for WrittenList { file, not_after, signs_lists, .. } in &revoked.lists {
        out.push_str(&format!("{} is written, valid until {}.\n", file.display(), not_after.date()));
        if !signs_lists {
            out.push_str(NO_CRL_SIGN);
        }
    }
    out
}
