//! The cryptography of every handshake, and which cipher suite is chosen.
//!
//! The gate chooses, as BoringSSL and Go do: clients list AES-256 first because it is the longer key and not because it is
//! faster for them, and it costs both sides more. Only a client that puts ChaCha20 first is followed: it does so because it has
//! no instructions for AES.

use std::sync::{Arc, LazyLock};

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::hkdf;
use crate::config::checked::CipherStrength;
use crate::sys::cpu;
use crate::tls::record::Aead;

/// The cryptography of every handshake: rustls' defaults on aws-lc-rs, X25519MLKEM768 first.
pub static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(CryptoProvider { cipher_suites: hkdf::SUITES.clone(), ..aws_lc_rs::default_provider() }));

/// [`PROVIDER`] with its cipher suites in the order in which they are chosen.
#[derive(Debug)]
pub struct Suites {
    /// For clients that favour AES.
    pub(super) usual: Arc<CryptoProvider>,
    /// For clients that favour ChaCha20. The same value if there is no difference on this processor.
    pub(super) chacha20: Arc<CryptoProvider>,
}

impl Suites {
    /// The suites of this processor.
    pub fn new(strength: CipherStrength) -> Self {
        Self::on(cpu::has_aes(), strength)
    }

    fn on(has_aes: bool, strength: CipherStrength) -> Self {
        let [usual, chacha20] = [false, true].map(|favours_chacha20| order(has_aes, strength, favours_chacha20));
        let provider = |order: &[Aead]| {
            let cipher_suites = arranged(&PROVIDER.cipher_suites, order);
            Arc::new(CryptoProvider { cipher_suites, ..CryptoProvider::clone(&PROVIDER) })
        };
        let first = provider(usual);
        let second = if usual == chacha20 { Arc::clone(&first) } else { provider(chacha20) };
        Self { usual: first, chacha20: second }
    }
}

/// The AEADs that a client may be given, the first that it has.
///
/// AES-128 before AES-256: no attack on either is known, its key schedule and its rounds are shorter, and its suite of TLS 1.3
/// hashes with SHA-256 instead of SHA-384.
///
/// Without instructions for AES, ChaCha20 is several times faster than AES, and takes the same time for every key.
const fn order(has_aes: bool, strength: CipherStrength, favours_chacha20: bool) -> &'static [Aead] {
    use Aead::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    match (strength, has_aes && !favours_chacha20) {
        (CipherStrength::Bits128, true) => &[Aes128Gcm, Aes256Gcm, Chacha20Poly1305],
        (CipherStrength::Bits128, false) => &[Chacha20Poly1305, Aes128Gcm, Aes256Gcm],
        (CipherStrength::Bits256, true) => &[Aes256Gcm, Chacha20Poly1305],
        (CipherStrength::Bits256, false) => &[Chacha20Poly1305, Aes256Gcm],
    }
}

/// The suites with these AEADs, in this order.
fn arranged(suites: &[SupportedCipherSuite], order: &[Aead]) -> Vec<SupportedCipherSuite> {
    let with = |aead| suites.iter().copied().filter(move |suite| Aead::of(suite.suite()) == Some(aead));
    order.iter().flat_map(|aead| with(*aead)).collect()
}
