use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::model::device_name::DeviceName;
use crate::model::identity::Identity;
use crate::model::names::ServerName;

fn domain(text: &str) -> ServerName {
    ServerName::parse(text).expect("a domain")
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).expect("a certificate").1
}

fn days(der: &[u8]) -> i64 {
    let validity = parse(der).validity().clone();
    // Both ends count.
    (validity.not_after.timestamp() - validity.not_before.timestamp() + 1) / 86_400
}

#[test]
fn device_certificate_has_its_name_and_client_usage_only() {
    let device =
        DeviceAuthority::new().expect("an authority").issue(&DeviceName::parse("alice-phone").expect("a name"));
    let device = device.expect("a device");
    let identity = Identity::from_certificate(device.certificate(), true).expect("an identity");
    assert_eq!(identity.display_name(), "alice-phone");
    assert_eq!(identity.common_name.as_deref(), Some("alice-phone"));
    assert!(identity.issuer.starts_with("CN=Doorward devices "), "{}", identity.issuer);
    assert_eq!((&identity.dns_names, &identity.emails, &identity.uris), (&vec![], &vec![], &vec![]));

    let certificate = parse(device.certificate());
    let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let usage = certificate.key_usage().expect("readable").expect("present").value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.key_encipherment());
    assert!(!certificate.is_ca());
    assert_eq!(days(device.certificate()), DEVICE_DAYS);
}

#[test]
fn server_certificate_covers_domain_and_one_label_below() {
    let server = ServerAuthority::new(&domain("home.example")).expect("an authority").issue().expect("a server");
    let identity = Identity::from_certificate(server.certificate(), true).expect("an identity");
    assert_eq!(identity.dns_names, ["home.example", "*.home.example"]);
    let certificate = parse(server.certificate());
    let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    assert_eq!(days(server.certificate()), SERVER_DAYS);
}

#[test]
fn authorities_are_limited_to_their_purpose() {
    let servers = ServerAuthority::new(&domain("home.example")).expect("an authority");
    let devices = DeviceAuthority::new().expect("an authority");
    for (authority, signs_lists) in [(servers.authority(), false), (devices.authority(), true)] {
        let certificate = parse(authority.certificate());
        let constraints = certificate.basic_constraints().expect("readable").expect("present");
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = certificate.key_usage().expect("readable").expect("present");
        assert!(usage.critical && usage.value.key_cert_sign());
        assert_eq!(usage.value.crl_sign(), signs_lists);
        assert_eq!(days(authority.certificate()), AUTHORITY_DAYS);
    }
    assert!(parse(servers.authority().certificate()).name_constraints().expect("readable").expect("there").critical);
}

#[test]
fn device_authority_name_reveals_nothing_and_is_unique() {
    let name = || {
        let devices = DeviceAuthority::new().expect("an authority");
        parse(devices.authority().certificate()).subject().to_string()
    };
    let (one, other) = (name(), name());
    let tag = one.strip_prefix("CN=Doorward devices ").expect("a fixed beginning");
    assert!(tag.len() == NAME_TAG && tag.bytes().all(|byte| NAME_ALPHABET.contains(&byte)), "{one}");
    assert_ne!(one, other, "two households");
}

#[test]
fn domain_too_long_for_common_name_is_in_san_only() {
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
    let servers = ServerAuthority::new(&domain(&long)).expect("an authority");
    let subject = parse(servers.authority().certificate()).subject().to_string();
    assert!(subject.starts_with("CN=Doorward ") && subject.len() == "CN=Doorward ".len() + NAME_TAG, "{subject}");
    let server = servers.issue().expect("a server");
    let certificate = parse(server.certificate());
    assert_eq!(certificate.subject().to_string(), "");
    assert!(certificate.subject_alternative_name().expect("readable").expect("present").critical);
}
