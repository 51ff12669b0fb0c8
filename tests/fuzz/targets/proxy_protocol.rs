//! A PROXY protocol header, from a proxy that may be anybody until the header is read.
#![no_main]

use doorward::proxy_protocol::{Parsed, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match parse(bytes) {
    // Waiting for what is there already would be waiting for ever; and no header is long.
    Parsed::Incomplete(total) => assert!(bytes.len() < total && total <= 2048),
    // What comes behind the header does not change it.
    complete @ Parsed::Complete(length, _) => assert_eq!(parse(&bytes[..length]), complete),
    Parsed::Missing | Parsed::Invalid(_) => {}
});
