//! `health` of a route, as it is written.

use crate::config::reader::{Scalar, Table};
use crate::config::report::{Given, Report};

/// `[route.health]`
pub(in crate::config) struct RawHealth {
    pub(in crate::config) every: Given<Scalar>,
    pub(in crate::config) rise: Given<Scalar>,
    pub(in crate::config) fall: Given<Scalar>,
    pub(in crate::config) timeout: Given<Scalar>,
    pub(in crate::config) send: Given<String>,
    pub(in crate::config) expect: Given<String>,
    pub(in crate::config) tls: Given<bool>,
}

impl RawHealth {
    pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Self {
        let raw = Self {
            every: table.scalar("every", "\"10s\"", report),
            rise: table.scalar("rise", "2", report),
            fall: table.scalar("fall", "3", report),
            timeout: table.scalar("timeout", "\"2s\"", report),
            send: table.text("send", "\"HEAD / HTTP/1.0\\r\\n\\r\\n\"", report),
            expect: table.text("expect", "\"SSH-\"", report),
            tls: table.boolean("tls", "true", report),
        };
        table.close(report);
        raw
    }
}
