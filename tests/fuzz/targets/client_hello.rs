//! The first bytes of a connection: the length of the ClientHello, and its server name.
#![no_main]

use doorward::client_hello::{Progress, fuzz_parse, progress, starttls};
use doorward::model::rejection::Protocol;
use doorward::tls::ja4::Ja4;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A request for TLS is no TLS, whatever follows it.
    if starttls::request(bytes).is_some() {
        assert_eq!(progress(bytes), Progress::NotTls(Protocol::Postgres));
    }
    hello(bytes);
});

fn hello(bytes: &[u8]) {
    match progress(bytes) {
        // Otherwise the gate would wait for ever.
        Progress::Incomplete(total) => assert!(total > bytes.len()),
        Progress::Complete(length) => match fuzz_parse(&bytes[..length]) {
            // Fragmentation must not change the server name, which decides the policy.
            Ok(name) => {
                let pieces = in_records_of_3_bytes(&bytes[..length]);
                assert_eq!(fuzz_parse(&pieces), Ok(name));
                assert_eq!(Ja4::of(&pieces), Ja4::of(&bytes[..length]));
            }
            Err(cause) => {
                let detail = doorward::explain::detail(&cause);
                assert!(detail.len() < 512 && !detail.contains(char::is_control), "{detail:?}");
            }
        },
        Progress::NotTls(_) | Progress::TooLarge => {}
    }
}

fn in_records_of_3_bytes(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = records {
        let (payload, next) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(payload);
        records = next;
    }
    // In records of 3 bytes a long message would be rejected as too large.
    let size = if message.len() > 16_000 { 1 << 14 } else { 3 };
    let record = |part: &[u8]| {
        let [high, low] = (part.len() as u16).to_be_bytes();
        [&[22, 3, 1, high, low], part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}
