//! `doorward ca list`: what was issued, and the state of each certificate.

use std::io::{self, Write as _};

use clap::Args;

use super::output::print_json;
use super::{CaError, FolderArg, Format};
use crate::ca::inventory::Status;
use crate::ca::list::{Listing, list};
use crate::explain::clock::Clock;
use crate::model::text::table;

/// The options of `doorward ca list`.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    folder: FolderArg,

    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &ListArgs) -> Result<(), CaError> {
    let store = args.folder.open()?;
    let listing = list(&store)?;
    match args.format {
        Format::Text => io::stdout().lock().write_all(text(&listing).as_bytes())?,
        Format::Json => print_json(&listing)?,
    }
    Ok(())
}

fn text(listing: &Listing) -> String {
    let date = |seconds: Option<i64>| {
        let at = seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
        at.map_or_else(|| "–".to_owned(), |at| at.date().to_string())
    };
    let clock = Clock::system();
    // A guest pass is valid for minutes or hours.
    let minute = |seconds: Option<i64>| {
        seconds.map_or_else(
            || "–".to_owned(),
            |seconds| {
                clock.of_seconds(seconds).map_or_else(String::new, |at| format!("{} {}", at.date(), clock.minutes(at)))
            },
        )
    };
    let heading = ["name", "for", "status", "days left", "expires", "issued", "renewed", "key", "serial"];
    let mut rows = vec![heading.map(str::to_owned)];
    for line in &listing.certificates {
        let status = match (line.status, line.revoked_at) {
            (Status::Revoked, at) => format!("revoked {}", date(at)),
            (status, _) => status.to_string(),
        };
        rows.push([
            line.name.clone(),
            if line.routes.is_empty() { line.kind.clone() } else { format!("guest: {}", line.routes.join(", ")) },
            status,
            line.days_left.map_or_else(|| "–".to_owned(), |days| days.to_string()),
            if line.routes.is_empty() { date(line.not_after) } else { minute(line.not_after) },
            date(line.issued_at),
            date(line.last_renewal),
            line.key.clone().unwrap_or_else(|| "–".to_owned()),
            line.serial.clone(),
        ]);
    }
    let mut out = table(&rows);
    out.push('\n');
    for authority in &listing.authorities {
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
