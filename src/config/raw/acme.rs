//! `[certificate.acme]` as it is written.

use super::RawDns;
use crate::config::reader::Table;
use crate::config::report::{Given, Report};

/// `[certificate.acme]`
pub(in crate::config) struct RawAcme {
    pub(in crate::config) contact: Given<String>,
    pub(in crate::config) directory: Given<String>,
    pub(in crate::config) trial: Given<String>,
    pub(in crate::config) trust: Given<String>,
    pub(in crate::config) challenge: Given<String>,
    pub(in crate::config) dns: Given<RawDns>,
    pub(in crate::config) state: Given<String>,
    pub(in crate::config) profile: Given<String>,
    pub(in crate::config) eab: Given<RawEab>,
}

/// `eab` of `[certificate.acme]`
pub(in crate::config) struct RawEab {
    pub(in crate::config) key_id: Given<String>,
    pub(in crate::config) key_file: Given<String>,
}

impl RawAcme {
    pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            contact: table.text("contact", "\"mailto:me@home.example\"", report),
            directory: table.text("directory", "\"letsencrypt\"", report),
            trial: table.text("trial", "\"letsencrypt-staging\"", report),
            trust: table.text("trust", "\"acme-server.pem\"", report),
            challenge: table.text("challenge", "\"tls-alpn-01\"", report),
            dns: table.table("dns", RawDns::read, report),
            state: table.text("state", "\"auto\"", report),
            profile: table.text("profile", "\"shortlived\"", report),
            eab: table.table("eab", RawEab::read, report),
        };
        table.close(report);
        raw
    }
}

impl RawEab {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            key_id: table.text("key_id", "\"kid-1\"", report),
            key_file: table.text("key_file", "\"eab.key\"", report),
        };
        table.close(report);
        raw
    }
}
