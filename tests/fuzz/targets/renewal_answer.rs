//! What a gate, or what took its place, answers a device that asks for its next certificate.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::bundle::Bundle;
use doorward::fuzz::{FuzzedAnswer, Made};
use doorward::pki::certs_only;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use x509_parser::prelude::{FromDer, X509Certificate};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| Bundle::parse(include_str!("../seeds/bundle/plain")).unwrap());
static DEVICE: LazyLock<FuzzedAnswer> = LazyLock::new(|| FuzzedAnswer::of(BUNDLE.clone()).unwrap());

fuzz_target!(|bytes: &[u8]| {
    // Behind a "=", it is a message of CMS.
    let answer = match bytes.strip_prefix(b"=") {
        None => bytes.to_vec(),
        Some(message) => {
            if let Some(mut certificates) = certs_only::decode(message) {
                // What is read is what is written: a set, in whatever order.
                let mut written = certs_only::decode(&certs_only::encode(&certificates)).expect("certificates");
                certificates.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
                written.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
                assert_eq!(written, certificates);
            }
            let body = STANDARD.encode(message);
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
    };
    match RUNTIME.block_on(DEVICE.read(&answer)) {
        None => {}
        // It goes to a terminal.
        Some(Made::Sentence(text)) => house::printable(&text),
        Some(Made::Chain(chain)) => {
            let [(_, old), (_, new)] =
                [&BUNDLE.chain[0], &chain[0]].map(|der| X509Certificate::from_der(der).expect("a certificate"));
            assert_eq!(old.public_key().raw, new.public_key().raw);
            assert_eq!(old.subject().as_raw(), new.subject().as_raw());
            assert!(new.validity().not_after >= old.validity().not_after && chain[0] != BUNDLE.chain[0]);
            assert!(chain.len() <= 16);
            // The next start has to read it.
            let kept = Bundle { chain, ..BUNDLE.clone() };
            assert_eq!(Bundle::parse(&kept.to_text()).as_ref(), Ok(&kept));
        }
    }
});
