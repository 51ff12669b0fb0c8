//! A client's certificate, parsed before it is verified.
#![no_main]

use doorward::explain::certificate::Certificate;
use doorward::model::identity::Identity;

libfuzzer_sys::fuzz_target!(|der: &[u8]| {
    if let Ok(identity) = Identity::from_certificate(der, false) {
        assert!(!identity.verified);
        let Certificate { names, issuer, serial, .. } = Certificate::from(&identity);
        for text in names.iter().chain([&issuer, &serial]) {
            assert!(text.chars().all(|c| matches!(c, ' '..='~' | '…') || c.is_alphanumeric()), "{text:?}");
        }
    }
});
