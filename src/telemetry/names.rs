//! Every metric, once: dashboards and alerts rely on these names.
//!
//! To add one: a constant here with its help text in [`ALL`], its handle in [`metrics`](super::metrics), registered there
//! at 0 for every label set it can have, and a row in the README's table.

/// Connections accepted. Labels: `listener`.
pub const CONNECTIONS_ACCEPTED: &str = "doorward_connections_accepted_total";
/// Connections rejected. Labels: `listener`, `route`, `stage`, `reason`.
pub const CONNECTIONS_REJECTED: &str = "doorward_connections_rejected_total";
/// Admitted connections that have ended. Labels: `route`, `reason`.
pub const CONNECTIONS_CLOSED: &str = "doorward_connections_closed_total";
/// Connections open. Labels: `route`, which is `none` until it is known.
pub const CONNECTIONS_ACTIVE: &str = "doorward_connections_active";
/// Handshakes completed. Labels: `route`, `version`, `resumed`.
pub const HANDSHAKES: &str = "doorward_handshakes_total";
/// Session tickets that clients presented. Labels: `outcome`.
pub const TICKETS: &str = "doorward_tickets_total";
/// Refused clients that pretended to be a device, or took a bait. Labels: `route`.
pub const IMPOSTORS: &str = "doorward_impostors_total";
/// Connections that have not yet been admitted or rejected. Labels: `listener`.
pub const HANDSHAKES_IN_PROGRESS: &str = "doorward_handshakes_in_progress";
/// Time from ClientHello to the end of the handshake. Labels: `outcome`.
pub const HANDSHAKE_DURATION: &str = "doorward_handshake_duration_seconds";
/// Payload relayed. Labels: `route`, `direction`.
pub const RELAY_BYTES: &str = "doorward_relay_bytes_total";
/// Relays begun. Labels: `route`, `path`.
pub const RELAYS: &str = "doorward_relays_total";
/// Whether the last dial of a backend succeeded. Labels: `route`, `backend`.
pub const BACKEND_UP: &str = "doorward_backend_up";
/// Whether the health checks of a backend pass. Labels: `route`, `backend`.
pub const BACKEND_HEALTHY: &str = "doorward_backend_healthy";
/// How many addresses a backend's host name has. Labels: `route`, `backend`.
pub const BACKEND_RESOLVED_ADDRESSES: &str = "doorward_backend_resolved_addresses";
/// Time to reach a backend. Labels: `route`, `outcome`.
pub const BACKEND_DIAL_DURATION: &str = "doorward_backend_dial_duration_seconds";
/// Attempts to wake the machine of a backend that have ended. Labels: `route`, `outcome`.
pub const WAKES: &str = "doorward_wakes_total";
/// When a certificate or revocation list expires. Labels: `kind`, `name`.
pub const CERTIFICATE_EXPIRY: &str = "doorward_certificate_expiry_timestamp_seconds";
/// From when on the gate warns that it expires. Labels: `kind`, `name`.
pub const CERTIFICATE_EXPIRY_WARNING: &str = "doorward_certificate_expiry_warning_timestamp_seconds";
/// Orders for the public certificate. Labels: `outcome`.
pub const ACME_RENEWALS: &str = "doorward_acme_renewals_total";
/// Devices that asked for their next certificate. Labels: `outcome`.
pub const RENEWAL_REQUESTS: &str = "doorward_renewal_requests_total";
/// Sessions that were cut because they are no longer admitted. Labels: `reason`.
pub const SESSIONS_CUT: &str = "doorward_sessions_cut_total";
/// Time from the event that cuts a session to its end.
pub const REVOCATION_LAG: &str = "doorward_revocation_lag_seconds";
/// Reloads of the configuration. Labels: `outcome`.
pub const CONFIG_RELOADS: &str = "doorward_config_reloads_total";
/// Whether the last one succeeded.
pub const CONFIG_LAST_RELOAD_SUCCESSFUL: &str = "doorward_config_last_reload_successful";
/// Whether the log's output takes lines.
pub const LOG_WRITABLE: &str = "doorward_log_writable";
/// Lines of the log that were not written.
pub const LOG_LINES_LOST: &str = "doorward_log_lines_lost_total";
/// Messages to the owner. Labels: `event`, `outcome`.
pub const NOTICES: &str = "doorward_notices_total";
/// The limit of open files that the gate runs under.
pub const DESCRIPTORS_LIMIT: &str = "doorward_descriptors_limit";
/// Failed accepts. Labels: `kind`.
pub const ACCEPT_ERRORS: &str = "doorward_accept_errors_total";
/// Constant 1. Labels: `version`, `revision`.
pub const BUILD_INFO: &str = "doorward_build_info";

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// Every metric with its kind and its help text.
pub const ALL: &[(&str, Kind, &str)] = &[
    (CONNECTIONS_ACCEPTED, Kind::Counter, "Connections accepted."),
    (CONNECTIONS_REJECTED, Kind::Counter, "Connections rejected before any payload, by stage and reason."),
    (CONNECTIONS_CLOSED, Kind::Counter, "Admitted connections that have ended, by reason."),
    (CONNECTIONS_ACTIVE, Kind::Gauge, "Connections open now; route is none until it is known."),
    (HANDSHAKES, Kind::Counter, "TLS handshakes completed."),
    (TICKETS, Kind::Counter, "Session tickets that clients presented, by outcome."),
    (IMPOSTORS, Kind::Counter, "Refused clients that pretended to be a device, or used a canary."),
    (HANDSHAKES_IN_PROGRESS, Kind::Gauge, "Connections neither admitted nor rejected yet."),
    (HANDSHAKE_DURATION, Kind::Histogram, "Time from the ClientHello to the end of the handshake."),
    (RELAY_BYTES, Kind::Counter, "Payload relayed, without what TLS adds."),
    (RELAYS, Kind::Counter, "Relays begun, by how their bytes are moved."),
    (BACKEND_UP, Kind::Gauge, "1 unless the last attempt to reach the backend failed."),
    (BACKEND_HEALTHY, Kind::Gauge, "1 unless the health checks of the backend fail, if it is checked."),
    (
        BACKEND_RESOLVED_ADDRESSES,
        Kind::Gauge,
        "Addresses in use of a backend that has a host name; 0 until it is resolved.",
    ),
    (BACKEND_DIAL_DURATION, Kind::Histogram, "Time to reach a backend."),
    (WAKES, Kind::Counter, "Attempts to wake the machine of a backend, by outcome."),
    (CERTIFICATE_EXPIRY, Kind::Gauge, "When a certificate or revocation list expires, in seconds since 1970."),
    (
        CERTIFICATE_EXPIRY_WARNING,
        Kind::Gauge,
        "From when on the gate warns that a certificate or revocation list expires, in seconds since 1970.",
    ),
    (ACME_RENEWALS, Kind::Counter, "Orders for the public certificate that have ended, by outcome."),
    (RENEWAL_REQUESTS, Kind::Counter, "Requests of devices for their next certificate, by outcome."),
    (SESSIONS_CUT, Kind::Counter, "Connections that were cut because they are no longer admitted, by reason."),
    (REVOCATION_LAG, Kind::Histogram, "Time from the event that cuts a connection, such as a reload, to its end."),
    (CONFIG_RELOADS, Kind::Counter, "Reloads of the configuration."),
    (CONFIG_LAST_RELOAD_SUCCESSFUL, Kind::Gauge, "1 unless the last reload of the configuration failed."),
    (LOG_WRITABLE, Kind::Gauge, "1 unless the log cannot be written, or is written elsewhere than configured."),
    (LOG_LINES_LOST, Kind::Counter, "Lines of the log that could not be written."),
    (NOTICES, Kind::Counter, "Events that the owner is sent messages about, by outcome."),
    (ACCEPT_ERRORS, Kind::Counter, "Connections that could not be accepted."),
    (DESCRIPTORS_LIMIT, Kind::Gauge, "The limit of open files that the gate runs under."),
    (BUILD_INFO, Kind::Gauge, "Constant 1, with the version as a label."),
];

/// The `route` label before a route is known.
pub const NO_ROUTE: &str = "none";
