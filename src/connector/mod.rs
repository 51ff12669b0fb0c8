//! The other end: what a device runs to reach the services of a home through its gate.
//!
//! Programs that cannot show a certificate speak to this one, which shows it for them. All of it is portable: what one system alone has
//! is in [`platform`].

pub mod dial;
pub mod fault;
pub mod folder;
pub mod forward;
pub mod homes;
pub mod platform;
pub mod refusal;
pub mod remote;
pub mod renew;
pub mod session;
pub mod source;
pub mod ssh;
pub mod stdio;
pub mod tls;
pub mod token;
