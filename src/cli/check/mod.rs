//! `doorward check`: every error, every warning, and the table of which clients may use which routes.

mod devices;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, CredentialsArg, Format, exit, failed};
use crate::admission::descriptors::Descriptors;
use crate::config::checked::Config;
use crate::model::text;
use crate::reload::policy_report::{SampleClient, sample_clients};
use crate::snapshot::Snapshot;

/// The options of `doorward check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,

    #[command(flatten)]
    credentials: CredentialsArg,

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
    if let Err(error) = Snapshot::build(&config) {
        return failed(exit::CONFIG, &error);
    }
    // The limit of open files as for a gate started from this shell.
    let descriptors = Descriptors::of_a_gate();
    let warning = descriptors.warning(&config);
    let warnings: Vec<String> = devices::warnings(&config).into_iter().chain(warning).collect();
    for warning in &warnings {
        errln!("warning: {warning}");
    }
    let mut table = table(&config);
    table.warnings.extend(warnings);
    match args.format {
        Format::Text => outln!("{}", text(&table).trim_end_matches('\n')),
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
    }
}

fn text(table: &Table) -> String {
    let heading = [String::new()].into_iter().chain(table.routes.iter().cloned()).collect();
    let rows = table.rows.iter().map(|row| {
        let access = |route| row.access.get(route).copied().unwrap_or_default().to_owned();
        [row.identity.clone()].into_iter().chain(table.routes.iter().map(access)).collect()
    });
    let rows: Vec<Vec<String>> = [heading].into_iter().chain(rows).collect();
    format!("{} has no errors. Access to each route:\n\n{}", table.file, text::table(&rows))
}
