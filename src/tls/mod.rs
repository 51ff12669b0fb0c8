//! TLS apart from the handshake: the record layer for payload, and the JA4 fingerprint of a ClientHello.

pub mod ja4;
pub mod record;
