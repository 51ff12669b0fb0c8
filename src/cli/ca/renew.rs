//! `doorward ca renew`: a new certificate for a device.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::change::Change;
use super::folder::config_of;
use super::in_force::{Outcome, apply};
use super::output::{device_text, print, share_command};
use super::server::{self, IssueArgs};
use super::{CaError, published};
use crate::ca::device_files::{DeviceFiles, DeviceFolder};
use crate::ca::inventory::Kind;
use crate::ca::renew::{self, RenewalRequest, RenewedDevice};
use crate::cli::services::Configured;
use crate::reload::policy_report::SampleClient;

/// The options of `doorward ca renew`.
#[derive(Args, Debug)]
pub(super) struct RenewArgs {
    /// The device
    #[arg(value_name = "NAME", required_unless_present = "server", conflicts_with = "server")]
    name: Option<String>,

    /// Renew the gate's own certificate, as "doorward ca server" does
    #[arg(long)]
    server: bool,

    #[command(flatten)]
    issue: IssueArgs,

    /// Revoke the device's earlier certificates at once, instead of letting them expire
    #[arg(long, conflicts_with = "server")]
    revoke_old: bool,

    /// The folder of the device's files [default: "devices" beside the folder of the authorities]
    #[arg(long, value_name = "FOLDER", conflicts_with = "server")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Written {
    name: String,
    serial: String,
    not_after: i64,
    certificate: PathBuf,
    /// All files; nothing if the key is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceFiles>,
    /// What "doorward join" takes, if the key is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<PathBuf>,
    /// The serial numbers of the certificates that were revoked.
    revoked: Vec<String>,
    /// Whether the gate uses the new revocation list.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

pub(super) fn run(args: &RenewArgs) -> Result<(), CaError> {
    let Some(name) = args.name.as_deref().filter(|_| !args.server) else { return server::issue(&[], &args.issue) };
    let mut store = args.issue.folder.open()?;
    let folder = DeviceFolder::new(args.output.as_deref())?;
    let request = RenewalRequest {
        name,
        new_key: args.issue.new_key,
        key_type: args.issue.key_type,
        revoke_old: args.revoke_old,
        folder: &folder,
        replace: args.issue.force,
    };
    let config = config_of(&store);
    let passphrase = args.issue.passphrase.prompt();
    // It may be given as the name of its files.
    let current = store.inventory.current(name, Kind::Device);
    let device = SampleClient::device(current.map_or(name, |entry| entry.name.as_str()), None);
    let configured = store.as_owner(|| Configured::load(&config));
    let renewed = renew::device(&mut store, &request, &passphrase, || configured.reachable(&device)).map_err(
        CaError::with_remedy(
            "they are not files of this device: choose another --output, or replace them with --force",
        ),
    )?;
    published::inventory(&store);
    let share = share_command(store.folder(), args.output.as_deref(), &renewed.name);
    if let Some(warning) = configured.warning(renewed.name.as_str(), None, &device, "the same command") {
        errln!("warning: {warning}");
    }
    let mut text = text(&renewed, share.as_deref());
    let outcome = renewed.list.as_ref().map(|list| {
        let outcome = apply(&args.issue.folder, &store, Change::Lists(std::slice::from_ref(list)));
        text.push_str("The earlier certificates are revoked. ");
        text.push_str(if outcome.text.is_empty() { "\n" } else { &outcome.text });
        outcome
    });
    let mut written = Written {
        name: renewed.name.to_string(),
        serial: renewed.serial,
        not_after: renewed.not_after.unix_timestamp(),
        certificate: renewed.certificate,
        device: renewed.files,
        bundle: renewed.bundle,
        revoked: renewed.revoked,
        outcome,
    };
    // Even if the gate does not use it yet: the password is shown only now.
    print(args.issue.format, &text, &written)?;
    written.outcome.as_mut().map_or(Ok(()), Outcome::result)
}

fn text(renewed: &RenewedDevice, share: Option<&str>) -> String {
    let mut out = format!("Renewed the certificate of {}, valid until {}.\n", renewed.name, renewed.not_after.date());
    match &renewed.files {
        Some(files) => out.push_str(&device_text(files, share)),
        None => out.push_str(&format!(
            "  {}\n    replaces the certificate on the device, beside the key that is there. The key is not here, so \
             there is no .p12 file: to make one with a new key, add --new-key.\n",
            renewed.certificate.display()
        )),
    }
    if let Some(bundle) = &renewed.bundle {
        out.push_str(&format!(
            "  {}\n    is for \"doorward join\" on a computer that has the key.\n",
            bundle.display()
        ));
    }
    if let (true, Some(end)) = (renewed.revoked.is_empty(), renewed.old_not_after) {
        out.push_str(&format!("The old certificate stays valid until {}.\n", end.date()));
    }
    out
}
