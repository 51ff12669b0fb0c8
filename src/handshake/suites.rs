//! The cryptography of every handshake.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::hkdf;

/// The cryptography of every handshake: rustls' defaults on aws-lc-rs, X25519MLKEM768 first.
pub static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(CryptoProvider { cipher_suites: hkdf::SUITES.clone(), ..aws_lc_rs::default_provider() }));
