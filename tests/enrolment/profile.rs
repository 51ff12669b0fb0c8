//! The configuration profile, read by programs that read property lists, and compared with Apple's documentation.

use std::path::Path;

use serde_json::Value;

use crate::common::process::run;
use crate::home::{Home, der};

/// Prints a property list as JSON. Data become `{"data": hex}`, which no other value does.
const PYTHON: &str = r#"
import json, plistlib, sys
def plain(value):
    if isinstance(value, dict): return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list): return [plain(item) for item in value]
    if isinstance(value, bytes): return {"data": value.hex()}
    return value
print(json.dumps(plain(plistlib.load(open(sys.argv[1], "rb")))))
"#;

#[track_caller]
fn read(home: &Home, file: &Path) -> Value {
    let mut python = home.tool("python3", "python3");
    serde_json::from_str(&run(python.args(["-c", PYTHON]).arg(file)).success().text()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// "Device Management", `CommonPayloadKeys`: what every payload must have.
#[track_caller]
fn assert_is_payload(payload: &Value, kind: &str) {
    assert_eq!(payload["PayloadType"], kind, "{payload}");
    assert_eq!(payload["PayloadVersion"], 1, "{payload}");
    for key in ["PayloadIdentifier", "PayloadDisplayName", "PayloadDescription"] {
        assert!(payload[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {payload}");
    }
    let uuid = payload["PayloadUUID"].as_str().unwrap();
    let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{uuid}");
    assert!(uuid.chars().all(|c| c == '-' || c.is_ascii_hexdigit()), "{uuid}");
}

#[test]
fn profile_has_certificate_key_and_authority() {
    let home = Home::new();
    let profile = read(&home, &home.file("profile"));
    assert_is_payload(&profile, "Configuration");
    assert_eq!(profile["PayloadRemovalDisallowed"], false);
    let [identity, root] = profile["PayloadContent"].as_array().unwrap().as_slice() else { panic!("{profile}") };

    assert_is_payload(identity, "com.apple.security.pkcs12");
    assert_eq!(identity["PayloadDisplayName"], "alice-phone");
    assert_eq!(identity["PayloadCertificateFileName"], "alice-phone-compat.p12");
    let archive = std::fs::read(home.file("archive_compat")).unwrap();
    assert_eq!(identity["PayloadContent"]["data"], hex(&archive));
    // The device asks for the password instead.
    assert!(identity.get("Password").is_none(), "{identity}");
    let text = std::fs::read_to_string(home.file("profile")).unwrap();
    assert!(!text.contains(home.password()), "{text}");

    assert_is_payload(root, "com.apple.security.root");
    assert_eq!(root["PayloadDisplayName"], home.authority_name().as_str());
    assert_eq!(root["PayloadCertificateFileName"], "server-ca.crt");
    assert_eq!(root["PayloadContent"]["data"], hex(&der(&home.folder().join("pki/server-ca.pem"))));

    let payloads = [&profile, identity, root];
    for key in ["PayloadUUID", "PayloadIdentifier"] {
        let mut values: Vec<&str> = payloads.iter().map(|payload| payload[key].as_str().unwrap()).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 3, "{key}: {values:?}");
    }
    // It has no other keys that a device would act upon.
    for payload in payloads {
        for key in payload.as_object().unwrap().keys() {
            assert!(key.starts_with("Payload"), "{key}");
        }
    }
}

#[test]
fn plistutil_reads_the_same_values() {
    let home = Home::new();
    let profile = home.file("profile");
    let text = std::fs::read_to_string(&profile).unwrap();
    assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC"), "{text}");
    let mut plistutil = home.tool("plistutil", "libplist-utils");
    run(plistutil.args(["-f", "bin", "-o", "binary.plist", "-i"]).arg(&profile)).success();
    assert!(std::fs::read(home.path("binary.plist")).unwrap().starts_with(b"bplist00"));
    assert_eq!(read(&home, &home.path("binary.plist")), read(&home, &profile));
}

/// The manual: an owner with a certificate that devices trust can sign the profile.
#[test]
fn openssl_signs_it_with_the_manuals_command() {
    const PAGE: &str = include_str!("../../src/manual/devices.md");
    let home = Home::new();
    let command = PAGE.lines().find(|line| line.starts_with("openssl smime ")).unwrap();
    let mut bash = home.tool("bash", "bash");
    run(bash.current_dir(home.folder()).args(["-euc", command])).success();
    let signed = home.folder().join("signed.mobileconfig");
    let mut verify = home.tool("openssl", "openssl");
    verify.args(["smime", "-verify", "-inform", "der", "-purpose", "any", "-CAfile"]);
    let verified = run(verify.arg(home.folder().join("pki/server-ca.pem")).arg("-in").arg(&signed)).success();
    assert_eq!(verified.stdout, std::fs::read(home.file("profile")).unwrap());
}
