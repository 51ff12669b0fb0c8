//! The vocabulary: what a connection, its client and its end are called. Nothing here does I/O or imports another module of
//! the crate.

pub mod alert;
pub mod close;
pub mod device_name;
pub mod expiry;
pub mod identity;
pub mod impostor;
pub mod issuance;
pub mod look_up;
pub mod names;
pub mod notice;
pub mod public_certificate;
pub mod public_name;
pub mod rate_limit;
pub mod rejection;
pub mod renewal;
pub mod service;
pub mod shell;
pub mod source;
pub mod starttls;
pub mod text;
pub mod ticket;
pub mod unicode;
pub mod wake;
