//! `dns` of `[certificate.acme]` as it is written.

use crate::config::reader::{Scalar, Table};
use crate::config::report::{Given, Report, Text};

/// `dns` of `[certificate.acme]`
pub(in crate::config) struct RawDns {
    pub(in crate::config) provider: Given<String>,
    pub(in crate::config) user: Given<String>,
    pub(in crate::config) token_file: Given<String>,
    pub(in crate::config) secret_file: Given<String>,
    pub(in crate::config) endpoint: Given<String>,
    pub(in crate::config) server: Given<String>,
    pub(in crate::config) key_name: Given<String>,
    pub(in crate::config) key_file: Given<String>,
    pub(in crate::config) algorithm: Given<String>,
    pub(in crate::config) command: Given<Vec<Text>>,
    pub(in crate::config) servers: Given<Vec<Text>>,
    pub(in crate::config) propagation: Given<Scalar>,
}

impl RawDns {
    pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            provider: table.text("provider", "\"rfc2136\"", report),
            user: table.text("user", "\"12345\"", report),
            token_file: table.text("token_file", "\"cloudflare.token\"", report),
            secret_file: table.text("secret_file", "\"dns.secret\"", report),
            endpoint: table.text("endpoint", "\"ovh-eu\"", report),
            server: table.text("server", "\"192.0.2.1:53\"", report),
            key_name: table.text("key_name", "\"doorward\"", report),
            key_file: table.text("key_file", "\"tsig.key\"", report),
            algorithm: table.text("algorithm", "\"hmac-sha256\"", report),
            command: table.texts("command", "\"/usr/local/bin/dns\"", report),
            servers: table.texts("servers", "\"192.0.2.1:53\"", report),
            propagation: table.scalar("propagation", "\"5m\"", report),
        };
        table.close(report);
        raw
    }
}
