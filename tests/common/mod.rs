//! What every integration test builds on: the gate as a process, certificates of every kind, backends, and other programs.
//!
//! * [`gate::Gate`] runs the real binary on a configuration text and reads its log lines and [`metrics::Metrics`].
//! * [`pki::TestPki`] and [`pki::Authority`] issue certificates and revocation lists, proper ones and odd ones.
//! * [`backend::Backend`] is a service behind the gate, on a thread of its own.
//! * [`process::run`] and [`process::Daemon`] are other programs, which never outlive their test.
//!
//! Everything here blocks and has a deadline of its own ([`DEADLINE`] unless said otherwise), after which the test
//! fails and says what it waited for. A tokio test that needs its runtime meanwhile takes the `multi_thread` flavour.
//!
//! Put the gate after the backends and before the clients in a test: values are dropped in reverse order, and the gate
//! checks, when it is dropped, that every connection it accepted was rejected or closed.

use std::time::Duration;

pub(crate) mod backend;
pub(crate) mod bundle;
pub(crate) mod folders;
pub(crate) mod gate;
pub(crate) mod machine;
pub(crate) mod metrics;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod proxy_header;
pub(crate) mod terminal;
pub(crate) mod text;
pub(crate) mod tls_backend;
pub(crate) mod token;

/// How long anything may take that should take milliseconds. Generous, because test machines are slow and busy: it only
/// decides how late a broken test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
