//! `[[route]]` as it is written.

use super::{RawBackendTls, RawCertificate, RawClientAuth, RawHealth};
use crate::config::reader::{Scalar, Table};
use crate::config::report::{Given, Place, Report, Text};

/// `send_proxy_protocol`: the version alone, or a table.
pub(in crate::config) struct RawSendProxyProtocol {
    pub(in crate::config) version: Given<String>,
    pub(in crate::config) certificate: Given<bool>,
}

impl RawSendProxyProtocol {
    fn of_version(version: Text) -> Self {
        Self { version: Given::Value(version), certificate: Given::Absent }
    }

    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            version: table.text("version", "\"v2-tls\"", report),
            certificate: table.boolean("certificate", "true", report),
        };
        table.close(report);
        raw
    }
}

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
    pub(in crate::config) starttls: Given<String>,
    pub(in crate::config) send_proxy_protocol: Given<RawSendProxyProtocol>,
    pub(in crate::config) backend_tls: Given<RawBackendTls>,
    pub(in crate::config) wake: Given<RawWake>,
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
            starttls: table.text("starttls", "\"postgres\"", report),
            send_proxy_protocol: table.text_or_table(
                "send_proxy_protocol",
                "\"off\"",
                RawSendProxyProtocol::of_version,
                RawSendProxyProtocol::read,
                report,
            ),
            backend_tls: table.table("backend_tls", RawBackendTls::read, report),
            wake: table.table("wake", RawWake::read, report),
            certificate: table.table("certificate", RawCertificate::read, report),
            client_auth: table.table("client_auth", RawClientAuth::read, report),
        };
        table.close(report);
        raw
    }
}

/// `wake` of a route, as a rule in one line: `wake = { mac = "…" }`
pub(in crate::config) struct RawWake {
    pub(in crate::config) mac: Given<String>,
    pub(in crate::config) broadcast: Given<String>,
    pub(in crate::config) timeout: Given<Scalar>,
}

impl RawWake {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            mac: table.text("mac", "\"3c:ec:ef:12:34:56\"", report),
            broadcast: table.text("broadcast", "\"192.168.1.255:9\"", report),
            timeout: table.scalar("timeout", "\"90s\"", report),
        };
        table.close(report);
        raw
    }
}
