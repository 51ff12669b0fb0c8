//! The cryptography of every handshake, and which cipher suite is chosen.
//!
//! The gate chooses, as BoringSSL and Go do: clients list AES-256 first because it is the longer key and not because it is
//! faster for them, and it costs both sides more. Only a client that puts ChaCha20 first is followed: it does so because it has
//! no instructions for AES.

use std::sync::{Arc, LazyLock};

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::config::checked::CipherStrength;
use crate::sys::cpu;
use crate::tls::record::Aead;

/// The cryptography of every handshake: rustls' defaults on aws-lc-rs, X25519MLKEM768 first.
pub static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// [`PROVIDER`] with its cipher suites in the order in which they are chosen.
#[derive(Debug)]
pub struct Suites {
    /// The shortest key.
    pub(super) strength: CipherStrength,
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

    /// What the gate offers where it is the client itself.
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.usual
    }

    fn on(has_aes: bool, strength: CipherStrength) -> Self {
        let [usual, chacha20] = [false, true].map(|favours_chacha20| order(has_aes, strength, favours_chacha20));
        let provider = |order: &[Aead]| {
            let cipher_suites = arranged(&PROVIDER.cipher_suites, order);
            Arc::new(CryptoProvider { cipher_suites, ..CryptoProvider::clone(&PROVIDER) })
        };
        let first = provider(usual);
        let second = if usual == chacha20 { Arc::clone(&first) } else { provider(chacha20) };
        Self { strength, usual: first, chacha20: second }
    }
}

/// The AEADs that a client may be given, the first that it has.
///
/// AES-128 before AES-256: no attack on either is known, its key schedule and its rounds are shorter, and its suite of TLS 1.3
/// hashes with SHA-256 instead of SHA-384. Instructions for SHA-256 make that cheaper still, but do not decide: without them, on
/// the same processor, a resumed handshake with AES-128 took 79 µs, and one with AES-256 81 µs.
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

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    const BOTH: [CipherStrength; 2] = [CipherStrength::Bits128, CipherStrength::Bits256];

    #[test]
    fn each_processor_strength_and_favourite_has_its_order() {
        use Aead::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let chacha20_first: &[&[Aead]] = &[&[Chacha20Poly1305, Aes128Gcm, Aes256Gcm], &[Chacha20Poly1305, Aes256Gcm]];
        for (has_aes, favours_chacha20, orders) in [
            (true, false, &[&[Aes128Gcm, Aes256Gcm, Chacha20Poly1305][..], &[Aes256Gcm, Chacha20Poly1305]][..]),
            (true, true, chacha20_first),
            (false, false, chacha20_first),
            (false, true, chacha20_first),
        ] {
            for (strength, wanted) in BOTH.into_iter().zip(orders) {
                let chosen = order(has_aes, strength, favours_chacha20);
                assert_eq!(chosen, *wanted, "AES {has_aes}, ChaCha20 first {favours_chacha20}, {strength:?}");
            }
        }
    }

    /// In both versions, and for both kinds of server keys.
    #[test]
    fn providers_hold_the_suites_of_the_order_and_no_others() {
        for has_aes in [true, false] {
            for strength in BOTH {
                let suites = Suites::on(has_aes, strength);
                for (provider, favours_chacha20) in [(&suites.usual, false), (&suites.chacha20, true)] {
                    let order = order(has_aes, strength, favours_chacha20);
                    for prefix in ["TLS13_", "TLS_ECDHE_ECDSA_WITH_", "TLS_ECDHE_RSA_WITH_"] {
                        let suites = provider.cipher_suites.iter().map(SupportedCipherSuite::suite);
                        let named = suites.filter(|suite| suite.as_str().is_some_and(|name| name.starts_with(prefix)));
                        assert_eq!(named.filter_map(Aead::of).collect::<Vec<_>>(), order, "{prefix}");
                    }
                    assert_eq!(provider.cipher_suites.len(), 3 * order.len());
                    let kinds =
                        |provider: &CryptoProvider| provider.kx_groups.iter().map(|one| one.name()).collect::<Vec<_>>();
                    assert_eq!(kinds(provider), kinds(&PROVIDER), "nothing else differs");
                }
                assert_eq!(Arc::ptr_eq(&suites.usual, &suites.chacha20), !has_aes);
            }
        }
    }

    #[test]
    fn every_suite_of_rustls_has_a_known_aead() {
        for suite in aws_lc_rs::ALL_CIPHER_SUITES {
            assert!(Aead::of(suite.suite()).is_some(), "{:?} would never be chosen", suite.suite());
        }
        assert_eq!(Aead::of(CipherSuite::TLS_RSA_WITH_AES_128_GCM_SHA256), None);
    }
}
