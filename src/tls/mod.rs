//! TLS as such: the driver of rustls (the seam of design.md section 2), the record layer for payload, and the fingerprint of a ClientHello.

pub mod driver;
pub mod ja4;
pub mod record;
