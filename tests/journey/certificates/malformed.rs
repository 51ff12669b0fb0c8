//! Signatures and certificates that are not what they claim to be.

use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use super::{Scene, chain_of};
use crate::client::{Shown, signing_key};

#[test]
fn nobody_who_does_not_hold_the_key() {
    let scene = Scene::new();
    let alice = scene.pki.client("alice-phone");
    let stolen = Shown::new(alice.chain(), signing_key(scene.pki.client("mallory").key()));
    scene.refuses("a certificate without its key", Reason::BadSignature, Alert::DECRYPT_ERROR, &stolen);
    // A key of another kind, under the algorithm of the right one and under its own.
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = signing_key(PrivateKeyDer::try_from(p384.serialize_der()).unwrap());
    scene.refuses("another kind of key", Reason::BadSignature, Alert::DECRYPT_ERROR, &Shown::new(alice.chain(), p384));
}

#[test]
fn nobody_with_a_malformed_signature() {
    /// Signs, and spoils what comes out.
    #[derive(Debug)]
    struct Spoiled {
        key: Arc<dyn SigningKey>,
        spoil: fn(&mut Vec<u8>),
    }

    #[derive(Debug)]
    struct SpoiledSigner(Box<dyn Signer>, fn(&mut Vec<u8>));

    impl SigningKey for Spoiled {
        fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            Some(Box::new(SpoiledSigner(self.key.choose_scheme(offered)?, self.spoil)))
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            self.key.algorithm()
        }
    }

    impl Signer for SpoiledSigner {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
            let mut signature = self.0.sign(message)?;
            (self.1)(&mut signature);
            Ok(signature)
        }

        fn scheme(&self) -> SignatureScheme {
            self.0.scheme()
        }
    }

    let scene = Scene::new();
    let alice = scene.pki.client("alice-phone");
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [(&str, Spoil); 6] = [
        ("empty", Vec::clear),
        ("one byte short", |signature| signature.truncate(signature.len() - 1)),
        ("one byte long", |signature| signature.push(0)),
        ("a bit turned", |signature| signature[12] ^= 1),
        ("zeros", |signature| signature.fill(0)),
        ("60 kB", |signature| signature.resize(60_000, 7)),
    ];
    for (what, spoil) in spoils {
        let key = Arc::new(Spoiled { key: signing_key(alice.key()), spoil });
        scene.refuses(what, Reason::BadSignature, Alert::DECRYPT_ERROR, &Shown::new(alice.chain(), key));
    }
}

#[test]
fn nobody_with_a_malformed_certificate() {
    let scene = Scene::new();
    let alice = scene.pki.client("alice-phone");
    let whole = alice.chain()[0].to_vec();
    let flipped = |place: usize| {
        let mut der = whole.clone();
        der[place] ^= 0x55;
        der
    };
    for (what, der) in [
        ("one byte", vec![0x30]),
        ("zeros", vec![0; 500]),
        ("no DER", b"-----BEGIN CERTIFICATE-----".to_vec()),
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("longer", [&whole[..], &[0]].concat()),
        ("another length", flipped(2)),
        ("another version", flipped(12)),
    ] {
        let shown = chain_of(&alice, vec![CertificateDer::from(der)]);
        scene.refuses(what, Reason::CertificateInvalid, Alert::BAD_CERTIFICATE, &shown);
    }
    // Its own signature is the last thing in it: as far as a verifier can tell, a forged authority has made that.
    let shown = chain_of(&alice, vec![CertificateDer::from(flipped(whole.len() - 1))]);
    scene.refuses("its signature", Reason::UnknownCa, Alert::UNKNOWN_CA, &shown);
}
