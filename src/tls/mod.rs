//! TLS: the two files that know rustls' connection types ([`driver`] and the record layer's keys), the record layer for payload,
//! and the fingerprint of a ClientHello.

pub mod driver;
pub mod ja4;
pub mod record;
