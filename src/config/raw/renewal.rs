//! `[renewal]` as it is written.

use toml::de::DeTable;

use super::known_keys;
use crate::config::reader::{Purpose, Table};
use crate::config::report::{Given, Report};

/// `[renewal]`
pub(in crate::config) struct RawRenewal {
    pub(in crate::config) server_name: Given<String>,
    pub(in crate::config) folder: Given<String>,
}

impl RawRenewal {
    pub(super) fn find(root: &mut Table<'_>, report: &mut Report) -> Given<Self> {
        let read = |mut table: Table<'_>, report: &mut Report| {
            let raw = Self {
                server_name: table.text("server_name", "\"renew.home.example\"", report),
                folder: table.text("folder", "\"auto\"", report),
            };
            table.close(report);
            raw
        };
        root.table("renewal", read, report)
    }

    /// Reads the section alone: the rest of the document is not looked at.
    pub(in crate::config) fn read_alone(document: &DeTable<'_>, report: &mut Report) -> Given<Self> {
        Self::find(&mut Table::root(document, Purpose::Read(&known_keys())), report)
    }
}
