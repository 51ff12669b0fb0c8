//! `[renewal]` as it is written.

use toml::de::DeTable;

use super::known_keys;
use crate::config::reader::{Purpose, Scalar, Table};
use crate::config::report::{Given, Report, Text};

/// `[renewal]`
pub(in crate::config) struct RawRenewal {
    pub(in crate::config) server_name: Given<String>,
    pub(in crate::config) folder: Given<String>,
    pub(in crate::config) issuer: Given<RawRenewalIssuer>,
}

/// `issuer` of `[renewal]`
pub(in crate::config) struct RawRenewalIssuer {
    pub(in crate::config) certificate: Given<String>,
    pub(in crate::config) key: Given<String>,
    pub(in crate::config) days: Given<Scalar>,
    pub(in crate::config) except: Given<Vec<Text>>,
}

impl RawRenewal {
    pub(super) fn find(root: &mut Table<'_>, report: &mut Report) -> Given<Self> {
        let read = |mut table: Table<'_>, report: &mut Report| {
            let raw = Self {
                server_name: table.text("server_name", "\"renew.home.example\"", report),
                folder: table.text("folder", "\"auto\"", report),
                issuer: table.table("issuer", RawRenewalIssuer::read, report),
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

impl RawRenewalIssuer {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            certificate: table.text("certificate", "\"pki/renewals.pem\"", report),
            key: table.text("key", "\"/var/lib/doorward-issuer/renewals-key.pem\"", report),
            days: table.scalar("days", "90", report),
            except: table.texts("except", "\"kitchen-tablet\"", report),
        };
        table.close(report);
        raw
    }
}
