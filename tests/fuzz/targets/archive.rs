//! A PKCS#12 file: `ca inspect`, `ca import` and `ca revoke --file` open it.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

use doorward::pki::inspect;
use libfuzzer_sys::{Corpus, fuzz_target};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, Pkcs12Archive};
use time::OffsetDateTime;

/// The password of the seeds: a public one.
const PASSWORD: &str = "changeit";

fuzz_target!(|bytes: &[u8]| -> Corpus {
    // A password that is hashed for seconds, as far as the limits of the program allow, tells nothing new.
    if rounds(bytes) > 20_000 {
        return Corpus::Reject;
    }
    let is_archive = matches!(inspect::contents(bytes), Some(inspect::Contents::Archive(_)));
    let _ = (inspect::weak_encryption(bytes), is_archive);
    let described = inspect::describe_archive(bytes, PASSWORD, OffsetDateTime::UNIX_EPOCH, 0o600);
    if let Err(error) = &described {
        let _ = inspect::asks_too_much(error);
    }
    let certificates = inspect::certificates(bytes, &[PASSWORD]);
    let Ok(items) = described.map_err(drop) else {
        assert!(!is_archive || certificates.is_empty(), "certificates of an archive that does not open");
        return Corpus::Keep;
    };
    items.iter().for_each(|item| house::printable(&item.text()));
    if !is_archive {
        return Corpus::Keep;
    }
    let shown = items.iter().filter(|item| item.kind == "certificate").count();
    assert_eq!(shown, certificates.len(), "what is shown is what is used");
    // Written anew, the archive has the same certificates.
    let mut store = KeyStore::new();
    let mut expected = Vec::new();
    for (number, certificate) in certificates.iter().enumerate() {
        // Some are no certificates, which a reader of the file may find out later.
        let Ok(read) = Certificate::from_der(certificate) else { continue };
        store.add_entry(&number.to_string(), KeyStoreEntry::Certificate(read));
        expected.push(certificate.to_vec());
    }
    let written = store.writer(PASSWORD).encryption_iterations(1).mac_iterations(1).write().unwrap();
    let read = Pkcs12Archive::from_pkcs12(&written, PASSWORD).unwrap();
    let mut again: Vec<Vec<u8>> = read.certs.iter().map(|bag| bag.cert.as_der().to_vec()).collect();
    again.sort();
    expected.sort();
    assert_eq!(again, expected);
    Corpus::Keep
});

/// The largest number that may be one of rounds: every INTEGER of three or four bytes.
fn rounds(bytes: &[u8]) -> u32 {
    let of = |length: u8| {
        let size = usize::from(length);
        bytes.windows(2 + size).filter(move |window| window[..2] == [2, length]).map(move |window| {
            window[2..].iter().fold(0, |number: u32, &byte| number.wrapping_shl(8) | u32::from(byte))
        })
    };
    of(3).chain(of(4)).max().unwrap_or_default()
}
