//! A mutual-TLS gate for a home network: it relays connections of devices whose certificate the owner issued, and refuses all
//! others.
//!
//! A connection's journey is one straight line. Each stage consumes the value of the one before it, so a wrong order does
//! not compile, and a backend is reached with an [`Authorized`](authorize::Authorized) value or not at all. The order
//! itself is written down in [`connection`] and nowhere else.
//!
//! | # | stage | takes | gives | may reject with stage |
//! |---|---|---|---|---|
//! | 1 | [`listener`] | a socket | [`Accepted`](listener::Accepted) | |
//! | 2 | [`admission`] | `Accepted` | [`Admitted`](admission::Admitted), which holds its slots as guards | `admission` |
//! | 3 | [`client_hello`] | `Admitted` | [`Greeted`](client_hello::Greeted); bytes are only looked at | `client_hello` |
//! | 3b | [`route`] | the server name | a [`Route`](snapshot::Route) | `route` |
//! | 4 | [`handshake`] | `Greeted` and the route | [`Secured`](handshake::Secured) | `handshake`, `certificate` |
//! | 5 | [`authorize`] | identity and policy | [`Authorized`](authorize::Authorized), the permit | `certificate`, `policy` |
//! | 6 | [`backends::dial`] | the permit and the backends | [`Dialed`](backends::dial::Dialed) | `backend` |
//! | 7 | [`relay`] | `Dialed` | [`RelaySummary`](relay::RelaySummary) | closes, never rejects |
//!
//! A device that asks for its next certificate ends at stage 5: [`renewal`] takes the permit, and answers it where the others dial.
//!
//! Imports point down only; `tests/architecture` holds the table. The terms are those of [`manual::words`].

// They panic when the reader has closed the stream; src/cli/mod.rs has others that do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod acme;
mod admin;
pub mod admission;
pub mod authorize;
pub mod backend_tls;
pub mod backends;
pub mod bundle;
pub mod ca;
pub mod cli;
pub mod client_hello;
pub mod config;
mod connection;
pub mod connector;
pub mod control;
pub mod enrolment;
pub mod explain;
pub mod files;
mod gate;
pub mod handover;
pub mod handshake;
pub mod history;
mod http;
pub mod impostors;
pub mod install;
pub mod listener;
pub mod manual;
pub mod model;
pub mod notify;
pub(crate) mod overview;
pub mod pki;
pub mod proxy_protocol;
pub mod relay;
pub mod reload;
pub mod renewal;
pub mod route;
pub mod sandbox;
pub mod server;
pub mod sessions;
pub mod snapshot;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod unattended;

/// What only the fuzz targets use.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::admin::FuzzedListener;
}
