use super::*;

fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    Authority::self_signed(key, "Test devices", 3650, |params| params.key_usages.push(KeyUsagePurpose::CrlSign))
        .expect("an authority")
}

fn issue(authority: &Authority) -> Result<IssuedCredentials, Error> {
    let key = KeyPair::generate().expect("a key");
    let issued =
        authority.sign(Lifetime::Days(825), &key, |params| params.distinguished_name = subject("alice-phone"))?;
    Ok(IssuedCredentials::new(issued, key))
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).expect("a certificate").1
}

fn days(der: &[u8]) -> i64 {
    let validity = parse(der).validity().clone();
    // notBefore and notAfter are both included.
    (validity.not_after.timestamp() - validity.not_before.timestamp() + 1) / 86_400
}

#[test]
fn serial_numbers_are_random_positive_and_16_bytes() {
    let authority = authority();
    let (one, two) = (issue(&authority).expect("a certificate"), issue(&authority).expect("a certificate"));
    assert_ne!(one.serial(), two.serial());
    for issued in [&one, &two] {
        assert_eq!(parse(issued.certificate()).raw_serial(), issued.serial());
        assert_eq!(issued.serial().len(), 16);
        assert!(issued.serial()[0] & 0x80 == 0, "a negative number");
    }
}

#[test]
fn certificate_does_not_outlive_its_authority() {
    let mut authority = authority();
    assert_eq!(days(issue(&authority).expect("a certificate").certificate()), 825);
    authority.not_after = OffsetDateTime::now_utc() + Duration::days(30);
    assert_eq!(days(issue(&authority).expect("a certificate").certificate()), 30);
}

#[test]
fn revocation_list_with_next_update_in_the_past_is_refused() {
    let authority = authority();
    let list = |next_update| authority.revocation_list(&[], 1, next_update);
    assert!(list(OffsetDateTime::now_utc() - Duration::minutes(1)).is_err());
    assert!(list(OffsetDateTime::now_utc() + Duration::minutes(1)).is_ok());
}

#[test]
fn clock_before_the_authority_signs_nothing() {
    assert!(matches!(template(OffsetDateTime::UNIX_EPOCH, 10), Err(Error::Clock(_))));
    let mut authority = authority();
    authority.not_before = OffsetDateTime::now_utc() + Duration::days(30);
    assert!(matches!(issue(&authority), Err(Error::Clock(_))));
    let list = authority.revocation_list(&[], 1, OffsetDateTime::now_utc() + Duration::days(60));
    assert!(matches!(list, Err(Error::Clock(_))));
}

#[test]
fn debug_output_contains_no_key() {
    let authority = authority();
    let issued = issue(&authority).expect("a certificate");
    let text = format!("{authority:?} {issued:?}");
    assert!(text.len() < 300 && !text.to_lowercase().contains("key"), "{text}");
}

#[test]
fn signature_counts_only_by_the_algorithm_that_is_named() {
    let key = KeyPair::generate().expect("a key");
    let made = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name").self_signed(&key);
    let made = made.expect("a certificate").der().clone();
    let signed = |der: &[u8]| {
        let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
        has_signed(&made, &certificate)
    };
    assert!(signed(&made));
    // The last occurrence of ecdsa-with-SHA256 is in signatureAlgorithm, which is not signed.
    const SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let at = made.windows(SHA256.len()).rposition(|bytes| bytes == SHA256).expect("an algorithm");
    let mut other = made.to_vec();
    other[at + SHA256.len() - 1] = 0x03;
    assert!(!signed(&other), "the algorithm is changed to ecdsa-with-SHA384");
}
