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

#[cfg(all(feature = "gate", not(target_os = "linux")))]
compile_error!(
    "the gate runs on Linux; what a device needs is built by: cargo build --no-default-features --features connector"
);
#[cfg(not(any(feature = "gate", feature = "connector")))]
compile_error!("without default features, choose what to build: --features gate, --features connector, or both");

// On every device and every gate.
pub mod bundle;
pub mod cli;
pub mod manual;
pub mod model;
pub mod pki;
pub mod sys;

// The device: also on Windows and macOS.
#[cfg(feature = "connector")]
pub mod connector;

// The gate and its owner.
#[cfg(feature = "gate")]
pub mod acme;
#[cfg(feature = "gate")]
mod admin;
#[cfg(feature = "gate")]
pub mod admission;
#[cfg(feature = "gate")]
pub mod authorize;
#[cfg(feature = "gate")]
pub mod backend_tls;
#[cfg(feature = "gate")]
pub mod backends;
#[cfg(feature = "gate")]
pub mod ca;
#[cfg(feature = "gate")]
pub mod client_hello;
#[cfg(feature = "gate")]
pub mod config;
#[cfg(feature = "gate")]
mod connection;
#[cfg(feature = "gate")]
pub mod control;
#[cfg(feature = "gate")]
pub mod enrolment;
#[cfg(feature = "gate")]
pub mod explain;
#[cfg(feature = "gate")]
pub mod files;
#[cfg(feature = "gate")]
mod gate;
#[cfg(feature = "gate")]
pub mod handover;
#[cfg(feature = "gate")]
pub mod handshake;
#[cfg(feature = "gate")]
pub mod history;
#[cfg(feature = "gate")]
mod http;
#[cfg(feature = "gate")]
pub mod impostors;
#[cfg(feature = "gate")]
pub mod install;
#[cfg(feature = "gate")]
pub mod listener;
#[cfg(feature = "gate")]
pub mod notify;
#[cfg(feature = "gate")]
pub(crate) mod overview;
#[cfg(feature = "gate")]
pub mod proxy_protocol;
#[cfg(feature = "gate")]
pub mod relay;
#[cfg(feature = "gate")]
pub mod reload;
#[cfg(feature = "gate")]
pub mod renewal;
#[cfg(feature = "gate")]
pub mod route;
#[cfg(feature = "gate")]
pub mod sandbox;
#[cfg(feature = "gate")]
pub mod server;
#[cfg(feature = "gate")]
pub mod sessions;
#[cfg(feature = "gate")]
pub mod snapshot;
#[cfg(feature = "gate")]
pub mod telemetry;
#[cfg(feature = "gate")]
pub mod tls;
#[cfg(feature = "gate")]
pub mod unattended;

/// What only the fuzz targets use.
#[cfg(feature = "gate")]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::admin::FuzzedListener;
    #[cfg(feature = "connector")]
    pub use crate::connector::renew::{FuzzedAnswer, Made};
    pub use crate::renewal::FuzzedRenewal;
}
