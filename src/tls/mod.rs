//! TLS beside the handshake: the record layer for payload, and the fingerprint of a ClientHello.

pub mod ja4;
pub mod record;
