//! `doorward ca list`: what was issued, and how it stands.

use std::io::{self, Write as _};

use clap::Args;
use serde::Serialize;

use super::{CaError, FolderArg, Format, print_json};
use crate::ca::inventory::{Entry, Inventory, Status, Store, now};
use crate::model::text;

/// The options of `doorward ca list`.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    folder: FolderArg,

    /// How to say it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// What there is.
#[derive(Serialize)]
struct Listing {
    authorities: Vec<AuthorityLine>,
    certificates: Vec<Line>,
}

#[derive(Serialize)]
struct AuthorityLine {
    id: String,
    certificate: std::path::PathBuf,
    not_after: i64,
    days_left: i64,
    revoked: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_list: Option<std::path::PathBuf>,
    list_number: u64,
}

#[derive(Serialize)]
struct Line {
    name: String,
    kind: String,
    authority: String,
    status: Status,
    serial: String,
    fingerprint: Option<String>,
    key: Option<String>,
    issued_at: Option<i64>,
    not_before: Option<i64>,
    not_after: Option<i64>,
    days_left: Option<i64>,
    renews: Option<String>,
    last_renewal: Option<i64>,
    revoked_at: Option<i64>,
    revoked_for: Option<String>,
}

pub(super) fn run(args: &ListArgs) -> Result<(), CaError> {
    let store = args.folder.open()?;
    let listing = listing(&store)?;
    match args.format {
        Format::Text => io::stdout().lock().write_all(listing.text().as_bytes())?,
        Format::Json => print_json(&listing)?,
    }
    Ok(())
}

fn listing(store: &Store) -> Result<Listing, CaError> {
    let inventory = &store.inventory;
    let now = now();
    let mut authorities = Vec::new();
    for authority in &inventory.authorities {
        let certificate = store.authority_certificate(authority)?;
        let not_after = x509_parser::parse_x509_certificate(&certificate)
            .map(|(_, parsed)| parsed.validity().not_after.timestamp())
            .unwrap_or_default();
        authorities.push(AuthorityLine {
            id: authority.id.clone(),
            certificate: store.path(&authority.certificate),
            not_after,
            days_left: (not_after - now.unix_timestamp()).div_euclid(86_400),
            revoked: inventory.revocations(&authority.id).len(),
            revocation_list: authority.revocation_list.as_deref().map(|list| store.path(list)),
            list_number: authority.list_number,
        });
    }
    let certificates = inventory.certificates.iter();
    let certificates = certificates.map(|entry| Line {
        name: entry.name.clone(),
        kind: entry.kind.to_string(),
        authority: entry.authority.clone(),
        status: inventory.status(entry, now),
        serial: entry.serial.clone(),
        fingerprint: entry.fingerprint.clone(),
        key: entry.key.clone(),
        issued_at: entry.issued_at.map(|at| at.unix_timestamp()),
        not_before: entry.not_before.map(|at| at.unix_timestamp()),
        not_after: entry.not_after.map(|at| at.unix_timestamp()),
        days_left: entry.days_left(now),
        renews: entry.renews.clone(),
        last_renewal: last_renewal(inventory, entry),
        revoked_at: entry.revoked_at.map(|at| at.unix_timestamp()),
        revoked_for: entry.revoked_for.map(|reason| reason.to_string()),
    });
    Ok(Listing { authorities, certificates: certificates.collect() })
}

/// When this certificate came in the place of an older one.
fn last_renewal(inventory: &Inventory, entry: &Entry) -> Option<i64> {
    let renews = entry.renews.as_ref()?;
    inventory.certificates.iter().any(|old| old.serial == *renews).then_some(entry.issued_at?.unix_timestamp())
}

impl Listing {
    fn text(&self) -> String {
        let date = |seconds: Option<i64>| {
            let at = seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
            at.map_or_else(|| "–".to_owned(), |at| at.date().to_string())
        };
        let heading = ["name", "for", "status", "days left", "expires", "issued", "renewed", "key", "serial"];
        let mut rows = vec![heading.map(str::to_owned)];
        for line in &self.certificates {
            let status = match (line.status, line.revoked_at) {
                (Status::Revoked, at) => format!("revoked {}", date(at)),
                (status, _) => status.to_string(),
            };
            rows.push([
                line.name.clone(),
                line.kind.clone(),
                status,
                line.days_left.map_or_else(|| "–".to_owned(), |days| days.to_string()),
                date(line.not_after),
                date(line.issued_at),
                date(line.last_renewal),
                line.key.clone().unwrap_or_else(|| "–".to_owned()),
                line.serial.clone(),
            ]);
        }
        let mut out = text::table(&rows);
        out.push('\n');
        for authority in &self.authorities {
            out.push_str(&format!(
                "authority {}: {} days left, {} revoked ({})\n",
                authority.id,
                authority.days_left,
                authority.revoked,
                authority.certificate.display(),
            ));
        }
        out
    }
}
