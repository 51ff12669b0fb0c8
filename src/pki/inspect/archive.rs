//! Describes a PKCS#12 file.

use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;
use zeroize::Zeroizing;

use super::key::readable;
use super::{Item, Object};
use crate::model::names::printable;
use crate::pki::pem;

/// How archives are encrypted: OIDs in DER, of the PBEs of PKCS#12 (RFC 7292 appendix C) and of PBES2 (RFC 8018).
const RC2_40: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x06";
const RC2_128: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x05";
const TRIPLE_DES: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03";
const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";

/// The time that opening an archive may take. The file says how many rounds its password is hashed for each of its parts:
/// p12-keystore accepts up to a million rounds, and any number of parts.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Passwords that are tried first.
const GUESSED_PASSWORDS: [&str; 3] = ["", "changeit", "password"];

/// PKCS#12 is a SEQUENCE whose first element is the INTEGER 3 (RFC 7292 section 4).
pub(super) fn is_one(bytes: &[u8]) -> bool {
    let (Some(0x30), Some(&length)) = (bytes.first(), bytes.get(1)) else { return false };
    // The length is one byte, or a byte with the number of length bytes that follow.
    let start = if length & 0x80 == 0 { 2 } else { 2 + usize::from(length & 0x7f) };
    bytes.get(start..).is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03]))
}

fn has(bytes: &[u8], oid: &[u8]) -> bool {
    bytes.windows(oid.len()).any(|part| part == oid)
}

/// The weakest encryption in an archive, if it is broken: RC2, as mkcert and older systems write it.
pub fn weak_encryption(bytes: &[u8]) -> Option<&'static str> {
    if has(bytes, RC2_40) {
        Some("RC2-40")
    } else if has(bytes, RC2_128) {
        Some("RC2-128")
    } else {
        None
    }
}

/// Opens it, or fails after `timeout`.
fn open(bytes: &[u8], password: &str, timeout: Duration) -> Result<Pkcs12Archive, Error> {
    let (bytes, password) = (bytes.to_vec(), Zeroizing::new(password.to_owned()));
    match within(timeout, move || Pkcs12Archive::from_pkcs12(&bytes, &password))? {
        Some(opened) => opened,
        None => Err(Error::IoError(io::ErrorKind::TimedOut.into())),
    }
}

/// The result of `work`, whose thread has ended by then, with its copies of passwords and keys; `None` after `timeout`: then
/// the thread works on until the process ends.
fn within<T: Send + 'static>(timeout: Duration, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Option<T>> {
    let (working, ended) = mpsc::channel::<()>();
    let thread = thread::Builder::new().spawn(move || {
        let result = work();
        drop(working);
        result
    })?;
    match ended.recv_timeout(timeout) {
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            thread.join().map(Some).or_else(|panic| std::panic::resume_unwind(panic))
        }
    }
}

/// Whether an archive did not open because that takes too much work, whatever the password.
pub fn asks_too_much(error: &Error) -> bool {
    match error {
        // For a well-formed archive, p12-keystore returns this only for its own limits.
        Error::InvalidParameters => true,
        Error::IoError(error) => error.kind() == io::ErrorKind::TimedOut,
        _ => false,
    }
}

/// The archive, and its contents.
pub(super) fn describe(bytes: &[u8], password: &str, mode: u32) -> Result<(Item, Vec<Object>), Error> {
    let archive = open(bytes, password, OPEN_TIMEOUT)?;
    let mut item = Item::new("archive", "a PKCS#12 file (.p12 or .pfx) with these certificates and keys:");
    let names: Vec<String> = archive
        .keys
        .iter()
        .filter_map(|key| key.friendly_name.as_deref())
        .map(|name| printable(name, super::MAX))
        .collect();
    if !names.is_empty() {
        item.fact("name", super::shorten(names));
    }
    let used = [(RC2_40, "RC2-40"), (RC2_128, "RC2-128"), (TRIPLE_DES, "triple DES"), (PBES2, "PBES2 (AES)")];
    let used: Vec<&str> = used.iter().filter(|(oid, _)| has(bytes, oid)).map(|(_, name)| *name).collect();
    item.fact("encryption", if used.is_empty() { "none".to_owned() } else { used.join(", ") });
    if let Some(weak) = weak_encryption(bytes) {
        item.warn(
            "weak_encryption",
            format!("weak encryption ({weak}) that is easily broken; OpenSSL 3 reads it only with -legacy"),
        );
    } else if has(bytes, TRIPLE_DES) {
        item.note(
            "old_encryption",
            "older encryption (triple DES), for macOS, iOS and Android: safe with a long random password",
        );
    }
    if GUESSED_PASSWORDS.contains(&password) {
        let shown = if password.is_empty() { "empty".to_owned() } else { format!("{password:?}") };
        item.warn(
            "known_password",
            format!("its password is {shown}, which is tried first: the file is as good as the key"),
        );
    }
    if !archive.keys.is_empty() {
        readable(&mut item, mode);
    }
    let certificates = archive.certs.iter().map(|bag| Object::Certificate(bag.cert.as_der().to_vec().into()));
    let keys = archive.keys.iter().map(|bag| Object::Key(pem::encode("PRIVATE KEY", bag.key.as_der()).into_bytes()));
    Ok((item, certificates.chain(keys).collect()))
}

#[cfg(test)]
mod tests {
    use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};

    use super::*;
    use crate::ca::DeviceAuthority;
    use crate::model::device_name::DeviceName;

    /// The fuzz target `archive` reports memory of a thread that is about to end as lost.
    #[test]
    fn thread_has_ended_when_its_result_is_there() {
        struct Last(mpsc::Sender<&'static str>);
        impl Drop for Last {
            fn drop(&mut self) {
                thread::sleep(Duration::from_millis(200));
                let _ = self.0.send("dropped");
            }
        }
        thread_local! {
            static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
        }
        let (dropping, dropped) = mpsc::channel();
        let result = within(OPEN_TIMEOUT, move || {
            // Dropped as the last thing of the thread.
            LAST.with_borrow_mut(|last| *last = Some(Last(dropping)));
            "opened"
        });
        assert_eq!(result.expect("a thread"), Some("opened"));
        assert_eq!(dropped.try_recv(), Ok("dropped"));
    }

    #[test]
    fn archive_that_takes_too_long_is_refused() {
        let device = DeviceAuthority::new().expect("an authority").issue(&DeviceName::parse("a").expect("a name"));
        let device = device.expect("a device");
        let mut store = KeyStore::new();
        for index in 0..4 {
            let certificate = p12_keystore::Certificate::from_der(device.certificate()).expect("a certificate");
            let key = PrivateKey::from_der(device.key().secret_der()).expect("a key");
            let chain = PrivateKeyChain::new([index].as_slice(), key, [certificate]);
            store.add_entry(&index.to_string(), KeyStoreEntry::PrivateKeyChain(chain));
        }
        let bomb = store.writer("changeit").encryption_iterations(100_000).write().expect("written");
        let given_up = open(&bomb, "changeit", Duration::from_millis(1)).expect_err("no machine is so quick");
        assert!(asks_too_much(&given_up), "{given_up}");
        assert_eq!(open(&bomb, "changeit", OPEN_TIMEOUT).expect("opened").keys.len(), 4);
        let other = open(&bomb, "other", OPEN_TIMEOUT).expect_err("another password");
        assert!(!asks_too_much(&other), "{other}");
    }
}
