//! A configuration profile for iOS, iPadOS and macOS: certificate, key and, if the device has to trust one, root in one.
//!
//! The keys are those of Apple's documentation, "Device Management", `TopLevel`, `CommonPayloadKeys`, `CertificatePKCS12`
//! and `CertificateRoot` (<https://developer.apple.com/documentation/devicemanagement/profile-specific-payload-keys>).
//!
//! `Password` is left out, as Apple advises: a profile is not encrypted, so that a leaked one would contain the key. The device
//! asks for the password.
//!
//! The profile is not signed. The only possible signer is the very authority that the device does not know before it has the
//! profile: iOS would say "Not Verified" instead of "Not Signed". An owner with a certificate that devices trust, such as Let's
//! Encrypt's, can sign the profile with `openssl smime`; the manual says how.

use plist::{Dictionary, Value};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Form, ROOT_FILE};
use crate::model::device_name::DeviceName;
use crate::model::identity::Sha256;

/// The profile for a device, as an XML property list. `root` is the authority that the device must trust, with its name and
/// fingerprint as they are shown; `archive` is the device's certificate and key.
pub(super) fn profile(
    device: &DeviceName,
    certificate: &CertificateDer<'_>,
    root: Option<(&CertificateDer<'_>, (&str, &str))>,
    archive: &[u8],
) -> Result<Vec<u8>, plist::Error> {
    let owner = root.map_or_else(|| of_issuer(certificate), |(root, _)| Sha256::of(root)).to_string();
    // A device replaces a profile with the same identifier: that of an older certificate of this device.
    let identifier = format!("doorward.{}.{}", owner.get(..16).unwrap_or(&owner), device.slug());
    let payload = |kind: &str, part: &str, name: &str, description: String| {
        let identifier = if part.is_empty() { identifier.clone() } else { format!("{identifier}.{part}") };
        Dictionary::from_iter([
            ("PayloadType", Value::from(kind)),
            ("PayloadVersion", Value::from(1)),
            ("PayloadUUID", Value::from(uuid(&identifier, certificate))),
            ("PayloadIdentifier", Value::from(identifier)),
            ("PayloadDisplayName", Value::from(name)),
            ("PayloadDescription", Value::from(description)),
        ])
    };
    let certificate_payload = |mut payload: Dictionary, file: String, contents: &[u8]| {
        payload.insert("PayloadCertificateFileName".to_owned(), Value::from(file));
        payload.insert("PayloadContent".to_owned(), Value::Data(contents.to_vec()));
        Value::Dictionary(payload)
    };

    let identity = payload(
        "com.apple.security.pkcs12",
        "identity",
        device.as_str(),
        format!("The certificate of {device} and its key"),
    );
    let mut description = format!("Lets {device} in through your gate");
    let mut content = vec![certificate_payload(identity, Form::ArchiveCompat.file_name(device), archive)];
    if let Some((root, (name, _))) = root {
        let authority =
            payload("com.apple.security.root", "root", name, "The authority that vouches for your gate".to_owned());
        content.push(certificate_payload(authority, ROOT_FILE.to_owned(), root));
        description.push_str(&format!(", and trusts the gate's authority, {name}"));
    }
    let mut profile = payload("Configuration", "", device.as_str(), description);
    profile.insert("PayloadRemovalDisallowed".to_owned(), Value::Boolean(false));
    profile.insert("PayloadContent".to_owned(), Value::Array(content));

    let mut xml = Vec::new();
    Value::Dictionary(profile).to_writer_xml(&mut xml)?;
    Ok(xml)
}

/// A digest of the name of the authority that issued the certificate: the same for all devices of an owner.
fn of_issuer(certificate: &CertificateDer<'_>) -> Sha256 {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map_or_else(|_| Sha256::of(certificate), |(_, parsed)| Sha256::of(parsed.issuer().as_raw()))
}

/// A UUID from a hash (version 8, RFC 9562 section 5.8): the same for the same identifier and certificate only.
fn uuid(identifier: &str, certificate: &[u8]) -> String {
    let hash = Sha256::of(&[identifier.as_bytes(), b"\0", certificate].concat()).0;
    let mut bytes: [u8; 16] = *hash.first_chunk().unwrap_or(&[0; 16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032X}", u128::from_be_bytes(bytes));
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_is_one_for_each_device_and_authority() {
        let identifier = |device: &str, certificate: &[u8], root: &[u8]| {
            let root = CertificateDer::from(root);
            let device = DeviceName::parse(device).expect("a name");
            let root = Some((&root, ("Doorward", "00")));
            let profile = profile(&device, &certificate.into(), root, b"archive").expect("a profile");
            let profile = Value::from_reader_xml(&*profile).expect("a property list");
            let identifier = profile.as_dictionary().and_then(|profile| profile.get("PayloadIdentifier"));
            identifier.and_then(Value::as_string).expect("an identifier").to_owned()
        };
        let one = identifier("alice-phone", b"certificate", b"root");
        assert_eq!(one, identifier("alice-phone", b"renewed", b"root"));
        assert_ne!(one, identifier("bob-phone", b"certificate", b"root"));
        assert_ne!(one, identifier("alice-phone", b"certificate", b"another root"));
    }

    #[test]
    fn identifier_without_an_authority_is_one_for_each_device_and_owner() {
        use crate::ca::DeviceAuthority;
        let name = DeviceName::parse("alice-phone").expect("a name");
        let identifier = |authority: &DeviceAuthority| {
            let issued = authority.issue(&name).expect("a device");
            let profile = profile(&name, issued.certificate(), None, b"archive").expect("a profile");
            let profile = Value::from_reader_xml(&*profile).expect("a property list");
            let identifier = profile.as_dictionary().and_then(|profile| profile.get("PayloadIdentifier"));
            identifier.and_then(Value::as_string).expect("an identifier").to_owned()
        };
        let [one, another] = [(); 2].map(|()| DeviceAuthority::new().expect("an authority"));
        // A renewed certificate replaces the one before.
        assert_eq!(identifier(&one), identifier(&one));
        assert_ne!(identifier(&one), identifier(&another));
    }

    #[test]
    fn uuids_are_well_formed_stable_and_distinct() {
        let one = uuid("doorward.a", b"certificate");
        let parts: Vec<&str> = one.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{one}");
        assert!(one.chars().all(|c| c == '-' || c.is_ascii_digit() || ('A'..='F').contains(&c)), "{one}");
        assert!(parts[2].starts_with('8') && parts[3].starts_with(['8', '9', 'A', 'B']), "{one}");
        assert_eq!(one, uuid("doorward.a", b"certificate"));
        assert_ne!(one, uuid("doorward.b", b"certificate"));
        assert_ne!(one, uuid("doorward.a", b"renewed"));
    }
}
