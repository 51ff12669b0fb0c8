//! `[[route]]` as it is written.

use super::{RawCertificate, RawClientAuth, RawHealth};
use crate::config::reader::{Scalar, Table};
use crate::config::report::{Given, Place, Report, Text};

/// `[[route]]`
pub(in crate::config) struct RawRoute {
    pub(in crate::config) place: Place,
    pub(in crate::config) name: Given<String>,
    pub(in crate::config) mode: Given<String>,
    pub(in crate::config) canary: Given<bool>,
    pub(in crate::config) kind: Given<String>,
    pub(in crate::config) server_names: Given<Vec<Text>>,
    pub(in crate::config) backends: Given<Vec<Text>>,
    pub(in crate::config) strategy: Given<String>,
    pub(in crate::config) health: Given<RawHealth>,
    pub(in crate::config) connections_per_backend: Given<Scalar>,
    pub(in crate::config) allow: Given<Vec<Text>>,
    pub(in crate::config) application_protocols: Given<Vec<Text>>,
    pub(in crate::config) send_proxy_protocol: Given<String>,
    pub(in crate::config) certificate: Given<RawCertificate>,
    pub(in crate::config) client_auth: Given<RawClientAuth>,
}

impl RawRoute {
    pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            place: table.place().clone(),
            name: table.text("name", "\"nas\"", report),
            mode: table.text("mode", "\"terminate\"", report),
            canary: table.boolean("canary", "true", report),
            kind: table.text("kind", "\"http\"", report),
            server_names: table.texts("server_names", "\"nas.home.example\"", report),
            backends: table.texts("backends", "\"192.168.1.10:5666\"", report),
            strategy: table.text("strategy", "\"first\"", report),
            health: table.table("health", RawHealth::read, report),
            connections_per_backend: table.scalar("connections_per_backend", "100", report),
            allow: table.texts("allow", "\"any\"", report),
            application_protocols: table.texts("application_protocols", "\"http/1.1\"", report),
            send_proxy_protocol: table.text("send_proxy_protocol", "\"off\"", report),
            certificate: table.table("certificate", RawCertificate::read, report),
            client_auth: table.table("client_auth", RawClientAuth::read, report),
        };
        table.close(report);
        raw
    }
}
