//! The key schedule's HKDF (RFC 5869) on HMAC keys that are prepared once.
//!
//! TLS 1.3 derives some two dozen values in a handshake, several from each secret (RFC 8446 section 7.1). rustls' own
//! suites have aws-lc prepare the HMAC key anew for every one of them, which is half of the hashing. These are the same
//! suites on rustls' `HkdfUsingHmac`, which keeps the key, with HMAC as RustCrypto has it: its states are plain values a
//! third as large as aws-lc's, which takes as long for making and copying them as for hashing the few bytes there are.

use std::marker::PhantomData;
use std::sync::LazyLock;

use hmac::digest::{Digest, Key as Block};
use hmac::{EagerHash, Hmac as Keyed, KeyInit as _, Mac as _};
use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::hmac::{Hmac, Key, Tag};
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{CipherSuiteCommon, aws_lc_rs as provider};
use rustls::{SupportedCipherSuite, Tls13CipherSuite};
use sha2::{Sha256, Sha384};
use zeroize::Zeroize as _;

/// HMAC with one hash (RFC 2104).
struct With<H>(PhantomData<fn() -> H>);

static SHA256: With<Sha256> = With(PhantomData);
static SHA384: With<Sha384> = With(PhantomData);

/// A hash that HMAC can keep prepared.
trait Hash: EagerHash<Core: Send + Sync> + Digest + Send + Sync + 'static {}

impl<H: EagerHash<Core: Send + Sync> + Digest + Send + Sync + 'static> Hash for H {}

impl<H: Hash> Hmac for With<H> {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        let mut block = Block::<Keyed<H>>::default();
        match block.get_mut(..key.len()) {
            Some(start) => start.copy_from_slice(key),
            // Longer than a block, which no key of TLS is.
            None => block.iter_mut().zip(H::digest(key)).for_each(|(slot, byte)| *slot = byte),
        }
        let prepared = Prepared(Keyed::<H>::new(&block));
        block.as_mut_slice().zeroize();
        Box::new(prepared)
    }

    fn hash_output_len(&self) -> usize {
        <H as Digest>::output_size()
    }
}

struct Prepared<H: Hash>(Keyed<H>);

impl<H: Hash> Key for Prepared<H> {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut context = self.0.clone();
        for part in [first].into_iter().chain(middle.iter().copied()).chain([last]) {
            context.update(part);
        }
        Tag::new(&context.finalize().into_bytes())
    }

    fn tag_len(&self) -> usize {
        <H as Digest>::output_size()
    }
}

/// rustls' default suites, in its order.
pub(super) static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
    LazyLock::new(|| provider::DEFAULT_CIPHER_SUITES.iter().map(|suite| with_prepared_keys(*suite)).collect());

fn with_prepared_keys(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(Tls13CipherSuite { common, aead_alg, .. }) = suite else { return suite };
    let hmac: &'static dyn Hmac = match common.hash_provider.algorithm() {
        HashAlgorithm::SHA256 => &SHA256,
        HashAlgorithm::SHA384 => &SHA384,
        // No suite has another one; if one ever does, it stays as it is.
        _ => return suite,
    };
    // rustls takes suites for the life of the program; there are three, once.
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: common.suite,
            hash_provider: common.hash_provider,
            confidentiality_limit: common.confidentiality_limit,
        },
        hkdf_provider: Box::leak(Box::new(HkdfUsingHmac(hmac))),
        aead_alg: *aead_alg,
        quic: None,
    })))
}

#[cfg(test)]
mod tests {
    use rustls::crypto::tls13::{Hkdf, OkmBlock};

    use super::*;

    fn of(suite: SupportedCipherSuite) -> &'static dyn Hkdf {
        suite.tls13().expect("a suite of TLS 1.3").hkdf_provider
    }

    /// RFC 5869 appendix A.1.
    #[test]
    fn outputs_are_those_of_the_rfc() {
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let expander = HkdfUsingHmac(&SHA256).extract_from_secret(Some(&salt), &[0x0b; 22]);
        let mut output = [0; 42];
        expander.expand_slice(&[&info[..3], &info[3..]], &mut output).expect("a short output");
        let hex: String = output.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    }

    /// RFC 4231 section 4.7. No key of TLS is longer than a block, but nothing says so here.
    #[test]
    fn a_key_longer_than_a_block_is_hashed_first() {
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let (sha256, sha384): (&dyn Hmac, &dyn Hmac) = (&SHA256, &SHA384);
        for (hmac, tag) in [
            (sha256, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
            (
                sha384,
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
            ),
        ] {
            let key = hmac.with_key(&[0xaa; 131]);
            let hex: String = key.sign(&[text]).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((&*hex, key.tag_len()), (tag, hmac.hash_output_len()));
        }
    }

    #[test]
    fn every_suite_derives_what_rustls_own_does() {
        assert_eq!(SUITES.len(), provider::DEFAULT_CIPHER_SUITES.len());
        let mut compared = 0;
        for (ours, theirs) in SUITES.iter().zip(provider::DEFAULT_CIPHER_SUITES) {
            assert_eq!(ours.suite(), theirs.suite(), "the same order");
            if theirs.tls13().is_none() {
                continue;
            }
            let [ours, theirs] = [of(*ours), of(*theirs)].map(|hkdf| {
                let expander = hkdf.extract_from_secret(Some(b"salt"), b"secret");
                let block = expander.expand_block(&[b"la", b"bel"]);
                let again = hkdf.expander_for_okm(&block).expand_block(&[]);
                let zero = hkdf.extract_from_zero_ikm(None).expand_block(&[b"x"]);
                let tag = hkdf.hmac_sign(&OkmBlock::new(&[7; 32]), b"message");
                [block.as_ref(), again.as_ref(), zero.as_ref(), tag.as_ref()].concat()
            });
            assert_eq!(ours, theirs);
            compared += 1;
        }
        assert_eq!(compared, 3);
    }
}
