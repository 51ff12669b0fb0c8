//! `doorward ca server`: the gate's own certificate.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::change::Change;
use super::in_force::{Outcome, apply};
use super::output::print;
use super::parse::parse_server_name;
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format};
use crate::ca::create::SERVER_AUTHORITY_FILE;
use crate::ca::inventory::Kind;
use crate::ca::server::{self, CERTIFICATE_FILE, ServerRequest};
use crate::ca::server_authority;
use crate::model::names::{ServerName, ServerNamePattern};
use crate::pki::keys::KeyType;

/// The options of `doorward ca server`.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// The names it is for, as in "home.example" or "*.home.example" [default: as before, else your domain and every name
    /// one label below it]
    #[arg(value_name = "NAME", value_parser = parse_server_name)]
    names: Vec<ServerNamePattern>,

    #[command(flatten)]
    issue: IssueArgs,
}

/// The options that `doorward ca server` and `doorward ca renew` share.
#[derive(Args, Debug)]
pub(super) struct IssueArgs {
    #[command(flatten)]
    pub(super) folder: FolderArg,

    #[command(flatten)]
    pub(super) passphrase: PassphraseArg,

    /// Make a new key as well, if the old one may be stolen
    #[arg(long)]
    pub(super) new_key: bool,

    /// The type of a new key. Browsers and phones accept p256 and rsa
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    pub(super) key_type: KeyType,

    /// Replace a certificate and key that were not issued here
    #[arg(long)]
    pub(super) force: bool,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Serialize)]
struct Written {
    names: Vec<String>,
    certificate: PathBuf,
    key: PathBuf,
    new_key: bool,
    fingerprint: String,
    serial: String,
    not_after: i64,
    /// Whether the gate uses it.
    #[serde(flatten)]
    outcome: Outcome,
}

pub(super) fn run(args: &ServerArgs) -> Result<(), CaError> {
    issue(&args.names, &args.issue)
}

/// Issues a certificate for the gate; without names, for those of the current one.
pub(super) fn issue(names: &[ServerNamePattern], args: &IssueArgs) -> Result<(), CaError> {
    let mut store = args.folder.open()?;
    let request = ServerRequest { names, new_key: args.new_key, key_type: args.key_type, replace: args.force };
    let issued = server::issue(&mut store, &request, &args.passphrase.prompt()).map_err(CaError::with_remedy(
        "this certificate was not issued here: move it and its key away, or replace both with --force",
    ))?;
    let change = Change::Certificate {
        file: &issued.certificate,
        new_key: issued.new_key.then_some(&issued.key),
        new: issued.fingerprint,
        old: issued.replaced,
    };
    let outcome = apply(&args.folder, &store, change);
    let names: Vec<String> = issued.names.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} is the gate's certificate for {}, valid until {}.\n{}\n{}",
        issued.certificate.display(),
        names.join(", "),
        issued.not_after.date(),
        if issued.new_key {
            format!("{} is its new key.", issued.key.display())
        } else {
            "Its key is the same.".to_owned()
        },
        outcome.text,
    );
    let mut written = Written {
        names,
        certificate: issued.certificate,
        key: issued.key,
        new_key: issued.new_key,
        fingerprint: issued.fingerprint.to_string(),
        serial: issued.serial.to_string(),
        not_after: issued.not_after.unix_timestamp(),
        outcome,
    };
    print(args.format, &text, &written)?;
    written.outcome.result()
}

/// A certificate of the gate that an authority of the owner's has signed.
pub(in crate::cli) struct Made {
    /// The certificate of the authority.
    pub(in crate::cli) authority: PathBuf,
    /// What was made, in words.
    pub(in crate::cli) text: String,
}

/// Makes the certificate for these names unless it is there, and the authority for `domain` if there is none.
pub(in crate::cli) fn make(
    folder: &FolderArg,
    passphrase: &PassphraseArg,
    domain: Option<&ServerName>,
    names: &[ServerNamePattern],
) -> Result<Made, CaError> {
    let mut store = folder.open()?;
    let mut text = String::new();
    if store.inventory.authority_for(Kind::Server).is_none() {
        let domain = domain.ok_or_else(|| {
            CaError::usage(
                "your server names have no domain in common, which the new authority could be limited to\n  name one: --domain DOMAIN; \
                 routes with other names need a [route.certificate] of their own",
            )
        })?;
        server_authority::create(&mut store, domain, &passphrase.prompt())?;
        text = format!(
            "{} is the new authority of the gate's certificates, for {domain} and nothing else. Its key is beside it: the gate does not \
             need that file, keep it elsewhere.\n",
            store.path(SERVER_AUTHORITY_FILE).display()
        );
    }
    let entry = store.inventory.authority_for(Kind::Server);
    let authority = store.path(entry.map_or(SERVER_AUTHORITY_FILE, |entry| &entry.certificate));
    if !store.path(CERTIFICATE_FILE).exists() {
        let request = ServerRequest { names, new_key: false, key_type: KeyType::default(), replace: false };
        let issued = server::issue(&mut store, &request, &passphrase.prompt())?;
        text.push_str(&format!(
            "{} is the gate's certificate for {}, valid until {}.\n",
            issued.certificate.display(),
            issued.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            issued.not_after.date()
        ));
    }
    Ok(Made { authority, text })
}
