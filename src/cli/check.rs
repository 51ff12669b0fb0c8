//! `doorward check`: every mistake, every warning, and the table of who may go where.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, Format, exit, failed};
use crate::authorize::{Policy, decide};
use crate::config::checked::{Config, RouteMode, Selector};
use crate::identity::{Identity, Serial, Sha256, Twins};
use crate::snapshot::Snapshot;

/// The options of `doorward check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// How to show the table
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// Who may go where.
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
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    // What the gate itself would build: nothing passes here that could fail there.
    if let Err(error) = Snapshot::build(&config) {
        return failed(exit::CONFIG, &error);
    }
    let table = table(&config);
    match args.format {
        Format::Text => print!("{}", text(&table)),
        Format::Json => match serde_json::to_string_pretty(&table) {
            Ok(json) => println!("{json}"),
            Err(error) => return failed(exit::UNEXPECTED, &error),
        },
    }
    exit::OK.into()
}

fn table(config: &Config) -> Table {
    let mut selectors: Vec<&Selector> = Vec::new();
    for route in &config.routes {
        if let RouteMode::Terminate(terminate) = &route.mode {
            for selector in &terminate.allow.selectors {
                if !selectors.contains(&selector) {
                    selectors.push(selector);
                }
            }
        }
    }
    let mut rows: Vec<Row> =
        selectors.iter().map(|selector| row(config, selector.to_string(), Some(&holder(Some(selector))))).collect();
    let any = if rows.is_empty() { "any verified certificate" } else { "any other verified certificate" };
    rows.push(row(config, any.to_owned(), Some(&holder(None))));
    let unverified = Identity { verified: false, ..holder(None) };
    rows.push(row(config, "a certificate nobody vouches for".to_owned(), Some(&unverified)));
    rows.push(row(config, "no certificate".to_owned(), None));
    Table {
        file: config.file.display().to_string(),
        routes: config.routes.iter().map(|route| route.name.to_string()).collect(),
        rows,
        warnings: config.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.message)).collect(),
    }
}

fn row(config: &Config, name: String, identity: Option<&Identity>) -> Row {
    let access = config.routes.iter().map(|route| {
        let access = match &route.mode {
            RouteMode::Passthrough => "backend decides",
            RouteMode::Terminate(terminate) => {
                let mode = terminate.client_auth.mode;
                let policy = Policy { allow: terminate.allow.clone(), deny: terminate.client_auth.deny.clone() };
                // What the verifier does before it asks the policy.
                let admitted = match identity {
                    None => !mode.requires() && decide(None, &policy).is_ok(),
                    Some(identity) if mode.verifies() => identity.verified && decide(Some(identity), &policy).is_ok(),
                    Some(identity) => decide(Some(&Identity { verified: false, ..identity.clone() }), &policy).is_ok(),
                };
                if admitted { "yes" } else { "no" }
            }
        };
        (route.name.to_string(), access)
    });
    Row { identity: name, access: access.collect() }
}

/// A verified certificate that matches `selector` and no other.
fn holder(selector: Option<&Selector>) -> Identity {
    let mut identity = Identity {
        verified: true,
        emails: Vec::new(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        ips: Vec::new(),
        common_name: None,
        organizational_units: Vec::new(),
        fingerprint: Sha256([0; 32]),
        twins: Twins::known(Vec::new()),
        spki: Sha256([0; 32]),
        serial: Serial::from_be_bytes(&[]),
        issuer: String::new(),
        not_before: 0,
        not_after: i64::MAX,
    };
    match selector {
        None => {}
        Some(Selector::AnyName(name) | Selector::CommonName(name)) => identity.common_name = Some(name.clone()),
        Some(Selector::OrganizationalUnit(unit)) => identity.organizational_units.push(unit.clone()),
        Some(Selector::Dns(name)) => identity.dns_names.push(name.clone()),
        Some(Selector::Email(name)) => identity.emails.push(name.clone()),
        Some(Selector::Uri(name)) => identity.uris.push(name.clone()),
        Some(Selector::Ip(address)) => identity.ips.push(*address),
        Some(Selector::Fingerprint(digest)) => identity.fingerprint = *digest,
        Some(Selector::Spki(digest)) => identity.spki = *digest,
    }
    identity
}

fn text(table: &Table) -> String {
    let first = table.rows.iter().map(|row| row.identity.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = table
        .routes
        .iter()
        .map(|route| {
            let cells = table.rows.iter().filter_map(|row| row.access.get(route)).map(|cell| cell.len());
            cells.chain([route.len()]).max().unwrap_or(0)
        })
        .collect();
    let mut out = format!("{} is in order. Who may go where:\n\n", table.file);
    let mut line = format!("{:first$}", "");
    for (route, width) in table.routes.iter().zip(&widths) {
        line.push_str(&format!("  {route:width$}"));
    }
    out.push_str(line.trim_end());
    out.push('\n');
    for row in &table.rows {
        let mut line = format!("{:first$}", row.identity);
        for (route, width) in table.routes.iter().zip(&widths) {
            line.push_str(&format!("  {:width$}", row.access.get(route).copied().unwrap_or_default()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
