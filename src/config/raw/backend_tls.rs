//! `backend_tls` of a `[[route]]` as it is written.

use crate::config::reader::Table;
use crate::config::report::{Given, Report};

/// `backend_tls` or `[route.backend_tls]`
pub(in crate::config) struct RawBackendTls {
    pub(in crate::config) trust: Given<String>,
    pub(in crate::config) server_name: Given<String>,
    pub(in crate::config) certificate: Given<String>,
    pub(in crate::config) key: Given<String>,
    pub(in crate::config) proxy_protocol: Given<String>,
}

impl RawBackendTls {
    pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            trust: table.text("trust", "\"nas.pem\"", report),
            server_name: table.text("server_name", "\"nas.local\"", report),
            certificate: table.text("certificate", "\"pki/gate.pem\"", report),
            key: table.text("key", "\"pki/gate-key.pem\"", report),
            proxy_protocol: table.text("proxy_protocol", "\"before\"", report),
        };
        table.close(report);
        raw
    }
}
