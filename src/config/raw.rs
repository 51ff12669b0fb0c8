//! The configuration as it was written: every key known and of the right kind, no value looked at.

mod acme;
mod acme_dns;
mod backend_tls;
mod health;
mod renewal;
mod route;

use std::cell::RefCell;
use std::path::Path;

use toml::de::DeTable;

pub(super) use self::acme::{RawAcme, RawEab};
pub(super) use self::acme_dns::RawDns;
pub(super) use self::backend_tls::RawBackendTls;
pub(super) use self::health::RawHealth;
pub(super) use self::renewal::{RawRenewal, RawRenewalIssuer};
pub(super) use self::route::{RawRoute, RawWake};
use super::reader::{Purpose, Scalar, Table};
use super::report::{Given, Place, Report, Text};
use super::suggest::KnownKey;

/// The whole file.
pub(super) struct Raw {
    pub(super) kernel_tls: Given<String>,
    pub(super) strength: Given<Scalar>,
    pub(super) watch: Given<String>,
    pub(super) public_port: Given<Scalar>,
    /// `None` if something else stands where the listeners should be.
    pub(super) listeners: Option<Vec<RawListener>>,
    pub(super) certificate: Given<RawCertificate>,
    pub(super) client_auth: Given<RawClientAuth>,
    pub(super) groups: Vec<(Text, Given<Vec<Text>>)>,
    /// `None` if something else stands where the routes should be.
    pub(super) routes: Option<Vec<RawRoute>>,
    pub(super) expectations: Vec<RawExpectation>,
    pub(super) tickets: Given<RawTickets>,
    pub(super) timeouts: RawTimeouts,
    pub(super) limits: RawLimits,
    pub(super) metrics: RawMetrics,
    pub(super) control: Given<RawControl>,
    pub(super) log: RawLog,
    pub(super) history: RawHistory,
    pub(super) notify: Given<RawNotify>,
    pub(super) renewal: Given<RawRenewal>,
    pub(super) sandbox: RawSandbox,
}

/// `[[listener]]`
pub(super) struct RawListener {
    pub(super) place: Place,
    pub(super) name: Given<String>,
    pub(super) address: Given<String>,
    pub(super) proxy_protocol_from: Given<Vec<Text>>,
    pub(super) allow_sources: Given<Vec<Text>>,
    pub(super) deny_sources: Given<Vec<Text>>,
}

/// `[certificate]` or `[route.certificate]`
pub(super) struct RawCertificate {
    pub(super) chain: Given<String>,
    pub(super) key: Given<String>,
    /// In `[certificate]` only.
    pub(super) acme: Given<RawAcme>,
}

/// `[client_auth]` or `[route.client_auth]`
pub(super) struct RawClientAuth {
    pub(super) mode: Given<String>,
    pub(super) trust: Given<Vec<Text>>,
    pub(super) revocation_lists: Given<Vec<Text>>,
    pub(super) deny: Given<Vec<Text>>,
    pub(super) expired_revocation_list: Given<String>,
    pub(super) revocation_check: Given<String>,
    pub(super) expired_session: Given<String>,
    pub(super) announce_trust: Given<String>,
}

/// `[[expect]]`
pub(super) struct RawExpectation {
    pub(super) place: Place,
    pub(super) device: Given<String>,
    pub(super) group: Given<String>,
    pub(super) route: Given<String>,
    pub(super) allowed: Given<bool>,
}

/// `[tickets]`
pub(super) struct RawTickets {
    pub(super) keys: Given<Vec<Text>>,
}

/// `[timeouts]`
#[derive(Default)]
pub(super) struct RawTimeouts {
    pub(super) client_hello: Given<Scalar>,
    pub(super) handshake: Given<Scalar>,
    pub(super) dial: Given<Scalar>,
    pub(super) idle: Given<Scalar>,
    pub(super) lifetime: Given<Scalar>,
    pub(super) half_close: Given<Scalar>,
    pub(super) drain: Given<Scalar>,
}

/// `[control]`
pub(super) struct RawControl {
    pub(super) socket: Given<String>,
}

/// `[limits]`
#[derive(Default)]
pub(super) struct RawLimits {
    pub(super) connections: Given<Scalar>,
    pub(super) connections_per_source: Given<Scalar>,
    pub(super) connection_rate_per_source: Given<Scalar>,
    pub(super) handshakes: Given<Scalar>,
    pub(super) penalties: Given<String>,
    pub(super) banned: Given<String>,
    pub(super) source_prefix_v4: Given<Scalar>,
    pub(super) source_prefix_v6: Given<Scalar>,
}

/// `[metrics]`
#[derive(Default)]
pub(super) struct RawMetrics {
    pub(super) address: Given<String>,
    pub(super) inventory: Given<String>,
}

/// `[log]`
#[derive(Default)]
pub(super) struct RawLog {
    pub(super) output: Given<String>,
    pub(super) format: Given<String>,
    pub(super) sampling: Given<String>,
}

/// `[history]`
#[derive(Default)]
pub(super) struct RawHistory {
    pub(super) folder: Given<String>,
    pub(super) days: Given<Scalar>,
}

/// `[notify]`
pub(super) struct RawNotify {
    pub(super) webhook: Given<String>,
    pub(super) webhook_file: Given<String>,
    pub(super) format: Given<String>,
    pub(super) token_file: Given<String>,
    pub(super) trust: Given<String>,
    pub(super) command: Given<Vec<Text>>,
    pub(super) events: Given<Vec<Text>>,
}

/// `[sandbox]`
#[derive(Default)]
pub(super) struct RawSandbox {
    pub(super) mode: Given<String>,
}

impl Raw {
    /// Reads the whole document, noting every unknown key and every value of the wrong kind.
    pub(super) fn read(document: &DeTable<'_>, report: &mut Report) -> Self {
        Self::read_root(Table::root(document, Purpose::Read(&known_keys())), report)
    }

    fn read_root(mut root: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            control: RawControl::find(&mut root, report),
            notify: RawNotify::find(&mut root, report),
            renewal: RawRenewal::find(&mut root, report),
            kernel_tls: root.text("kernel_tls", "\"off\"", report),
            strength: root.scalar("strength", "256", report),
            watch: root.text("watch", "\"on\"", report),
            public_port: root.scalar("public_port", "443", report),
            listeners: root
                .tables("listener", report)
                .map(|tables| tables.into_iter().map(|table| RawListener::read(table, report)).collect()),
            certificate: root.table("certificate", RawCertificate::read_default, report),
            client_auth: root.table("client_auth", RawClientAuth::read, report),
            groups: root
                .table("groups", |table, report| table.lists("\"alice-phone\"", report), report)
                .into_value()
                .unwrap_or_default(),
            routes: root
                .tables("route", report)
                .map(|tables| tables.into_iter().map(|table| RawRoute::read(table, report)).collect()),
            expectations: root
                .tables("expect", report)
                .map(|tables| tables.into_iter().map(|table| RawExpectation::read(table, report)).collect())
                .unwrap_or_default(),
            tickets: root.table("tickets", RawTickets::read, report),
            timeouts: root.table("timeouts", RawTimeouts::read, report).into_value().unwrap_or_default(),
            limits: root.table("limits", RawLimits::read, report).into_value().unwrap_or_default(),
            metrics: root.table("metrics", RawMetrics::read, report).into_value().unwrap_or_default(),
            log: root.table("log", RawLog::read, report).into_value().unwrap_or_default(),
            history: root.table("history", RawHistory::read, report).into_value().unwrap_or_default(),
            sandbox: root.table("sandbox", RawSandbox::read, report).into_value().unwrap_or_default(),
        };
        root.close(report);
        raw
    }
}

/// Reads the sections `[notify]` and `[sandbox]` alone: the rest of the document is not looked at.
pub(super) fn notify_alone(document: &DeTable<'_>, report: &mut Report) -> (Given<RawNotify>, RawSandbox) {
    let known = known_keys();
    let mut root = Table::root(document, Purpose::Read(&known));
    let notify = RawNotify::find(&mut root, report);
    (notify, root.table("sandbox", RawSandbox::read, report).into_value().unwrap_or_default())
}

/// Every key there is, with its section: those that the reading below asks for.
pub(super) fn known_keys() -> Vec<KnownKey> {
    let keys = RefCell::default();
    Raw::read_root(Table::root(&DeTable::new(), Purpose::List(&keys)), &mut Report::new(Path::new(""), ""));
    keys.into_inner()
}

impl RawListener {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            place: table.place().clone(),
            name: table.text("name", "\"public\"", report),
            address: table.text("address", "\"[::]:8443\"", report),
            proxy_protocol_from: table.texts("proxy_protocol_from", "\"192.168.1.1\"", report),
            allow_sources: table.texts("allow_sources", "\"192.168.1.0/24\"", report),
            deny_sources: table.texts("deny_sources", "\"203.0.113.0/24\"", report),
        };
        table.close(report);
        raw
    }
}

impl RawCertificate {
    fn read_default(mut table: Table<'_>, report: &mut Report) -> Self {
        let acme = table.table("acme", RawAcme::read, report);
        Self { acme, ..Self::read(table, report) }
    }

    pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            chain: table.text("chain", "\"pki/server.pem\"", report),
            key: table.text("key", "\"pki/server-key.pem\"", report),
            acme: Given::Absent,
        };
        table.close(report);
        raw
    }
}

impl RawClientAuth {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            mode: table.text("mode", "\"require_and_verify\"", report),
            trust: table.texts("trust", "\"pki/clients.pem\"", report),
            revocation_lists: table.texts("revocation_lists", "\"pki/clients.crl\"", report),
            deny: table.texts("deny", "\"serial:4a6f\"", report),
            expired_revocation_list: table.text("expired_revocation_list", "\"deny\"", report),
            revocation_check: table.text("revocation_check", "\"chain\"", report),
            expired_session: table.text("expired_session", "\"cut\"", report),
            announce_trust: table.text("announce_trust", "\"on\"", report),
        };
        table.close(report);
        raw
    }
}

impl RawExpectation {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            place: table.place().clone(),
            device: table.text("device", "\"alice-phone\"", report),
            group: table.text("group", "\"family\"", report),
            route: table.text("route", "\"nas\"", report),
            allowed: table.boolean("allowed", "false", report),
        };
        table.close(report);
        raw
    }
}

impl RawTickets {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self { keys: table.texts("keys", "\"tickets.key\"", report) };
        table.close(report);
        raw
    }
}

impl RawTimeouts {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let mut duration = |key| table.scalar(key, "\"10s\"", report);
        let raw = Self {
            client_hello: duration("client_hello"),
            handshake: duration("handshake"),
            dial: duration("dial"),
            idle: duration("idle"),
            lifetime: duration("lifetime"),
            half_close: duration("half_close"),
            drain: duration("drain"),
        };
        table.close(report);
        raw
    }
}

impl RawLimits {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            connections: table.scalar("connections", "10000", report),
            connections_per_source: table.scalar("connections_per_source", "256", report),
            connection_rate_per_source: table.scalar("connection_rate_per_source", "\"50/s\"", report),
            handshakes: table.scalar("handshakes", "512", report),
            penalties: table.text("penalties", "\"on\"", report),
            banned: table.text("banned", "\"close\"", report),
            source_prefix_v4: table.scalar("source_prefix_v4", "32", report),
            source_prefix_v6: table.scalar("source_prefix_v6", "64", report),
        };
        table.close(report);
        raw
    }
}

impl RawControl {
    /// Reads the section alone: the rest of the document is not looked at.
    pub(super) fn read_alone(document: &DeTable<'_>, report: &mut Report) -> Given<Self> {
        Self::find(&mut Table::root(document, Purpose::Read(&known_keys())), report)
    }

    fn find(root: &mut Table<'_>, report: &mut Report) -> Given<Self> {
        let read = |mut table: Table<'_>, report: &mut Report| {
            let raw = Self { socket: table.text("socket", "\"auto\"", report) };
            table.close(report);
            raw
        };
        root.table("control", read, report)
    }
}

impl RawNotify {
    fn find(root: &mut Table<'_>, report: &mut Report) -> Given<Self> {
        let read = |mut table: Table<'_>, report: &mut Report| {
            let raw = Self {
                webhook: table.text("webhook", "\"https://ntfy.sh/YOUR-TOPIC\"", report),
                webhook_file: table.text("webhook_file", "\"webhook.url\"", report),
                format: table.text("format", "\"ntfy\"", report),
                token_file: table.text("token_file", "\"webhook.token\"", report),
                trust: table.text("trust", "\"pki/receiver.pem\"", report),
                command: table.texts("command", "\"/usr/local/bin/tell\"", report),
                events: table.texts("events", "\"impostor\"", report),
            };
            table.close(report);
            raw
        };
        root.table("notify", read, report)
    }
}

impl RawMetrics {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            address: table.text("address", "\"127.0.0.1:9180\"", report),
            inventory: table.text("inventory", "\"pki/inventory.toml\"", report),
        };
        table.close(report);
        raw
    }
}

impl RawLog {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            output: table.text("output", "\"stdout\"", report),
            format: table.text("format", "\"text\"", report),
            sampling: table.text("sampling", "\"on\"", report),
        };
        table.close(report);
        raw
    }
}

impl RawHistory {
    /// Reads the section alone: the rest of the document is not looked at.
    pub(super) fn read_alone(document: &DeTable<'_>, report: &mut Report) -> Self {
        let known = known_keys();
        let mut root = Table::root(document, Purpose::Read(&known));
        root.table("history", Self::read, report).into_value().unwrap_or_default()
    }

    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self { folder: table.text("folder", "\"auto\"", report), days: table.scalar("days", "90", report) };
        table.close(report);
        raw
    }
}

impl RawSandbox {
    fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self { mode: table.text("mode", "\"auto\"", report) };
        table.close(report);
        raw
    }
}

#[cfg(test)]
mod tests;
