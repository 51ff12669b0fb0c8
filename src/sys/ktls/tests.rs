use super::*;
use crate::sys::test_kernel::has_tls;

#[test]
fn crypto_info_has_the_layout_of_the_kernel_headers() {
    let key: Vec<u8> = (100..132).collect();
    let iv = std::array::from_fn(|place| u8::try_from(place).expect("small"));
    let info = |version, cipher: Cipher| {
        let key = &key[..cipher.key_length()];
        let made = Key { version, cipher, key, iv: &iv, sequence: 0x0102 }.info().expect("it is made");
        assert!(made[cipher.info_length()..].iter().all(|&byte| byte == 0));
        made[..cipher.info_length()].to_vec()
    };
    let sequence = [0, 0, 0, 0, 0, 0, 1, 2];
    let aes = info(Version::Tls12, Cipher::Aes128Gcm);
    assert_eq!(aes[..4], [0x0303_u16.to_ne_bytes(), 51_u16.to_ne_bytes()].concat());
    assert_eq!(aes[4..], [&iv[4..], &key[..16], &iv[..4], &sequence].concat());
    let aes = info(Version::Tls13, Cipher::Aes256Gcm);
    assert_eq!(aes[4..], [&iv[4..], &key, &iv[..4], &sequence].concat());
    let chacha = info(Version::Tls13, Cipher::Chacha20Poly1305);
    assert_eq!(chacha[..4], [0x0304_u16.to_ne_bytes(), 54_u16.to_ne_bytes()].concat());
    assert_eq!(chacha[4..], [&iv[..], &key, &sequence].concat());
    let short = Key { key: &key[..16], ..dummy_key(Version::Tls13, Cipher::Aes256Gcm) };
    assert!(short.info().is_err());
    assert!(!format!("{short:?}").contains("100"), "keys are never printed");
}

#[test]
fn probe_reports_each_suite_or_its_error() {
    let probe = probe();
    assert_eq!(probe.suites.len(), Version::ALL.len() * Cipher::ALL.len());
    for (version, cipher, result) in &probe.suites {
        match result {
            Ok(()) => assert!(has_tls(), "{version} {cipher}"),
            Err(error) => {
                assert!(!has_tls(), "{version} {cipher}: {error}");
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{version} {cipher}: {error}");
            }
        }
    }
    assert!(has_tls() || !probe.changes_keys);
}

#[test]
fn records_of_every_type_are_sent_and_counted() {
    if !has_tls() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let socket = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let key = set_key(&socket, Direction::Transmit, &dummy_key(Version::Tls13, Cipher::Aes128Gcm));
        let errors = [attach(&socket), key].map(|result| result.expect_err("no TLS here").raw_os_error());
        assert_eq!(errors, [Some(libc::ENOENT), Some(libc::ENOPROTOOPT)]);
        return;
    }
    let [one, other] = try_suite(Version::Tls13, Cipher::Aes128Gcm).expect("the kernel can");
    assert_eq!(next_record(&one, Cipher::Aes128Gcm).expect("a number"), 1);
    let before = handed_to_tcp(&one).expect("a count");
    send_record(&one, 22, b"\x04\0\0\x01\0").expect("sent");
    send_record(&one, 21, b"\x01\0").expect("sent");
    assert_eq!(next_record(&one, Cipher::Aes128Gcm).expect("a number"), 3);
    // Header, content type and tag of each.
    assert_eq!(handed_to_tcp(&one).expect("a count") - before, 5 + 2 + 2 * (5 + 1 + 16));
    drop(one);
    let mut buffer = [0; 16];
    let peeked = receive_record(&other, &mut buffer[..3], true).expect("a record");
    assert_eq!(peeked, Received { content_type: Some(22), length: 3 });
    let received = receive_record(&other, &mut buffer, false).expect("a record");
    assert_eq!(received, Received { content_type: Some(22), length: 5 });
    assert_eq!(buffer[..5], *b"\x04\0\0\x01\0");
    // Each part of a record has the record's content type.
    for _ in 0..2 {
        let part = receive_record(&other, &mut buffer[..1], false).expect("a part of a record");
        assert_eq!(part, Received { content_type: Some(21), length: 1 });
    }
    let end = receive_record(&other, &mut buffer, false).expect("the end");
    assert_eq!((end.content_type, end.length), (None, 0));
}
