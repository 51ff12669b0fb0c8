//! A client's certificate, parsed before it is verified.
#![no_main]

use doorward::model::identity::Identity;
use doorward::telemetry::log::Certificate;

libfuzzer_sys::fuzz_target!(|der: &[u8]| {
    if let Ok(identity) = Identity::from_certificate(der, false) {
        assert!(!identity.verified);
        let Certificate { name, issuer, serial, .. } = Certificate::from(&identity);
        for text in [name, issuer, serial] {
            assert!(text.chars().all(|c| matches!(c, ' '..='~' | '…') || c.is_alphanumeric()), "{text:?}");
        }
    }
});
