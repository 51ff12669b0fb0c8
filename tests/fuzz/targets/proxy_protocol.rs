//! A PROXY protocol header.
#![no_main]

use doorward::proxy_protocol::{Parsed, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match parse(bytes) {
    // Otherwise the gate would wait for ever; and no header is longer than 2048 bytes.
    Parsed::Incomplete(total) => assert!(bytes.len() < total && total <= 2048),
    // Bytes after the header do not change it.
    complete @ Parsed::Complete(length, _) => assert_eq!(parse(&bytes[..length]), complete),
    Parsed::Missing | Parsed::Invalid(_) => {}
});
