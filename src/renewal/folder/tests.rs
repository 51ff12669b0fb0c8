use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::pki::keys::KeyType;

fn key() -> KeyPair {
    KeyType::P256.generate().expect("a key")
}

fn request(device: &str, key: &KeyPair, at: i64) -> RenewalRequest {
    let der = CertificateParams::default().serialize_request(key).expect("a request");
    RenewalRequest {
        device: device.to_owned(),
        certificate: Sha256::of(device.as_bytes()),
        shown: None,
        source: "192.0.2.7".to_owned(),
        requested_at: at,
        request: CertificateRequest::read(der.der()).expect("a request"),
    }
}

fn folder() -> (tempfile::TempDir, RequestFolder) {
    let root = tempfile::tempdir().expect("a folder");
    let folder = RequestFolder::new(&root.path().join("renewal"));
    folder.make().expect("made");
    (root, folder)
}

fn certificate(key: &KeyPair) -> CertificateDer<'static> {
    CertificateParams::default().self_signed(key).expect("a certificate").into()
}

#[test]
fn each_device_has_one_request_and_a_newer_one_replaces_it() {
    let (_root, folder) = folder();
    let (one, other) = (key(), key());
    let first = request("alice laptop", &one, 1000);
    assert_eq!(folder.submit(&first).expect("stored"), Submitted::Stored);
    // A signature is random, so the request of the next attempt is another one.
    let again = request("alice laptop", &one, 1010);
    assert_ne!(again.request, first.request);
    assert_eq!(folder.submit(&again).expect("read"), Submitted::Waiting);
    let next = request("alice laptop", &other, 1020);
    assert_eq!(folder.submit(&next).expect("read"), Submitted::TooSoon(40));
    assert_eq!(folder.requests().expect("read"), (vec![first], 0));
    let next = RenewalRequest { requested_at: 1060, ..next };
    assert_eq!(folder.submit(&next).expect("stored"), Submitted::Stored);
    let bob = request("../bob", &one, 1050);
    assert_eq!(folder.submit(&bob).expect("stored"), Submitted::Stored);
    assert_eq!(folder.requests().expect("read"), (vec![bob, next], 0));
    let files: Vec<_> = fs::read_dir(&folder.0).expect("a folder").map(|entry| entry.expect("an entry")).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, FILE_MODE);
    }
    assert_eq!(fs::metadata(&folder.0).expect("a folder").permissions().mode() & 0o777, FOLDER_MODE);
}

#[test]
fn answer_is_for_one_request_and_its_key() {
    let (_root, folder) = folder();
    let key_of_it = key();
    let asked = request("alice", &key_of_it, 0);
    folder.submit(&asked).expect("stored");
    // For another key.
    folder.decide(&asked, Some(&certificate(&key()))).expect("written");
    assert_eq!(folder.submit(&asked).expect("read"), Submitted::Waiting);
    folder.decide(&asked, None).expect("written");
    assert_eq!(folder.submit(&asked).expect("read"), Submitted::Refused);
    assert_eq!(folder.requests().expect("read"), (vec![], 0));
    let issued = certificate(&key_of_it);
    folder.decide(&asked, Some(&issued)).expect("written");
    assert_eq!(folder.submit(&asked).expect("read"), Submitted::Approved(issued.clone()));
    // With the certificate that it got, the device asks for the next one.
    let later = RenewalRequest { certificate: Sha256::of(&issued), ..asked };
    assert_eq!(folder.submit(&later).expect("stored"), Submitted::Stored);
    assert_eq!(folder.requests().expect("read").0, [later]);
}

#[test]
fn damaged_files_and_links_are_no_requests() {
    let (root, folder) = folder();
    let asked = request("alice", &key(), 5);
    let path = folder.file("alice", REQUEST);
    fs::write(&path, "version = 1\n").expect("written");
    fs::write(folder.file("bob", REQUEST), asked.to_text().expect("text")).expect("written");
    assert_eq!(folder.requests().expect("read"), (vec![], 2), "the second is of another device");
    fs::remove_file(folder.file("bob", REQUEST)).expect("removed");
    assert_eq!(folder.submit(&asked).expect("stored"), Submitted::Stored, "it is replaced");
    let elsewhere = root.path().join("elsewhere");
    fs::rename(&path, &elsewhere).expect("renamed");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
    assert_eq!(folder.requests().expect("read"), (vec![], 1));
    assert!(folder.submit(&asked).is_err());
    fs::remove_file(&path).expect("removed");
    fs::write(&path, vec![b'#'; 70_000]).expect("written");
    assert!(folder.submit(&asked).is_err(), "too long");
}
