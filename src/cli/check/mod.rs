//! `doorward check`: every error, every warning, and the table of which clients may use which routes.

mod connect;
mod devices;
mod health;
mod outside;
mod readable;
mod socket;
mod tls;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::Serialize;
use time::OffsetDateTime;

use super::{ConfigArg, CredentialsArg, Format, exit, failed};
use crate::admission::descriptors::Descriptors;
use crate::config::checked::{Config, RenewalIssuer};
use crate::listener::Listener;
use crate::model::text::{self, counted};
use crate::reload::policy_report::{SampleClient, sample_clients};
use crate::snapshot::Snapshot;
use crate::unattended::authority_of;
use connect::Dialled;

/// The options of `doorward check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,

    #[command(flatten)]
    credentials: CredentialsArg,

    /// Check that this user can read every file: the one that the gate runs as. Only root can [default, as root and for the
    /// installed configuration: the user of the service]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Connect to every backend, and say what answers there
    ///
    /// A web server is asked for the head of its page, and each backend is sent the beginning of a TLS handshake; nothing else is
    /// sent.
    #[arg(long)]
    connect: bool,

    /// Say how to test from outside whether the port is open
    #[arg(long)]
    from_outside: bool,

    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// Which clients may use which routes.
#[derive(Debug, Serialize)]
struct Table {
    file: String,
    routes: Vec<String>,
    rows: Vec<Row>,
    warnings: Vec<String>,
    /// The user whose rights the files were read with.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// What renews certificates without the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    renewal: Option<Unattended>,
    /// What is at each backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    backends: Option<Vec<Dialled>>,
}

/// The authority that renews certificates without the owner.
#[derive(Debug, Serialize)]
struct Unattended {
    /// How long a certificate that it issues is valid at most.
    days: u16,
    /// When it expires, in seconds since 1970.
    until: i64,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    identity: String,
    /// By route.
    access: BTreeMap<String, &'static str>,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let config = match args.config.load_with(args.credentials.credentials()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    // Built as by the gate, so that nothing passes here that fails there.
    let snapshot = match Snapshot::build(&config) {
        Ok(snapshot) => snapshot,
        Err(error) => return failed(exit::CONFIG, &error),
    };
    // The limit of open files as for a gate started from this shell.
    let descriptors = Descriptors::of_a_gate();
    let warning = descriptors.warning(&config);
    let listeners = config.listeners.iter().filter_map(Listener::expected_warning);
    let mut warnings: Vec<String> = devices::warnings(&config).into_iter().chain(warning).chain(listeners).collect();
    let mut table = table(&config);
    match readable::user(args.user.as_deref(), &config.file) {
        Err(error) => return failed(exit::USAGE, &error),
        Ok(None) => {}
        Ok(Some(user)) => match readable::check(&config, &user, args.credentials.credentials.as_deref()) {
            Err(error) => warnings.push(format!("cannot check what the user {} may read: {error}", user.name)),
            Ok(found) => {
                for error in &found.errors {
                    errln!("error: {error}");
                }
                if !found.errors.is_empty() {
                    errln!("{}", readable::REMEDY);
                    return exit::CONFIG.into();
                }
                warnings.extend(found.warnings);
                table.user = Some(user.name);
            }
        },
    }
    let renewal = config.renewal.as_ref().and_then(|renewal| renewal.issuer.as_ref());
    let renewal = renewal.map(|issuer| Unattended::of(&config, issuer));
    warnings.extend(renewal.iter().filter_map(|renewal| renewal.error.clone()));
    if args.connect {
        let mut dialled = connect::dial(&config);
        warnings.extend(dialled.iter().filter_map(|dialled| dialled.warning.clone()));
        warnings.extend(health::check(&snapshot, &mut dialled));
        table.backends = Some(dialled);
    }
    for warning in &warnings {
        errln!("warning: {warning}");
    }
    table.warnings.extend(warnings);
    table.renewal = renewal;
    match args.format {
        Format::Text => {
            outln!("{}", text(&table).trim_end_matches('\n'));
            if args.from_outside {
                outln!("\n{}", outside::text(&config).trim_end_matches('\n'));
            }
        }
        Format::Json => match serde_json::to_string_pretty(&table) {
            Ok(json) => outln!("{json}"),
            Err(error) => return failed(exit::UNEXPECTED, &error),
        },
    }
    exit::OK.into()
}

fn table(config: &Config) -> Table {
    let row = |client: &SampleClient| {
        let access = config.routes.iter().map(|route| (route.name.to_string(), client.decision(route).word()));
        Row { identity: client.name.clone(), access: access.collect() }
    };
    Table {
        file: config.file.display().to_string(),
        routes: config.routes.iter().map(|route| route.name.to_string()).collect(),
        rows: sample_clients(config).iter().map(row).collect(),
        warnings: config.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.message)).collect(),
        user: None,
        renewal: None,
        backends: None,
    }
}

impl Unattended {
    /// Whether the process beside the gate can use the key. Another user than the gate's may not look.
    fn of(config: &Config, issuer: &RenewalIssuer) -> Self {
        let is_hidden = access(&issuer.key, Access::READ_OK) == Err(Errno::ACCESS);
        let error = if is_hidden { None } else { authority_of(config, issuer).err() };
        let error = error.map(|error| format!("renewal.issuer: certificates are not renewed without you: {error}"));
        Self { days: issuer.days, until: issuer.not_after, error }
    }
}

fn text(table: &Table) -> String {
    let heading = [String::new()].into_iter().chain(table.routes.iter().cloned()).collect();
    let rows = table.rows.iter().map(|row| {
        let access = |route| row.access.get(route).copied().unwrap_or_default().to_owned();
        [row.identity.clone()].into_iter().chain(table.routes.iter().map(access)).collect()
    });
    let rows: Vec<Vec<String>> = [heading].into_iter().chain(rows).collect();
    let mut out = format!("{} has no errors. Access to each route:\n\n{}", table.file, text::table(&rows));
    if let Some(renewal) = table.renewal.as_ref().filter(|renewal| renewal.error.is_none()) {
        let until = OffsetDateTime::from_unix_timestamp(renewal.until)
            .map_or_else(|_| String::new(), |at| at.date().to_string());
        out.push_str(&format!(
            "\nUntil {until}, devices that ask for it get a new certificate for {} without you.\n",
            counted(u64::from(renewal.days), "day")
        ));
    }
    if let Some(user) = &table.user {
        out.push_str(&format!("\nThe gate's user, {user}, can read every file that it needs.\n"));
    }
    if let Some(backends) = &table.backends {
        let rows: Vec<Vec<String>> = backends
            .iter()
            .map(|dialled| {
                let resolved = dialled.address.as_ref().filter(|address| **address != dialled.backend);
                let backend = match resolved {
                    Some(address) => format!("{} ({address})", dialled.backend),
                    None => dialled.backend.clone(),
                };
                let health = dialled.health.as_ref().map(|health| format!("; its health check {health}"));
                vec![dialled.route.clone(), backend, format!("{}{}", dialled.answer, health.unwrap_or_default())]
            })
            .collect();
        out.push_str(&format!("\nBackends:\n\n{}", text::table(&rows)));
    }
    out
}
