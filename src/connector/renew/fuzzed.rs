//! What a gate answers, read without a connection: for the fuzzer.

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncWriteExt as _;

use super::http::{Request, exchange};
use super::{SIMPLE_REENROLL, chain_of, key_pair, next_end, sentence};
use crate::bundle::{Bundle, BundleKey};

/// A device that has asked for its next certificate, with the key that it has.
#[doc(hidden)]
#[derive(Debug)]
pub struct FuzzedAnswer {
    bundle: Bundle,
    key: KeyPair,
}

/// What a device makes of an answer.
#[doc(hidden)]
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    /// The chain of its next certificate.
    Chain(Vec<CertificateDer<'static>>),
    /// A sentence for its user.
    Sentence(String),
}

impl FuzzedAnswer {
    /// The device with this file, whose key is not encrypted.
    pub fn of(bundle: Bundle) -> Option<Self> {
        let BundleKey::Plain(key) = &bundle.key else { return None };
        let key = key_pair(&key.der()).ok()?;
        Some(Self { bundle, key })
    }

    /// Reads what a gate sends before it ends; `None` if that is no answer.
    pub async fn read(&self, bytes: &[u8]) -> Option<Made> {
        let (device, mut gate) = tokio::io::duplex(1 << 20);
        let answers = async move {
            let _ = gate.write_all(bytes).await;
            let _ = gate.shutdown().await;
            // The request is not looked at, and it is taken.
            let _ = tokio::io::copy(&mut gate, &mut tokio::io::sink()).await;
        };
        let request = Request::post(SIMPLE_REENROLL, "MII".to_owned());
        let (answer, ()) = tokio::join!(exchange("renew.home.example".to_owned(), device, request), answers);
        let answer = answer.ok()?;
        if answer.status != 200 {
            return Some(Made::Sentence(sentence(answer.status, &answer.body)));
        }
        let made = match chain_of(&answer.body, &self.key.subject_public_key_info()) {
            None => Made::Sentence("no certificate for the key".to_owned()),
            Some(chain) => match next_end(&self.bundle, &chain) {
                Ok(_) => Made::Chain(chain),
                Err(why) => Made::Sentence(why.to_owned()),
            },
        };
        Some(made)
    }
}
